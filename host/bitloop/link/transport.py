"""Byte streams to a device: what a session needs of one, and the one over any pyserial URL."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
import time
from typing import Any, Protocol

import serial

from bitloop.errors import BitloopError, Cause, DeviceTimeoutError, PortError, TransportError, UsageError
from bitloop.link.latency import lower_latency
from bitloop.link.ports import PortIdentity, advice, has_no_cable, port_names
from bitloop.link.urls.emulation import Emulation

__all__ = ["DEFAULT_BAUD", "SerialTransport", "Transport", "port_names"]

logger = logging.getLogger(__name__)

DEFAULT_BAUD = 115200
_READ_BYTES = 1 << 16
_WRITE_BYTES = 4096
_POLL_S = 0.002
_BAUD_TOLERANCE = 0.03  # half of what a byte of ten bits bears; the other half is the device's
_TCGETS2 = 0x802C542A
_OSPEED_OFFSET = 40


class Transport(Protocol):
    """A byte stream to one device.

    A transport may also have an attribute ``emulation`` (:class:`bitloop.link.urls.emulation.Emulation` or None): a
    session then knows that the device is no chip, and what its ticks are worth. And it may have a method ``clock()``,
    seconds that never go back, and ``session_number()``, 1 to 65535: a session uses them instead of its own, so that a
    recorded session can be replayed (nothing else in the link is left to chance); and ``sleep(seconds)``, where waiting
    is of no use.
    """

    @property
    def description(self) -> str:
        """What the stream is called in messages, such as ``/dev/ttyUSB0``."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Give what has arrived, at once if there is anything, else wait up to ``timeout_s`` and maybe give ``b""``.

        Raises:
            TransportError: The stream broke.
        """
        ...

    def write(self, data: bytes) -> None:
        """Hand over all of ``data``.

        Raises:
            TransportError: The stream broke.
            DeviceTimeoutError: The other side takes nothing any more.
        """
        ...

    @property
    def baud(self) -> int:
        """The line's rate in bits a second, as the port is set; 0 where the stream has none."""
        ...

    def set_baud(self, baud: int) -> None:
        """Change the rate, once everything written has left.

        Raises:
            TransportError: The port cannot have this rate, or the stream broke.
        """
        ...

    def reopen(self) -> None:
        """Close the stream, and open it again at its first rate, wherever the same device now is.

        Raises:
            PortError: It is not there (yet).
        """
        ...

    def close(self) -> None:
        """Close the stream; closing twice is no error."""
        ...


class SerialTransport:
    """A transport over whatever ``serial.serial_for_url`` opens.

    Args:
        url: A port (``/dev/ttyUSB0``, ``COM5``) or a URL (``socket://host:port``, ``rfc2217://…``, ``sim://native``).
        baud: Bits a second; ignored where the stream has none.
        write_timeout_s: How long the other side may take nothing at all.

    Raises:
        PortError: The port does not exist, is busy or may not be opened; the message says what to do.
        UsageError: An argument makes no sense.
    """

    def __init__(self, url: str, *, baud: int = DEFAULT_BAUD, write_timeout_s: float = 10.0) -> None:
        if not url:
            raise UsageError("the device's name is empty; name a port such as /dev/ttyUSB0, or sim://native")
        _check_baud(baud)
        self._url = url
        self._first_baud = self._baud = baud
        self._write_timeout_s = write_timeout_s
        self._serial = _open(url, baud, write_timeout_s)
        self._fileno = _fileno(self._serial)
        self._identity = None if "://" in url else PortIdentity.of(url)

    @property
    def description(self) -> str:
        """The URL as it was given."""
        return self._url

    @property
    def port(self) -> Any:
        """The pyserial object, for what only its kind can do: that of ``qemu://`` controls its emulator."""
        return self._serial

    @property
    def emulation(self) -> Emulation | None:
        """What emulates the device, where the port has started an emulator."""
        emulation = getattr(self._serial, "emulation", None)
        return emulation if isinstance(emulation, Emulation) else None

    def fileno(self) -> int | None:
        """Give a descriptor that select can wait for, or None where there is no such thing."""
        return self._fileno

    def read(self, timeout_s: float) -> bytes:
        """Give what has arrived; see :meth:`Transport.read`."""
        deadline = time.monotonic() + timeout_s
        try:
            while not (data := self._read_all()):
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    break
                if self._fileno is None:
                    time.sleep(min(left_s, _POLL_S))
                else:
                    select.select([self._fileno], [], [], left_s)
        except (OSError, TypeError, ValueError) as error:  # pyserial raises the last two on a port closed meanwhile
            raise self._broken(error) from error
        return data

    def write(self, data: bytes) -> None:
        """Hand over all of ``data``; see :meth:`Transport.write`."""
        view = memoryview(data)
        try:
            for start in range(0, len(view), _WRITE_BYTES):
                self._serial.write(view[start : start + _WRITE_BYTES])
        except serial.SerialTimeoutException as error:
            raise DeviceTimeoutError(
                f"{self._url} takes no more bytes; the device has stopped reading: reset it and try again"
            ) from error
        except (OSError, TypeError, ValueError) as error:
            raise self._broken(error) from error

    @property
    def baud(self) -> int:
        """The line's rate in bits a second, as the port is set; 0 where the stream has none."""
        return self._baud if _has_rate(self._serial, self._url) else 0

    def set_baud(self, baud: int) -> None:
        """Change the rate; see :meth:`Transport.set_baud`."""
        _check_baud(baud)
        try:
            self._serial.flush()
            self._serial.baudrate = baud
            _check_actual_baud(self._serial, self._url, baud)
        except PortError as error:
            self._restore_baud()
            raise TransportError(str(error)) from error
        except (OSError, TypeError, ValueError, OverflowError) as error:
            self._restore_baud()
            raise TransportError(_no_such_rate(self._url, baud, str(error))) from error
        self._baud = baud

    def reopen(self) -> None:
        """Open the port again; see :meth:`Transport.reopen`.

        A USB device is found under whatever name it has now; a simulated or emulated one is a new process.
        """
        self.close()
        name = self._url if self._identity is None else self._identity.find()
        if name is None:
            names = port_names()
            raise PortError(
                f"{self._identity} is not there; ports there are: {', '.join(names) or 'none'}. Plug it in again"
            )
        self._serial = _open(name, self._first_baud, self._write_timeout_s)
        self._baud = self._first_baud
        self._fileno = _fileno(self._serial)

    def close(self) -> None:
        """Close the port; for a simulated device this ends its process."""
        with contextlib.suppress(OSError):
            self._serial.close()

    def _restore_baud(self) -> None:
        """Set the rate that the port had, as far as it still can be set."""
        with contextlib.suppress(OSError, TypeError, ValueError):
            self._serial.baudrate = self._baud

    def _read_all(self) -> bytes:
        """Give what is there; some of pyserial's ports (rfc2217) hand out single bytes."""
        data = bytes(self._serial.read(_READ_BYTES))
        if len(data) != 1:
            return data
        pieces = [data]
        while len(pieces) < _READ_BYTES and (data := bytes(self._serial.read(_READ_BYTES))):
            pieces.append(data)
        return b"".join(pieces)

    def _broken(self, error: Exception) -> TransportError:
        check = "" if has_no_cable(self._url) else "check cable and power, then "
        return TransportError(
            f"the connection to {self._url} broke: {error}; {check}connect again",
            cause=Cause.ENDED if getattr(self._serial, "ended", False) else None,
        )


def _open(url: str, baud: int, write_timeout_s: float) -> Any:
    # pyserial's rfc2217 refuses a write timeout.
    write_timeout = None if url.lower().startswith("rfc2217://") else write_timeout_s
    try:
        port = serial.serial_for_url(url, baudrate=baud, timeout=0, write_timeout=write_timeout, exclusive=True)
    except BitloopError:
        raise
    except (ValueError, OverflowError) as error:
        if "baud" in str(error).lower() or isinstance(error, OverflowError):
            raise PortError(_no_such_rate(url, baud, str(error))) from error
        raise PortError(
            f"{url} cannot be opened: {error}; name a port such as /dev/ttyUSB0, or sim://native"
        ) from error
    except OSError as error:  # SerialException is one
        raise PortError(advice(url, error)) from error
    if "://" not in url:
        try:
            _check_actual_baud(port, url, baud)
        except PortError:
            port.close()
            raise
        lower_latency(port, url)
    return port


def _has_rate(port: Any, url: str) -> bool:
    """Tell whether a port has a rate: this machine's own and RFC 2217's have, a socket or a process has none."""
    own = getattr(port, "has_rate", None)
    if own is not None:
        return bool(own)
    return isinstance(port, serial.Serial) or url.lower().startswith("rfc2217://")


def _check_baud(baud: int) -> None:
    if baud <= 0:
        raise UsageError(f"a baud rate of {baud} makes no sense; {DEFAULT_BAUD} is usual")


def _check_actual_baud(port: Any, url: str, baud: int) -> None:
    """See that the driver has taken a rate: some quietly take another one.

    Raises:
        PortError: It has not.
    """
    actual = actual_baud(port)
    if actual is not None and abs(actual - baud) > _BAUD_TOLERANCE * baud:
        raise PortError(_no_such_rate(url, baud, f"its driver takes {actual} instead"))


def actual_baud(port: Any) -> int | None:
    """Give the rate that a port's driver has, in bits a second; None where it does not tell (only Linux's do)."""
    if not sys.platform.startswith("linux"):
        return None
    import fcntl  # noqa: PLC0415 - not on every system

    settings = bytearray(256)  # struct termios2, 44 bytes, and room: the kernel writes what it has
    try:
        fcntl.ioctl(port.fd, _TCGETS2, settings)
    except (AttributeError, OSError, TypeError):
        return None
    return int.from_bytes(settings[_OSPEED_OFFSET : _OSPEED_OFFSET + 4], sys.byteorder) or None


def _no_such_rate(url: str, baud: int, why: str) -> str:
    return f"{url} cannot be set to {baud} baud: {why}; choose a rate that the adapter has, such as {DEFAULT_BAUD}"


def _fileno(port: Any) -> int | None:
    """Give a descriptor that select can wait for, or None where there is no such thing."""
    if os.name != "posix":
        return None
    try:
        number = port.fileno()
        select.select([number], [], [], 0)
    except (AttributeError, OSError, ValueError, TypeError):
        return None
    return int(number)
