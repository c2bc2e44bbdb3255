"""Plots of a sweep: exponent × mantissa heatmaps, the front of bytes against accuracy, what each layer costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from bitloop.report import words
from bitloop.report.drawing import (
    ACCENT,
    INK,
    MUTED,
    SERIES,
    WIDTH,
    category_axis,
    figure_axes,
    listed,
    short,
    styled,
    svg,
)
from bitloop.study.grid import grid_position
from bitloop.study.summary import Row

__all__ = ["front_of", "heatmap", "pareto", "sensitivity"]

_LEAST_LOSS, _MOST_LOSS = 0.05, 50.0
"""Points of accuracy between which shades differ; a ratio of losses is a step of shade."""
_DARKEST = 0.6
_SHOWN_POINTS = 6.0
_SHOWN_SPECS = 4


@styled
def heatmap(panels: Mapping[str, Sequence[Row]], *, margin: float, name: str, title: str) -> str:
    """Draw accuracies over exponent bits (up) and mantissa bits (right), one panel beside the other.

    A cell is the darker the less it loses, its text is the accuracy in percent; those within the margin have a frame.

    Args:
        panels: by what is changed; rows that have a place in the grid, one a place.
        margin: the loss that is put up with, as a share.
        name: of the plot, which no other of the page has.
        title: what the rows have in common, for those who do not see the drawing.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, which only a report should cost

    places = [place for rows in panels.values() for row in rows if (place := grid_position(row.spec)) is not None]
    exponents, mantissas = sorted({place[0] for place in places}), sorted({place[1] for place in places})
    height = 0.75 + 0.34 * len(exponents)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    every = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    size = min(9.0, 82.0 / (len(mantissas) * len(panels)) + 2.4)
    for axes, (of, rows) in zip(every, panels.items(), strict=True):
        _heat_panel(axes, rows, margin=margin, size=size)
        axes.set_xticks(mantissas)
        axes.set_yticks(exponents)
        axes.set_xlim(mantissas[0] - 0.5, mantissas[-1] + 0.5)
        axes.set_ylim(exponents[0] - 0.5, exponents[-1] + 0.5)
        axes.grid(visible=False)
        axes.set_xlabel("mantissa bits")
        axes.set_title(of, fontsize=10.0, color=INK)
    every[0].set_ylabel("exponent bits")
    best = [max(rows, key=lambda row: row.accuracy.correct) for rows in panels.values()]
    spoken = listed(list(panels), [f"best {row.spec} {words.percent(row.accuracy.value)}" for row in best])
    return svg(figure, name, f"Accuracy over exponent and mantissa bits, {title}: {spoken}")


@styled
def pareto(rows: Sequence[Row], base: Row, *, margin: float, name: str = "pareto") -> str:
    """Draw bytes against accuracy: all cells as dots, the front (no smaller one is better) with 95 % Wilson intervals.

    Cells that lose more than six points are left out.

    Args:
        rows: cells, without the base.
        base: the network in binary32, drawn with the line of the margin below it.
        margin: the loss that is put up with, as a share.
        name: of the plot, which no other of the page has.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = figure_axes(3.6)
    shown = [row for row in rows if 100 * (base.accuracy.value - row.accuracy.value) <= _SHOWN_POINTS]
    for of, colour in zip(dict.fromkeys(row.of for row in shown), SERIES, strict=False):
        dots = [row for row in shown if row.of == of]
        axes.scatter(
            [row.total_bytes for row in dots],
            [100 * row.accuracy.value for row in dots],
            s=14,
            color=colour,
            alpha=0.55,
            linewidth=0,
            label=of,
        )
    front = front_of(shown)
    for row in [*front, base]:
        value, low, high = (100 * share for share in (row.accuracy.value, row.accuracy.low, row.accuracy.high))
        colour = MUTED if row is base else ACCENT
        axes.errorbar(
            [row.total_bytes], [value], yerr=[[value - low], [high - value]], color=colour, fmt="o", ms=4, lw=1.2
        )
    axes.step(
        [row.total_bytes for row in front], [100 * row.accuracy.value for row in front], where="post", color=ACCENT
    )
    axes.axhline(100 * (base.accuracy.value - margin), color=MUTED, linewidth=0.9, linestyle="--")
    for row in _apart(front):
        axes.annotate(
            short(row.spec),
            (row.total_bytes, 100 * row.accuracy.value),
            xytext=(4, -10),
            textcoords="offset points",
            fontsize=8.0,
        )
    axes.annotate(
        "fp32",
        (base.total_bytes, 100 * base.accuracy.value),
        xytext=(-5, 5),
        textcoords="offset points",
        fontsize=8.0,
        ha="right",
    )
    axes.set_xscale("log")
    _size_ticks(axes, [row.total_bytes for row in [*shown, base]])
    axes.set_xlabel("bytes of weights, biases and scales")
    axes.set_ylabel("accuracy in %")
    if shown:
        axes.legend(loc="lower right", fontsize=9.0)
    spoken = listed(
        [f"{row.spec} ({row.of})" for row in front],
        [f"{words.size(row.total_bytes)} {words.percent(row.accuracy.value)}" for row in front],
    )
    return svg(figure, name, f"Bytes against accuracy, the front: {spoken or 'no cell'}")


@styled
def sensitivity(rows: Sequence[Row], *, name: str = "sensitivity") -> str:
    """Draw what each layer loses when it alone is changed, for up to four formats; whiskers end at the 95 % bound.

    Args:
        rows: cells of single layers, at least one.
        name: of the plot, which no other of the page has.

    Returns:
        An ``<svg>`` element.
    """
    specs = _few_specs(rows)
    names = list(dict.fromkeys(f"{row.layer}.{row.of}" for row in rows))
    figure, axes = figure_axes(0.9 + len(names) * (0.14 + 0.17 * len(specs)))
    step = 0.8 / len(specs)
    for number, (spec, colour) in enumerate(zip(specs, SERIES, strict=False)):
        chosen = [row for row in rows if row.spec == spec]
        places = [names.index(f"{row.layer}.{row.of}") - 0.4 + (number + 0.5) * step for row in chosen]
        losses = [100 * row.comparison.loss for row in chosen]
        more = [100 * (row.comparison.bound - row.comparison.loss) for row in chosen]
        axes.barh(places, losses, height=0.86 * step, color=colour, label=spec)
        axes.errorbar(losses, places, xerr=[[0.0] * len(more), more], fmt="none", ecolor=MUTED, elinewidth=1.0)
    axes.axvline(0.0, color=INK, linewidth=0.9)
    category_axis(axes, [short(name) for name in names])
    axes.set_xlabel("points of accuracy lost, and the 95 % bound")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(4, len(specs)), fontsize=9.0)
    narrow = {f"{row.layer}.{row.of}": row for row in rows if row.spec == specs[0]}
    spoken = listed(list(narrow), [f"{100 * row.comparison.loss:+.2f} points" for row in narrow.values()])
    return svg(figure, name, f"Accuracy lost by one layer in {specs[0]}: {spoken}")


def front_of(rows: Sequence[Row]) -> list[Row]:
    """Return the cells that no cell of as many bytes or fewer equals, the smallest first, each better than the last."""
    front: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.total_bytes, -row.accuracy.correct)):
        if not front or row.accuracy.correct > front[-1].accuracy.correct:
            front.append(row)
    return front


def _heat_panel(axes: Any, rows: Sequence[Row], *, margin: float, size: float) -> None:
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - as above

    for row in rows:
        place = grid_position(row.spec)
        if place is None:
            continue
        exponent, mantissa = place[:2]
        corner = (mantissa - 0.5, exponent - 0.5)
        axes.add_patch(Rectangle(corner, 1, 1, color=ACCENT, alpha=_shade(row), linewidth=0))
        if row.comparison.is_non_inferior(margin):
            inner = (mantissa - 0.44, exponent - 0.42)
            axes.add_patch(Rectangle(inner, 0.88, 0.84, fill=False, edgecolor=INK, linewidth=0.9))
        text = f"{100 * row.accuracy.value:.1f}"
        axes.text(mantissa, exponent, text, ha="center", va="center", fontsize=size)


def _shade(row: Row) -> float:
    loss = min(max(100 * row.comparison.loss, _LEAST_LOSS), _MOST_LOSS)
    return _DARKEST * (1.0 - math.log(loss / _LEAST_LOSS) / math.log(_MOST_LOSS / _LEAST_LOSS))


def _few_specs(rows: Sequence[Row]) -> list[str]:
    """Return up to four specs, the narrowest first: of more, the best of each of the narrowest widths."""
    specs = {row.spec: row for row in rows}
    ordered = sorted(specs.values(), key=lambda row: row.bits)
    if len(ordered) <= _SHOWN_SPECS:
        return [row.spec for row in ordered]
    found: list[str] = []
    for bits in sorted({row.bits for row in ordered}):
        totals = {
            spec: sum(row.accuracy.correct for row in rows if row.spec == spec)
            for spec in dict.fromkeys(row.spec for row in ordered if row.bits == bits)
        }
        found.append(max(totals, key=lambda spec: totals[spec]))
    return found[:_SHOWN_SPECS]


def _apart(front: Sequence[Row]) -> list[Row]:
    """Return those of a front whose names do not fall upon one another."""
    chosen: list[Row] = []
    for row in front:
        if not chosen or row.total_bytes > 1.16 * chosen[-1].total_bytes:
            chosen.append(row)
    return chosen


def _size_ticks(axes: Any, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator  # noqa: PLC0415 - as above

    low, high = min(sizes), max(sizes)
    steps = [10**power * part for power in range(10) for part in (1, 2, 5)]
    ticks = [step for step in steps if 0.9 * low <= step <= 1.1 * high] or [low]
    axes.set_xlim(0.88 * low, 1.14 * high)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
