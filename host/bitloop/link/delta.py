"""What of a new image a device can make of the one that it holds: copies within its memory, in an order that is safe.

Nothing here knows layers or formats: of an image only the places of its pieces are read (docs/model.md).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bitloop import spec
from bitloop.link.delivery.intervals import Intervals
from bitloop.link.wire.upload_messages import HeldPiece

COPY_BYTES = 26
"""What a copy costs on the line: the request's body, and its framing."""

_COUNTS = struct.Struct("<HHHH")  # layers, tensors, bytes of a layer record, bytes of a tensor record
_COUNTS_AT = 12
_PLACES = struct.Struct("<IIIIII")  # data, bytes of it, scales, zero points, groups, columns a chunk
_PLACES_AT = 24
_GROUP_BYTES = 4


class Copy(NamedTuple):
    """Bytes of the old image that are moved to where the new one has them."""

    source: int
    target: int
    size: int


def pieces_of(image: bytes) -> list[HeldPiece]:
    """Give the pieces of an image that its tensor records name, as a device that holds it would tell them.

    A piece that is not in the image, or does not lie in it, has 0 bytes.
    """
    if len(image) < spec.IMAGE_HEADER_BYTES:
        return []
    layers, tensors, layer_bytes, tensor_bytes = _COUNTS.unpack_from(image, _COUNTS_AT)
    pieces: list[HeldPiece] = []
    for index in range(tensors):
        at = spec.IMAGE_HEADER_BYTES + layers * layer_bytes + index * tensor_bytes + _PLACES_AT
        if at + _PLACES.size > len(image):
            break
        data, size, scales, zero_points, groups, chunk = _PLACES.unpack_from(image, at)
        pieces += (
            _piece(image, data, 0 if chunk else size),
            _piece(image, scales, groups * _GROUP_BYTES),
            _piece(image, zero_points, groups * _GROUP_BYTES),
        )
    return pieces


def plan_copies(
    old: Sequence[HeldPiece], image: bytes, *, most_ranges: int, cost_bytes: int = COPY_BYTES
) -> list[Copy]:
    """Find the copies that make what they can of a new image.

    Args:
        old: What the device says of the image that it holds.
        image: The new image.
        most_ranges: How many stretches the device can keep track of.
        cost_bytes: What a copy costs; one of no more bytes does not pay.

    Returns:
        The copies in the order in which the device shall make them: none overwrites what a later one needs. What would
        need another place to go through (a cycle) is left out, the smallest of it.
    """
    copies = [copy for copy in _merged(_matches(old, pieces_of(image)), image) if copy.size > cost_bytes]
    while True:
        ordered = _ordered(copies)
        if _most_stretches(ordered) <= most_ranges:
            return ordered
        copies.remove(min(ordered, key=lambda copy: copy.size))


def _piece(image: bytes, offset: int, size: int) -> HeldPiece:
    if offset == spec.NO_OFFSET or not size or offset + size > len(image):
        return HeldPiece(0, 0, bytes(spec.TENSOR_HASH_BYTES))
    digest = hashlib.sha256(memoryview(image)[offset : offset + size]).digest()
    return HeldPiece(offset, size, digest[: spec.TENSOR_HASH_BYTES])


def _matches(old: Sequence[HeldPiece], new: Sequence[HeldPiece]) -> Iterator[Copy]:
    """Find for each piece of the new image a place in the old one, best one beside that of the piece before."""
    places: dict[tuple[int, bytes], list[int]] = {}
    for piece in old:
        if piece.size:
            places.setdefault((piece.size, piece.digest), []).append(piece.offset)
    shift = 0
    taken = Intervals()
    for piece in sorted(piece for piece in new if piece.size):
        sources = places.get((piece.size, piece.digest))
        if sources is None or taken.meets(piece.offset, piece.offset + piece.size):
            continue
        taken.add(piece.offset, piece.offset + piece.size)
        source = piece.offset + shift if piece.offset + shift in sources else sources[0]
        shift = source - piece.offset
        yield Copy(source, piece.offset, piece.size)


def _merged(matches: Iterator[Copy], image: bytes) -> Iterator[Copy]:
    """Join neighbours that move by the same distance, with the padding between them and behind them."""
    whole: Copy | None = None
    for copy in matches:
        if whole is not None:
            gap = copy.target - whole.target - whole.size
            same = copy.source - copy.target == whole.source - whole.target
            if same and 0 <= gap < spec.IMAGE_ALIGNMENT and not any(image[copy.target - gap : copy.target]):
                whole = Copy(whole.source, whole.target, whole.size + gap + copy.size)
                continue
            yield _padded(whole, image)
        whole = copy
    if whole is not None:
        yield _padded(whole, image)


def _padded(copy: Copy, image: bytes) -> Copy:
    """Take the padding behind too: pieces begin at multiples of 4 in both images, so it is there in both."""
    end = copy.target + copy.size
    padding = -end % spec.IMAGE_ALIGNMENT
    aligned = not (copy.source - copy.target) % spec.IMAGE_ALIGNMENT
    inside = end + padding <= len(image) - spec.IMAGE_CRC_BYTES
    if aligned and inside and not any(image[end : end + padding]):
        return copy._replace(size=copy.size + padding)
    return copy


def _ordered(copies: Sequence[Copy]) -> list[Copy]:
    """Order copies so that each is made before what overwrites its source; leave out the smallest of each cycle."""
    left = list(copies)
    ordered: list[Copy] = []
    while left:
        ready = next((copy for copy in left if not any(_destroys(copy, other) for other in left)), None)
        if ready is None:
            ready = min(_in_cycles(left), key=lambda copy: copy.size)
        else:
            ordered.append(ready)
        left.remove(ready)
    return ordered


def _in_cycles(copies: Sequence[Copy]) -> list[Copy]:
    """Leave those between which each destroys another's source and has its own destroyed."""
    left = list(copies)
    while True:
        inner = [copy for copy in left if any(_destroys(other, copy) for other in left)]
        if len(inner) == len(left):
            return left
        left = inner


def _destroys(copy: Copy, other: Copy) -> bool:
    """Tell whether a copy overwrites what another one needs (its own source it may: memmove)."""
    return copy != other and copy.target < other.source + other.size and other.source < copy.target + copy.size


def _most_stretches(copies: Sequence[Copy]) -> int:
    held = Intervals()
    most = 0
    for copy in copies:
        held.add(copy.target, copy.target + copy.size)
        most = max(most, len(held))
    return most
