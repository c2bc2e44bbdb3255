"""Plots as inline SVG whose colours are the page's own, so that they follow its light or dark theme."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from bitloop.bench.record import LayerLatency, LinkShare, Ram
from bitloop.report import words

__all__ = ["latency_histogram", "layer_bars", "link_bar", "ram_bars"]

# Placeholders that matplotlib draws with; each becomes a variable of the style sheet.
_INK, _MUTED, _GRID, _ACCENT = "#010101", "#020202", "#030303", "#040404"
_SERIES = ("#050505", "#060606", "#070707", "#080808")
_VARIABLES = {
    _INK: "--ink",
    _MUTED: "--muted",
    _GRID: "--grid",
    _ACCENT: "--accent",
    _SERIES[0]: "--series-1",
    _SERIES[1]: "--series-2",
    _SERIES[2]: "--series-3",
    _SERIES[3]: "--series-4",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bitloop",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "text.parse_math": False,
}
_WIDTH = 7.2
_BINS = 48
_MAX_TEXT = 48
P = ParamSpec("P")


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw with this module's settings of matplotlib, whatever the user's are, and leave those alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl  # noqa: PLC0415 - as below

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn


@_styled
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
    figure, axes = _axes(2.7)
    axes.bar(edges[:-1], counts, width=np.diff(edges), align="edge", color=_ACCENT, linewidth=0.0)
    axes.axvline(median, color=_INK, linewidth=1.2)
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
    axes.set_xlabel(_short(unit))
    axes.set_ylabel("images")
    axes.grid(visible=False, axis="x")
    _thousands(axes.xaxis)
    _thousands(axes.yaxis)
    return _svg(figure, "histogram", f"Histogram of the latency of {len(values):,} images in {unit}")


@_styled
def layer_bars(layers: Sequence[LayerLatency], *, unit: str) -> str:
    """Draw the median time of each operation as a bar; returns an ``<svg>`` element."""
    figure, axes = _axes(0.65 + 0.36 * len(layers))
    names = [_short(" + ".join(layer.layers)) for layer in layers]
    positions = range(len(layers))
    medians = [layer.median for layer in layers]
    axes.barh(positions, medians, color=_ACCENT, height=0.62)
    top = max(*medians, 1.0)
    for position, median in zip(positions, medians, strict=True):
        axes.annotate(words.ticks(median), (median, position), xytext=(4, 0), textcoords="offset points", va="center")
    axes.set_xlim(0, 1.16 * top)
    _category_axis(axes, names)
    axes.set_xlabel(f"{_short(unit)}, median")
    _thousands(axes.xaxis)
    return _svg(figure, "layers", "Median time of each layer: " + _listed(names, [words.ticks(m) for m in medians]))


@_styled
def ram_bars(ram: Ram) -> str:
    """Draw the arena as predicted, by what it holds, over what was measured; returns an ``<svg>`` element."""
    figure, axes = _axes(1.75)
    parts = (
        ("model image", ram.arena.weights),
        ("activations", ram.arena.activations),
        ("decode table, chunk of weights" if ram.arena.chunks else "decode table", ram.arena.tables + ram.arena.chunks),
        ("image queue", ram.arena.queue),
    )
    left = 0
    for (name, length), colour in zip(parts, _SERIES, strict=True):
        axes.barh(0, length, left=left, color=colour, height=0.6, label=f"{name} {words.size(length)}")
        left += length
    names = ["predicted"]
    if ram.measured is not None:
        axes.barh(1, ram.measured, color=_MUTED, height=0.6)
        names.append("measured")
    _category_axis(axes, names)
    axes.set_xlabel("bytes of the arena")
    _thousands(axes.xaxis)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=9.0)
    spoken = _listed([name for name, _ in parts], [words.size(length) for _, length in parts])
    measured = "not measured" if ram.measured is None else words.size(ram.measured)
    return _svg(figure, "ram", f"Arena predicted: {spoken}; in all {words.size(ram.predicted)}. Measured: {measured}")


@_styled
def link_bar(share: LinkShare) -> str:
    """Draw where the streaming time went; returns an ``<svg>`` element."""
    figure, axes = _axes(1.0)
    parts = (("line", share.line), ("queue (host)", share.queue), ("compute (device)", share.compute))
    left = 0.0
    for (name, part), colour in zip(parts, _SERIES, strict=False):
        axes.barh(0, part, left=left, color=colour, height=0.6, label=f"{name} {words.share(part)}")
        left += part
    axes.set_xlim(0, 1)
    axes.set_axis_off()
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 0.9), ncols=3, fontsize=9.0)
    spoken = _listed([name for name, _ in parts], [words.share(part) for _, part in parts])
    return _svg(figure, "link", f"Share of the streaming time: {spoken}")


def _axes(height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, which only a report should cost

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _short(text: str) -> str:
    """Cut a text that would leave no room for the drawing."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def _category_axis(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _thousands(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _listed(names: Sequence[str], values: Sequence[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def _svg(figure: Any, name: str, label: str) -> str:
    """Render a figure as an element that may stand in a page: no prolog, ids of its own, the page's colours."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    text = re.sub(
        r"font(-family)?: ([\d.]+px )?[^;\"]*sans-serif", lambda m: f"font-size: {m[2].strip()}" if m[2] else "", text
    )
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    head, rest = text.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_escape(label)}">{rest}'


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
