"""Every error bitloop raises on purpose.

The tree::

    BitloopError                      exit code
    ├── WorkerError                   1   a process that computes for this one crashed
    ├── UsageError                    2   an argument that makes no sense
    ├── DisagreementError             3   device and host simulation differ
    ├── DataError                     4   data set missing, damaged or sealed; a recording that is damaged or departs
    │   └── SealedSplitError          4   the test split was asked for outside the vault
    ├── FormatError                   5   an unknown or inexact numeric format, a bad recipe
    ├── NetworkError                  5   a network that cannot be read, or has shapes that do not fit
    │   └── UnsupportedLayerError     5   a layer bitloop (or the device) does not know
    ├── ModelError                    5   a damaged, truncated or hostile .blm or image
    ├── LinkError                     6   anything between host and device
    │   ├── PortError                 6   the port is missing, busy or not permitted
    │   ├── TransportError            6   the byte stream broke (unplugged, process ended)
    │   ├── DeviceTimeoutError        6   nothing, or nothing in time, was answered
    │   ├── DeviceResetError          6   the device restarted, and lost what it was doing
    │   └── ProtocolError             6   what was answered is not this protocol, or not this version
    ├── DeviceError                   7   the device answered with a status code
    │   └── DoesNotFitError           7   the model needs more memory than the device has
    ├── ToolchainError                8   a compiler, emulator or build tool is missing, or failed
    └── Interrupted                 130   Ctrl-C; what was measured is kept

Each message says what was found, what was expected, and what to do next. Errors of the link have a :class:`Cause` too,
where it is known.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar


class BitloopError(Exception):
    """Base of all errors that bitloop raises on purpose; ``exit_code`` is what the command line exits with."""

    exit_code: ClassVar[int] = 1


class WorkerError(BitloopError):
    """A process that computes for this one crashed, or met with an error nobody expected."""


class UsageError(BitloopError):
    """An argument that makes no sense."""

    exit_code = 2


class DisagreementError(BitloopError):
    """Device and host simulation differ: in a logit, a hash or the arithmetic probe."""

    exit_code = 3


class DataError(BitloopError):
    """A data set or a recording is missing or damaged, or a replay does not do what was recorded."""

    exit_code = 4


class SealedSplitError(DataError):
    """The test split was asked for without going through the vault."""


class FormatError(BitloopError):
    """A numeric format or recipe is unknown, or not exact in binary32."""

    exit_code = 5


class NetworkError(BitloopError):
    """A network cannot be read, or its shapes or values do not fit."""

    exit_code = 5


class UnsupportedLayerError(NetworkError):
    """A layer that bitloop, or the connected device, does not know."""


class ModelError(BitloopError):
    """A .blm file or an image is damaged, truncated, oversized or hostile."""

    exit_code = 5


class Cause(Enum):
    """Why host and device do not come together, as far as it can be told; the value says it in words."""

    NO_PORT = "there is no such port"
    PORT_BUSY = "another program has the port"
    NOT_PERMITTED = "the port may not be opened"
    NO_ANSWER = "nothing answers"
    WRONG_BAUD = "the baud rate is wrong"
    GARBAGE = "bytes that are no frames"
    OTHER_FIRMWARE = "the device runs another program"
    BOOT_ROM = "the device is in its boot ROM"
    PANIC = "the firmware panicked"
    HANG = "the firmware hangs"
    RESET = "the device was reset"
    ENDED = "the device was a process, and has ended"
    SHARED = "another program uses the device"
    OLD_FIRMWARE = "the firmware is older than the host"
    NEW_FIRMWARE = "the firmware is newer than the host"


class LinkError(BitloopError):
    """Anything that goes wrong between host and device; ``cause`` is None where it cannot be told."""

    exit_code = 6

    def __init__(self, message: str = "", *, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class PortError(LinkError):
    """The port does not exist, is busy, or may not be opened."""


class TransportError(LinkError):
    """The byte stream broke: a cable was unplugged, a simulated device ended."""


class DeviceTimeoutError(LinkError):
    """The device did not answer in time."""


class DeviceResetError(LinkError):
    """The device restarted in the middle of something, and lost its state.

    Attributes:
        boots: Its count of boots before and after.
        reset_cause: What it says of the reason: one of :class:`bitloop.spec.ResetCause`, or a number not known here.
        panic: Its last words, "" if none were heard.
    """

    def __init__(self, message: str, *, boots: tuple[int, int], reset_cause: int, panic: str = "") -> None:
        super().__init__(message, cause=Cause.PANIC if panic else Cause.RESET)
        self.boots = boots
        self.reset_cause = reset_cause
        self.panic = panic


class ProtocolError(LinkError):
    """What was answered is not this protocol, or not a version of it this host speaks."""


class DeviceError(BitloopError):
    """The device refused a request; ``status`` is its code from :class:`bitloop.spec.Status`."""

    exit_code = 7

    def __init__(self, message: str, *, status: int = 0, details: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


class DoesNotFitError(DeviceError):
    """The model needs more memory than the device has; both in bytes."""

    def __init__(self, message: str, *, needed_bytes: int, available_bytes: int, status: int = 0) -> None:
        super().__init__(message, status=status, details=(needed_bytes, available_bytes))
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes

    @property
    def missing_bytes(self) -> int:
        """How many bytes short the device is."""
        return self.needed_bytes - self.available_bytes


class ToolchainError(BitloopError):
    """A compiler, emulator or build tool was not found, or failed."""

    exit_code = 8


class Interrupted(BitloopError):  # noqa: N818 - it is no error of anyone's
    """The user pressed Ctrl-C; everything measured so far has been written."""

    exit_code = 130
