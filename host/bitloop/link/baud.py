"""The line's rate: climb from the boot rate to the greatest one that proves itself, and come back where none does."""

from __future__ import annotations

import logging
import random

from bitloop import spec
from bitloop.errors import DeviceError, DeviceTimeoutError, LinkError, ProtocolError, TransportError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel, Timing
from bitloop.link.wire import messages
from bitloop.link.wire.frame import encoded_size
from bitloop.spec import MessageType

logger = logging.getLogger(__name__)

USUAL_BAUDS = (3_000_000, 2_000_000, 1_500_000, 1_000_000, 921_600, 460_800, 230_400)
"""What serial ports of both sides commonly have, the greatest first."""

_BITS_A_BYTE = 10
_PROOF_BYTES = 2048  # at least so much comes back right, in so many echoes
_LEAST_ECHOES = 4
_MOST_ECHOES = 16
_GOODBYE_S = 0.5
_FIRST_ECHO_S = 0.6  # ends before the device takes the new rate for a failure
_FIRST_ECHO_RETRY_S = 0.1
_ECHO_S = 0.25
_CLOCK_MARGIN = 1.2  # a device's clock may be off by a tenth, and it looks every 100 ms
_BACK_S = _CLOCK_MARGIN * spec.BAUD_NOISE_MS / 1000 + 1.0


def next_lower_baud(baud: int) -> int:
    """Give the usual rate below ``baud``, 0 if there is none."""
    return next((usual for usual in USUAL_BAUDS if usual < baud), 0)


def climb(channel: Channel, info: DeviceInfo, target_baud: int, timing: Timing) -> int:
    """Bring the line to the greatest rate that carries echoes without a fault both ways.

    Tried are the least of ``target_baud`` and what the device can do, then the usual rates below that. When a rate
    fails, both sides come back to the boot rate before the next one; the last rate is the boot rate itself. A line
    without a rate of its own, and a device that cannot change its, are left alone.

    Args:
        channel: Of a session that has said hello, at the boot rate.
        info: The device.
        target_baud: Most bits a second.
        timing: How long to wait.

    Returns:
        The rate that the line has then, in bits a second; 0 if it has none.

    Raises:
        DeviceTimeoutError: The device was lost, and does not come back; the host is at the boot rate.
        TransportError: The stream broke.
    """
    boot = channel.boot_baud
    if not boot or not info.baud:
        return channel.baud
    name = channel.transport.description
    baud = min(target_baud, info.max_baud)
    while baud > boot:
        reason = _try(channel, info, baud, timing)
        if reason is None:
            logger.info("%s: %d baud", name, baud)
            return baud
        logger.warning("%s: %d baud does not work (%s)", name, baud, reason)
        baud = next_lower_baud(baud)
    return boot


class Rate:
    """The rate of a session's line: sought when the session begins, kept between what it does.

    Args:
        channel: Of the session.
        max_baud: Most bits a second that the line may be brought to; 0 leaves its rate alone.

    Attributes:
        reached_baud: The greatest rate that has proved itself, 0 as long as none was sought.
    """

    def __init__(self, channel: Channel, max_baud: int) -> None:
        self._channel = channel
        self._max_baud = max_baud
        self.reached_baud = 0

    def patience_s(self, timeout_s: float) -> float:
        """Give how long to say hello: not less than a device needs that another session has left at another rate."""
        return max(timeout_s, _BACK_S) if self._max_baud else timeout_s

    def settle(self, info: DeviceInfo, timing: Timing) -> None:
        """Seek the rate, once the device has said hello, again no greater one than was found the last time.

        See :func:`climb` for what is raised.
        """
        channel = self._channel
        channel.failed_baud = 0
        if channel.baud != channel.boot_baud:  # it is where an earlier session of ours has left it, and may not stay
            try:
                _request_commit(channel, channel.baud, timing)
                return
            except (DeviceError, DeviceTimeoutError, ProtocolError) as error:
                logger.warning("%s: %d baud is not kept (%s)", channel.transport.description, channel.baud, error)
                _come_back(channel, timing)
        if self._max_baud:
            self.reached_baud = climb(channel, info, self.reached_baud or self._max_baud, timing)

    def keep(self, info: DeviceInfo, timing: Timing) -> None:
        """Bring the line back to its rate if a pause has let it fall, or to a lower one if noise has."""
        channel = self._channel
        channel.check_baud()
        if channel.failed_baud:
            self.reached_baud = min(self.reached_baud, next_lower_baud(channel.failed_baud))
            channel.failed_baud = 0
        if self.reached_baud > channel.boot_baud == channel.baud:
            self.reached_baud = climb(channel, info, self.reached_baud, timing)

    def leave(self) -> None:
        """Bring both sides back to the boot rate, so that the next program finds the device there at once.

        A device that does not answer comes back by itself, ten seconds later at the latest.
        """
        channel = self._channel
        if channel.baud == channel.boot_baud:
            return
        try:
            channel.request(
                messages.BaudRequest(channel.boot_baud),
                messages.BaudReady,
                timeout_s=_GOODBYE_S,
                retry_s=_GOODBYE_S / 2,
                doing="going back to the first rate",
            )
        except (LinkError, DeviceError) as error:
            logger.info("%s: left at %d baud (%s)", channel.transport.description, channel.baud, error)


def _try(channel: Channel, info: DeviceInfo, baud: int, timing: Timing) -> str | None:
    """Change both sides to a rate; give None if it holds, else the reason, and both are at the boot rate again."""
    try:
        ready, _ = channel.request(
            messages.BaudRequest(baud),
            messages.BaudReady,
            timeout_s=timing.timeout_s,
            retry_s=timing.retry_s,
            doing="asking for another rate",
        )
    except DeviceError as error:
        return str(error)
    reason = None
    try:
        channel.set_baud(baud)
        if abs(ready.baud - baud) * 1000 > spec.MAX_BAUD_ERROR_PERMILLE * baud:
            reason = f"the device would have {ready.baud}"
        else:
            reason = _prove(channel, info, baud)
            if reason is None:
                _request_commit(channel, baud, timing)
    except DeviceTimeoutError:
        reason = "nothing comes back"
    except (DeviceError, ProtocolError, TransportError) as error:
        reason = str(error)
    if reason is not None:
        _come_back(channel, timing)
    return reason


def _request_commit(channel: Channel, baud: int, timing: Timing) -> None:
    channel.request(
        messages.BaudCommit(baud),
        messages.BaudDone,
        timeout_s=min(timing.timeout_s, spec.BAUD_NOISE_MS / 1000),
        retry_s=timing.retry_s,
        doing="keeping the rate",
    )


def _prove(channel: Channel, info: DeviceInfo, baud: int) -> str | None:
    """Send echoes; give None if all came back at once, right, and nothing else with them.

    Only the first may be repeated: a line may lose a byte or see one that nobody sent while its rate changes.
    """
    noise = random.Random(channel.session)
    first = noise.randbytes(spec.MIN_BODY_BYTES)
    echo, _ = channel.request(
        messages.EchoRequest(first),
        messages.Echo,
        timeout_s=_FIRST_ECHO_S,
        retry_s=_FIRST_ECHO_RETRY_S,
        doing=f"trying {baud} baud",
    )
    if echo.data != first:
        return "other bytes came back than were sent"
    size = min(info.body_bytes, info.longest_sent)
    damaged = channel.counters.crc_errors
    for _ in range(min(max(-(-_PROOF_BYTES // size), _LEAST_ECHOES), _MOST_ECHOES)):
        data = noise.randbytes(size)
        if _echo(channel, data, baud) != data:
            return f"an echo of {size} bytes did not come back"
    if channel.counters.crc_errors > damaged:
        return "there were damaged frames among the echoes"
    return None


def _echo(channel: Channel, data: bytes, baud: int) -> bytes | None:
    """Ask for an echo once; give what came back, None if nothing did."""
    sequence = channel.post(messages.EchoRequest(data)).sequence
    line_s = 2 * encoded_size(len(data)) * _BITS_A_BYTE / baud
    deadline = channel.clock() + _ECHO_S + line_s + 2 * channel.rtt_s
    while (now := channel.clock()) < deadline:
        for frame in channel.receive(deadline - now):
            if frame.type == MessageType.ECHO and frame.sequence == sequence:
                return frame.body
    return None


def _come_back(channel: Channel, timing: Timing) -> None:
    """Return to the boot rate and wait until the device is there: by itself within a second, at the latest of noise.

    Raises:
        DeviceTimeoutError: It does not come.
    """
    channel.set_baud(channel.boot_baud)
    quiet_until = channel.clock() + _CLOCK_MARGIN * spec.BAUD_TRIAL_MS / 1000
    while (now := channel.clock()) < quiet_until:
        channel.receive(quiet_until - now)
    channel.request(
        messages.EchoRequest(b""),
        messages.Echo,
        timeout_s=max(timing.timeout_s, _BACK_S),
        retry_s=timing.retry_s,
        doing="going back to the first rate",
    )
