"""ERROR frames in words, and as the exceptions that they become."""

from __future__ import annotations

import re

from bitloop import spec
from bitloop.errors import Cause, DeviceError, DoesNotFitError, LinkError, ProtocolError
from bitloop.link.wire.messages import Error, message_name, status_name
from bitloop.spec import Status

_DETAILS = re.compile(r" \(details?: ([^)]*)\)")


def describe_error(error: Error) -> str:
    """Say what an ERROR frame means: request, reason, and its details in words."""
    try:
        text = spec.STATUS_TEXTS[Status(error.status)]
    except (ValueError, KeyError):
        text = f"unknown status {error.status}, details {error.detail0} and {error.detail1}"
    match = _DETAILS.search(text)
    if match:
        named = zip(match[1].split(", "), (error.detail0, error.detail1), strict=False)
        values = ", ".join(f"{name} {value}" for name, value in named)
        text = f"{text[: match.start()]} ({values}){text[match.end() :]}"
    return f"the device refused {message_name(error.request)}: {text} [{status_name(error.status)}]"


def error_from(error: Error) -> DeviceError | LinkError:
    """Turn an ERROR frame into the exception to raise."""
    text = describe_error(error)
    if error.status == Status.NO_MEMORY:
        needed, available = error.detail0, error.detail1
        return DoesNotFitError(
            f"the model needs {needed} bytes of memory, the device has {available}: {needed - available} are missing; "
            "choose a narrower format, a smaller network or a larger board",
            needed_bytes=needed,
            available_bytes=available,
            status=error.status,
        )
    if error.status == Status.BAD_PROTOCOL:
        return version_error(error.detail0, error.detail1)
    return DeviceError(text, status=error.status, details=(error.detail0, error.detail1))


def version_error(major: int, minor: int) -> ProtocolError:
    """Say which side to update when the firmware speaks another major version."""
    ours = f"{spec.PROTOCOL_MAJOR}.{spec.PROTOCOL_MINOR}"
    if major < spec.PROTOCOL_MAJOR:
        cause = Cause.OLD_FIRMWARE
        advice = "the firmware is older: build and flash the one of this bitloop (bitloop firmware flash)"
    else:
        cause = Cause.NEW_FIRMWARE
        advice = "the host is older: update bitloop (pip install --upgrade bitloop)"
    return ProtocolError(f"the firmware speaks protocol {major}.{minor}, this host {ours}; {advice}", cause=cause)
