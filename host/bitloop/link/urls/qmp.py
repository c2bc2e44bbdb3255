"""QMP, QEMU's control protocol: JSON lines over a socket, here for resets and freezes."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import Any

from serial.serialutil import SerialException

_READ_BYTES = 1 << 14
_LONGEST_LINE_BYTES = 1 << 22


class QmpError(SerialException):  # type: ignore[misc]
    """The emulator refused a command, did not answer in time, or has ended."""


class Qmp:
    """A connection to one emulator; any thread may use it.

    Args:
        stream: Its socket; it belongs to this object from now on.
        timeout_s: How long to wait for the greeting, and for each answer.

    Raises:
        QmpError: No greeting came, or another.

    Attributes:
        version: The emulator's, such as ``7.2.22``.
        timeout_s: How long to wait for each answer.
    """

    def __init__(self, stream: socket.socket, *, timeout_s: float) -> None:
        self._stream = stream
        self.timeout_s = timeout_s
        self._pending = bytearray()
        self._lock = threading.Lock()
        greeting = self._next(time.monotonic() + timeout_s, "its greeting")
        try:
            version = greeting["QMP"]["version"]["qemu"]
            self.version = f"{version['major']}.{version['minor']}.{version['micro']}"
        except (KeyError, TypeError) as error:
            raise QmpError(f"the emulator's greeting is none: {greeting}") from error
        self.execute("qmp_capabilities")

    def execute(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a command, such as ``system_reset``, ``stop``, ``cont``, ``quit``, and give what it returns.

        Raises:
            QmpError: It was refused, not answered in time, or the emulator has ended.
        """
        request: dict[str, Any] = {"execute": command}
        if arguments:
            request["arguments"] = arguments
        with self._lock:
            deadline = time.monotonic() + self.timeout_s
            try:
                self._stream.settimeout(self.timeout_s)
                self._stream.sendall(json.dumps(request).encode() + b"\n")
            except OSError as error:
                raise QmpError(f"the emulator takes no {command}: {error}") from error
            while True:
                answer = self._next(deadline, f"the answer to {command}")
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"the emulator refuses {command}: {answer['error'].get('desc', answer['error'])}")

    def close(self) -> None:
        """Close the connection; the emulator runs on."""
        self._stream.close()

    def _next(self, deadline: float, what: str) -> dict[str, Any]:
        """Give the next line; events come between answers."""
        while b"\n" not in self._pending:
            left_s = deadline - time.monotonic()
            try:
                if left_s <= 0:
                    raise TimeoutError
                self._stream.settimeout(left_s)
                data = self._stream.recv(_READ_BYTES)
            except TimeoutError as error:
                raise QmpError(f"the emulator did not send {what} in {self.timeout_s:g} s") from error
            except OSError as error:
                raise QmpError(f"the emulator has ended before {what}: {error}") from error
            if not data:
                raise QmpError(f"the emulator has ended before {what}")
            self._pending += data
            if len(self._pending) > _LONGEST_LINE_BYTES:
                raise QmpError("the emulator's control line sends without end")
        line, _, rest = self._pending.partition(b"\n")
        self._pending = bytearray(rest)
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise QmpError(f"the emulator's control line sends no JSON: {bytes(line[:80])!r}") from error
        return answer if isinstance(answer, dict) else {}
