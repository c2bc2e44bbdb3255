"""Rounding modes, and the counter-based random bits of stochastic rounding (docs/arithmetic.md)."""

from __future__ import annotations

from enum import Enum

import numpy as np
import numpy.typing as npt


class Rounding(str, Enum):
    """How a value between two elements of a format is brought to one of them."""

    NEAREST = "nearest"
    NEAREST_AWAY = "nearest_away"
    TOWARD_ZERO = "toward_zero"
    AWAY = "away"
    STOCHASTIC = "stochastic"


def stochastic_bits(index: npt.ArrayLike, seed: int) -> npt.NDArray[np.uint32]:
    """Return one uniform 32-bit number per element.

    Args:
        index: element numbers in row-major order, 0 to 2^32 - 1, any shape.
        seed: 32 bits.

    Returns:
        uint32 array of the shape of ``index``: MurmurHash3's finalizer (A. Appleby, public domain) over a Weyl
        sequence.
    """
    n = np.asarray(index, dtype=np.uint64)
    mask = np.uint64(0xFFFFFFFF)
    start = np.uint64((seed * 0x85EBCA77 + 0xC2B2AE3D) & 0xFFFFFFFF)
    h = (n * np.uint64(0x9E3779B1) + start) & mask
    h = ((h ^ (h >> np.uint64(16))) * np.uint64(0x85EBCA6B)) & mask
    h = ((h ^ (h >> np.uint64(13))) * np.uint64(0xC2B2AE35)) & mask
    return (h ^ (h >> np.uint64(16))).astype(np.uint32)
