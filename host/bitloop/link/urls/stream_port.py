"""What the ports to processes have in common: a pyserial port over a socket whose other end a process holds."""

from __future__ import annotations

import contextlib
import select
import socket
import subprocess
from collections.abc import Collection, Iterator
from typing import IO, Any
from urllib.parse import parse_qsl

from serial.serialutil import (
    PortNotOpenError,
    SerialBase,
    SerialException,
    SerialTimeoutException,
    Timeout,
    to_bytes,
)

_BUFFER_BYTES = 1 << 18
_PEEK_BYTES = 1 << 16
_WORDS_BYTES = 600
_END_S = 1.0


def options_in(query: str, known: Collection[str], *, repeatable: Collection[str] = ()) -> Iterator[tuple[str, str]]:
    """Give the options of a URL's query, in order.

    Args:
        query: What stands behind the ``?``.
        known: The names that there are.
        repeatable: Those that may come several times.

    Raises:
        ValueError: The query is none, or an option is not known or given twice.
    """
    seen: set[str] = set()
    for key, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        if key not in known:
            raise ValueError(f"unknown option '{key}'; there are {', '.join(known)}")
        if key in seen and key not in repeatable:
            raise ValueError(f"option '{key}' is given twice")
        seen.add(key)
        yield key, value


class StreamPort(SerialBase):  # type: ignore[misc]
    """A port whose other end is a process; closing it ends the process.

    A port of its own kind says in :meth:`_start` how the process is started, and what it is called in :attr:`WHAT`.
    """

    WHAT = "the process"
    is_open: bool
    BAUDRATES = (*SerialBase.BAUDRATES, 921600, 1000000, 2000000)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        super().__init__(*args, **kwargs)

    @property
    def has_rate(self) -> bool:
        """Whether the line's rate means anything, and can be changed."""
        return False

    def _start(self, url: str) -> socket.socket:
        """Start the process, as ``_process``, and give the stream to it; what it says goes to ``_errors``.

        Raises:
            SerialException: The URL is wrong, or the process cannot be started.
            OSError: The same, in the system's words.
        """
        raise NotImplementedError

    def open(self) -> None:
        """Start the process.

        Raises:
            SerialException: The URL is wrong, or the process cannot be started.
            ToolchainError: Something that is needed for it is not here.
        """
        if self._port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        try:
            self._socket = self._start(self._port)
            self._socket.setblocking(False)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            self._wake = socket.socketpair()
        except SerialException:
            self._release()
            raise
        except OSError as error:
            self._release()
            raise SerialException(f"{self._port}: {self.WHAT} cannot be started: {error}") from error
        except BaseException:
            self._release()
            raise
        self.is_open = True

    def close(self) -> None:
        """End the process; closing twice is no error."""
        self.is_open = False
        self._release()

    @property
    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def fileno(self) -> int:
        """Give the stream's descriptor, to wait for with select."""
        return self._stream().fileno()

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once, 64 KB at most."""
        stream = self._stream()
        try:
            return len(stream.recv(_PEEK_BYTES, socket.MSG_PEEK))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._ended() from error

    @property
    def out_waiting(self) -> int:
        """Bytes not yet handed over: none, for write waits."""
        self._stream()
        return 0

    def read(self, size: int = 1) -> bytes:
        """Read up to ``size`` bytes; fewer when the timeout passes first.

        Raises:
            SerialException: The process has ended.
        """
        stream = self._stream()
        timeout = Timeout(self._timeout)
        received = bytearray()
        while len(received) < size:
            try:
                data = stream.recv(size - len(received))
            except BlockingIOError:
                if timeout.expired() or self._cancelled(timeout):
                    break
                continue
            except OSError as error:
                raise self._ended() from error
            if not data:
                if received:
                    break
                raise self._ended()
            received += data
        return bytes(received)

    def write(self, b: Any, /) -> int:
        """Write all bytes.

        Raises:
            SerialTimeoutException: The process does not take them in time.
            SerialException: It has ended.
        """
        stream = self._stream()
        data = memoryview(to_bytes(b))
        timeout = Timeout(self._write_timeout)
        sent = 0
        while sent < len(data):
            try:
                sent += stream.send(data[sent:])
            except BlockingIOError:  # noqa: PERF203 - each try comes after a wait
                if timeout.expired():
                    raise SerialTimeoutException("Write timeout") from None
                select.select([], [stream], [], timeout.time_left())
            except OSError as error:
                raise self._ended() from error
        return sent

    def flush(self) -> None:
        """Wait until everything is written: write has done that."""
        self._stream()

    def reset_input_buffer(self) -> None:
        """Drop what has arrived."""
        stream = self._stream()
        with contextlib.suppress(BlockingIOError):
            while stream.recv(_PEEK_BYTES):
                pass

    def reset_output_buffer(self) -> None:
        """Drop what was not sent: nothing."""
        self._stream()

    def cancel_read(self) -> None:
        """Wake a read that waits in another thread."""
        if self._wake is not None:
            self._wake[1].send(b"x")

    def _cancelled(self, timeout: Timeout) -> bool:
        stream = self._stream()
        wake = self._wake[0] if self._wake is not None else stream
        readable, _, _ = select.select([stream, wake], [], [], timeout.time_left())
        if wake is not stream and wake in readable:
            wake.recv(_PEEK_BYTES)
            return True
        return False

    def _stream(self) -> socket.socket:
        if not self.is_open or self._socket is None:
            raise PortNotOpenError()
        return self._socket

    def _ended(self) -> SerialException:
        """Say how the process ended."""
        how = "closed the stream"
        if self._process is not None:
            try:
                code = self._process.wait(_END_S)
                how = f"ended with exit code {code}" if code >= 0 else f"was ended by signal {-code}"
            except subprocess.TimeoutExpired:
                pass
        words = ""
        if self._errors is not None:
            self._errors.seek(0)
            words = self._errors.read(_WORDS_BYTES).decode("utf-8", "replace").strip()
            words = words.partition("\n\n")[0]  # a dump of registers may follow
        return SerialException(f"{self.WHAT} {how}{': ' + words if words else ''}")

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            end_process(self._process)
            self._process = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None
        if self._wake is not None:
            for end in self._wake:
                end.close()
            self._wake = None

    def _reconfigure_port(self) -> None:
        """Take new settings: there is nothing to set."""

    def _update_rts_state(self) -> None:
        """Set RTS: there is no such line."""

    def _update_dtr_state(self) -> None:
        """Set DTR: there is no such line."""

    def _update_break_state(self) -> None:
        """Set a break: there is no such line."""

    @property
    def cts(self) -> bool:
        """Always ready."""
        return True

    @property
    def dsr(self) -> bool:
        """Always there."""
        return True

    @property
    def ri(self) -> bool:
        """Never ringing."""
        return False

    @property
    def cd(self) -> bool:
        """Always connected."""
        return True


def end_process(process: subprocess.Popen[bytes]) -> None:
    """End a process that has lost its stream: by itself, else by force."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    for force in (process.terminate, process.kill):
        try:
            process.wait(_END_S)
            return
        except subprocess.TimeoutExpired:  # noqa: PERF203 - twice at most
            force()
    process.wait()
