"""One direction of a line in time: when each byte leaves the sender, and when it is at the receiver.

Times are computed, not measured: byte after byte leaves as the line's rate has it, however late the thread is that
moves them. So the rate is exact in the long run, and whoever comes late finds all that is due.
"""

from __future__ import annotations

import math
import re
from collections import deque
from dataclasses import dataclass

from bitloop.link.line.chance import draw

BITS_PER_BYTE = 10
_LONGEST_PIECE_S = 0.005
_NO_ZERO = re.compile(rb"[^\0]")
_ROUNDING = 1e-6  # of a byte: a byte is there at its time, though the division says a hair less


@dataclass
class _Burst:
    """Bytes that follow each other without a pause, up to the end of a frame at most.

    ``base_s`` is when the first would be there but for its own length.
    """

    data: bytes
    baud: int
    byte_s: float
    base_s: float
    taken: int = 0

    def arrival_s(self, index: int) -> float:
        """Give when a byte is there, whole."""
        return self.base_s + (index + 1) * self.byte_s

    def arrived(self, now: float) -> int:
        """Give how many of the bytes are there."""
        if self.byte_s == 0:
            return len(self.data) if now >= self.base_s else self.taken
        count = int((now - self.base_s) / self.byte_s + _ROUNDING)
        return max(self.taken, min(count, len(self.data)))


def _frame_end(data: bytes, start: int) -> int:
    """Give the end of what begins at ``start``: behind the zero bytes behind a frame, or with the data."""
    zero = data.find(b"\0", start)
    if zero < 0:
        return len(data)
    match = _NO_ZERO.search(data, zero)
    return match.start() if match else len(data)


class PacedLine:
    """A line of one direction.

    Args:
        delay_s: From leaving to arriving.
        jitter_s: Most delay beyond that, anew for each frame; bytes are never reordered.
        key: Of the sequence of random numbers for the jitter.
    """

    def __init__(self, delay_s: float = 0.0, jitter_s: float = 0.0, key: int = 0) -> None:
        self._delay_s = delay_s
        self._jitter_s = jitter_s
        self._key = key
        self._bursts: deque[_Burst] = deque()
        self._burst_number = 0
        self._ends_frame = False
        self._free_at = -math.inf
        self._byte_s = 0.0
        self.queued_bytes = 0
        """Bytes put and not yet taken."""

    def put(self, data: bytes, now: float, baud: int, *, is_paced: bool = True) -> None:
        """Take bytes from the sender, at time ``now``; they leave when those before them have left.

        Args:
            data: The bytes.
            now: Seconds; never less than before.
            baud: The sender's rate, in bits a second.
            is_paced: Whether they take their time; else all are under way at once.
        """
        byte_s = BITS_PER_BYTE / baud if is_paced else 0.0
        start = 0
        while start < len(data):
            end = _frame_end(data, start)
            if self._ends_frame and data[start]:
                self._burst_number += 1
            self._ends_frame = not data[end - 1]
            begins_at = max(self._free_at, now)
            self._free_at = begins_at + (end - start) * byte_s
            jitter_s = self._jitter_s * (draw(self._key, self._burst_number) / 2.0**64) if self._jitter_s else 0.0
            self._bursts.append(_Burst(data[start:end], baud, byte_s, begins_at + self._delay_s + jitter_s))
            start = end
        self._byte_s = byte_s
        self.queued_bytes += len(data)

    def take(self, now: float) -> list[tuple[bytes, int]]:
        """Give the bytes that are there by now and were not taken yet, each piece with the rate it was sent at.

        Before :meth:`next_at` there are none: a receiver of frames has no use for a few bytes more of one, and handing
        them over each on its own would cost more than all the rest.
        """
        pieces: list[tuple[bytearray, int]] = []
        if now < self.next_at():
            return []
        while self._bursts:
            burst = self._bursts[0]  # those behind it wait for it, even with less jitter: nothing overtakes
            arrived = burst.arrived(now)
            if arrived > burst.taken:
                data = burst.data[burst.taken : arrived]
                if pieces and pieces[-1][1] == burst.baud:
                    pieces[-1][0].extend(data)
                else:
                    pieces.append((bytearray(data), burst.baud))
                self.queued_bytes -= len(data)
                burst.taken = arrived
            if arrived < len(burst.data):
                break
            self._bursts.popleft()
        return [(bytes(data), baud) for data, baud in pieces]

    def next_at(self) -> float:
        """Give when it is worth to take again: a burst is whole, or some of a long one are there; never: infinity."""
        if not self._bursts:
            return math.inf
        burst = self._bursts[0]
        return min(burst.arrival_s(len(burst.data) - 1), burst.arrival_s(burst.taken) + _LONGEST_PIECE_S)

    def waiting_bytes(self, now: float) -> int:
        """Give how many bytes have not left the sender yet."""
        if self._byte_s == 0 or self._free_at <= now:
            return 0
        return math.ceil((self._free_at - now) / self._byte_s - _ROUNDING)

    def waiting_until(self, count: int) -> float:
        """Give when no more than ``count`` bytes have not left yet."""
        return self._free_at - count * self._byte_s

    def clear(self) -> None:
        """Lose what is under way; the line is free at once."""
        self._bursts.clear()
        self.queued_bytes = 0
        self._free_at = -math.inf
