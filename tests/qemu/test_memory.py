"""What a build says of the memory, held against what the emulated board tells; the stack lies under its bound."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitloop.bench import build as builds
from bitloop.bench.run import RunOptions, run
from bitloop.boards import find_board
from bitloop.cli.tables import summary_rows
from bitloop.data.dataset import Images
from bitloop.firmware.build import firmware_elf
from bitloop.hello import DeviceInfo
from bitloop.link.urls.arena_cap import with_arena_cap
from bitloop.quantize.model import Model

from .test_boards import BOARDS

Models = Callable[..., Model]
UrlOf = Callable[[str], str]
OPTIONS = RunOptions(warm_up_images=0)

# Resident and streamed; kernels by table and by decoding. The second is the deeper one.
RUNS = [("mlp8k", "int4:channel", "auto"), ("mlp8k", "e4m3:pow2", "stream")]


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize("kind", RUNS, ids="-".join)
def test_memory_is_what_the_build_says(
    board: str, kind: tuple[str, str, str], url_of: UrlOf, models: Models, drawn_images: Images
) -> None:
    """Static memory and arena are equal; the painted stack lies under its bound, and not far under."""
    network, weights, placement = kind
    url = url_of(board)
    options = RunOptions(warm_up_images=0, placement=placement)
    record = run(models(network, weights, "fp16"), url, drawn_images.first(2), options=options)
    ram, build = record.ram, record.ram.build
    assert record.verdict == "exact"
    assert build is not None, ram.build_note
    assert (ram.static, record.device.arena_bytes) == (build.static, build.arena)
    assert ram.stack_peak is not None
    assert build.stack_bound is not None, build.stack_note
    assert 0.6 * build.stack_bound <= ram.stack_peak <= build.stack_bound <= build.stack
    assert build.stack_bound == sum(step.bytes for step in build.stack_path) + (build.stack_interrupts or 0)
    shown = dict(summary_rows(record))
    assert shown["RAM, stack"] == f"peak {ram.stack_peak:,} B; at most {build.stack_bound:,} B by the build"
    assert f"static {build.static:,} B, arena {build.arena:,} B" in shown["RAM, by the build"]


def test_a_cap_is_part_of_what_is_expected(f405: str, models: Models, drawn_images: Images, tmp_path: Path) -> None:
    """As an option, and in the word of a firmware of one's own, which came without what its stack is counted from."""
    model, images = models("mlp8k", "binary"), drawn_images.first(1)
    ram = run(model, f"{f405}?arena=9003", images, options=OPTIONS).ram
    assert ram.build is not None
    assert ram.build.arena == 9000
    own = tmp_path / "own.elf"
    own.write_bytes(with_arena_cap(firmware_elf(find_board("stm32f405").environment).read_bytes(), 7001))
    record = run(model, f"{f405}?elf={own}", images, options=OPTIONS)
    assert record.ram.build is not None
    assert (record.verdict, record.ram.build.arena, record.ram.build.stack_bound) == ("exact", 7000, None)
    assert "there are no .su files" in (record.ram.build.stack_note or "")


@pytest.mark.parametrize(
    "lie",
    [
        ("static", r"the device says its own state takes [\d,]+ bytes, its build 1$"),
        ("arena", r"the device says its arena has [\d,]+ bytes, its build 1$"),
        ("stack_bound", r"the stack's peak of [\d,]+ bytes lies above its bound of 1$"),
    ],
)
def test_a_difference_is_a_disagreement(
    lie: tuple[str, str], f405: str, models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device tells the truth here, so the build is made to say 1."""
    figure, said = lie
    real: Any = builds.build_memory

    def lying(url: str, info: Any) -> Any:
        build, note = real(url, info)
        return replace(build, **{figure: 1}), note

    monkeypatch.setattr("bitloop.bench.attempt.build_memory", lying)
    record = run(models("mlp8k", "binary"), f405, drawn_images.first(1), options=OPTIONS)
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert re.match(said, record.reasons[0])


def test_a_firmware_whose_build_is_not_here_is_said_so(f405: str) -> None:
    """A board on a serial port tells its sources' hash; what an emulated one was started from is known."""
    build, note = builds.build_memory("/dev/ttyUSB0", DeviceInfo(board="stm32f405", firmware_hash="ab" * 32))
    assert (build, note) == (None, "the build of the firmware that the device runs is not here")
    assert builds.build_memory("COM3", DeviceInfo(board="somebody's"))[0] is None
    known = DeviceInfo(board="stm32f405", firmware_hash=builds.firmware_hash("stm32f4"))
    by_hash, _ = builds.build_memory("/dev/ttyACM0", known)
    assert by_hash == builds.build_memory(f405, known)[0] is not None
