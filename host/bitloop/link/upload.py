"""Upload of an image: resumes where an earlier one broke off, and ends with the hash that the device computed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from bitloop import spec
from bitloop.errors import UsageError
from bitloop.hello import DeviceInfo
from bitloop.link import messages
from bitloop.link.channel import MAX_RETRY_S, Channel, Timing
from bitloop.link.refusals import error_from
from bitloop.link.stream import StreamSender, Window
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
    """What the link must know of an image to cut its results up, and to stream its weights.

    Attributes:
        input_shape: Height, width, channels.
        layers: Number of layer records.
        logits: Number of logits.
        slots: Images the device holds; a batch, if weights are streamed.
        streamed_bytes: Bytes of weights that travel with each batch, 0 if all are in the image.
    """

    input_shape: tuple[int, int, int]
    layers: int
    logits: int
    slots: int = 1
    streamed_bytes: int = 0

    @classmethod
    def of(cls, image: bytes) -> ImageShape | None:
        """Read the image's header; None when it is too short to have one (the device will refuse it)."""
        if len(image) < spec.IMAGE_HEADER_BYTES:
            return None
        (layers,) = struct.unpack_from("<H", image, 12)
        height, width, channels = struct.unpack_from("<HHH", image, 20)
        (slots,) = struct.unpack_from("<H", image, 36)
        logits, streamed_bytes = struct.unpack_from("<II", image, 48)
        return cls((height, width, channels), layers, logits, slots, streamed_bytes)

    @property
    def pixels(self) -> int:
        """Bytes of one input."""
        height, width, channels = self.input_shape
        return height * width * channels


class Weights(Protocol):
    """Weights that are not in the image, as :class:`bitloop.plan.StreamedWeights` has them."""

    @property
    def data(self) -> bytes:
        """What one batch needs, in the order it is needed."""

    @property
    def ends(self) -> tuple[int, ...]:
        """For each layer, the offset behind its weights, or behind those before it."""


def check_weights(shape: ImageShape | None, weights: Weights | None) -> None:
    """See that an image comes with the weights that it leaves out.

    Raises:
        UsageError: They are missing, or others.
    """
    expected = 0 if shape is None else shape.streamed_bytes
    if weights is None:
        if expected:
            raise UsageError(
                f"the image leaves out {expected} bytes of weights, which travel with each batch; upload it with them"
            )
        return
    if shape is None or not expected or len(weights.data) != expected:
        raise UsageError(f"{len(weights.data)} bytes of weights to stream, the image leaves out {expected}")
    ends = (0, *weights.ends)
    if len(weights.ends) != shape.layers or list(ends) != sorted(ends) or ends[-1] != expected:
        raise UsageError(
            f"the weights to stream end at {list(weights.ends)}, the image has {shape.layers} layers and leaves out "
            f"{expected} bytes"
        )


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
    window = Window(channel, info.window_bytes)
    sender = StreamSender(window, memoryview(image), messages.UploadData, body_bytes=info.body_bytes)
    sender.start(ready.offset, ready.limit)
    _send(window, sender, len(image), timing, progress)
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


def _send(window: Window, sender: StreamSender, total: int, timing: Timing, progress: Progress | None) -> None:
    channel = window.channel
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
                advanced |= sender.answer(window.answered(frame.sequence), ack.next, ack.limit)
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
