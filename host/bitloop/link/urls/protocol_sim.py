"""``sim://native``: the device core, compiled for the host, as a process of its own behind a byte stream.

Options, as a query: ``arena`` (or ``ram``), ``body``, ``window`` (sizes: ``8192``, ``8k``, ``1M``), ``boot_count``,
``board``, and ``fault``, which may come several times or hold several faults apart by ``;``. Example::

    serial.serial_for_url("sim://native?arena=64k&fault=layer:1,ulp:1")

Only the standard library and pyserial are imported here; the simulator is compiled when a port is opened.
"""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from urllib.parse import urlsplit

from serial.serialutil import SerialException

from bitloop.link.urls.stream_port import StreamPort, options_in, parse_size

_SIZES = {"arena": "--arena", "ram": "--arena", "body": "--body", "window": "--window"}
_OTHERS = {"boot_count": "--boot-count", "board": "--board"}
_KNOWN = (*_SIZES, *_OTHERS, "fault")
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
        for key, value in options_in(parts.query, _KNOWN, repeatable=("fault",)):
            if key == "fault":
                for fault in filter(None, value.split(";")):
                    arguments += ["--fault", fault]
                continue
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


class Serial(StreamPort):
    """A port whose other end is a simulator process; closing it ends the process."""

    WHAT = "the simulated device"

    def _start(self, url: str) -> socket.socket:
        arguments = arguments_of(url)
        from bitloop.native.build import simulator_binary  # noqa: PLC0415 - compiles, and imports more than pyserial

        command = [str(simulator_binary()), *arguments]
        if arguments:
            _check(command, url)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the port
        return self._start_with_pair(command) if _has_pairs() else self._start_with_port(command)

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


def _has_pairs() -> bool:
    """Tell whether a child can inherit one end of a socket pair."""
    return os.name == "posix" and hasattr(socket, "AF_UNIX")


def _check(command: list[str], url: str) -> None:
    """Let the simulator judge its arguments, so that a wrong one is an error of opening, not of a broken stream."""
    done = subprocess.run([*command, "--help"], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        words = done.stderr.decode("utf-8", "replace").strip()
        raise SerialException(f"{url}: the simulator refuses its options: {words or f'exit code {done.returncode}'}")
