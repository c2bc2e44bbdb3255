"""A fake device with a rate of its own, on a line that garbles what arrives at another rate, or above its greatest.

Written from "Rate" of docs/protocol.md. Time passes in steps of a millisecond, as bytes need time to arrive and a
device has a clock.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import fake_device as fd

from bitloop.errors import TransportError

BAUD_REQUEST, BAUD_COMMIT, BAUD_READY, BAUD_DONE = 0x41, 0x42, 0xC1, 0xC2
BOOT = 115200
_STEP_S = 0.001


@dataclass
class RatedDevice(fd.FakeDevice):
    max_baud: int = 2_000_000
    has_rates: bool = True
    refuses: tuple[int, ...] = ()
    off: float = 1.0  # the rate that it says it will have, of the one it was asked for
    clock_factor: float = 1.0
    lose: dict[int, int] = field(default_factory=dict)  # answers of a type that are lost
    dies_on: int = 0  # request

    def __post_init__(self) -> None:
        self.dead = False
        self.rate = BOOT
        self.kinds: list[int] = []
        super().__post_init__()

    def reset(self, *, first: bool = False) -> None:
        super().reset(first=first)
        self.change(BOOT)
        self.pending = bytearray()
        self.dead = False
        self.polled = 0.0

    def change(self, rate: int) -> None:
        self.rate, self.committed = rate, False
        self.good_frame()

    def good_frame(self) -> None:
        self.silent_s = self.noise_s = 0.0
        self.noisy = False

    def receive(self, data: bytes, now: float) -> None:
        super().receive(data, now)
        self.noisy = True

    def poll(self, now: float) -> None:
        passed = (now - self.polled) * self.clock_factor
        self.polled = now
        if self.dead:
            return
        if now >= self.busy_until:
            self.silent_s += passed
            self.noise_s += passed if self.noisy else 0.0
        super().poll(now)
        lost = self.silent_s >= 1.0 if not self.committed else self.silent_s >= 10.0 or self.noise_s >= 2.0
        if self.rate != BOOT and lost:
            self.change(BOOT)
            self.pending = bytearray()

    def handle(self, kind: int, sequence: int, session: int, body: bytes) -> None:
        self.kinds.append(kind)
        self.good_frame()
        if self.dies_on and kind == self.dies_on:
            self.dead = True
        elif kind == BAUD_REQUEST and self.has_rates:
            (rate,) = struct.unpack("<I", body)
            if rate > self.max_baud or rate in self.refuses:
                self.error(kind, sequence, fd.BAD_ARGUMENT)
            else:
                self.send(BAUD_READY, sequence, struct.pack("<I", round(rate * self.off)))
                self.change(rate)
        elif kind == BAUD_COMMIT and self.has_rates:
            if body == struct.pack("<I", self.rate):
                self.committed = True
                self.send(BAUD_DONE, sequence, body)
            else:
                self.error(kind, sequence, fd.BAD_STATE)
        else:
            super().handle(kind, sequence, session, body)

    def on_hello(self, sequence: int, body: bytes) -> None:
        self.extra_hello = [(28, struct.pack("<II", self.rate, self.max_baud))] if self.has_rates else []
        super().on_hello(sequence, body)

    def send(self, kind: int, sequence: int, body: bytes) -> None:
        if self.lose.get(kind):
            self.lose[kind] -= 1
            return
        super().send(kind, sequence, body)
        self.out[-1] = (self.rate, self.out[-1])


class RatedTransport(fd.FakeTransport):
    """A line with a delay, and a greatest rate at which each direction is clean; a host's port at its own rate."""

    def __init__(self, device, *, clean_up=1 << 30, clean_down=1 << 30, delay_s=0.002, seed=0, baud=BOOT) -> None:
        super().__init__(device, seed=seed)
        self.clean_up, self.clean_down, self.delay_s = clean_up, clean_down, delay_s
        self.noise = random.Random(seed)
        self.first_baud = self.baud = baud
        self.port_refuses: tuple[int, ...] = ()
        self.changes: list[int] = []
        self.written = b""
        self.up: list[tuple[float, int, bytes]] = []
        self.down: list[tuple[float, int, bytes]] = []
        self.inbox = b""

    def set_baud(self, baud: int) -> None:
        if baud in self.port_refuses:
            raise TransportError(f"the port cannot be set to {baud} baud")
        self.turn()
        self.baud = baud
        self.changes.append(baud)

    def reopen(self) -> None:
        self.baud = self.first_baud

    def write(self, data: bytes) -> None:
        self.written += data
        self.up.append((self.now + self.delay_s, self.baud, data))

    def read(self, timeout_s: float) -> bytes:
        end = self.now + timeout_s
        while True:
            self.turn()
            if self.inbox:
                data, self.inbox = self.inbox, b""
                self.now += 0.0002
                return data
            if self.now >= end:
                self.now += 0.0001
                return b""
            self.now = min(self.now + _STEP_S, end)

    def turn(self) -> None:
        """Let happen what is due now."""
        for _, rate, data in [entry for entry in self.up if entry[0] <= self.now]:
            carried = self._disturb(self.carry(data, rate, self.device.rate, self.clean_up))
            if carried and not self.silent:
                self.device.receive(carried, self.now)
        self.up = [entry for entry in self.up if entry[0] > self.now]
        self.device.poll(self.now)
        for entry in self.device.out:
            rate, data = entry if isinstance(entry, tuple) else (self.device.rate, entry)
            self.down.append((self.now + self.delay_s, rate, data))
        self.device.out = []
        for _, rate, data in [entry for entry in self.down if entry[0] <= self.now]:
            if not self.silent:
                self.inbox += self._disturb(self.carry(data, rate, self.baud, self.clean_down))
        self.down = [entry for entry in self.down if entry[0] > self.now]

    def wait(self, seconds: float) -> None:
        """Let time pass in which the host does nothing."""
        end = self.now + seconds
        while self.now < end:
            self.turn()
            self.now += _STEP_S

    def carry(self, data: bytes, sent: int, received: int, clean: int) -> bytes:
        if sent != received and self.first_baud:
            return self.noise.randbytes(max(1, len(data) * received // sent) if received < 1 << 24 else 1)
        if sent > clean:
            return bytes(byte ^ (1 << self.noise.randrange(8) if self.noise.random() < 0.05 else 0) for byte in data)
        return data
