"""Each emulated board runs a model bit for bit, in instructions that are the same twice, and keeps to its arena."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitloop.bench import checks
from bitloop.bench.journal import read_samples
from bitloop.bench.run import RunOptions, run
from bitloop.boards import BOARDS as CATALOGUE
from bitloop.data.dataset import Images
from bitloop.errors import DoesNotFitError
from bitloop.firmware.build import firmware_elf
from bitloop.link.session import Session
from bitloop.plan.planner import plan
from bitloop.quantize.model import Model

from .conftest import TIMING

Models = Callable[..., Model]
UrlOf = Callable[[str], str]

MANIFESTS = Path(__file__).resolve().parents[2] / "device/platforms/bitloop/boards"
BOARDS = [each.name for each in CATALOGUE if each.emulator and (MANIFESTS / f"{each.environment}.json").is_file()]
"""The emulated boards that have a port."""
IMAGES = 6
OPTIONS = RunOptions(warm_up_images=1)


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_no_board_is_forgotten() -> None:
    assert set(BOARDS) == {"stm32f405", "stm32f100", "rv32imc", "lx106", "mega2560"}


def test_a_run_is_exact_and_two_agree_within_a_tick(
    board: str, url_of: UrlOf, models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    url = url_of(board)
    model, images = models("mlp8k", "int4:channel", "fp16"), drawn_images.first(IMAGES)
    ticks, layer_ticks = [], []
    for number in range(2):
        record = run(model, url, images, out_dir=tmp_path / str(number), options=OPTIONS)
        assert (record.verdict, record.exact.matching) == ("exact", IMAGES)
        samples = list(read_samples(tmp_path / str(number) / "samples.jsonl"))
        ticks.append(np.array([sample.ticks for sample in samples], np.int64))
        layer_ticks.append(np.array([sample.layer_ticks for sample in samples], np.int64))
    assert np.abs(ticks[0] - ticks[1]).max() <= 1
    assert np.abs(layer_ticks[0] - layer_ticks[1]).max() <= 1

    assert (record.simulated, record.device.simulated, record.device.board) == (True, True, board)
    assert record.device.emulator is not None
    assert record.device.emulator.startswith("qemu-system-")
    assert record.link.share is None  # virtual time divides no time on the wall
    latency = record.latency
    assert latency is not None
    assert (latency.unit, latency.simulated) == ("instructions (simulated device)", True)
    # No processor here multiplies and adds in less than one instruction, nor takes 500 for it in software.
    assert model.architecture.macs() < latency.min
    assert latency.max < 500 * model.architecture.macs()
    assert latency.per_layer is not None
    assert sum(layer.mean for layer in latency.per_layer) <= latency.mean + len(latency.per_layer)


def test_firmware_of_other_sources_is_told(f405: str, models: Models, drawn_images: Images, monkeypatch: Any) -> None:
    """The emulator runs what is built from these sources, and the run sees to it."""
    model, images, true = models("mlp8k", "int4"), drawn_images.first(2), checks.firmware_hash("stm32f4")
    record = run(model, f405, images, options=OPTIONS)
    assert (record.verdict, record.firmware.hash) == ("exact", true)
    monkeypatch.setattr(checks, "firmware_hash", lambda port: "ab" * 32)
    record = run(model, f405, images, options=OPTIONS)
    assert record.verdict == "disagree"
    assert f"reports firmware hash {true}, it was built from abab" in record.headline
    own = f"{f405}?elf={firmware_elf('qemu_stm32f405')}"
    assert run(model, own, images, options=OPTIONS).verdict == "exact"  # of that nothing is known


@pytest.mark.parametrize("name", ["stm32f405", "stm32f100", "rv32imc", "lx106"])
def test_instructions_do_not_depend_on_the_shift(
    name: str, url_of: UrlOf, models: Models, drawn_images: Images
) -> None:
    """An instruction that takes twice the virtual time leaves twice the ticks, and is still one."""
    figures, ticks = [], []
    for shift in (4, 6):
        url = f"{url_of(name)}?icount={shift}"
        latency = run(models("mlp8k", "int4:channel"), url, drawn_images.first(2), options=OPTIONS).latency
        assert latency is not None
        figures.append(latency.median)
        ticks.append(latency.median / latency.units_per_tick)
    assert ticks[1] == pytest.approx(4 * ticks[0], rel=0.001)
    # A tick is up to 2.6 instructions (24 MHz, shift 4), and the timer is read five times: at both ends and by layer.
    assert figures[0] == pytest.approx(figures[1], abs=5 * 2.6)


def test_the_arena_is_capped_and_what_does_not_fit_is_refused(board: str, url_of: UrlOf, models: Models) -> None:
    with Session(f"{url_of(board)}?arena=3000", timing=TIMING) as session:
        info = session.connect()
        assert info.arena_bytes == 3000
        small = models("mlp8k", "binary")
        assert plan(small, info, placement="resident").memory.total_bytes <= 3000
        with pytest.raises(DoesNotFitError, match=r"which has 3000: \d+ bytes are missing") as caught:
            plan(models("mlp8k", "int8:channel"), info, placement="resident")
        assert caught.value.missing_bytes == caught.value.needed_bytes - 3000 > 0


def test_a_cap_beyond_what_is_there_changes_nothing(f405: str) -> None:
    sizes = []
    for url in (f405, f"{f405}?arena=1G"):
        with Session(url, timing=TIMING) as session:
            sizes.append(session.connect().arena_bytes)
    assert sizes[0] == sizes[1] > 64 << 10


def test_the_device_itself_refuses_an_upload_beyond_the_cap(f405: str) -> None:
    with Session(f"{f405}?arena=2000", timing=TIMING) as session:
        assert session.connect().arena_bytes == 2000
        with pytest.raises(DoesNotFitError) as caught:
            session.upload(bytes(2001), 2001)
        assert (caught.value.needed_bytes, caught.value.available_bytes) == (2001, 2000)


def test_a_model_larger_than_the_memory_is_streamed(url_of: UrlOf, models: Models, drawn_images: Images) -> None:
    record = run(
        models("mlp8k", "int8:channel"), url_of("stm32f100") + "?arena=3k", drawn_images.first(5), options=OPTIONS
    )
    assert (record.verdict, record.exact.matching, record.placement.kind) == ("exact", 5, "stream")
