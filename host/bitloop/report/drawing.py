"""How every plot is drawn: inline SVG whose colours are the page's own, so that they follow its light or dark theme."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

__all__ = [
    "ACCENT",
    "GRID",
    "INK",
    "MUTED",
    "SERIES",
    "WIDTH",
    "category_axis",
    "figure_axes",
    "listed",
    "short",
    "styled",
    "svg",
    "thousands",
]

# Placeholders that matplotlib draws with; each becomes a variable of the style sheet.
INK, MUTED, GRID, ACCENT = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#050505", "#060606", "#070707", "#080808")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    ACCENT: "--accent",
    SERIES[0]: "--series-1",
    SERIES[1]: "--series-2",
    SERIES[2]: "--series-3",
    SERIES[3]: "--series-4",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "bitloop",
    "font.family": "sans-serif",
    "font.size": 10.0,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "legend.frameon": False,
    "text.parse_math": False,
}
WIDTH = 7.2
_MAX_TEXT = 48
P = ParamSpec("P")


def styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw with this module's settings of matplotlib, whatever the user's are, and leave those alone."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> str:
        import matplotlib as mpl  # noqa: PLC0415 - as below

        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(_STYLE)
            return draw(*args, **kwargs)

    return drawn


def figure_axes(height: float) -> tuple[Any, Any]:
    """Return a figure as wide as the page, ``height`` inches high, and its axes."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes half a second, which only a report should cost

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def short(text: str) -> str:
    """Cut a text that would leave no room for the drawing."""
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 1]}…"


def category_axis(axes: Any, names: Sequence[str]) -> None:
    """Let the vertical axis name what is drawn, from the top down."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def thousands(axis: Any) -> None:
    """Label an axis with few whole numbers, their thousands apart."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415 - as above

    axis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def listed(names: Sequence[str], values: Sequence[str]) -> str:
    """Say names with their values, for those who do not see the drawing."""
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True))


def svg(figure: Any, name: str, label: str) -> str:
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
