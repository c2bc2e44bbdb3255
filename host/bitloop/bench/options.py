"""How a run is done: the options that make it what it is, and those of the line, which change no result."""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.data.pixels import PIXEL_BITS
from bitloop.errors import UsageError
from bitloop.link.channel import Timing
from bitloop.link.transport import DEFAULT_BAUD
from bitloop.plan.planner import PLACEMENTS, PlacementKind
from bitloop.spec import RunMode

__all__ = ["MODES", "PLACEMENT_KINDS", "LineOptions", "RunOptions", "check_options", "reconnect_seconds"]

MODES = {"timing": RunMode.TIMING, "throughput": RunMode.THROUGHPUT}
PLACEMENT_KINDS: dict[str, PlacementKind] = {kind: kind for kind in PLACEMENTS}

MAX_BAUD = 921_600
"""What every adapter of the last twenty years can do. Some can do more: ask for it."""
RECONNECT_S = 10.0
"""How long a device is waited for that was lost in mid-run: time to put a cable back."""
RECONNECT_PROCESS_S = 3.0
"""The same for a device that is a process of this machine, which no one has to plug in."""


@dataclass(frozen=True, kw_only=True)
class LineOptions:
    """How the line to the device is used. None of it changes a result, so that a run may be resumed with others.

    Attributes:
        baud: of a serial port.
        max_baud: the most bits a second that the line may be brought to; 0 leaves its rate alone.
        coded: whether pixels and weights travel compressed, without loss, where the device decodes that and it is
            shorter.
        timing: how long to wait for what; None for the link's defaults.
        reconnect_s: how long a device that was lost in mid-run (reset, cable) is waited for; 0: not at all; None: 10 s,
            or 3 s where it is a process of this machine. One that has ended by itself is an error at once.
    """

    baud: int = DEFAULT_BAUD
    max_baud: int = MAX_BAUD
    coded: bool = True
    timing: Timing | None = None
    reconnect_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class RunOptions(LineOptions):
    """How a run is done.

    Attributes:
        mode: "timing": nothing crosses the line while an image is computed; "throughput": line and computing overlap.
        per_layer: whether each layer is timed too, where the device can.
        warm_up_images: run before the first that counts, from the front of the same images.
        audit_images: of a run whose logits all agree, so many first images are run again and *every* layer's output is
            compared: an error that no logit shows is found too.
        slots: images the device shall hold at once (a batch, if weights are streamed), or None for as many as are
            useful and fit.
        placement: "resident": all weights are on the device, or the run is refused; "stream": those of every layer
            travel with each batch of images; "auto": weights do where they do not fit.
        pixel_bits: device and host simulation get pixels of so many bits, 1 to 8; None leaves them as they are.
        force: whether an earlier run in the directory is replaced.
        command: what started the run, for its record.
    """

    mode: str = "timing"
    per_layer: bool = True
    warm_up_images: int = 8
    audit_images: int = 1
    slots: int | None = None
    placement: str = "auto"
    pixel_bits: int | None = None
    force: bool = False
    command: str = ""


def check_options(options: RunOptions) -> None:
    """See that options make sense together.

    Raises:
        UsageError: they do not.
    """
    if options.mode not in MODES:
        raise UsageError(f"unknown mode {options.mode!r}; there are {', '.join(MODES)}")
    if options.placement not in PLACEMENT_KINDS:
        raise UsageError(f"unknown placement {options.placement!r}; there are {', '.join(PLACEMENT_KINDS)}")
    if options.mode != "timing" and options.placement == "stream":
        raise UsageError("streamed weights run in timing mode; take --mode timing, or another placement")
    if options.warm_up_images < 0:
        raise UsageError(f"{options.warm_up_images} images make no warm-up; 0 leaves it out")
    if options.audit_images < 0:
        raise UsageError(f"{options.audit_images} images make no audit; 0 leaves it out")
    if options.pixel_bits is not None and not 1 <= options.pixel_bits <= PIXEL_BITS:
        raise UsageError(f"pixels of {options.pixel_bits} bits make no sense; 1 to {PIXEL_BITS} do")
    check_line(options)


def check_line(options: LineOptions) -> None:
    """See that options of the line make sense.

    Raises:
        UsageError: they do not.
    """
    if options.max_baud < 0:
        raise UsageError(f"a line of at most {options.max_baud} bits a second makes no sense; 0 leaves its rate alone")
    if options.reconnect_s is not None and not 0 <= options.reconnect_s < float("inf"):
        raise UsageError(f"{options.reconnect_s} seconds to reconnect make no sense; 0 never tries it")


def reconnect_seconds(options: LineOptions, device_url: str) -> float:
    """Return how long a lost device is waited for."""
    if options.reconnect_s is not None:
        return options.reconnect_s
    return RECONNECT_PROCESS_S if device_url.lower().startswith(("sim://", "qemu://")) else RECONNECT_S
