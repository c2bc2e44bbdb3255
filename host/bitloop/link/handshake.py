"""HELLO: begin a session, and learn what the device is."""

from __future__ import annotations

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel
from bitloop.link.refusals import error_from, version_error
from bitloop.link.wire import messages
from bitloop.spec import MessageType

_RETRY_S = 0.25
_MAX_RETRY_S = 1.0


def say_hello(channel: Channel, *, timeout_s: float, other_baud: int = 0) -> DeviceInfo:
    """Begin a session under ``channel.session`` and collect all parts of the device's HELLO.

    It begins at the boot rate, to which a device at another rate comes back within 3 s of such noise.

    Args:
        channel: Its session number is set already, and is not 0.
        timeout_s: How long to try.
        other_baud: A rate at which the device may be as well: tried in turn with the boot rate, each time shortly.
            Where it answers there, the line has that rate then. 0: none.

    Raises:
        DeviceTimeoutError: Nothing was answered.
        ProtocolError: What answers is no bitloop firmware, or one of another major version.
    """
    started = channel.clock()
    deadline = started + timeout_s
    retry_s = _RETRY_S
    parts: dict[int, dict[int, bytes]] = {}
    channel.set_baud(channel.boot_baud)
    asked = False
    while (now := channel.clock()) < deadline:
        if asked:
            channel.counters.retransmissions += 1
            if other_baud not in (0, channel.boot_baud):
                channel.set_baud(channel.boot_baud if channel.baud == other_baud else other_baud)
        parts[channel.post(messages.HelloRequest()).sequence] = {}
        asked = True
        if channel.baud == channel.boot_baud:
            again_at = min(now + retry_s, deadline)
            retry_s = min(2 * retry_s, _MAX_RETRY_S)
        else:
            again_at = now + max(_RETRY_S, 2 * channel.rtt_s)
        while (now := channel.clock()) < again_at:
            for frame in channel.receive(again_at - now):
                if frame.session != channel.session or frame.sequence not in parts:
                    continue
                if frame.type == MessageType.ERROR:
                    raise error_from(messages.Error.decode(frame.body))
                if frame.type != MessageType.HELLO:
                    continue
                hello = messages.Hello.decode(frame.body)
                collected = parts[frame.sequence]
                collected[hello.part] = hello.fields
                if hello.part >= hello.parts or len(collected) > hello.parts:
                    raise ProtocolError(f"the device sent part {hello.part} of a HELLO in {hello.parts} parts")
                if len(collected) == hello.parts:
                    return _read(collected)
    channel.set_baud(channel.boot_baud)
    raise channel.silence("no answer to HELLO_REQUEST", channel.clock() - started)


def _read(parts: dict[int, bytes]) -> DeviceInfo:
    tagged = [field for number in sorted(parts) for field in messages.parse_fields(parts[number], "HELLO")]
    info = DeviceInfo.from_fields(tagged)
    if info.protocol_major != spec.PROTOCOL_MAJOR:
        raise version_error(info.protocol_major, info.protocol_minor)
    return info
