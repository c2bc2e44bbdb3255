"""Plots of a run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitloop.bench.record import LayerLatency, LinkShare, Ram
from bitloop.report import words
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
    thousands,
)

__all__ = ["latency_histogram", "layer_bars", "link_bar", "ram_bars"]

_BINS = 48


@styled
def latency_histogram(ticks: npt.NDArray[np.uint64], *, unit: str, median: float, p99: float) -> str:
    """Draw how often which latency was measured.

    Args:
        ticks: uint64 ``[N]``, not empty.
        unit: what a tick is.
        median: of the ticks, marked by a line.
        p99: of the ticks; what lies beyond one and a half times of it is counted in the last bar.

    Returns:
        An ``<svg>`` element.
    """
    values = ticks.astype(np.float64)
    low, high = float(values.min()), max(min(float(values.max()), 1.5 * p99), float(values.min()) + 1.0)
    counts, edges = np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))
    figure, axes = figure_axes(2.7)
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=ACCENT, linewidth=0.0)
    axes.axvline(median, color=INK, linewidth=1.2)
    room = high - low
    at_left = median - low > 0.6 * room
    axes.annotate(
        f"median {words.ticks(median)}",
        (median, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if at_left else 5, -2),
        textcoords="offset points",
        va="top",
        ha="right" if at_left else "left",
    )
    axes.set_xlabel(short(unit))
    axes.set_ylabel("images")
    axes.grid(visible=False, axis="x")
    thousands(axes.xaxis)
    thousands(axes.yaxis)
    return svg(figure, "histogram", f"Histogram of the latency of {len(values):,} images in {unit}")


@styled
def layer_bars(layers: Sequence[LayerLatency], *, unit: str) -> str:
    """Draw the median time of each operation as a bar; returns an ``<svg>`` element."""
    figure, axes = figure_axes(0.65 + 0.36 * len(layers))
    names = [short(" + ".join(layer.layers)) for layer in layers]
    positions = range(len(layers))
    medians = [layer.median for layer in layers]
    axes.barh(positions, medians, color=ACCENT, height=0.62)
    top = max(*medians, 1.0)
    for position, median in zip(positions, medians, strict=True):
        axes.annotate(words.ticks(median), (median, position), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.16 * top)
    category_axis(axes, names)
    axes.set_xlabel(f"{short(unit)}, median")
    thousands(axes.xaxis)
    return svg(figure, "layers", "Median time of each layer: " + listed(names, [words.ticks(m) for m in medians]))


@styled
def ram_bars(ram: Ram) -> str:
    """Draw the arena as predicted, by what it holds, over what was measured; returns an ``<svg>`` element."""
    figure, axes = figure_axes(1.75)
    parts = (
        ("model image", ram.arena.weights),
        ("activations", ram.arena.activations),
        ("decode table, chunk of weights" if ram.arena.chunks else "decode table", ram.arena.tables + ram.arena.chunks),
        ("image queue", ram.arena.queue),
    )
    left = 0
    for (name, length), colour in zip(parts, SERIES, strict=True):
        axes.barh(0, length, left=left, color=colour, height=0.6, label=f"{name} {words.size(length)}")
        left += length
    names = ["predicted"]
    if ram.measured is not None:
        axes.barh(1, ram.measured, color=MUTED, height=0.6)
        names.append("measured")
    category_axis(axes, names)
    axes.set_xlabel("bytes of the arena")
    thousands(axes.xaxis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9.0)
    spoken = listed([name for name, _ in parts], [words.size(length) for _, length in parts])
    measured = "not measured" if ram.measured is None else words.size(ram.measured)
    return svg(figure, "ram", f"Arena predicted: {spoken}; in all {words.size(ram.predicted)}. Measured: {measured}")


@styled
def link_bar(share: LinkShare) -> str:
    """Draw where the streaming time went; returns an ``<svg>`` element."""
    figure, axes = figure_axes(1.0)
    parts = (("line", share.line), ("queue (host)", share.queue), ("compute (device)", share.compute))
    left = 0.0
    for (name, part), colour in zip(parts, SERIES, strict=False):
        axes.barh(0, part, left=left, color=colour, height=0.6, label=f"{name} {words.share(part)}")
        left += part
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.9), ncols=3, fontsize=9.0)
    spoken = listed([name for name, _ in parts], [words.share(part) for _, part in parts])
    return svg(figure, "link", f"Share of the streaming time: {spoken}")
