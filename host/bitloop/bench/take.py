"""From a result of the device to its row and its line: as it comes, and again when a journal is read back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bitloop.bench.beside import HostSimulation
from bitloop.bench.compare import bits, ulp_distance
from bitloop.bench.journal import Sample, logits_from_hex, logits_to_hex, pack_pixels, unpack_pixels
from bitloop.bench.judge import F32, Measured
from bitloop.data.dataset import CLASSES, Images
from bitloop.errors import DataError, ProtocolError
from bitloop.link.run import Result
from bitloop.simulate.reference import labels as labels_of

__all__ = ["count", "replay", "take"]


def take(measured: Measured, images: Images, result: Result, host_logits: F32) -> Sample:
    """Put a result into its row, the first that is free, and return its line; :func:`count` makes it count.

    Raises:
        ProtocolError: it is not that row's, or has no logits.
    """
    row = result.index
    if result.logits is None or row != measured.count:
        raise ProtocolError(
            f"the device's result {row} came out of order or without logits; its firmware is faulty, flash it again"
        )
    measured.device[row] = result.label
    measured.host[row] = labels_of(host_logits[np.newaxis])[0]
    measured.device_logits[row] = result.logits
    measured.host_logits[row] = host_logits
    measured.ticks[row] = result.ticks
    if measured.layer_ticks is not None and result.layer_ticks is not None:
        measured.layer_ticks[row] = result.layer_ticks
    match = bool((bits(result.logits) == bits(host_logits)).all())
    true, host = int(images.labels[row]), int(measured.host[row])
    interesting = not match or result.label != true or host != true
    return Sample(
        index=int(images.index[row]),
        label=true,
        device=result.label,
        host=host,
        match=match,
        ulp=0 if match else int(ulp_distance(result.logits, host_logits).max()),
        ticks=result.ticks,
        logits=logits_to_hex(result.logits),
        host_logits=None if match else logits_to_hex(host_logits),
        layer_ticks=None if result.layer_ticks is None else tuple(result.layer_ticks.tolist()),
        pixels=pack_pixels(images.pixels[row]) if interesting else None,
    )


def count(measured: Measured, sample: Sample) -> None:
    """Let the row that was taken last count, now that its line is written."""
    if not sample.match:
        measured.failing.append(measured.count)
    measured.count += 1


def replay(
    samples: Sequence[Sample],
    images: Images,
    host: HostSimulation,
    *,
    operations: int | None,
    path: Path,
    progress: Callable[[int, int], None] | None = None,
) -> Measured:
    """Rebuild what was measured from a journal.

    Only what came from the device is taken from it. The rest of each line (index, labels, comparison) is computed
    again, and must be the same.

    Args:
        samples: the journal's lines.
        images: all images of the run.
        host: the simulation of all of them.
        operations: how many the device timed, None for none.
        path: of the journal, for messages.
        progress: called with lines done, and lines in all.

    Raises:
        DataError: a line is not what this run would have written; it is named.
    """
    if len(samples) > len(images):
        raise DataError(f"{path} has {len(samples)} lines, the run is about {len(images)} images; begin a new run")
    measured = Measured.empty(images.index, images.labels, classes=CLASSES, operations=operations)
    for row, line in enumerate(samples):
        timed = None if line.layer_ticks is None else len(line.layer_ticks)
        if len(line.logits) != CLASSES or timed != operations:
            raise DataError(f"{path}, line {row + 1}: logits or layer ticks are not as many as this run has")
        try:
            layer_ticks = None if line.layer_ticks is None else np.array(line.layer_ticks, np.uint32)
            result = Result(row, line.device, line.ticks, logits_from_hex(line.logits), layer_ticks)
            again = take(measured, images, result, host.logits(row))
        except OverflowError as error:
            raise DataError(f"{path}, line {row + 1}: a number is beyond what a device sends") from error
        if not _same(line, again, images, row):
            raise DataError(
                f"{path}, line {row + 1}, is not what this run has written: it holds image {line.index} with label "
                f"{line.label}, host {line.host}, match {line.match}; computed again it is image {again.index} with "
                f"label {again.label}, host {again.host}, match {again.match}. Begin a new run"
            )
        count(measured, again)
        if progress is not None:
            progress(row + 1, len(samples))
    return measured


def _same(line: Sample, again: Sample, images: Images, row: int) -> bool:
    """Compare lines; packed pixels by what they hold, for not every zlib packs alike."""
    if replace(line, pixels=None) != replace(again, pixels=None) or (line.pixels is None) != (again.pixels is None):
        return False
    height, width, channels = images.pixels.shape[1:]
    held = None if line.pixels is None else unpack_pixels(line.pixels, (height, width, channels))
    return held is None or bool((held == images.pixels[row]).all())
