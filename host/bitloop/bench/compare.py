"""The comparer: are two arrays of binary32 numbers the same bits, and if not, how far apart are they?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.spec import CANONICAL_NAN

__all__ = ["NAN_ULP", "Comparison", "bits", "compare_vectors", "ulp_distance"]

NAN_ULP = 1 << 32
"""The distance of a NaN from any number: more than that of any two numbers."""

_SIGN = np.int64(0x80000000)


def bits(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint32]:
    """Return the bit patterns of binary32 numbers, every NaN as 0x7FC00000 (docs/arithmetic.md); +0 and -0 stay apart.

    Raises:
        TypeError: if ``values`` is not float32: a conversion could hide a difference.
    """
    array = np.ascontiguousarray(values)
    if array.dtype != np.float32:
        raise TypeError(f"bits are compared of float32, not of {array.dtype}")
    patterns = array.view(np.uint32).copy()
    patterns[np.isnan(array)] = CANONICAL_NAN
    return patterns


def ulp_distance(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return how many binary32 numbers lie between each pair, one end counted.

    The numbers are taken in order from -infinity to +infinity as ordered integers (B. Dawson, 2012), but with -0 and +0
    one step apart, so that only equal bits have distance 0. Infinity is one step beyond the largest finite number.
    Two NaNs have distance 0, a NaN and a number :data:`NAN_ULP`.

    Args:
        a: float32, any shape.
        b: float32, same shape.

    Returns:
        int64, same shape.
    """
    x, y = bits(a).astype(np.int64), bits(b).astype(np.int64)
    if x.shape != y.shape:
        raise ValueError(f"shapes differ: {x.shape} and {y.shape}")
    # Sign and magnitude to an ordered integer: +0 -> 0, -0 -> -1, and outward from there.
    ordered_x = np.where(x >= _SIGN, _SIGN - 1 - x, x)
    ordered_y = np.where(y >= _SIGN, _SIGN - 1 - y, y)
    distance: npt.NDArray[np.int64] = np.abs(ordered_x - ordered_y)
    nan_x, nan_y = x == CANONICAL_NAN, y == CANONICAL_NAN
    distance[nan_x | nan_y] = NAN_ULP
    distance[nan_x & nan_y] = 0
    return distance


@dataclass(frozen=True)
class Comparison:
    """What came of comparing two stacks of vectors, ``[N, classes]``.

    Attributes:
        matching: vectors with equal bits in every element.
        total: vectors compared.
        max_ulp: greatest distance of any two elements; 0 if all match.
        failing: rows that differ, ascending.
        row_ulp: int64 ``[N]``, the greatest distance in each row.
    """

    matching: int
    total: int
    max_ulp: int
    failing: tuple[int, ...]
    row_ulp: npt.NDArray[np.int64]

    @property
    def exact(self) -> bool:
        """Whether all vectors match."""
        return self.matching == self.total


def compare_vectors(device: npt.NDArray[np.float32], host: npt.NDArray[np.float32]) -> Comparison:
    """Compare two stacks of binary32 vectors bit by bit.

    Args:
        device: float32 ``[N, M]``.
        host: float32 ``[N, M]``.

    Raises:
        ValueError: if they are not of one shape.
    """
    if device.ndim != 2 or device.shape != host.shape:
        raise ValueError(f"two stacks of vectors of one shape are compared, not {device.shape} and {host.shape}")
    differs = (bits(device) != bits(host)).any(axis=1)
    distance = ulp_distance(device, host)
    row_ulp = distance.max(axis=1) if distance.size else np.zeros(len(device), dtype=np.int64)
    failing = tuple(int(i) for i in np.flatnonzero(differs))
    return Comparison(
        matching=len(device) - len(failing),
        total=len(device),
        max_ulp=int(row_ulp.max()) if row_ulp.size else 0,
        failing=failing,
        row_ulp=row_ulp,
    )
