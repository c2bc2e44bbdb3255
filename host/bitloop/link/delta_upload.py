"""The beginning of an upload to a device that holds another image: what of it stays, and where it goes."""

from __future__ import annotations

import logging

from bitloop import spec
from bitloop.errors import DeviceError, ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel, Timing
from bitloop.link.delivery.intervals import Intervals
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.delta import COPY_BYTES, Copy, plan_copies
from bitloop.link.wire import messages
from bitloop.spec import Capability, Status

logger = logging.getLogger(__name__)

_PIECES_A_TENSOR = 3
_NO_TIME_S = 1e-6  # ten times as fast as the fastest serial ports
_RECORD_BYTES = 8 + spec.TENSOR_HASH_BYTES


def make_delta(
    channel: Channel,
    info: DeviceInfo,
    begin: messages.UploadBegin,
    image: bytes,
    *,
    timing: Timing,
    quality: LineQuality,
) -> Intervals | None:
    """Let the device make what it can of a new image from the one that it holds.

    Args:
        channel: Of a session that has said hello.
        info: The device, and the hash of the image that it is believed to hold.
        begin: Announces the new image.
        image: The new image.
        timing: How long to wait.
        quality: What is known of the line.

    Returns:
        What the device holds of the new image now; None if it is to be announced with UPLOAD_BEGIN.

    Raises:
        DoesNotFitError: The device lacks the memory for the new image.
        ProtocolError: The device says what cannot be.
    """
    if Capability.DELTA_UPLOAD not in info.capabilities or info.image_hash in (None, begin.sha256.hex()):
        return None
    base = bytes.fromhex(info.image_hash or "")[: spec.BASE_HASH_BYTES]
    most_ranges = min(info.ranges, (info.longest_sent - messages.UploadCopied.LAYOUT.size) // 8)
    try:
        pieces = _held_pieces(channel, info, timing)
        # Where a byte takes no time to speak of, to wait costs nothing worth more bytes on the line.
        waited_bytes = quality.round_trip_bytes if quality.byte_s > _NO_TIME_S else 0
        copies = plan_copies(pieces, image, most_ranges=most_ranges, cost_bytes=COPY_BYTES + waited_bytes)
        asked_bytes = len(pieces) * _RECORD_BYTES
        logger.debug("%d pieces of %d bytes held: %d copies", len(pieces), asked_bytes, len(copies))
        if not copies:
            return None
        delta = messages.UploadDelta(begin.image_bytes, begin.arena_bytes, begin.sha256, base)
        ready, _ = channel.request(
            delta,
            messages.UploadReady,
            timeout_s=timing.timeout_s,
            retry_s=timing.retry_s,
            doing="beginning the upload of what differs",
        )
    except DeviceError as error:
        if error.status != Status.NO_MODEL:
            raise
        logger.info("the device does not hold the image that it was believed to hold: %s", error)
        return None
    if ready.offset or ready.ranges:
        raise ProtocolError(
            f"the device begins an image of copies with {ready.offset} bytes and {len(ready.ranges)} ranges of it; "
            "its firmware is faulty"
        )
    return _make(channel, copies, timing)


def _held_pieces(channel: Channel, info: DeviceInfo, timing: Timing) -> list[messages.HeldPiece]:
    """Ask for all pieces of the image that the device holds."""
    pieces: list[messages.HeldPiece] = []
    total: int | None = None
    while total is None or len(pieces) < total:
        answer, _ = channel.request(
            messages.TensorsRequest(len(pieces)),
            messages.Tensors,
            timeout_s=timing.timeout_s,
            retry_s=timing.retry_s,
            doing="asking what the device holds",
        )
        if total is None:
            total = answer.total
        if answer.first != len(pieces) or answer.total != total or total > _PIECES_A_TENSOR * info.max_tensors:
            raise ProtocolError(
                f"asked for piece {len(pieces)} of {total}, the device told of {answer.first} of {answer.total}; "
                "its firmware is faulty"
            )
        pieces += answer.pieces()
    beyond = [piece for piece in pieces if piece.offset + piece.size > info.arena_bytes]
    if beyond:
        raise ProtocolError(
            f"the device says that it holds {beyond[0].size} bytes at {beyond[0].offset} of an image, its arena has "
            f"{info.arena_bytes}; its firmware is faulty"
        )
    return pieces


def _make(channel: Channel, copies: list[Copy], timing: Timing) -> Intervals:
    """Have copies made, one after another; those that the device has no range for are left out."""
    held = Intervals()
    for number, copy in enumerate(copies):
        try:
            copied, _ = channel.request(
                messages.UploadCopy(number, *copy),
                messages.UploadCopied,
                timeout_s=timing.timeout_s,
                retry_s=timing.retry_s,
                doing="having bytes of the image before moved",
            )
        except DeviceError as error:
            if error.status != Status.TOO_MANY:
                raise
            logger.info("%d of %d copies were made: %s", number, len(copies), error)
            break
        if copied.number != number + 1:
            raise ProtocolError(
                f"copy {number} was made, the device asks for copy {copied.number}; its firmware is faulty"
            )
        held.add(copy.target, copy.target + copy.size)
    return held
