"""What commands that talk to devices share: how long to wait, what a device says, how it is measured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from bitloop.cli import console

if TYPE_CHECKING:
    from bitloop.link.channel import Timing
    from bitloop.study.device import DeviceOptions

__all__ = ["device_options", "say_log", "say_raw", "timing_of"]


def timing_of(timeout: float | None) -> Timing | None:
    """Return how long to wait for what."""
    from bitloop.link.channel import Timing  # noqa: PLC0415 - numpy

    return None if timeout is None else Timing(timeout, timeout, timeout)


def say_log(_: int, text: str) -> None:
    """Show a line that the device logs."""
    console.say(f"device: {text}")


def say_raw(data: bytes) -> None:
    """Show what the device sends outside of frames."""
    from bitloop.hello import printable  # noqa: PLC0415 - numpy

    console.say(f"device, no frame: {printable(data.strip())}")


def device_options(
    url: str | None,
    images: int,
    *,
    baud: int,
    max_baud: int,
    timeout: float | None = None,
    with_latency: bool = True,
) -> DeviceOptions | None:
    """Return how MODELs are measured on a device; None without one.

    Args:
        url: of the device.
        images: of each MODEL that it runs.
        baud: of a serial port.
        max_baud: the most that the line may be brought to.
        timeout: seconds of silence that are put up with; None is the link's own.
        with_latency: whether latencies are asked for, so that it takes a warm-up.
    """
    if url is None:
        return None
    from bitloop.bench.options import RunOptions  # noqa: PLC0415 - numpy
    from bitloop.study.device import DeviceOptions  # noqa: PLC0415 - numpy

    run = RunOptions(
        per_layer=False, baud=baud, max_baud=max_baud, timing=timing_of(timeout), command=console.command_line()
    )
    return DeviceOptions(
        url=url,
        images=images,
        run=run if with_latency else replace(run, warm_up_images=0),
        on_log=say_log,
        on_raw=say_raw,
    )
