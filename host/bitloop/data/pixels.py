"""Fewer grey levels, where they are asked for: images that travel shorter, and are no longer those of the data set."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.errors import UsageError

U8 = npt.NDArray[np.uint8]

PIXEL_BITS = 8


def quantize_pixels(pixels: U8, bits: int) -> U8:
    """Round pixels to the nearest of ``2 ** bits`` levels spread evenly over 0 to 255.

    Level ``k`` is ``255 * k / (2 ** bits - 1)``, rounded to the nearest integer (none lies half-way). A pixel half-way
    between two levels becomes the darker one. 0 and 255 stay, 8 bits change nothing, and what was rounded once is not
    changed by rounding it again. This loses information: device and host simulation must both be given the result.

    Args:
        pixels: uint8 of any shape.
        bits: 1 to 8.

    Returns:
        uint8 of the same shape, an array of its own.

    Raises:
        UsageError: The bits are out of range, or the pixels are no uint8.
    """
    if not 1 <= bits <= PIXEL_BITS:
        raise UsageError(f"pixels of {bits} bits were asked for; there are 1 to {PIXEL_BITS}")
    if pixels.dtype != np.uint8:
        raise UsageError(f"pixels are {pixels.dtype}, expected uint8")
    steps = (1 << bits) - 1
    levels = np.array([(2 * 255 * k + steps) // (2 * steps) for k in range(steps + 1)])
    distances = np.abs(np.arange(256)[:, np.newaxis] - levels)
    nearest: U8 = levels[distances.argmin(axis=1)].astype(np.uint8)  # the first of equals
    return nearest[pixels]
