"""The Arduino port, on 8 KB of RAM: what fits, what is streamed, what its timer tells, and whatever interrupts it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.errors import DoesNotFitError
from bitloop.quantize.model import Model

Models = Callable[..., Model]

OPTIONS = RunOptions(warm_up_images=1)
OVERFLOW_INSTRUCTIONS = 60
"""More than the interrupt of a turn of the timer takes."""


@pytest.fixture
def mega(url_of: Callable[[str], str]) -> str:
    return url_of("mega2560")


def test_four_bits_are_resident_and_eight_are_streamed(mega: str, models: Models, drawn_images: Images) -> None:
    images = drawn_images.first(4)
    record = run(models("mlp8k", "int4:channel"), mega, images, options=OPTIONS)
    assert (record.verdict, record.exact.matching, record.placement.kind) == ("exact", 4, "resident")
    eight = models("mlp8k", "int8:channel")
    with pytest.raises(DoesNotFitError, match=r"arena, which has \d+: \d+ bytes are missing"):
        run(eight, mega, images, options=RunOptions(placement="resident"))
    record = run(eight, mega, images, options=OPTIONS)
    assert (record.verdict, record.exact.matching, record.placement.kind) == ("exact", 4, "stream")


def test_binary32_weights_are_exact(mega: str, models: Models, drawn_images: Images) -> None:
    """No conversion of formats lies between avr-libc's binary32 and the host's."""
    record = run(models("mlp8k", "fp32"), mega, drawn_images.first(4), options=OPTIONS)
    assert (record.verdict, record.exact.matching) == ("exact", 4)
    assert record.device.probe_failures == ()


def test_ticks_are_true_in_virtual_time(mega: str, models: Models, drawn_images: Images) -> None:
    """A tick is 62 ns, and a turn 65,536 of them, at every shift: but for the interrupts of the turns, which a greater
    shift makes more of, an image takes the same number of instructions."""
    figures = {}
    for shift in (4, 6, 7):
        latency = run(
            models("mlp8k", "int4:channel"), f"{mega}?icount={shift}", drawn_images.first(2), options=OPTIONS
        ).latency
        assert latency is not None
        assert latency.units_per_tick == pytest.approx(62 / 2**shift)
        figures[shift] = latency.median
    turn = {shift: 65536 * 62 / 2**shift for shift in figures}
    for shift in (6, 7):
        turns = figures[shift] / turn[shift] - figures[4] / turn[4] + 1
        # The timer is read five times: at both ends, and by layer; its finest tick is 62 / 16 instructions.
        assert -5 * 62 / 16 < figures[shift] - figures[4] < turns * OVERFLOW_INSTRUCTIONS + 5 * 62 / 16


def test_streaming_is_exact_however_interrupts_fall(mega: str, models: Models) -> None:
    """Bytes, and turns of the timer, interrupt the firmware in all places: more than 50,000 times."""
    pixels = np.random.default_rng(11).integers(0, 256, (8, 28, 28, 1), dtype=np.uint8)
    images = Images(pixels, np.zeros(8, np.uint8), np.arange(8), Split.SEARCH, "mnist", "ab" * 32)
    model, options = models("mlp8k", "fp32"), RunOptions(warm_up_images=0)
    record = run(model, mega, images, options=options)
    assert (record.verdict, record.exact.matching) == ("exact", 8)
    assert record.link.retransmissions == 0
