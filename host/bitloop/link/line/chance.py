"""Chance that can be repeated: random numbers by counter, and where in a stream they strike.

Nothing depends on when something is asked, or in which pieces a stream comes: only on the seed, on what is drawn and
on the position.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def draw(key: int, counter: int) -> int:
    """Give 64 random bits: number ``counter`` of the sequence ``key``.

    It is SplitMix64 (G. Steele, D. Lea, C. Flood, 2014) with the key as its seed: output ``counter`` of its sequence,
    counted from 0.
    """
    z = (key + (counter + 1) * _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


def key_of(seed: int, *names: int) -> int:
    """Give the key of the sequence that ``names`` (direction, kind of fault) have under a seed."""
    key = draw(seed & _MASK, 0)
    for name in names:
        key = draw(key, name)
    return key


class Hits:
    """The positions of a stream that something strikes, each with the same probability, apart from one another.

    The gaps between them are drawn, of a geometric distribution, so that what is not struck costs nothing.

    Args:
        key: Of the sequence.
        probability: 0 to 1.
    """

    def __init__(self, key: int, probability: float) -> None:
        self._key = key
        self._probability = probability
        self._count = 0
        self._next: float = self._gap() if probability > 0 else math.inf

    def below(self, end: int) -> Iterator[int]:
        """Give the positions before ``end`` that were not given yet, ascending."""
        while self._next < end:
            position = int(self._next)
            self._next = position + 1 + self._gap()
            yield position

    def _gap(self) -> int:
        uniform = ((draw(self._key, self._count) >> 11) + 1) * 2.0**-53  # in (0, 1]
        self._count += 1
        if self._probability >= 1:
            return 0
        return int(min(math.log(uniform) / math.log1p(-self._probability), 2.0**62))
