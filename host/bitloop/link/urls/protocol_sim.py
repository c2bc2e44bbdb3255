"""``sim://native``: the device core, compiled for the host, as a process of its own behind a byte stream.

Options, as a query: ``arena`` (or ``ram``), ``body``, ``send_body``, ``window`` (sizes: ``8192``, ``8k``, ``1M``),
``boot_count``, ``board``, ``compute`` (the least time that an image takes: ``10ms``), ``ranges``, ``codings``,
``delta=off``, and ``fault``, which may come several times or hold several faults apart by ``;``. With ``baud=auto`` the
device's rate can be changed, from ``boot_baud`` up to ``max_baud``, and the port tells it. Example::

    serial.serial_for_url("sim://native?arena=64k&fault=layer:1,ulp:1")

Only the standard library and pyserial are imported here; the simulator is compiled when a port is opened.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import tempfile
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from serial.serialutil import SerialException

from bitloop.link.urls.quantities import parse_size, parse_time_s, parse_whole
from bitloop.link.urls.stream_port import StreamPort, options_in

BOOT_BAUD = 115200  # the simulator's own defaults
MAX_BAUD = 2_000_000
_MOST = (1 << 32) - 1
_SIZES = {"arena": "--arena", "ram": "--arena", "body": "--body", "send_body": "--send-body", "window": "--window"}
_NUMBERS = {
    "boot_count": ("--boot-count", 0),
    "ranges": ("--ranges", 0),
    "codings": ("--codings", 0),
    "boot_baud": ("--boot-baud", 1),
    "max_baud": ("--max-baud", 1),
}
OPTIONS = (*_SIZES, *_NUMBERS, "board", "compute", "delta", "baud", "fault")
"""The names of what a URL may ask for."""

_RATE = struct.Struct("<I")
_START_S = 10.0


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
        for key, value in options_in(parts.query, OPTIONS, repeatable=("fault",)):
            if key == "fault":
                for fault in filter(None, value.split(";")):
                    arguments += ["--fault", fault]
                continue
            words = _argument(key, value)
            if words and words[0] in seen:
                raise ValueError(f"option '{key}' is given twice")
            seen.update((*words[:1], key))
            arguments += words
        if seen & {"boot_baud", "max_baud"} and "baud" not in seen:
            raise ValueError("boot_baud and max_baud need baud=auto")
        if _baud_in(arguments, "--boot-baud", BOOT_BAUD) > _baud_in(arguments, "--max-baud", MAX_BAUD):
            raise ValueError("the rate at boot (boot_baud) is above the most (max_baud)")
    except ValueError as error:
        raise SerialException(f"{url}: {error}") from error
    return arguments


def _baud_in(arguments: list[str], option: str, default: int) -> int:
    return int(arguments[arguments.index(option) + 1]) if option in arguments else default


def _argument(key: str, value: str) -> list[str]:
    """Turn one option into the simulator's words, if any."""
    if key in _SIZES:
        return [_SIZES[key], str(parse_size(value))]
    if key in _NUMBERS:
        option, least = _NUMBERS[key]
        try:
            return [option, str(parse_whole(value, least=least, most=_MOST))]
        except ValueError as error:
            raise ValueError(f"{key} {error}") from error
    if key == "board":
        return ["--board", value]
    if key == "compute":
        return ["--compute-us", str(round(parse_time_s(value) * 1e6))]
    if key == "delta":
        if value not in ("on", "off"):
            raise ValueError(f"delta '{value}' is neither on nor off")
        return [] if value == "on" else ["--no-delta"]
    if value != "auto":
        raise ValueError(f"baud '{value}' is not auto; a rate is the line's, which bitloop.link.open gives")
    return []


class Serial(StreamPort):
    """A port whose other end is a simulator process; closing it ends the process."""

    WHAT = "the simulated device"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._rates: int | None = None
        self._rate_bytes = b""
        self._device_baud = 0
        super().__init__(*args, **kwargs)

    @property
    def has_rate(self) -> bool:
        """Whether the device has a rate: with ``baud=auto``."""
        return self._rates is not None

    @property
    def device_baud(self) -> int | None:
        """The device's own rate now, in bits a second; None without ``baud=auto``."""
        if self._rates is None:
            return None
        try:
            while data := os.read(self._rates, 4096):
                self._rate_bytes += data
        except BlockingIOError:
            pass
        whole = len(self._rate_bytes) // _RATE.size * _RATE.size
        if whole:
            (self._device_baud,) = _RATE.unpack_from(self._rate_bytes, whole - _RATE.size)
            self._rate_bytes = self._rate_bytes[whole:]
        return self._device_baud

    def _start(self, url: str) -> socket.socket:
        arguments = arguments_of(url)
        from bitloop.native.build import simulator_binary  # noqa: PLC0415 - compiles, and imports more than pyserial

        command = [str(simulator_binary()), *arguments]
        if arguments:
            _check(command, url)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the port
        if "baud" not in dict(parse_qsl(urlsplit(url).query)):
            return self._start_with_pair(command) if _has_pairs() else self._start_with_port(command)
        if not _has_pairs():
            raise SerialException(f"{url}: baud=auto needs a system that hands pipes to programs, such as Linux")
        self._device_baud = _baud_in(arguments, "--boot-baud", BOOT_BAUD)
        self._rates, its_end = os.pipe()
        os.set_blocking(self._rates, False)
        try:
            return self._start_with_pair([*command, "--rate-fd", str(its_end)], (its_end,))
        finally:
            os.close(its_end)

    def _release(self) -> None:
        super()._release()
        if self._rates is not None:
            os.close(self._rates)
            self._rates = None
            self._rate_bytes = b""

    def _start_with_pair(self, command: list[str], descriptors: tuple[int, ...] = ()) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._process = self._spawn([*command, "--fd", str(theirs.fileno())], (theirs.fileno(), *descriptors))
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


def _has_pairs() -> bool:
    """Tell whether a child can inherit one end of a socket pair."""
    return os.name == "posix" and hasattr(socket, "AF_UNIX")


def _check(command: list[str], url: str) -> None:
    """Let the simulator judge its arguments, so that a wrong one is an error of opening, not of a broken stream."""
    done = subprocess.run([*command, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise SerialException(f"{url}: the simulator refuses its options: {words or f'exit code {done.returncode}'}")
