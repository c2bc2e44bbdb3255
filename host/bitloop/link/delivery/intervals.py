"""Sets of offsets as ascending half-open intervals: what a device holds, what is missing, where copies go."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """A set of whole numbers, kept as ascending intervals of which no two touch.

    Args:
        intervals: Begin and end (exclusive) of each, in any order; they may overlap.
    """

    def __init__(self, intervals: Iterable[tuple[int, int]] = ()) -> None:
        self._begins: list[int] = []
        self._ends: list[int] = []
        for begin, end in intervals:
            self.add(begin, end)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(zip(self._begins, self._ends, strict=True))

    def __len__(self) -> int:
        """How many intervals there are."""
        return len(self._begins)

    @property
    def total(self) -> int:
        """How many numbers are in the set."""
        return sum(self._ends) - sum(self._begins)

    @property
    def prefix(self) -> int:
        """The least number, 0 or more, that is not in the set."""
        return self._ends[0] if self._begins and self._begins[0] <= 0 else 0

    @property
    def end(self) -> int:
        """One more than the greatest number of the set; 0 if it is empty."""
        return self._ends[-1] if self._ends else 0

    def copy(self) -> Intervals:
        """Give a set of its own with the same numbers."""
        copied = Intervals()
        copied._begins, copied._ends = self._begins.copy(), self._ends.copy()
        return copied

    def add(self, begin: int, end: int) -> None:
        """Put numbers in; an empty interval changes nothing."""
        if begin >= end:
            return
        first = bisect_left(self._ends, begin)
        last = bisect_right(self._begins, end)
        if first < last:
            begin, end = min(begin, self._begins[first]), max(end, self._ends[last - 1])
        self._begins[first:last], self._ends[first:last] = [begin], [end]

    def remove(self, begin: int, end: int) -> None:
        """Take numbers out."""
        if begin >= end:
            return
        first = bisect_right(self._ends, begin)
        last = bisect_left(self._begins, end)
        if first >= last:
            return
        left, right = self._begins[first], self._ends[last - 1]
        kept = [(low, high) for low, high in ((left, begin), (end, right)) if low < high]
        self._begins[first:last] = [low for low, _ in kept]
        self._ends[first:last] = [high for _, high in kept]

    def covers(self, begin: int, end: int) -> bool:
        """Tell whether all numbers of an interval are in the set; of an empty one they are."""
        at = bisect_right(self._begins, begin) - 1
        return begin >= end or (at >= 0 and end <= self._ends[at])

    def meets(self, begin: int, end: int) -> bool:
        """Tell whether an interval shares a number with the set."""
        return begin < end and bisect_right(self._ends, begin) < bisect_left(self._begins, end)

    def touches(self, begin: int, end: int) -> bool:
        """Tell whether an interval shares a number with the set, or has a neighbour in it."""
        return bisect_left(self._ends, begin) < bisect_right(self._begins, end)

    def gap_from(self, begin: int, most: int) -> tuple[int, int]:
        """Give the first stretch at or behind ``begin`` and below ``most`` that is not in the set; it may be empty."""
        at = bisect_right(self._begins, begin)
        if at and begin < self._ends[at - 1]:
            begin = self._ends[at - 1]
        end = self._begins[at] if at < len(self._begins) else most
        return begin, max(begin, min(end, most))
