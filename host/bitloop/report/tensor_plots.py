"""Plots of what quantization did to tensors: histograms over a format's elements, signal to noise by tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.quantize.histogram import Bins, Histogram
from bitloop.quantize.quality import TensorError
from bitloop.report.drawing import (
    ACCENT,
    INK,
    MUTED,
    SERIES,
    category_axis,
    figure_axes,
    listed,
    short,
    styled,
    svg,
)

__all__ = ["decibel_words", "sqnr_bars", "tensor_histogram"]

_LEAST_SHARE = 1 / 160
"""Narrowest bin that is drawn, as a share of what is shown; narrower ones are drawn as one."""
_MOST_ROOM = 2.5
"""How far beyond its values a format is shown; a power of two as scale leaves at most twice their range."""
_OUTLINED = 64
"""Bins up to which each has an outline, and the values' own distribution is drawn over them."""
_FEW = 100
"""Values below which they have no distribution worth a line."""


@styled
def tensor_histogram(histogram: Histogram, *, name: str, title: str) -> str:
    """Draw how values lie between the elements of their format.

    Bars are the intervals that are rounded to one element, and their area is the share of the values in them. Saturated
    values have a colour of their own, the line is how the values are distributed, and the marks under the axis are the
    elements. Where a format reaches far beyond the values, a text says how far.

    Args:
        histogram: of a tensor.
        name: of the plot, which no other of the page has.
        title: the tensor's name and format, for those who do not see the drawing.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = figure_axes(2.3)
    left, right = _shown(histogram)
    least = (right - left) * _LEAST_SHARE
    total = _total(histogram)
    bins = histogram.bins.merged(least)
    density = _density(bins, total)
    axes.stairs(density, bins.edges, fill=True, color=ACCENT, alpha=0.45, linewidth=0)
    if len(density) <= _OUTLINED:
        tops = np.maximum(np.append(density, 0.0), np.append(0.0, density))
        axes.vlines(bins.edges, 0, tops, color=ACCENT, linewidth=0.9)
        axes.stairs(density, bins.edges, color=ACCENT, linewidth=0.9, baseline=None)
        if histogram.shape is not None and histogram.elements is not None and total >= _FEW:
            shape = histogram.shape.merged(least)
            axes.stairs(_density(shape, total), shape.edges, color=INK, linewidth=0.8, baseline=None)
    _draw_saturated(axes, histogram, least)
    if histogram.elements is not None:
        marks = histogram.elements[(histogram.elements >= left) & (histogram.elements <= right)]
        axes.vlines(marks, -0.06, -0.015, transform=axes.get_xaxis_transform(), color=INK, lw=0.8, clip_on=False)
    axes.tick_params(axis="x", pad=8)
    axes.set_xlim(left - 2 * least, right + 2 * least)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("density")
    axes.set_xlabel("value / scale of its channel" if histogram.by_channel else "value")
    _tell_reach(axes, histogram, left, right)
    return svg(figure, name, f"Histogram of {title}: {_spoken(histogram)}")


@styled
def sqnr_bars(errors: Sequence[TensorError]) -> str:
    """Draw the ratio of signal to quantization noise of each tensor in dB; an exact one has no bar.

    Args:
        errors: of tensors, at least one.

    Returns:
        An ``<svg>`` element.
    """
    figure, axes = figure_axes(0.8 + 0.27 * len(errors))
    ratios = [error.sqnr_db for error in errors]
    drawn = [ratio if math.isfinite(ratio) else 0.0 for ratio in ratios]
    colours = [SERIES[2] if error.name.endswith(".biases") else ACCENT for error in errors]
    axes.barh(range(len(errors)), drawn, height=0.62, color=colours)
    for place, (ratio, length) in enumerate(zip(ratios, drawn, strict=True)):
        axes.annotate(
            decibel_words(ratio),
            (max(length, 0.0), place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.0,
        )
    category_axis(axes, [short(error.name) for error in errors])
    axes.axvline(0.0, color=INK, linewidth=0.9)
    axes.set_xlim(min(0.0, *drawn), max(1.0, *drawn) * 1.13)
    axes.set_xlabel("signal to quantization noise in dB")
    spoken = listed([error.name for error in errors], [decibel_words(ratio) for ratio in ratios])
    return svg(figure, "sqnr", f"Signal to quantization noise: {spoken}")


def decibel_words(ratio: float) -> str:
    """Return a ratio in dB; an infinite one is said in words."""
    if math.isfinite(ratio):
        return f"{ratio:.1f} dB"
    return "exact" if ratio > 0 else "all noise"


def _shown(histogram: Histogram) -> tuple[float, float]:
    """Return from where to where is drawn: all values, and the format's elements if they are not far beyond."""
    low, high = histogram.span
    least, greatest = histogram.limits
    size = max(abs(low), abs(high)) or min(1.0, greatest)
    left = min(low, least if -least <= _MOST_ROOM * size else -1.1 * size)
    right = max(high, greatest if greatest <= _MOST_ROOM * size else 1.1 * size)
    return (left, right) if left < right else (left - 1.0, right + 1.0)


def _draw_saturated(axes: Any, histogram: Histogram, least: float) -> None:
    total = _total(histogram)
    (low, high), (left, right) = histogram.limits, histogram.span
    for count, start, end in (
        (histogram.below, min(left, low - least), low),
        (histogram.above, high, max(right, high + least)),
    ):
        if count:
            tall = count / total / (end - start)
            axes.bar([start], [tall], width=end - start, align="edge", color=SERIES[1], linewidth=0)


def _tell_reach(axes: Any, histogram: Histogram, left: float, right: float) -> None:
    least, greatest = histogram.limits
    for beyond, place, text, side in (
        (least < left, 0.0, f"← to {least:.4g}", "left"),
        (greatest > right, 1.0, f"to {greatest:.4g} →", "right"),
    ):
        if beyond:
            shown = text.replace("-", "\N{MINUS SIGN}")
            axes.text(place, 1.02, shown, transform=axes.transAxes, ha=side, va="bottom", fontsize=9.0, color=MUTED)


def _density(bins: Bins, total: int) -> npt.NDArray[np.float64]:
    widths = np.diff(bins.edges)
    return bins.counts / np.where(widths > 0, widths, 1.0) / total


def _total(histogram: Histogram) -> int:
    return int(histogram.bins.counts.sum()) + histogram.below + histogram.above


def _spoken(histogram: Histogram) -> str:
    unit = " of the channel's scale" if histogram.by_channel else ""
    least, greatest = histogram.limits
    low, high = histogram.span
    among = "" if histogram.elements is None else f"{len(histogram.elements):,} "
    return (
        f"{_total(histogram):,} values from {low:.4g} to {high:.4g}{unit} over {among}elements from {least:.4g} to "
        f"{greatest:.4g}; {histogram.below + histogram.above:,} saturated"
    )
