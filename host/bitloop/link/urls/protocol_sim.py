"""``sim://native``: the device core, compiled for the host, as a process of its own behind a byte stream.

Options, as a query: ``arena`` (or ``ram``), ``body``, ``window`` (sizes: ``8192``, ``8k``, ``1M``), ``boot_count``,
``board``, and ``fault``, which may come several times or hold several faults apart by ``;``. Example::

    serial.serial_for_url("sim://native?arena=64k&fault=layer:1,ulp:1")

Only the standard library and pyserial are imported here; the simulator is compiled when a port is opened.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
import tempfile
from typing import IO, Any
from urllib.parse import parse_qsl, urlsplit

from serial.serialutil import (
    PortNotOpenError,
    SerialBase,
    SerialException,
    SerialTimeoutException,
    Timeout,
    to_bytes,
)

_SIZES = {"arena": "--arena", "ram": "--arena", "body": "--body", "window": "--window"}
_OTHERS = {"boot_count": "--boot-count", "board": "--board"}
_KNOWN = (*_SIZES, *_OTHERS, "fault")
_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_BUFFER_BYTES = 1 << 18
_PEEK_BYTES = 1 << 16
_START_S = 10.0
_END_S = 1.0


def parse_size(text: str) -> int:
    """Read a size in bytes: ``8192``, ``8k``, ``1M`` (powers of 1024).

    Raises:
        ValueError: It is no positive whole number with an optional unit.
    """
    digits, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in _UNITS else (text, "")
    if not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        raise ValueError(f"'{text}' is no size; write it as 8192, 8k or 1M")
    return int(digits) * _UNITS.get(unit, 1)


def arguments_of(url: str) -> list[str]:
    """Turn a URL into the simulator's arguments.

    Raises:
        SerialException: The URL names no simulated device, or has an option that is not known or makes no sense.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "sim" or parts.netloc.lower() != "native" or parts.path.strip("/") or parts.fragment:
        raise SerialException(f"{url}: there is no such simulated device; sim://native is the one there is")
    arguments: list[str] = []
    seen: set[str] = set()
    try:
        for key, value in parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)):
            if key == "fault":
                for fault in filter(None, value.split(";")):
                    arguments += ["--fault", fault]
                continue
            if key not in _KNOWN:
                raise ValueError(f"unknown option '{key}'; there are {', '.join(_KNOWN)}")
            option = _SIZES.get(key) or _OTHERS[key]
            if option in seen:
                raise ValueError(f"option '{key}' is given twice")
            seen.add(option)
            if key == "boot_count" and not (value.isascii() and value.isdigit()):
                raise ValueError(f"boot_count '{value}' is no number")
            arguments += [option, str(parse_size(value)) if key in _SIZES else value]
    except ValueError as error:
        raise SerialException(f"{url}: {error}") from error
    return arguments


class Serial(SerialBase):  # type: ignore[misc]
    """A port whose other end is a simulator process; closing it ends the process."""

    is_open: bool
    BAUDRATES = (*SerialBase.BAUDRATES, 921600, 1000000, 2000000)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._errors: IO[bytes] | None = None
        self._wake: tuple[socket.socket, socket.socket] | None = None
        super().__init__(*args, **kwargs)

    def open(self) -> None:
        """Start the simulator.

        Raises:
            SerialException: The URL is wrong, or the simulator cannot be started.
            ToolchainError: It cannot be compiled.
        """
        if self._port is None:
            raise SerialException("Port must be configured before it can be used.")
        if self.is_open:
            raise SerialException("Port is already open.")
        arguments = arguments_of(self._port)
        from bitloop.native.build import simulator_binary  # noqa: PLC0415 - compiles, and imports more than pyserial

        command = [str(simulator_binary()), *arguments]
        try:
            if arguments:
                _check(command, self._port)
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the port
            self._socket = self._start_with_pair(command) if _has_pairs() else self._start_with_port(command)
        except SerialException:
            self._release()
            raise
        except OSError as error:
            self._release()
            raise SerialException(f"{self._port}: the simulator cannot be started: {error}") from error
        self._socket.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            self._socket.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        self._wake = socket.socketpair()
        self.is_open = True

    def close(self) -> None:
        """End the simulator; closing twice is no error."""
        self.is_open = False
        self._release()

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
            SerialException: The simulator has ended.
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
            SerialTimeoutException: The simulator does not take them in time.
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

    def _start_with_pair(self, command: list[str]) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = self._spawn([*command, "--fd", str(theirs.fileno())], (theirs.fileno(),))
            except OSError:
                ours.close()
                raise
        return ours

    def _start_with_port(self, command: list[str]) -> socket.socket:
        self._process = self._spawn([*command, "--port", "0"], (), stdout=subprocess.PIPE)
        output = self._process.stdout
        if output is None:
            raise OSError("its output cannot be read")
        with output:
            number = output.readline().strip()  # the port it listens on; empty when it ended at once
        if not number.isdigit():
            raise OSError(str(self._ended()))
        stream = socket.create_connection(("127.0.0.1", int(number)), timeout=_START_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return stream

    def _spawn(
        self, command: list[str], descriptors: tuple[int, ...], stdout: int = subprocess.DEVNULL
    ) -> subprocess.Popen[bytes]:
        # A session of its own: Ctrl-C in the terminal is for the host, which saves first and then closes the port. If
        # the host dies, the stream closes with it, and that ends the simulator.
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=self._errors,
            pass_fds=descriptors,
            start_new_session=True,
        )

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
        """Say how the simulator ended."""
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
            words = self._errors.read(400).decode("utf-8", "replace").strip()
        return SerialException(f"the simulated device {how}{': ' + words if words else ''}")

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            _end(self._process)
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


def _has_pairs() -> bool:
    """Tell whether a child can inherit one end of a socket pair."""
    return os.name == "posix" and hasattr(socket, "AF_UNIX")


def _check(command: list[str], url: str) -> None:
    """Let the simulator judge its arguments, so that a wrong one is an error of opening, not of a broken stream."""
    done = subprocess.run([*command, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise SerialException(f"{url}: the simulator refuses its options: {words or f'exit code {done.returncode}'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that has lost its stream: by itself, else by force."""
    for force in (process.terminate, process.kill):
        try:
            process.wait(_END_S)
            return
        except subprocess.TimeoutExpired:  # noqa: PERF203 - twice at most
            force()
    process.wait()
