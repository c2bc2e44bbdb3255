"""How long a USB adapter keeps bytes back: FTDI's hold a few up to 16 ms, unless they are told not to."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

DEVICES = Path("/sys/bus/usb-serial/devices")
_BEST_MS = 1


def lower_latency(port: Any, name: str) -> None:
    """Have an adapter hand over what it receives within 1 ms, where it has such a setting and may be told.

    Never fails: it logs what it found and did. Linux only; on Windows the setting is in the device manager.

    Args:
        port: The open pyserial object.
        name: The port's name.
    """
    if not sys.platform.startswith("linux"):
        return
    timer = DEVICES / Path(os.path.realpath(name)).name / "latency_timer"
    before = _read_ms(timer)
    if before is None or before <= _BEST_MS:
        if before is not None:
            logger.info("%s: latency timer is %d ms", name, before)
        return
    try:
        timer.write_text(f"{_BEST_MS}\n")
    except OSError as error:
        logger.debug("%s cannot be written: %s", timer, error)
        try:
            port.set_low_latency_mode(True)  # its driver sets the timer then; needs no right to the file
        except (AttributeError, OSError, ValueError) as second:
            logger.debug("%s takes no low latency mode: %s", name, second)
    after = _read_ms(timer)
    if after is not None and after < before:
        logger.info("%s: latency timer changed from %d to %d ms", name, before, after)
    else:
        logger.info(
            "%s: latency timer is %d ms, and may not be changed; each answer may take so much longer "
            "(echo 1 | sudo tee %s)",
            name,
            before,
            timer,
        )


def _read_ms(timer: Path) -> int | None:
    try:
        return int(timer.read_text())
    except (OSError, ValueError):
        return None
