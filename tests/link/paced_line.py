"""A line with a rate, a delay and bit errors, in time of its own: what a share of the line's rate is measured on.

Each direction carries one frame behind another, ten bits a byte; half of the round trip is added to each.
"""

import heapq

import numpy as np

_HOST_S = 1e-4  # what a host takes to look


class PacedLine:
    """A bitloop transport to a fake device."""

    description = "paced://device"

    def __init__(self, device, *, baud=921600, rtt_s=0.001, bit_errors=0.0, seed=0):
        self.device = device
        self.baud = baud
        self.now = 0.0
        self._byte_s = 10 / baud
        self._delay_s = rtt_s / 2
        self._bit_errors = bit_errors
        self._random = np.random.default_rng(seed)
        self._free_at = {"up": 0.0, "down": 0.0}
        self._events = []
        self._number = 0
        self._inbox = b""
        self.busy_s = {"up": 0.0, "down": 0.0}

    def clock(self):
        return self.now

    def close(self):
        pass

    def write(self, data):
        self._carry("up", data)

    def read(self, timeout_s):
        end = self.now + max(timeout_s, 0.0)
        self._turn()
        while not self._inbox:
            times = [event[0] for event in self._events[:1]]
            if self.now < self.device.busy_until:
                times.append(self.device.busy_until)
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            self._turn()
        if not self._inbox:
            self.now = max(self.now, end)
        data, self._inbox = self._inbox, b""
        self.now += _HOST_S
        return data

    def _turn(self):
        """Hand over what has arrived, and let the device work."""
        while self._events and self._events[0][0] <= self.now:
            _, _, direction, data = heapq.heappop(self._events)
            if direction == "up":
                self.device.receive(data, self.now)
                self._poll()
            else:
                self._inbox += data
        self._poll()

    def _poll(self):
        self.device.poll(self.now)
        out, self.device.out = self.device.out, []
        for data in out:
            self._carry("down", data.lstrip(b"\0"))

    def _carry(self, direction, data):
        for frame in data.split(b"\0")[: -1 if data.endswith(b"\0") else None]:
            if not frame:
                continue
            size = len(frame) + 1
            begin = max(self._free_at[direction], self.now)
            self._free_at[direction] = begin + size * self._byte_s
            self.busy_s[direction] += size * self._byte_s
            self._number += 1
            arrives_at = self._free_at[direction] + self._delay_s
            heapq.heappush(self._events, (arrives_at, self._number, direction, self._damaged(frame + b"\0")))

    def _damaged(self, data):
        flips = self._random.binomial(8 * len(data), self._bit_errors) if self._bit_errors else 0
        damaged = bytearray(data)
        for _ in range(flips):
            bit = int(self._random.integers(8 * len(data)))
            damaged[bit // 8] ^= 1 << bit % 8
        return bytes(damaged)
