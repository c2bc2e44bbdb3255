"""Numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitloop.bench.metrics import Proportion
    from bitloop.bench.record import Interruption, LinkFigures, Placement, Ram

__all__ = [
    "build",
    "count",
    "interruption",
    "interval",
    "line",
    "percent",
    "placement",
    "rate",
    "seconds",
    "share",
    "size",
    "stack",
    "ticks",
]


def count(value: int) -> str:
    """Return a whole number with its thousands apart."""
    return f"{value:,}"


def percent(value: float, *, total: int | None = None) -> str:
    """Return a share in percent, with no more digits than ``total`` trials carry."""
    digits = 2 if total is None or total >= 1000 else 1
    return f"{100 * value:.{digits}f} %"


def interval(proportion: Proportion) -> str:
    """Return the 95 % interval of a proportion in percent."""
    digits = 2 if proportion.total >= 1000 else 1
    return f"{100 * proportion.low:.{digits}f}–{100 * proportion.high:.{digits}f} %"


def size(value: int | None) -> str:
    """Return bytes, in bytes up to 9,999 and in KiB or MiB from there on; an unknown size is a dash."""
    if value is None:
        return "–"
    if value < 10_000:
        return f"{value:,} B"
    if value < 10 * 1024 * 1024:
        return f"{value / 1024:,.1f} KiB"
    return f"{value / 1024 / 1024:,.1f} MiB"


def placement(where: Placement) -> str:
    """Say where the weights of a run were, and what of them travelled."""
    if where.kind == "resident":
        return f"resident; up to {where.batch:,} images on the device"
    traced = f"; {size(where.traced_bytes)} more to compare layers" if where.traced_bytes else ""
    return (
        f"streamed: {where.batch_bytes:,} B a batch of {where.batch:,}, {where.image_bytes:,.0f} B an image; "
        f"{size(where.streamed_bytes)} on the line{traced}"
    )


def stack(ram: Ram) -> str:
    """Say how much stack a run took, and how much it can take at most."""
    peak = ram.stack_note or "" if ram.stack_peak is None else f"peak {ram.stack_peak:,} B"
    bound = None if ram.build is None else ram.build.stack_bound
    return peak if bound is None else f"{peak}; at most {bound:,} B by the build"


def interruption(broken: Interruption) -> str:
    """Say when a run broke off, why, and how it went on."""
    how = "resumed" if broken.resumed else "reached again"
    boots = ""
    before, after = broken.boot_count_before, broken.boot_count_after
    if before is not None and after is not None and before != after:
        boots = f", the device's start {before:,} → {after:,}"
    return f"after {broken.images:,} images: {broken.reason} ({how} after {seconds(broken.seconds)}{boots})"


def line(link: LinkFigures) -> str:
    """Say at which rate and how compressed things travelled, and what of the model did not have to."""
    parts = [f"{link.baud:,} baud"] if link.baud else []
    parts += link.codings
    if link.copied_bytes:
        parts.append(f"{size(link.copied_bytes)} of the model taken over on the device")
    return "; ".join(parts)


def build(ram: Ram) -> str:
    """Say what the firmware's build says of its memory, or why it is not known."""
    known = ram.build
    if known is None:
        return f"not known: {ram.build_note}"
    stack = known.stack_note if known.stack_bound is None else f"at most {known.stack_bound:,} B"
    return (
        f"static {known.static:,} B, arena {known.arena:,} B, flash {known.flash:,} B; stack {stack} "
        f"of {known.stack:,} B reserved"
    )


def rate(images_per_second: float) -> str:
    """Return images a second: whole from 10 on, else with two digits that count."""
    return f"{images_per_second:,.0f}" if images_per_second >= 10 else f"{images_per_second:.2g}"


def ticks(value: float) -> str:
    """Return a number of ticks: whole from 100 on, else with a digit behind the point."""
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:,.1f}"


def seconds(value: float) -> str:
    """Return a duration."""
    if value < 0.1:
        return f"{1000 * value:.1f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s"


def share(value: float) -> str:
    """Return a share of a whole in percent."""
    return f"{100 * value:.0f} %"
