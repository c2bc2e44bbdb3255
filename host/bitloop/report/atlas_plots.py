"""Plots of an atlas: what each bit position costs, as a heatmap, and over the position beside the change it makes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from bitloop.report.drawing import INK, MUTED, SERIES, WIDTH, category_axis, figure_axes, listed, short, styled, svg
from bitloop.study.atlas_summary import AtlasRow

__all__ = ["atlas_heatmap", "error_by_bit"]

_LEAST_LOSS, _MOST_LOSS = 0.05, 100.0
"""Points of accuracy between which shades differ; a ratio of losses is a step of shade."""
_DARKEST = 0.55
_LINEAR_LOSS = 0.1
"""Points up to which the axis of losses is linear; it is logarithmic beyond."""
_MOST_CHANGE = 1e4
"""Where the axis of changes ends: the first exponent bit of binary32 makes 10^38, and all else would look flat."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_SMALL, _LARGE = 5.6, 9.0
_NAMED_BITS = 16
"""As many bits have all their names below a panel; of more, every fourth of exponent and mantissa."""


@styled
def atlas_heatmap(rows: Sequence[AtlasRow], *, name: str) -> str:
    """Draw the losses of tensors of one format: a line a tensor, a column a bit, from the sign to the least one.

    A place is the darker the more it costs; its text is the loss in points, a dash where no code could be flipped.

    Args:
        rows: points of tensors of one format, at least one.
        name: of the plot, which no other of the page has.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.patches import Rectangle  # noqa: PLC0415 - takes half a second, which only a report should cost

    tensors = list(dict.fromkeys(row.tensor for row in rows))
    bits = _bits(rows)
    figure, axes = figure_axes(0.75 + 0.32 * len(tensors))
    size = min(_LARGE, 130.0 / len(bits) + 1.4)
    for row in rows:
        x, y = bits.index(row.position.bit), tensors.index(row.tensor)
        loss = 100 * row.comparison.loss
        if row.changed:
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=SERIES[1], alpha=_shade(loss), linewidth=0))
        text, colour = (_points(loss), INK) if row.changed else ("–", MUTED)
        axes.text(x, y, text, ha="center", va="center", fontsize=size, color=colour)
    category_axis(axes, [short(tensor) for tensor in tensors])
    axes.grid(visible=False)
    axes.set_xlim(-0.5, len(bits) - 0.5)
    axes.set_ylim(len(tensors) - 0.5, -0.5)
    _bit_axis(axes, rows)
    worst = {
        tensor: max((r for r in rows if r.tensor == tensor), key=lambda r: r.comparison.loss) for tensor in tensors
    }
    spoken = listed(tensors, [f"{row.position.name} {100 * row.comparison.loss:+.2f}" for row in worst.values()])
    return svg(figure, name, f"Points of accuracy lost by tensor and bit, {rows[0].format}, the most: {spoken}")


@styled
def error_by_bit(rows: Sequence[AtlasRow], *, name: str) -> str:
    """Draw loss of accuracy (above) and mean change of a value (below) over the bit position, a line a layer.

    Weights stand on the left, biases on the right. Changes of zero have no place on the logarithmic axis.

    Args:
        rows: points of tensors of one format, at least one.
        name: of the plot, which no other of the page has.

    Returns:
        An ``<svg>`` element.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above

    panels = list(dict.fromkeys(row.of for row in rows))
    layers = list(dict.fromkeys(row.layer for row in rows))
    bits = _bits(rows)
    figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
    every = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey="row")
    for column, of in enumerate(panels):
        above, below = every[0][column], every[1][column]
        for number, layer in enumerate(layers):
            line = [row for row in rows if (row.layer, row.of) == (layer, of) and row.changed]
            style = {
                "color": SERIES[number % len(SERIES)],
                "marker": _MARKERS[number % len(_MARKERS)],
                "markersize": 4.0 if len(bits) <= _NAMED_BITS else 2.5,
                "linewidth": 1.3,
            }
            if line:
                places = [bits.index(row.position.bit) for row in line]
                above.plot(places, [100 * row.comparison.loss for row in line], label=short(layer), **style)
            moved = [row for row in line if row.mean_change]
            below.plot([bits.index(row.position.bit) for row in moved], [row.mean_change for row in moved], **style)
        _loss_axis(above, [100 * row.comparison.loss for row in rows])
        _change_axis(below, [row.mean_change for row in rows if row.mean_change])
        above.set_title(of, fontsize=10.0, color=INK)
        _bit_axis(below, rows, every=1 if len(bits) <= _NAMED_BITS else 4)
    every[0][0].set_ylabel("points lost")
    every[1][0].set_ylabel("mean |Δ|, in RMS")
    handles, names = _legend(every[0])
    figure.legend(handles, names, loc="outside upper center", ncols=min(5, max(1, len(names))), fontsize=9.0)
    spoken = listed([row.name for row in rows[:8]], [f"{100 * row.comparison.loss:+.2f}" for row in rows[:8]])
    return svg(figure, name, f"Accuracy lost and change of a value by bit position, {rows[0].format}: {spoken}, …")


def _bits(rows: Sequence[AtlasRow]) -> list[int]:
    """Return the numbers of the bits, the most significant one first."""
    return sorted({row.position.bit for row in rows}, reverse=True)


def _bit_axis(axes: Any, rows: Sequence[AtlasRow], *, every: int = 1) -> None:
    """Let the horizontal axis name the bits: all, or those whose index is a multiple of ``every``."""
    bits = _bits(rows)
    named = {row.position.bit: row.position.short for row in rows if row.position.index % every == 0}
    places = [place for place, bit in enumerate(bits) if bit in named]
    size = min(_LARGE, max(_SMALL, 160.0 * every / len(bits)))
    axes.set_xticks(places, [named[bits[place]] for place in places], fontsize=size)


def _shade(loss: float) -> float:
    bounded = min(max(loss, _LEAST_LOSS), _MOST_LOSS)
    return _DARKEST * math.log(bounded / _LEAST_LOSS) / math.log(_MOST_LOSS / _LEAST_LOSS)


def _points(loss: float) -> str:
    """Return a loss in few letters."""
    if loss == 0:
        return "0"
    return f"{loss:.0f}" if abs(loss) >= 9.95 else f"{loss:.1f}".replace("-", "−")


def _loss_axis(axes: Any, losses: Sequence[float]) -> None:
    """Let the axis of losses hold 0 and all of them, labelled at round numbers."""
    from matplotlib.ticker import FixedLocator, NullLocator  # noqa: PLC0415 - as above

    low, high = min(-_LINEAR_LOSS / 2, 1.5 * min(losses)), max(1.5, 1.5 * max(losses))
    axes.set_yscale("symlog", linthresh=_LINEAR_LOSS)
    axes.set_ylim(low, high)
    ticks = [tick for tick in (-100.0, -10.0, -1.0, -0.1, 0.0, 0.1, 1.0, 10.0, 100.0) if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks(ticks, [f"{tick:g}".replace("-", "−") for tick in ticks])


def _change_axis(axes: Any, changes: Sequence[float]) -> None:
    """Let the axis of changes reach from one power of ten to another, labelled there in plain text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator  # noqa: PLC0415 - as above

    least, most = min(changes, default=1.0), min(max(changes, default=1.0), _MOST_CHANGE)
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    axes.set_yscale("log")
    axes.set_ylim(10.0**low, 10.0 ** max(high, low + 1))
    axes.yaxis.set_major_locator(LogLocator(numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _legend(every: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """Return lines and names, each layer once."""
    found: dict[str, Any] = {}
    for axes in every:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
