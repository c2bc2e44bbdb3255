"""What figures mean: verdicts, their words, shares of time. All numbers here are worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bitloop.bench.judge import (
    Measured,
    accuracy_of,
    exact_of,
    judge,
    labels_agreeing,
    latency_of,
    latency_unit,
    share_of,
)
from bitloop.bench.metrics import in_units
from bitloop.bench.record import Divergence, Exact, Failure, Labels
from bitloop.hello import DeviceInfo
from bitloop.link.urls.emulation import Emulation
from bitloop.plan.planner import Operation
from bitloop.spec import LayerKind, TimerUnit

AGREE = Labels(agreeing=4, total=4, impossible=0)
EXACT = Exact(4, 4, 0, None, None, 0, 0, ())
FAULT = Divergence("conv1", 0, 12, 3, 1, 1, "3f800001", "3f800000")
DIFFERS = Exact(1, 4, 5, "conv1", FAULT, 0, 3, (12, 13, 14))
CRASH = Failure("TransportError", "the line broke", 6)


def measured() -> Measured:
    """Four images of three classes; the third's device label does not follow from its logits."""
    m = Measured.empty(np.array([7, 8, 9, 10]), np.array([0, 1, 2, 1], np.uint8), classes=3, operations=None)
    m.device_logits[:] = [[3, 1, 0], [0, 2, 1], [0, 0, 5], [1, 1, 0]]
    m.host_logits[:] = m.device_logits
    m.device[:] = [0, 1, 1, 0]
    m.host[:] = [0, 1, 2, 0]
    m.ticks[:] = [10, 20, 30, 40]
    m.count = 4
    return m


def test_labels_that_do_not_follow_from_the_logits_are_counted() -> None:
    assert labels_agreeing(measured()) == Labels(agreeing=3, total=4, impossible=1)


def test_accuracy_is_counted_on_both_sides() -> None:
    accuracy = accuracy_of(measured())
    assert accuracy is not None
    assert (accuracy.device.correct, accuracy.host.correct) == (2, 3)
    assert (accuracy.paired.only_device, accuracy.paired.only_host, accuracy.paired.mcnemar_p) == (0, 1, 1.0)


def test_only_what_was_measured_counts() -> None:
    m = measured()
    m.count = 2
    m.device_logits[3, 0] = 99
    assert exact_of(m, None, audited=0).total == 2
    m.count = 0
    assert accuracy_of(m) is None
    assert labels_agreeing(m) == Labels(0, 0, 0)
    assert exact_of(m, None, audited=0) == Exact(0, 0, 0, None, None, 0, 0, ())


def verdict(exact: Exact = EXACT, labels: Labels = AGREE, status: str = "complete", **other: object) -> tuple[str, str]:
    given = {"requested": 4, "claims": [], "probe_failures": [], "error": None, **other}
    found = judge(exact, labels, status=status, **given)  # type: ignore[arg-type]
    assert (found.verdict == "disagree") == bool(found.reasons)
    return found.verdict, found.headline


def test_verdicts_in_words() -> None:
    assert verdict() == ("exact", "EXACT: 4 of 4 logit vectors bit-identical")
    assert verdict(DIFFERS) == (
        "disagree",
        "DISAGREE: 3 of 4 logit vectors differ, by up to 5 ULP; first diverging layer conv1, 1 ULP",
    )
    assert verdict(status="interrupted", requested=9) == (
        "interrupted",
        "INTERRUPTED after 4 of 9 images; of these 4 of 4 logit vectors bit-identical",
    )
    assert verdict(status="failed", requested=9, error=CRASH) == (
        "failed",
        "FAILED after 4 of 9 images: the line broke",
    )


@pytest.mark.parametrize(
    "other",
    [
        {"claims": ["the device reports image hash a, the host sent b"]},
        {"probe_failures": ["division: fl(1 / 3)"]},
        {"labels": Labels(4, 4, 1)},
        {"exact": Exact(4, 4, 0, "conv1", FAULT, 1, 0, ())},
    ],
)
def test_equal_logits_are_not_called_exact_when_anything_else_is_wrong(other: dict[str, object]) -> None:
    word, headline = verdict(**other)  # type: ignore[arg-type]
    assert word == "disagree"
    assert headline.endswith("4 of 4 logit vectors bit-identical, but the word exact is refused")


@pytest.mark.parametrize(("status", "error"), [("interrupted", None), ("failed", CRASH)])
def test_a_disagreement_outweighs_how_the_run_ended(status: str, error: Failure | None) -> None:
    assert verdict(DIFFERS, status=status, error=error)[0] == "disagree"


@pytest.mark.parametrize(
    ("unit", "simulated", "words"),
    [
        (TimerUnit.CYCLES, False, "cycles"),
        (TimerUnit.CYCLES, True, "ticks of virtual time (simulated device)"),
        (TimerUnit.HOST_NANOSECONDS, True, "host nanoseconds (simulated device)"),
        (TimerUnit.MICROSECONDS, False, "microseconds"),
        (TimerUnit.MICROSECONDS, True, "ticks of virtual time (simulated device)"),
        (TimerUnit.INSTRUCTIONS_SCALED, True, "ticks of virtual time (simulated device)"),
        (77, False, "ticks of unknown unit 77"),
    ],
)
def test_units_never_pass_for_one_another(unit: int, simulated: bool, words: str) -> None:
    assert latency_unit(DeviceInfo(timer_unit=unit, simulated=simulated)) == words


@pytest.mark.parametrize("unit", [TimerUnit.CYCLES, TimerUnit.INSTRUCTIONS_SCALED, 77])
def test_what_hello_calls_cycles_is_not_called_so_in_an_emulator(unit: int) -> None:
    emulated = DeviceInfo(timer_unit=unit, ticks_per_second=24_000_000).emulated("qemu-system-arm", 1.302)
    assert latency_unit(emulated) == "instructions (simulated device)"
    unknown_rate = DeviceInfo(timer_unit=unit).emulated("qemu-system-arm", None)
    assert "cycles" not in latency_unit(unknown_rate)
    assert latency_unit(unknown_rate).endswith("(simulated device)")
    assert "cycles" not in emulated.ticks_word


def test_latency_of_an_emulated_device_is_in_instructions() -> None:
    # 1,000 turns of a loop of 5 instructions on the F100 read 3,844 ticks at icount shift 5:
    # 3,844 x 1e9 / 24,000,000 ns / 32 ns = 5,005.2.
    m = measured()
    m.ticks[:] = [3844, 3844, 3845, 3844]
    m.layer_ticks = np.array([[844], [844], [845], [844]], np.uint32)
    info = DeviceInfo(timer_unit=TimerUnit.CYCLES, ticks_per_second=24_000_000)
    emulated = info.emulated("QEMU", Emulation("qemu", "7", "f100", 5, 1).instructions_per_tick(24_000_000))
    layers = [Operation("dense1", ("dense1",), LayerKind.DENSE, (1, 1, 3), 12)]
    latency = latency_of(m, emulated, layers, overlapped=False, warm_up_images=0)
    assert latency is not None
    assert latency.unit == "instructions (simulated device)"
    assert latency.simulated
    # 3,845 x 1.30208 = 5,006.5; 844 x 1.30208 = 1,098.96; 845 x 1.30208 = 1,100.3
    assert (latency.min, latency.median, latency.max) == (5005, 5005, 5007)
    assert latency.units_per_tick == pytest.approx(1.3020833)
    assert latency.ticks_per_second == 24_000_000
    assert latency.per_layer is not None
    assert (latency.per_layer[0].median, latency.per_layer[0].max) == (1099, 1100)
    silicon = latency_of(m, info, layers, overlapped=False, warm_up_images=0)
    assert silicon is not None
    assert (silicon.unit, silicon.units_per_tick, silicon.median) == ("cycles", 1.0, 3844)


def test_ticks_beyond_a_double_are_left_alone_where_nothing_is_converted() -> None:
    assert in_units(np.array([(1 << 60) + 1], np.uint64), 1.0)[0] == (1 << 60) + 1


def test_shares_of_the_streaming_time() -> None:
    # 100 ticks at 1000 a second are 0.1 s of computing; of 1 s, 0.6 s were spent in the link.
    chip = DeviceInfo(timer_unit=TimerUnit.CYCLES, ticks_per_second=1000)
    share = share_of(measured().ticks, chip, seconds=1.0, waited_s=0.6)
    assert share is not None
    assert (share.compute, share.line, share.queue) == pytest.approx((0.1, 0.5, 0.4))
    board = DeviceInfo(timer_unit=TimerUnit.MICROSECONDS, ticks_per_second=1000)
    assert share_of(measured().ticks, board, seconds=1.0, waited_s=0.6) == share
    # More computing than waiting: it overlapped with the host's own work.
    share = share_of(measured().ticks, chip, seconds=1.0, waited_s=0.05)
    assert share is not None
    assert (share.compute, share.line, share.queue) == pytest.approx((0.05, 0.0, 0.95))
    emulated = DeviceInfo(timer_unit=TimerUnit.INSTRUCTIONS_SCALED, ticks_per_second=1000)
    assert share_of(measured().ticks, emulated, seconds=1.0, waited_s=0.6) is None
    # Virtual time is no clock on the wall, though the firmware takes its ticks for a chip's cycles.
    assert share_of(measured().ticks, chip.emulated("QEMU", 0.5), seconds=1.0, waited_s=0.6) is None
