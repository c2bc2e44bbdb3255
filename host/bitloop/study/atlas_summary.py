"""From the points of an atlas to what they say: rows with intervals, their ranking, sums by kind and by tensor."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.bench.metrics import Proportion, wilson
from bitloop.study.atlas_results import BASE_KEY, AtlasAsked, DevicePoint, Point, PointOutcome
from bitloop.study.bit_positions import BitPosition
from bitloop.study.statistics import Comparison, compare

__all__ = [
    "AtlasRow",
    "Group",
    "atlas_row_document",
    "group_document",
    "groups_of",
    "points_csv",
    "rank_correlation",
    "ranked",
    "rows_of_points",
]


@dataclass(frozen=True)
class AtlasRow:
    """A point that was measured, with what its figures mean.

    Attributes:
        key: of the point.
        tensor: whose codes were flipped.
        format: of these codes.
        position: the bit.
        changed: codes that were flipped.
        left: codes that were to be, and stayed.
        mean_change: of a changed value, in units of the root mean square of the tensor; None where there is none.
        accuracy: with its 95 % Wilson interval.
        cross_entropy: in nats; None where a logit is infinite or NaN.
        comparison: with the MODEL without a flip, on the same images.
        model_sha256: of the MODEL with the flip.
    """

    key: str
    tensor: str
    format: str
    position: BitPosition
    changed: int
    left: int
    mean_change: float | None
    accuracy: Proportion
    cross_entropy: float | None
    comparison: Comparison
    model_sha256: str

    @property
    def layer(self) -> str:
        """The layer that was changed."""
        return self.tensor.rpartition(".")[0]

    @property
    def of(self) -> str:
        """What of it: "weights" or "biases"."""
        return self.tensor.rpartition(".")[2]

    @property
    def name(self) -> str:
        """The point in words."""
        return f"{self.tensor} {self.position.name}"


@dataclass(frozen=True)
class Group:
    """Points that have something in common; those where no code could be flipped are left out.

    Attributes:
        name: what they have in common: a kind of bits, or a tensor.
        of: "weights" or "biases".
        points: how many.
        mean_loss: mean of their losses of accuracy.
        worst: the point that loses most.
        mean_change: geometric mean of the mean changes above zero, None without one.
    """

    name: str
    of: str
    points: int
    mean_loss: float
    worst: AtlasRow
    mean_change: float | None


def rows_of_points(
    asked: AtlasAsked, points: Sequence[Point], formats: Mapping[str, str], outcomes: Mapping[str, PointOutcome]
) -> list[AtlasRow]:
    """Return a row for each point, in their order.

    Args:
        asked: what the atlas was asked.
        points: all of them.
        formats: of the tensors, by name.
        outcomes: of all points, and of the MODEL without a flip.

    Raises:
        DataError: a line is damaged.
    """
    reference = outcomes[BASE_KEY].measured.right_images(asked.images)
    return [_row(point, formats[point.tensor], outcomes[point.key], reference) for point in points]


def ranked(rows: Sequence[AtlasRow]) -> list[AtlasRow]:
    """Return rows, those that cost most accuracy first.

    Of equal ones that with the greater mean change; those where no code could be flipped come last.
    """
    return sorted(rows, key=lambda row: (row.changed == 0, -row.comparison.loss, -(row.mean_change or 0.0)))


def groups_of(rows: Sequence[AtlasRow], *, by: str) -> list[Group]:
    """Sum rows up, weights and biases apart, in the order of the rows.

    Args:
        rows: of one atlas.
        by: "kind" (of bits) or "tensor".
    """
    members: dict[tuple[str, str], list[AtlasRow]] = {}
    for row in rows:
        if row.changed:
            name = row.position.kind.value if by == "kind" else row.tensor
            members.setdefault((row.of, name), []).append(row)
    return [_group(name, of, group) for (of, name), group in members.items()]


def rank_correlation(rows: Sequence[AtlasRow]) -> float | None:
    """Return Spearman's rank correlation of mean change and loss: how well the one predicts the order of the other.

    Equal values share their mean rank. Points without a mean change are left out.

    Returns:
        A number in [-1, 1]; None with fewer than three points, or where one side is all the same.
    """
    pairs = [(row.mean_change, row.comparison.loss) for row in rows if row.mean_change is not None]
    if len(pairs) < 3:
        return None
    a, b = (_ranks(np.array(side)) for side in zip(*pairs, strict=True))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return float((a * b).sum()) / size if size else None


def atlas_row_document(row: AtlasRow, device: DevicePoint | None) -> dict[str, object]:
    """Return a row as JSON takes it."""
    comparison = row.comparison
    return {
        "point": row.key,
        "tensor": row.tensor,
        "format": row.format,
        "bit": row.position.bit,
        "kind": row.position.kind.value,
        "name": row.position.name,
        "meaning": row.position.meaning,
        "changed": row.changed,
        "left": row.left,
        "mean_change": row.mean_change,
        "accuracy": vars(row.accuracy),
        "cross_entropy": row.cross_entropy,
        "against_base": {
            "only_base": comparison.only_reference,
            "only_point": comparison.only_candidate,
            "loss": comparison.loss,
            "loss_bound": comparison.bound,
            "mcnemar_p": comparison.p,
        },
        "model_sha256": row.model_sha256,
        "device": None if device is None else vars(device),
    }


def group_document(group: Group) -> dict[str, object]:
    """Return a sum as JSON takes it."""
    return {
        "name": group.name,
        "of": group.of,
        "points": group.points,
        "mean_loss": group.mean_loss,
        "worst": group.worst.key,
        "worst_loss": group.worst.comparison.loss,
        "mean_change": group.mean_change,
    }


def points_csv(ranking: Sequence[AtlasRow], device: Mapping[str, DevicePoint]) -> str:
    """Return one line a point (RFC 4180), the costliest first; shares, not percent."""
    columns = (
        *("rank", "point", "tensor", "format", "bit", "kind", "name", "meaning", "changed", "left", "mean_change"),
        *("images", "correct", "accuracy", "accuracy_low", "accuracy_high", "cross_entropy", "only_base"),
        *("only_point", "loss", "loss_bound", "mcnemar_p", "model_sha256", "device_images", "device_correct"),
        *("device_upload_line_bytes", "device_copied_bytes", "device_refused"),
    )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for rank, row in enumerate(ranking, start=1):
        place, accuracy, comparison, line = row.position, row.accuracy, row.comparison, device.get(row.key)
        values = [
            *(rank, row.key, row.tensor, row.format, place.bit, place.kind.value, place.name, place.meaning),
            *(row.changed, row.left, row.mean_change),
            *(accuracy.total, accuracy.correct, accuracy.value, accuracy.low, accuracy.high, row.cross_entropy),
            *(comparison.only_reference, comparison.only_candidate, comparison.loss, comparison.bound, comparison.p),
            row.model_sha256,
            *(
                [None] * 5
                if line is None
                else (line.images, line.correct, line.upload_line_bytes, line.copied_bytes, line.refused)
            ),
        ]
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue()


def _row(point: Point, fmt: str, outcome: PointOutcome, reference: npt.NDArray[np.bool_]) -> AtlasRow:
    measured, images = outcome.measured, len(reference)
    return AtlasRow(
        key=point.key,
        tensor=point.tensor,
        format=fmt,
        position=point.position,
        changed=outcome.changed,
        left=outcome.left,
        mean_change=outcome.mean_change,
        accuracy=wilson(measured.correct, images),
        cross_entropy=measured.cross_entropy,
        comparison=compare(reference, measured.right_images(images)),
        model_sha256=measured.model_sha256,
    )


def _group(name: str, of: str, rows: Sequence[AtlasRow]) -> Group:
    changes = [math.log(row.mean_change) for row in rows if row.mean_change]
    return Group(
        name=name,
        of=of,
        points=len(rows),
        mean_loss=math.fsum(row.comparison.loss for row in rows) / len(rows),
        worst=ranked(rows)[0],
        mean_change=math.exp(math.fsum(changes) / len(changes)) if changes else None,
    )


def _ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return ranks from 0 on; equal values have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts + 1) / 2)[place])
