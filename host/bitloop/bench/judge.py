"""From what was measured to what it means: the verdict, its words, and the figures. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from bitloop.bench.compare import compare_vectors
from bitloop.bench.metrics import confusion_matrix, in_units, mcnemar_exact_p, summarize, wilson
from bitloop.bench.record import (
    Accuracy,
    Divergence,
    Exact,
    Failure,
    Labels,
    Latency,
    LayerLatency,
    LinkShare,
    Paired,
)
from bitloop.hello import DeviceInfo
from bitloop.plan.planner import Operation
from bitloop.simulate.reference import labels as labels_of
from bitloop.spec import TimerUnit

F32 = npt.NDArray[np.float32]

__all__ = [
    "F32",
    "FAILING_KEPT",
    "Measured",
    "Verdict",
    "accuracy_of",
    "exact_of",
    "judge",
    "labels_agreeing",
    "latency_of",
]

FAILING_KEPT = 1000
"""How many indices of failing images ``run.json`` lists; all are in the journal."""


@dataclass
class Measured:
    """What came back from the device, with what the host simulation gave; the first ``count`` rows are filled.

    Attributes:
        indices: int64 ``[N]``, of the images in the data set.
        true: uint8 ``[N]``.
        device: int64 ``[N]``, labels that the device chose.
        host: int64 ``[N]``, labels of the host simulation.
        device_logits: float32 ``[N, classes]``.
        host_logits: float32 ``[N, classes]``.
        ticks: uint64 ``[N]``.
        layer_ticks: uint32 ``[N, operations]``, or None.
        count: rows that are filled.
    """

    indices: npt.NDArray[np.int64]
    true: npt.NDArray[np.uint8]
    device: npt.NDArray[np.int64]
    host: npt.NDArray[np.int64]
    device_logits: F32
    host_logits: F32
    ticks: npt.NDArray[np.uint64]
    layer_ticks: npt.NDArray[np.uint32] | None
    count: int = 0
    failing: list[int] = field(default_factory=list)

    @classmethod
    def empty(
        cls,
        indices: npt.NDArray[np.int64],
        true: npt.NDArray[np.uint8],
        *,
        classes: int,
        operations: int | None,
    ) -> Measured:
        """Make room for the results of ``len(indices)`` images; ``operations`` is None without layer ticks."""
        n = len(indices)
        return cls(
            indices=indices,
            true=true,
            device=np.zeros(n, np.int64),
            host=np.zeros(n, np.int64),
            device_logits=np.zeros((n, classes), np.float32),
            host_logits=np.zeros((n, classes), np.float32),
            ticks=np.zeros(n, np.uint64),
            layer_ticks=None if operations is None else np.zeros((n, operations), np.uint32),
        )


@dataclass(frozen=True)
class Verdict:
    """What a run showed, as a word, as a sentence, and the reasons for a disagreement."""

    verdict: str
    headline: str
    reasons: tuple[str, ...]


def exact_of(measured: Measured, divergence: Divergence | None, *, audited: int) -> Exact:
    """Compare the logits bit by bit; ``audited`` images were compared layer by layer besides."""
    n = measured.count
    comparison = compare_vectors(measured.device_logits[:n], measured.host_logits[:n])
    return Exact(
        matching=comparison.matching,
        total=comparison.total,
        max_ulp=comparison.max_ulp,
        first_diverging_layer=None if divergence is None else divergence.layer,
        divergence=divergence,
        audited=audited,
        failing_count=len(comparison.failing),
        failing=tuple(int(measured.indices[row]) for row in comparison.failing[:FAILING_KEPT]),
    )


def labels_agreeing(measured: Measured) -> Labels:
    """Compare the labels, and see that the device's follow from its own logits."""
    n = measured.count
    own = labels_of(measured.device_logits[:n]) if n else measured.device[:0]
    return Labels(
        agreeing=int((measured.device[:n] == measured.host[:n]).sum()),
        total=n,
        impossible=int((measured.device[:n] != own).sum()),
    )


def accuracy_of(measured: Measured) -> Accuracy | None:
    """Count right labels on both sides; None without a measured image."""
    n = measured.count
    if not n:
        return None
    device = measured.device[:n] == measured.true[:n]
    host = measured.host[:n] == measured.true[:n]
    only_device, only_host = int((device & ~host).sum()), int((host & ~device).sum())
    return Accuracy(
        device=wilson(int(device.sum()), n),
        host=wilson(int(host.sum()), n),
        paired=Paired(only_device, only_host, mcnemar_exact_p(only_device, only_host)),
    )


def confusion_of(measured: Measured, classes: int) -> tuple[tuple[int, ...], ...] | None:
    """Return the confusion matrix of the device: rows true, columns predicted; None without a measured image."""
    n = measured.count
    if not n:
        return None
    matrix = confusion_matrix(measured.true[:n], measured.device[:n], classes)
    return tuple(tuple(int(count) for count in row) for row in matrix)


def latency_unit(info: DeviceInfo) -> str:
    """Return the unit of a latency, as it is shown everywhere; a simulated device's never passes for a chip's.

    Cycles are those of silicon. An emulator whose rate is known gives instructions; the same firmware in an emulator
    of which nothing is known gives ticks of its virtual time, whatever its HELLO calls them.
    """
    virtual = "ticks of virtual time"
    word = {
        int(TimerUnit.CYCLES): virtual if info.simulated else "cycles",
        int(TimerUnit.INSTRUCTIONS_SCALED): virtual,
        int(TimerUnit.HOST_NANOSECONDS): "host nanoseconds",
        int(TimerUnit.MICROSECONDS): virtual if info.simulated else "microseconds",
    }.get(info.timer_unit, f"ticks of unknown unit {int(info.timer_unit)}")
    if info.instructions_per_tick is not None:
        word = "instructions"
    return f"{word} (simulated device)" if info.simulated else word


def latency_of(
    measured: Measured, info: DeviceInfo, operations: Sequence[Operation], *, overlapped: bool, warm_up_images: int
) -> Latency | None:
    """Summarize the latencies, in the unit of :func:`latency_unit`; None without a measured image."""
    n = measured.count
    if not n:
        return None
    units_per_tick = 1.0 if info.instructions_per_tick is None else info.instructions_per_tick
    summary = summarize(in_units(measured.ticks[:n], units_per_tick))
    per_layer: tuple[LayerLatency, ...] | None = None
    if measured.layer_ticks is not None:
        columns = [
            summarize(in_units(measured.layer_ticks[:n, number], units_per_tick)) for number in range(len(operations))
        ]
        per_layer = tuple(
            LayerLatency(operation.name, operation.layers, column.median, column.mean, column.max)
            for operation, column in zip(operations, columns, strict=True)
        )
    return Latency(
        unit=latency_unit(info),
        ticks_per_second=info.ticks_per_second,
        units_per_tick=units_per_tick,
        simulated=info.simulated,
        overlapped=overlapped,
        warm_up_images=warm_up_images,
        min=summary.min,
        median=summary.median,
        mean=summary.mean,
        p95=summary.p95,
        p99=summary.p99,
        max=summary.max,
        per_layer=per_layer,
    )


def share_of(ticks: npt.NDArray[np.uint64], info: DeviceInfo, *, seconds: float, waited_s: float) -> LinkShare | None:
    """Divide the streaming time.

    Computing is what the device's own timer says, the queue what the host spent between taking two results (simulation,
    journal), and the line the rest: sending, receiving, waiting. Where computing and line overlap, what they share
    counts as computing.

    Args:
        ticks: of the images that were streamed in this time.
        info: the timer's rate.
        seconds: of the streaming, in all.
        waited_s: of these, spent in the link.

    Returns:
        Three shares with sum 1, or None where the device's timer does not run with the clock on the wall.
    """
    silicon = info.timer_unit in (TimerUnit.CYCLES, TimerUnit.MICROSECONDS) and not info.simulated
    wall = silicon or info.timer_unit == TimerUnit.HOST_NANOSECONDS
    if not len(ticks) or seconds <= 0 or not wall or not info.ticks_per_second:
        return None
    waited_s = min(waited_s, seconds)
    compute_s = min(float(ticks.sum(dtype=np.float64)) / info.ticks_per_second, waited_s)
    return LinkShare(
        line=(waited_s - compute_s) / seconds,
        queue=(seconds - waited_s) / seconds,
        compute=compute_s / seconds,
    )


def judge(
    exact: Exact,
    labels: Labels,
    *,
    requested: int,
    claims: Sequence[str],
    probe_failures: Sequence[str],
    status: str,
    error: Failure | None,
    interruptions: int = 0,
) -> Verdict:
    """Say what a run showed.

    A disagreement comes first: it stands even where the run did not come to its end.

    Args:
        exact: the comparison of the logits.
        labels: the comparison of the labels.
        requested: images that were to be run.
        claims: what the device says of itself that is not true (a hash, its memory), as sentences.
        probe_failures: arithmetic cases that the device computes wrongly.
        status: complete, interrupted or failed.
        error: what ended the run, unless complete.
        interruptions: how often it broke off and went on; said behind everything else, for it makes nothing less exact.
    """
    went_on = f"; interrupted {times(interruptions)}, and gone on with" if interruptions else ""
    reasons: list[str] = []
    if exact.failing_count:
        reasons.append(_divergence_words(exact))
    elif exact.divergence is not None:
        found = exact.divergence
        reasons.append(f"layer {found.layer} differs by {found.ulp:,} ULP on image {found.image_index:,}")
    if labels.impossible:
        reasons.append(f"{labels.impossible:,} labels of the device do not follow from its own logits")
    reasons += claims
    reasons += [f"the arithmetic probe failed: {failure}" for failure in probe_failures]
    equal = f"{exact.matching:,} of {exact.total:,} logit vectors bit-identical"
    if reasons:
        if not exact.failing_count:
            reasons.append(f"{equal}, but the word exact is refused")
        return Verdict("disagree", f"DISAGREE: {'; '.join(reasons)}{went_on}", tuple(reasons))
    if status == "complete":
        return Verdict("exact", f"EXACT: {equal}{went_on}", ())
    after = f"after {exact.total:,} of {requested:,} images"
    if status == "interrupted":
        return Verdict(status, f"INTERRUPTED {after}; of these {equal}{went_on}", ())
    why = "" if error is None else f": {error.message}"
    return Verdict(status, f"FAILED {after}{why}{went_on}", ())


def times(number: int) -> str:
    """Return how often, in words."""
    return {1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _divergence_words(exact: Exact) -> str:
    words = f"{exact.failing_count:,} of {exact.total:,} logit vectors differ, by up to {exact.max_ulp:,} ULP"
    if exact.divergence is None:
        return f"{words}; no layer diverged when traced again"
    found = exact.divergence
    return f"{words}; first diverging layer {found.layer}, {found.ulp:,} ULP"
