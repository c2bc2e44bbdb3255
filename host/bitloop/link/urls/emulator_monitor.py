"""QEMU's human monitor on a socket: resets, freezes and ends an emulator.

Not QMP, the monitor for programs: QEMU serves that in a thread of its own, which wakes each time the emulated processor
does, for every byte of the line, and takes a third of the line's speed.
"""

from __future__ import annotations

import re
import socket
import threading
import time

from serial.serialutil import SerialException

_PROMPT = b"(qemu) "
_BANNER = re.compile(rb"QEMU (\S+) monitor")
_READ_BYTES = 1 << 14
_MOST_BYTES = 1 << 20


class MonitorError(SerialException):  # type: ignore[misc]
    """The emulator refused a command, did not answer in time, or has ended."""


class EmulatorMonitor:
    """A connection to the monitor of one emulator; any thread may use it.

    Args:
        stream: Its socket; it belongs to this object from now on.
        timeout_s: How long to wait for the greeting, and until the emulator runs.

    Raises:
        MonitorError: No greeting came, or another, or the emulator did not begin to run.

    Attributes:
        version: The emulator's, such as ``7.2.22``.
        timeout_s: How long to wait for each answer.
    """

    def __init__(self, stream: socket.socket, *, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self._stream = stream
        self._lock = threading.Lock()
        greeting = self._until_prompt("its greeting")
        banner = _BANNER.search(greeting)
        if banner is None:
            raise MonitorError(f"the emulator's greeting is none: {greeting[:80]!r}")
        self.version = banner.group(1).decode("ascii", "replace")
        self.execute("info status")  # answered when the emulator has read all its files and runs; it greets before that

    def execute(self, command: str) -> str:
        """Run a command: ``system_reset``, ``stop``, ``cont``, ``quit``, ``info …``.

        Returns:
            What ``info`` tells; the others tell nothing.

        Raises:
            MonitorError: The command was refused, or not answered in time, or the emulator has ended.
        """
        if not command.isprintable():
            raise MonitorError(f"{command!r} is no command")
        with self._lock:
            try:
                self._stream.settimeout(self.timeout_s)
                self._stream.sendall(command.encode() + b"\n")
            except OSError as error:
                raise MonitorError(f"the emulator takes no '{command}': {error}") from error
            if command == "quit":
                return ""
            answer = self._until_prompt(f"an answer to '{command}'")
        # The echo of what was typed, with the terminal's control sequences, is the first line.
        text = answer.partition(b"\r\n")[2].decode("utf-8", "replace").replace("\r\n", "\n").strip()
        if text and not command.startswith("info "):
            raise MonitorError(f"the emulator refuses '{command}': {text}")
        return text

    def close(self) -> None:
        """Close the connection; the emulator runs on."""
        self._stream.close()

    def _until_prompt(self, what: str) -> bytes:
        deadline = time.monotonic() + self.timeout_s
        received = bytearray()
        while not received.endswith(b"\n" + _PROMPT):
            left_s = deadline - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                self._stream.settimeout(left_s)
                data = self._stream.recv(_READ_BYTES)
            except TimeoutError as error:
                raise MonitorError(f"the emulator did not send {what} in {self.timeout_s:g} s") from error
            except OSError as error:
                raise MonitorError(f"the emulator has ended before {what}: {error}") from error
            if not data:
                raise MonitorError(f"the emulator has ended before {what}")
            received += data
            if len(received) > _MOST_BYTES:
                raise MonitorError("the emulator's monitor sends without end")
        return bytes(received[: -len(_PROMPT)])
