"""A transport whose line has a rate, a delay and faults: another transport behind a line that a thread plays."""

from __future__ import annotations

import contextlib
import logging
import math
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from bitloop.errors import DeviceTimeoutError, LinkError, PortError, TransportError
from bitloop.link.line.faults import ByteFaults, FrameFaults, jitter_key
from bitloop.link.line.moments import Moments
from bitloop.link.line.options import Direction, LineOptions
from bitloop.link.line.pacing import PacedLine
from bitloop.link.line.uart import garble
from bitloop.link.transport import Transport
from bitloop.link.urls.emulation import Emulation

logger = logging.getLogger(__name__)

BUFFER_BYTES = 4096
"""What may wait for the line on the host's side, as in a serial port's driver; a write waits for room."""

_WRITE_AGAIN_BYTES = BUFFER_BYTES // 2
_MOST_QUEUED_BYTES = 1 << 20  # where the device takes bytes more slowly than the line carries them
_POLL_S = 0.002  # for ports that select cannot wait for
_LONGEST_SLEEP_S = 60.0
_JOIN_S = 15.0  # more than a write to the port may take


class ShapedTransport:
    """A transport behind a line that is played: paced, late, faulty.

    Args:
        inner: The transport to the device, open; it is closed with this one.
        options: How the line behaves.
        url: What the whole is called.
        write_timeout_s: How long the other side may take nothing at all.

    Raises:
        PortError: ``baud=auto``, and the port does not tell its device's rate.
    """

    def __init__(self, inner: Transport, options: LineOptions, *, url: str, write_timeout_s: float = 10.0) -> None:
        self.line = options
        self._inner = inner
        self._url = url
        self._write_timeout_s = write_timeout_s
        self._first_baud = inner.baud
        self._device_baud: Callable[[], int] | None = None
        if options.real_rates:
            if getattr(self.port, "device_baud", None) is None:
                inner.close()
                raise PortError(
                    f"{url}: with baud=auto the port must tell its device's rate, and this one cannot; sim://native "
                    "can: for others name a rate, such as baud=921600"
                )
            self._device_baud = lambda: int(self.port.device_baud)
        self._baud_there = 0
        self._faults = [ByteFaults(options, direction) for direction in Direction]
        self._frames = [FrameFaults(options, direction) for direction in Direction]
        self._lines = [
            PacedLine(options.rtt_s / 2, options.jitter_s, jitter_key(options.seed, direction))
            for direction in Direction
        ]
        self._moments = Moments(options)
        self._state = threading.Condition()
        self._arrived = bytearray()
        self._error: LinkError | None = None
        self._is_handing_over = False
        self._is_closing = False
        self._wakes_at = math.inf
        self._wake: tuple[socket.socket, socket.socket] | None = None
        self._thread: threading.Thread | None = None
        self._start()

    @property
    def description(self) -> str:
        """The whole URL, with the line's options."""
        return self._url

    @property
    def port(self) -> Any:
        """The pyserial object of the port behind the line, if there is one."""
        return getattr(self._inner, "port", None)

    @property
    def emulation(self) -> Emulation | None:
        """What emulates the device, where the port has started an emulator."""
        emulation = getattr(self._inner, "emulation", None)
        return emulation if isinstance(emulation, Emulation) else None

    @property
    def baud(self) -> int:
        """The line's rate: the fixed one, else that of the port; 0 where neither has one."""
        return self.line.baud or self._inner.baud

    @property
    def has_fixed_baud(self) -> bool:
        """Whether the line's rate stays what it is, whatever the port is set to."""
        return self.line.baud is not None

    def read(self, timeout_s: float) -> bytes:
        """Give what has come over the line; see :meth:`Transport.read`."""
        deadline = time.monotonic() + timeout_s
        with self._state:
            while not self._arrived:
                self._check()
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    return b""
                self._state.wait(left_s)
            data = bytes(self._arrived)
            self._arrived.clear()
        return data

    def write(self, data: bytes) -> None:
        """Hand bytes to the line, and wait until all are in its buffer; see :meth:`Transport.write`."""
        line = self._lines[Direction.UP]
        view = memoryview(data)
        with self._state:
            stuck_at = time.monotonic() + self._write_timeout_s
            while view:
                self._check()
                now = time.monotonic()
                waiting = line.waiting_bytes(now)
                room = min(BUFFER_BYTES - waiting, _MOST_QUEUED_BYTES - line.queued_bytes, len(view))
                if room > 0:
                    self._put(Direction.UP, bytes(view[:room]), now, self.baud)
                    view = view[room:]
                    stuck_at = now + self._write_timeout_s
                    self._wake_for(line.next_at())
                elif line.queued_bytes >= _MOST_QUEUED_BYTES and now >= stuck_at:
                    raise DeviceTimeoutError(
                        f"{self._url} takes no more bytes; the device has stopped reading: reset it and try again"
                    )
                else:
                    target = BUFFER_BYTES - min(_WRITE_AGAIN_BYTES, len(view))
                    self._state.wait(min(max(line.waiting_until(target) - now, _POLL_S), self._write_timeout_s))

    def set_baud(self, baud: int) -> None:
        """Change the port's rate, once everything written has left; see :meth:`Transport.set_baud`."""
        line = self._lines[Direction.UP]
        with self._state:
            deadline = time.monotonic() + self._write_timeout_s
            while line.queued_bytes or self._is_handing_over:
                self._check()
                now = time.monotonic()
                if now > max(deadline, line.waiting_until(0) + self.line.rtt_s + self._write_timeout_s):
                    raise DeviceTimeoutError(f"{self._url} takes no more bytes; its rate cannot be changed")
                self._state.wait(_POLL_S)
            self._check()
        self._inner.set_baud(baud)

    def reopen(self) -> None:
        """Open the port again; see :meth:`Transport.reopen`. What is under way is lost; positions go on."""
        with self._state:
            gone = self._moments.gone
            left_s = self._moments.back_at - time.monotonic()
        if gone is not None and left_s > 0:
            raise PortError(f"there is no port {self._url}: it has vanished, and comes back in {left_s:.1f} s")
        if not self._stop():
            raise PortError(f"{self._url} cannot be opened again: a write to its port does not come back; try again")
        broken = gone is None or gone.power or self._error is not None
        self._error = TransportError(f"the connection to {self._url} broke: the port is not open; connect again")
        if broken:
            self._inner.reopen()
        elif self._first_baud:
            self._inner.set_baud(self._first_baud)
        for line in self._lines:
            line.clear()
        for frames in self._frames:
            frames.clear()
        self._arrived.clear()
        self._moments.come_back()
        self._error = None
        self._start()

    def close(self) -> None:
        """End the line and close the port; what has not gone over the line yet is lost."""
        self._stop()
        if self._error is None:
            self._error = TransportError(f"the connection to {self._url} broke: the port is closed; connect again")
        self._inner.close()

    def _start(self) -> None:
        self._is_closing = False
        self._wakes_at = -math.inf
        if self._device_baud is not None:
            self._baud_there = self._device_baud()
        self._wake = socket.socketpair()
        for end in self._wake:
            end.setblocking(False)
        self._thread = threading.Thread(target=self._play, name=f"line {self._url}", daemon=True)
        self._thread.start()

    def _stop(self) -> bool:
        """End the thread; tell whether it has ended: a port may hold it in a write, for as long as that may take."""
        thread = self._thread
        if thread is None:
            return True
        with self._state:
            self._is_closing = True
            self._wake_for(-math.inf)
            self._state.notify_all()
        thread.join(_JOIN_S)
        if thread.is_alive():
            logger.warning("the line's thread of %s does not end: the port holds it", self._url)
            return False
        self._thread = None
        for end in self._wake or ():
            end.close()
        self._wake = None
        return True

    def _check(self) -> None:
        """Raise what the thread has met, a new object each time: each raise adds to its traceback."""
        if self._moments.gone is not None:
            raise TransportError(
                f"the connection to {self._url} broke: the port has vanished; check cable and power, then connect again"
            )
        if self._error is not None:
            raise type(self._error)(str(self._error), cause=self._error.cause) from self._error

    def _wake_for(self, when: float) -> None:
        """Wake the thread if it sleeps beyond ``when``."""
        if when < self._wakes_at and self._wake is not None:
            self._wakes_at = when
            with contextlib.suppress(BlockingIOError):  # it is full of wakings already
                self._wake[1].send(b"x")

    def _put(self, direction: Direction, data: bytes, now: float, baud: int) -> None:
        is_paced = self.line.baud is not None or self.line.real_rates
        self._lines[direction].put(self._frames[direction].feed(data), now, baud, is_paced=is_paced)

    def _play(self) -> None:
        """Move bytes until the transport is closed; what goes wrong is raised by the next read or write."""
        is_readable = True
        try:
            while True:
                received = self._receive() if is_readable else None
                with self._state:
                    if self._is_closing:
                        return
                    now = time.monotonic()
                    if received is not None:
                        self._put(Direction.DOWN, received[0], now, received[1])
                    data = self._crossed(Direction.UP, now)
                    self._is_handing_over = bool(data)
                    self._arrived += self._crossed(Direction.DOWN, now)
                    if self._moments.gone is not None:
                        self._arrived.clear()
                    if self._arrived or self._moments.gone is not None:
                        self._state.notify_all()
                    self._wakes_at = min(line.next_at() for line in self._lines)
                if data:
                    self._inner.write(data)
                    self._is_handing_over = False
                is_readable = self._sleep()
        except LinkError as error:
            self._break(error)
        except Exception as error:  # noqa: BLE001 - none may be lost with the thread
            self._break(TransportError(f"the connection to {self._url} broke: {error}"), error)

    def _break(self, error: LinkError, cause: Exception | None = None) -> None:
        """Let what has arrived and is still on its way come to its end, then have the error raised."""
        error.__cause__ = error.__cause__ or cause
        line = self._lines[Direction.DOWN]
        with self._state:
            while line.queued_bytes and not self._is_closing and self._moments.gone is None:
                self._arrived += self._crossed(Direction.DOWN, time.monotonic())
                self._state.notify_all()
                if line.queued_bytes:
                    self._state.wait(max(line.next_at() - time.monotonic(), 0.0))
            self._is_handing_over = False
            self._error = error
            self._state.notify_all()

    def _receive(self) -> tuple[bytes, int] | None:
        """Read what the device has sent, and the rate it was sent at."""
        if self._device_baud is None:
            data = self._inner.read(0.0)
            return (data, self.baud) if data else None
        # The device tells a change of its rate behind all that it sent before, and sends nothing at the new rate that
        # it is not asked for: so what is there when the change is seen has the old rate.
        before, self._baud_there = self._baud_there, self._device_baud()
        data = self._inner.read(0.0)
        return (data, before) if data else None

    def _crossed(self, direction: Direction, now: float) -> bytes:
        """Give what arrives at the end of a direction by now, as the receiver hears it."""
        out = []
        for piece, baud in self._lines[direction].take(now):
            damaged = self._faults[direction].apply(piece, baud)
            if self._device_baud is not None:
                receiver = self._baud_there if direction is Direction.UP else self._inner.baud
                damaged = garble(damaged, baud, receiver)
            out.append(damaged)
        return self._moments.pass_on(b"".join(out), now)

    def _sleep(self) -> bool:
        """Wait until something is due, or woken; tell whether the port is to be read."""
        seconds = max(self._wakes_at - time.monotonic(), 0.0)
        if self._wake is None:
            return True
        waker = self._wake[0]
        fileno = getattr(self._inner, "fileno", lambda: None)()
        waits_for = [waker] if fileno is None else [waker, fileno]
        readable, _, _ = select.select(waits_for, [], [], min(seconds, _POLL_S if fileno is None else _LONGEST_SLEEP_S))
        if waker in readable:
            with contextlib.suppress(BlockingIOError):
                waker.recv(4096)
        # Where rates are real a change is looked for before anything is handed over that the device answers.
        return fileno is None or fileno in readable or self._device_baud is not None
