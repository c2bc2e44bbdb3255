"""What a line does to the bytes of one direction: loses, inverts, repeats, cuts, exchanges them."""

from __future__ import annotations

import enum

from bitloop.link.line.chance import Hits, draw, key_of
from bitloop.link.line.options import Direction, LineOptions

CABLE_FLIP = 0.02
"""Probability that a bit is inverted above the cable's highest rate: one of 13 frames of 16 bytes passes."""

_MOST_HELD_BYTES = 1 << 16


class _Kind(enum.IntEnum):
    """What is drawn; each has its own sequence of random numbers."""

    DROP = 1
    FLIP = 2
    DUP = 3
    BURST = 4
    BURST_SHAPE = 5
    GARBAGE = 6
    CABLE = 7
    FRAME_DUP = 8
    FRAME_CUT = 9
    FRAME_SWAP = 10
    CUT_LENGTH = 11
    JITTER = 12


def jitter_key(seed: int, direction: Direction) -> int:
    """Give the key of the sequence of a direction's jitter."""
    return key_of(seed, direction, _Kind.JITTER)


class ByteFaults:
    """Faults of single bytes; which are struck depends on seed and position only.

    Args:
        options: The line's.
        direction: Whose bytes these are.
    """

    def __init__(self, options: LineOptions, direction: Direction) -> None:
        strikes = options.strikes(direction)

        def hits(kind: _Kind, probability: float) -> Hits:
            return Hits(key_of(options.seed, direction, kind), probability if strikes else 0.0)

        self._drop = hits(_Kind.DROP, options.drop)
        self._flip = hits(_Kind.FLIP, options.flip)
        self._dup = hits(_Kind.DUP, options.dup)
        self._burst = hits(_Kind.BURST, options.burst)
        self._cable = Hits(key_of(options.seed, direction, _Kind.CABLE), CABLE_FLIP if options.cable_baud else 0.0)
        self._cable_baud = options.cable_baud or 0
        self._shape_key = key_of(options.seed, direction, _Kind.BURST_SHAPE)
        self._garbage_key = key_of(options.seed, direction, _Kind.GARBAGE)
        self._position = 0
        self._burst_end = 0
        self._burst_loses = False

    def apply(self, data: bytes, baud: int) -> bytes:
        """Give what becomes of the next bytes of the stream, sent at ``baud``."""
        start = self._position
        end = self._position = start + len(data)
        masks: dict[int, int] = {}
        over_cable = bool(self._cable_baud) and baud > self._cable_baud
        for hits, counts in ((self._flip, True), (self._cable, over_cable)):
            for bit in hits.below(8 * end):
                if counts:
                    masks[bit >> 3] = masks.get(bit >> 3, 0) ^ (1 << (bit & 7))
        drops = set(self._drop.below(end))
        dups = set(self._dup.below(end))
        in_bursts = self._in_bursts(start, end)
        struck = sorted(masks.keys() | drops | dups | in_bursts.keys())
        if not struck:
            return data
        out = bytearray()
        done = start
        for position in struck:
            out += data[done - start : position - start]
            done = position + 1
            value: int | None = in_bursts[position] if position in in_bursts else data[position - start]
            if value is not None and position not in drops:
                out += bytes([value ^ masks.get(position, 0)]) * (2 if position in dups else 1)
        out += data[done - start :]
        return bytes(out)

    def _in_bursts(self, start: int, end: int) -> dict[int, int | None]:
        """Give what bursts make of the bytes they cover: garbage, or None where they are lost."""
        covered: dict[int, int | None] = {}

        def cover(first: int, last: int) -> None:
            for position in range(first, last):
                garbage = draw(self._garbage_key, position) & 0xFF
                covered[position] = None if self._burst_loses else garbage

        begun = start
        for position in self._burst.below(end):
            cover(begun, min(self._burst_end, position))
            shape = draw(self._shape_key, position)
            self._burst_loses = bool(shape & 1)
            self._burst_end = position + 8 + (shape >> 1) % 57
            begun = position
        cover(begun, min(self._burst_end, end))
        return covered


class FrameFaults:
    """Faults of whole frames; a frame is what stands between two zero bytes, with the zero byte behind it.

    Frames are counted from 0, and which are struck depends on seed and number only. A frame that is struck is held
    until its end is there; all others pass byte by byte.

    Args:
        options: The line's.
        direction: Whose frames these are.
    """

    def __init__(self, options: LineOptions, direction: Direction) -> None:
        strikes = options.strikes(direction)

        def hits(kind: _Kind, probability: float) -> Hits:
            return Hits(key_of(options.seed, direction, kind), probability if strikes else 0.0)

        self._hits = {
            _Kind.FRAME_DUP: hits(_Kind.FRAME_DUP, options.frame_dup),
            _Kind.FRAME_CUT: hits(_Kind.FRAME_CUT, options.frame_cut),
            _Kind.FRAME_SWAP: hits(_Kind.FRAME_SWAP, options.frame_swap),
        }
        self._is_idle = not strikes or not (options.frame_dup or options.frame_cut or options.frame_swap)
        self._cut_key = key_of(options.seed, direction, _Kind.CUT_LENGTH)
        self._number = -1
        self._in_frame = False
        self._faults: set[_Kind] = set()
        self._held: bytearray | None = None
        self._swapped = b""

    def feed(self, data: bytes) -> bytes:
        """Give what goes onto the line when the sender sends ``data``."""
        if self._is_idle:
            return data
        out = bytearray()
        pieces = data.split(b"\0")
        for index, piece in enumerate(pieces):
            if piece and not self._in_frame:
                self._begin()
            self._pass(out, piece)
            if index < len(pieces) - 1:
                self._end(out)
        return bytes(out)

    def clear(self) -> None:
        """Forget what is held, and what was begun: the line broke."""
        self._in_frame = False
        self._held = None
        self._swapped = b""

    def _begin(self) -> None:
        self._in_frame = True
        self._number += 1
        # All are asked: each must go on behind this number.
        self._faults = {kind for kind, hits in self._hits.items() if list(hits.below(self._number + 1))}
        if self._faults:
            self._held = bytearray()

    def _pass(self, out: bytearray, piece: bytes) -> None:
        if self._held is None:
            out += piece
            return
        self._held += piece
        if len(self._held) > _MOST_HELD_BYTES:  # no frame: whatever it is shall not be held for ever
            out += self._held
            self._held = None

    def _end(self, out: bytearray) -> None:
        if not self._in_frame:
            out += b"\0"
            return
        self._in_frame = False
        swapped, self._swapped = self._swapped, b""
        if self._held is None:
            out += b"\0"
        else:
            frame = bytes(self._held) + b"\0"
            self._held = None
            if _Kind.FRAME_CUT in self._faults:
                frame = frame[: -1 - draw(self._cut_key, self._number) % len(frame)]
            if _Kind.FRAME_DUP in self._faults:
                frame *= 2
            if _Kind.FRAME_SWAP in self._faults and not swapped:
                self._swapped = frame
            else:
                out += frame
        out += swapped
