"""Upload of an image: resumes where an earlier one broke off, and ends with the hash that the device computed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass

from bitloop import spec
from bitloop.errors import UsageError
from bitloop.hello import DeviceInfo
from bitloop.link import messages
from bitloop.link.channel import MAX_RETRY_S, Channel, Timing
from bitloop.link.refusals import error_from
from bitloop.link.stream import StreamSender
from bitloop.spec import MessageType

Progress = Callable[[int, int], None]
"""Called with how much is done, and how much there is."""

_CHECK_S_PER_BYTE = 50e-6
"""Time allowed to the device for hashing and checking a byte of the image: 20 KB/s, what an 8-bit chip manages."""


@dataclass(frozen=True)
class UploadReport:
    """What became of an upload.

    Attributes:
        device_sha256: SHA-256 of the image as the device computed it, 64 hex digits; the caller compares it.
        arena_bytes: Bytes of the arena that the device says are in use.
        image_bytes: Length of the image.
        resumed_bytes: How much of it the device held already.
        seconds: From the first request to the verdict.
    """

    device_sha256: str
    arena_bytes: int
    image_bytes: int
    resumed_bytes: int
    seconds: float


@dataclass(frozen=True)
class ImageShape:
    """What the link must know of an image to cut its results up."""

    input_shape: tuple[int, int, int]
    layers: int
    logits: int

    @classmethod
    def of(cls, image: bytes) -> ImageShape | None:
        """Read the image's header; None when it is too short to have one (the device will refuse it)."""
        if len(image) < spec.IMAGE_HEADER_BYTES:
            return None
        (layers,) = struct.unpack_from("<H", image, 12)
        height, width, channels = struct.unpack_from("<HHH", image, 20)
        (logits,) = struct.unpack_from("<I", image, 48)
        return cls((height, width, channels), layers, logits)

    @property
    def pixels(self) -> int:
        """Bytes of one input."""
        height, width, channels = self.input_shape
        return height * width * channels


def upload(
    channel: Channel, info: DeviceInfo, image: bytes, arena_bytes: int, *, timing: Timing, progress: Progress | None
) -> UploadReport:
    """Send an image; see :meth:`bitloop.link.session.Session.upload`."""
    if not 0 <= arena_bytes <= spec.NO_OFFSET or not image or len(image) > spec.MAX_IMAGE_BYTES:
        raise UsageError(f"an image of {len(image)} bytes in an arena of {arena_bytes} cannot be uploaded")
    started = channel.clock()
    begin = messages.UploadBegin(len(image), arena_bytes, hashlib.sha256(image).digest())
    ready, _ = channel.request(
        begin, messages.UploadReady, timeout_s=timing.timeout_s, retry_s=timing.retry_s, doing="beginning the upload"
    )
    sender = StreamSender(
        channel,
        memoryview(image),
        messages.UploadData,
        body_bytes=info.body_bytes,
        window_bytes=info.window_bytes,
    )
    sender.start(ready.offset, ready.limit)
    _send(channel, sender, len(image), timing, progress)
    check_s = len(image) * _CHECK_S_PER_BYTE
    done, _ = channel.request(
        messages.UploadEnd(),
        messages.UploadDone,
        timeout_s=timing.timeout_s + check_s,
        retry_s=timing.retry_s + check_s / 4,
        doing="waiting for the device's verdict on the image",
    )
    return UploadReport(
        device_sha256=done.sha256.hex(),
        arena_bytes=done.arena_bytes,
        image_bytes=len(image),
        resumed_bytes=ready.offset,
        seconds=channel.clock() - started,
    )


def _send(channel: Channel, sender: StreamSender, total: int, timing: Timing, progress: Progress | None) -> None:
    progressed_at = asked_at = channel.clock()
    pause_s = timing.retry_s
    if progress is not None:
        progress(sender.next, total)
    while not sender.done:
        sender.pump()
        now = channel.clock()
        if now - progressed_at >= timing.timeout_s + 2 * channel.rtt_s:
            raise channel.silence(
                f"no progress of the upload at byte {sender.next} of {total}", channel.clock() - progressed_at
            )
        quiet_s = max(pause_s, 2 * channel.rtt_s)
        advanced = False
        for frame in channel.receive(asked_at + quiet_s - now):
            if frame.type == MessageType.UPLOAD_ACK:
                ack = messages.UploadAck.decode(frame.body)
                advanced |= sender.answer(frame.sequence, ack.next, ack.limit)
            elif frame.type == MessageType.ERROR:
                error = messages.Error.decode(frame.body)
                if error.request == MessageType.UPLOAD_DATA:
                    raise error_from(error)
        now = channel.clock()
        if advanced:
            progressed_at = asked_at = now
            pause_s = timing.retry_s
            if progress is not None:
                progress(sender.next, total)
        elif now - asked_at >= quiet_s:
            sender.rewind()
            asked_at = now
            pause_s = min(2 * pause_s, MAX_RETRY_S)
