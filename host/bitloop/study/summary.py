"""From the cells of a sweep to what they say: rows with intervals, the best of each width, the winner."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bitloop.bench.metrics import Proportion, wilson
from bitloop.errors import DataError
from bitloop.study.device import DeviceCell
from bitloop.study.grid import BASE, element_bits, grid_position
from bitloop.study.results import Begun, Outcome
from bitloop.study.statistics import Comparison, compare

__all__ = ["Row", "best_per_width", "cells_csv", "row_document", "rows_of", "winner_of"]

_INFINITY = float("inf")


@dataclass(frozen=True)
class Row:
    """A cell that was measured, with what its figures mean.

    Attributes:
        cell: its key.
        of: "base", "weights", "biases" or "both".
        layer: the layer that is changed; None is all.
        spec: of the changed tensors.
        bits: that an element of them takes.
        accuracy: with its 95 % Wilson interval.
        cross_entropy: in nats; None where a logit is infinite or NaN.
        weights_bytes: packed.
        biases_bytes: packed.
        scales_bytes: scales and zero points.
        comparison: with the network in binary32, on the same images.
        model_sha256: of the MODEL.
    """

    cell: str
    of: str
    layer: str | None
    spec: str
    bits: float
    accuracy: Proportion
    cross_entropy: float | None
    weights_bytes: int
    biases_bytes: int
    scales_bytes: int
    comparison: Comparison
    model_sha256: str

    @property
    def total_bytes(self) -> int:
        """Weights, biases and scales."""
        return self.weights_bytes + self.biases_bytes + self.scales_bytes


def rows_of(begun: Begun, outcomes: Mapping[str, Outcome]) -> list[Row]:
    """Return a row for each cell that was measured, in the order of the grid.

    Raises:
        DataError: the network in binary32 is not among them, or a cell's line is damaged.
    """
    images = begun.asked.images
    base = outcomes.get(BASE.key)
    if base is None or base.measured is None:
        raise DataError("the network in binary32 has not been measured yet; give the command of the sweep again")
    reference = base.measured.right_images(images)
    rows = []
    for key in begun.asked.cells:
        outcome = outcomes.get(key)
        if outcome is None or outcome.measured is None:
            continue
        found = outcome.measured
        rows.append(
            Row(
                cell=key,
                of=outcome.of,
                layer=outcome.layer,
                spec=outcome.spec,
                bits=element_bits(outcome.spec),
                accuracy=wilson(found.correct, images),
                cross_entropy=found.cross_entropy,
                weights_bytes=found.weights_bytes,
                biases_bytes=found.biases_bytes,
                scales_bytes=found.scales_bytes,
                comparison=compare(reference, found.right_images(images)),
                model_sha256=found.model_sha256,
            )
        )
    return rows


def best_per_width(rows: Iterable[Row]) -> list[Row]:
    """Return, for what is changed and the bits of an element, the cell that labels most images right.

    Of equal ones that with the least cross-entropy, then that with the fewest bytes. Sorted by what is changed, then by
    bits; the base is left out.
    """
    best: dict[tuple[str, str, float], Row] = {}
    order: dict[tuple[str, str], int] = {}
    for row in rows:
        if row.of == BASE.of:
            continue
        order.setdefault((row.layer or "", row.of), len(order))
        key = (row.layer or "", row.of, row.bits)
        if key not in best or _worth(row) < _worth(best[key]):
            best[key] = row
    return [best[key] for key in sorted(best, key=lambda key: (order[key[:2]], key[2]))]


def winner_of(rows: Iterable[Row], margin: float) -> Row | None:
    """Return the smallest cell that is not inferior to the network in binary32; None if there is none.

    Of equally small ones that which labels most images right, then that with the least cross-entropy.

    Args:
        rows: of one sweep.
        margin: the loss of accuracy that is put up with, as a share: the bound of the loss is at most that.
    """
    good = [row for row in rows if row.of != BASE.of and row.comparison.is_non_inferior(margin)]
    return min(good, key=lambda row: (row.total_bytes, *_worth(row)), default=None)


def row_document(row: Row) -> dict[str, object]:
    """Return a row as JSON takes it."""
    comparison = row.comparison
    return {
        "cell": row.cell,
        "of": row.of,
        "layer": row.layer,
        "spec": row.spec,
        "bits": row.bits,
        "accuracy": {
            "value": row.accuracy.value,
            "low": row.accuracy.low,
            "high": row.accuracy.high,
            "correct": row.accuracy.correct,
            "total": row.accuracy.total,
        },
        "cross_entropy": row.cross_entropy,
        "bytes": {
            "weights": row.weights_bytes,
            "biases": row.biases_bytes,
            "scales": row.scales_bytes,
            "total": row.total_bytes,
        },
        "against_fp32": {
            "only_fp32": comparison.only_reference,
            "only_cell": comparison.only_candidate,
            "loss": comparison.loss,
            "loss_bound": comparison.bound,
            "mcnemar_p": comparison.p,
        },
        "model_sha256": row.model_sha256,
    }


def cells_csv(
    begun: Begun, outcomes: Mapping[str, Outcome], rows: Sequence[Row], device: Mapping[str, DeviceCell]
) -> str:
    """Return one line a cell (RFC 4180), those that were refused with the reason; shares, not percent."""
    columns = (
        *("cell", "of", "layer", "spec", "bits", "exponent_bits", "mantissa_bits", "images", "correct", "accuracy"),
        *("accuracy_low", "accuracy_high", "cross_entropy", "weights_bytes", "biases_bytes", "scales_bytes"),
        *("total_bytes", "only_fp32", "only_cell", "loss", "loss_bound", "mcnemar_p", "model_sha256", "refused"),
        *("device_latency_median", "device_latency_unit", "device_ram", "device_upload_line_bytes", "device_refused"),
    )
    measured = {row.cell: row for row in rows}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for key in begun.asked.cells:
        outcome = outcomes.get(key)
        if outcome is None:
            continue
        position = grid_position(outcome.spec)
        head = [key, outcome.of, outcome.layer or "", outcome.spec, element_bits(outcome.spec)]
        head += list(position[:2]) if position else ["", ""]
        row = measured.get(key)
        if row is None:
            writer.writerow([*head, *[""] * (columns.index("refused") - len(head)), outcome.refused or "", *[""] * 5])
            continue
        accuracy, comparison = row.accuracy, row.comparison
        entropy = "" if row.cross_entropy is None else row.cross_entropy
        writer.writerow(
            [
                *head,
                *(accuracy.total, accuracy.correct, accuracy.value, accuracy.low, accuracy.high, entropy),
                *(row.weights_bytes, row.biases_bytes, row.scales_bytes, row.total_bytes),
                *(comparison.only_reference, comparison.only_candidate, comparison.loss, comparison.bound),
                *(comparison.p, row.model_sha256, "", *_device_columns(device.get(key))),
            ]
        )
    return text.getvalue()


def _device_columns(cell: DeviceCell | None) -> list[object]:
    if cell is None:
        return [""] * 5
    values = (cell.latency_median, cell.latency_unit, cell.ram_bytes, cell.upload_line_bytes, cell.refused)
    return ["" if value is None else value for value in values]


def _worth(row: Row) -> tuple[int, float, int]:
    """Return what is less the better a row is."""
    entropy = _INFINITY if row.cross_entropy is None else row.cross_entropy
    return -row.accuracy.correct, entropy, row.total_bytes
