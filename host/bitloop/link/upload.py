"""Upload of an image: resumes where an earlier one broke off, and ends with the hash that the device computed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

from bitloop import spec
from bitloop.errors import DeviceError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel, Timing
from bitloop.link.code_table import coding_name, send_table, worth_its_table
from bitloop.link.coding import Coder
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.delivery.stream import UPLOAD_FRAMES, StreamSender
from bitloop.link.delivery.window import Window
from bitloop.link.delta_upload import make_delta
from bitloop.link.refusals import error_from
from bitloop.link.wire import messages
from bitloop.spec import CodeTable, MessageType, Status

logger = logging.getLogger(__name__)

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
        sent_bytes: How much of the image travelled, as decoded bytes.
        copied_bytes: How much of it the device made of the image that it held before.
        line_bytes: Encoded bytes that went up for all this.
        coding: How the image travelled: "plain", "runs", "codes", "runs and codes".
    """

    device_sha256: str
    arena_bytes: int
    image_bytes: int
    resumed_bytes: int
    seconds: float
    sent_bytes: int = 0
    copied_bytes: int = 0
    line_bytes: int = 0
    coding: str = "plain"


def upload(
    channel: Channel,
    info: DeviceInfo,
    image: bytes,
    arena_bytes: int,
    *,
    timing: Timing,
    progress: Progress | None,
    quality: LineQuality | None = None,
    coder: Coder | None = None,
) -> UploadReport:
    """Send an image, what the device lacks of it; see :meth:`bitloop.link.session.Session.upload`.

    Args:
        channel: Of a session that has said hello.
        info: The device; of an image that it holds, what is the same in the new one is moved there instead of sent.
        image: As planned for this device.
        arena_bytes: Memory that it needs in all.
        timing: How long to wait.
        progress: Called with bytes held by the device, and bytes of the image.
        quality: What is known of the line; it learns.
        coder: Codes pieces of the image; None: it travels as it is.
    """
    if not 0 <= arena_bytes <= spec.NO_OFFSET or not image or len(image) > spec.MAX_IMAGE_BYTES:
        raise UsageError(f"an image of {len(image)} bytes in an arena of {arena_bytes} cannot be uploaded")
    sending = _Upload(
        channel,
        info,
        image,
        arena_bytes,
        timing=timing,
        progress=progress,
        quality=quality or LineQuality(),
        coder=coder,
    )
    return sending.run()


class _Upload:
    """One upload; see :func:`upload`."""

    def __init__(
        self,
        channel: Channel,
        info: DeviceInfo,
        image: bytes,
        arena_bytes: int,
        *,
        timing: Timing,
        progress: Progress | None,
        quality: LineQuality,
        coder: Coder | None,
    ) -> None:
        self._channel = channel
        self._info = info
        self._image = image
        self._timing = timing
        self._progress = progress
        self._quality = quality
        self._coder = coder
        self._begin = messages.UploadBegin(len(image), arena_bytes, hashlib.sha256(image).digest())

    def run(self) -> UploadReport:
        """Send it, and wait for the verdict."""
        channel = self._channel
        started, up_before = channel.clock(), channel.counters.bytes_up
        delta = make_delta(channel, self._info, self._begin, self._image, timing=self._timing, quality=self._quality)
        if delta is not None:
            held, copied_bytes = delta, delta.total
            begun = messages.UploadReady(0, len(self._image), tuple(held))
        else:
            begun, copied_bytes = self._ready(), 0
        coder = self._send(begun)
        try:
            done = self._verdict()
        except DeviceError as error:
            if error.status != Status.BAD_HASH or not copied_bytes:
                raise
            logger.warning("what was copied from the image before is not what it should be; sending the whole image")
            begun, copied_bytes = self._ready(), 0
            coder = self._send(begun)
            done = self._verdict()
        resumed_bytes = begun.offset + sum(end - begin for begin, end in begun.ranges) - copied_bytes
        return UploadReport(
            device_sha256=done.sha256.hex(),
            arena_bytes=done.arena_bytes,
            image_bytes=len(self._image),
            resumed_bytes=resumed_bytes,
            seconds=channel.clock() - started,
            sent_bytes=len(self._image) - resumed_bytes - copied_bytes,
            copied_bytes=copied_bytes,
            line_bytes=channel.counters.bytes_up - up_before,
            coding=coding_name(coder),
        )

    def _ready(self) -> messages.UploadReady:
        timing = self._timing
        ready, _ = self._channel.request(
            self._begin,
            messages.UploadReady,
            timeout_s=timing.timeout_s,
            retry_s=timing.retry_s,
            doing="beginning the upload",
        )
        return ready

    def _verdict(self) -> messages.UploadDone:
        check_s = len(self._image) * _CHECK_S_PER_BYTE
        done, _ = self._channel.request(
            messages.UploadEnd(),
            messages.UploadDone,
            timeout_s=self._timing.timeout_s + check_s,
            retry_s=self._timing.retry_s + check_s / 4,
            doing="waiting for the device's verdict on the image",
        )
        return done

    def _send(self, begun: messages.UploadReady) -> Coder | None:
        """Send what the device lacks; give the coder that was used, if it was worth its table."""
        channel, timing, total = self._channel, self._timing, len(self._image)
        left = total - begun.offset - sum(end - begin for begin, end in begun.ranges)
        coder = self._coder if worth_its_table(self._coder, left, total) else None
        send_table(channel, self._info, coder, CodeTable.WEIGHTS, timing)
        window = Window(channel, self._info.window_bytes, self._quality, retry_s=timing.retry_s)
        sender = StreamSender(window, memoryview(self._image), self._info, frames=UPLOAD_FRAMES, coder=coder)
        sender.start(begun.offset, begun.limit, begun.ranges)
        progressed_at = channel.clock()
        asked = 0
        self._tell(sender)
        while not sender.done:
            sender.pump()
            patience_s = timing.timeout_s + 2 * channel.rtt_s + self._info.body_bytes * self._quality.byte_s
            if channel.clock() - progressed_at >= patience_s:
                raise channel.silence(
                    f"no progress of the upload at byte {sender.next} of {total}", channel.clock() - progressed_at
                )
            if self._hear(sender, window, window.overdue_s(asked)):
                progressed_at, asked = channel.clock(), 0
                self._tell(sender)
            elif not sender.done and window.overdue_s(asked) <= 0:
                sender.probe()
                window.heard()
                asked += 1
        return coder

    def _hear(self, sender: StreamSender, window: Window, timeout_s: float) -> bool:
        """Take what arrives; give True if the device has more than before."""
        advanced = False
        for frame in self._channel.receive(timeout_s):
            if frame.type == MessageType.UPLOAD_ACK:
                ack = messages.UploadAck.decode(frame.body)
                advanced |= sender.answer(window.answered(frame.sequence), ack.next, ack.limit, ack.ranges)
            elif frame.type == MessageType.ERROR:
                error = messages.Error.decode(frame.body)
                if error.request in (MessageType.UPLOAD_DATA, MessageType.UPLOAD_CODED):
                    raise error_from(error)
        return advanced

    def _tell(self, sender: StreamSender) -> None:
        if self._progress is not None:
            self._progress(sender.held_bytes, len(self._image))
