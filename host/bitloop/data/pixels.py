"""Pixels in fewer levels, for a line that is short of bytes: lossy, and only where it is asked for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FULL_BITS = 8
"""Bits of a pixel as data sets have them."""


def quantize_pixels(pixels: npt.NDArray[np.uint8], bits: int) -> npt.NDArray[np.uint8]:
    """Return pixels in ``2 ** bits`` levels, evenly spaced from 0 to 255, each the one nearest to it.

    The level of ``p`` is ``round(p · (2^bits − 1) / 255)``, a tie going up; 0 and 255 stay what they are.

    Args:
        pixels: uint8, any shape.
        bits: 1 to 8; 8 changes nothing.

    Raises:
        ValueError: ``bits`` is something else.
    """
    if not 1 <= bits <= FULL_BITS:
        raise ValueError(f"pixels of {bits} bits; 1 to {FULL_BITS} make sense")
    steps = (1 << bits) - 1
    levels = (2 * np.arange(256) * steps + 255) // 510
    table = ((2 * levels * 255 + steps) // (2 * steps)).astype(np.uint8)
    return table[pixels]
