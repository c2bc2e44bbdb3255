"""The plot of a search: bytes against accuracy of all that was evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bitloop.report import words
from bitloop.report.drawing import ACCENT, INK, MUTED, SERIES, figure_axes, listed, styled, svg, thousands
from bitloop.study.search.evaluations import Evaluation

__all__ = ["FrontView", "bytes_against_accuracy"]

_MOST_DOTS = 3_000
_SHOWN_POINTS = 4.0


@dataclass(frozen=True)
class FrontView:
    """What is drawn.

    Attributes:
        good: admissible evaluations.
        lossy: the others.
        front: those that none as small equals in accuracy, the smallest first.
        winner: the winner, if any.
        images: of the search split.
        reference: accuracy of the network in binary32.
        margin: the loss that is put up with, as a share.
    """

    good: Sequence[Evaluation]
    lossy: Sequence[Evaluation]
    front: Sequence[Evaluation]
    winner: Evaluation | None
    images: int
    reference: float
    margin: float


@styled
def bytes_against_accuracy(view: FrontView) -> str:
    """Draw bytes against accuracy: all as dots (of very many every n-th), the front as a line, the winner as a diamond.

    What loses more than four points is left out.

    Returns:
        An ``<svg>`` element; "" where nothing is left.
    """
    figure, axes = figure_axes(3.6)
    least = view.reference - _SHOWN_POINTS / 100
    front = [one for one in view.front if one.correct >= least * view.images]
    if not front:
        return ""
    for name, every, colour in (("loses too much", view.lossy, SERIES[1]), ("admissible", view.good, SERIES[3])):
        shown = [one for one in every if one.correct >= least * view.images]
        dots = shown[:: -(-len(shown) // _MOST_DOTS) or 1]
        if dots:
            axes.scatter(*_points(dots, view), s=9, color=colour, alpha=0.4, linewidth=0, label=name)
    axes.step(*_points(front, view), where="post", color=ACCENT, linewidth=1.4, label="front")
    axes.axhline(100 * view.reference, color=MUTED, linewidth=0.9)
    axes.axhline(100 * (view.reference - view.margin), color=MUTED, linewidth=0.9, linestyle="--")
    if view.winner is not None:
        axes.scatter(*_points([view.winner], view), s=42, marker="D", color=INK, label="winner", zorder=4)
    _label(axes)
    spoken = listed(
        [words.size(one.total_bytes) for one in front], [words.percent(one.correct / view.images) for one in front]
    )
    return svg(figure, "front", f"Bytes against accuracy on the search split, the front: {spoken}")


def _points(every: Sequence[Evaluation], view: FrontView) -> tuple[list[int], list[float]]:
    return [one.total_bytes for one in every], [100 * one.correct / view.images for one in every]


def _label(axes: Any) -> None:
    thousands(axes.xaxis)
    axes.set_xlabel("bytes of weights, biases and scales")
    axes.set_ylabel("accuracy in %")
    axes.legend(loc="lower right", fontsize=9.0, markerscale=1.6)
