"""The host's decoder of frames, and its readers of messages, on anything that a line may bring.

:func:`fuzz` draws lines with hypothesis, in the tests; ``scripts/fuzz host`` runs this module under atheris, which
looks for inputs that reach new branches.
"""

from __future__ import annotations

import contextlib
import itertools
import struct
import sys
import zlib
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from bitloop.errors import ProtocolError
from bitloop.link.wire import messages
from bitloop.link.wire.frame import CorruptFrame, Decoder, Frame, RawBytes, encode_frame, encoded_size

MOST_BODY_BYTES = 300

_bodies = st.one_of(st.binary(max_size=MOST_BODY_BYTES + 20), st.integers(0, 400).map(bytes))
_types = st.one_of(st.sampled_from([int(kind) for kind in messages.MESSAGES]), st.integers(0, 255))
_frames = st.builds(encode_frame, _types, st.integers(0, 255), st.integers(0, 0xFFFF), _bodies)
_damage = st.tuples(st.sampled_from(("flip", "cut", "double", "insert")), st.integers(0), st.binary(max_size=9))


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Draw what comes in: frames, other bytes, and some of it damaged."""
    line = bytearray(b"".join(draw(st.lists(st.one_of(_frames, st.binary(max_size=40)), max_size=6))))
    for how, where, data in draw(st.lists(_damage, max_size=4)):
        at = where % (len(line) + 1)
        if how == "flip" and at < len(line):
            line[at] ^= 1 << where % 8
        elif how == "cut":
            del line[at : at + len(data)]
        elif how == "double":
            line[at:at] = line[at : at + 3 * len(data)]
        elif how == "insert":
            line[at:at] = data
    return bytes(line)


def check(line: bytes, cuts: Sequence[int]) -> int:
    """Decode a line in pieces, and see that each promise is kept; give how many frames were in it.

    Raises:
        AssertionError: one is not; the text says which.
    """
    decoder = Decoder(MOST_BODY_BYTES)
    places = sorted({cut % (len(line) + 1) for cut in cuts} | {0, len(line)})
    items = []
    for begin, end in itertools.pairwise(places):
        items += decoder.feed(line[begin:end])
        if len(decoder.pending) > encoded_size(MOST_BODY_BYTES):
            raise AssertionError("more is kept than a frame has")
    items += decoder.flush()
    frames = 0
    rest = bytearray()
    for item in items:
        if isinstance(item, Frame):
            frames += 1
            _check_frame(item, line)
            rest += encode_frame(*item)[:-1]
        elif isinstance(item, CorruptFrame | RawBytes):
            rest += item.data
        else:
            raise AssertionError(f"{item!r} is no item")
    if not frames and bytes(rest) != line.replace(b"\0", b""):
        raise AssertionError("bytes were lost or made up")
    after = [item for item in decoder.feed(b"\0" + encode_frame(1, 2, 3, b"after")) if isinstance(item, Frame)]
    if after != [Frame(1, 2, 3, b"after")]:
        raise AssertionError("a good frame behind it is not found")
    return frames


def _check_frame(frame: Frame, line: bytes) -> None:
    if len(frame.body) > MOST_BODY_BYTES:
        raise AssertionError(f"a frame of {len(frame.body)} bytes came through, {MOST_BODY_BYTES} are the most")
    for kind in messages.MESSAGES.values():
        with contextlib.suppress(ProtocolError):
            kind.decode(frame.body)
    if encode_frame(*frame)[:-1] not in line and not _has_other_form(frame, line):
        raise AssertionError("a frame came out that nobody sent")


def _has_other_form(frame: Frame, line: bytes) -> bool:
    """Tell whether some stretch between two zeros holds the frame in another form of COBS than ours."""
    content = struct.pack("<BBH", *frame[:3]) + frame.body
    content += struct.pack("<I", zlib.crc32(content))
    return any(_content(piece) == content for piece in line.split(b"\0") if piece)


def _content(piece: bytes) -> bytes | None:
    """Decode COBS, read off its definition."""
    content = bytearray()
    at = 0
    while at < len(piece):
        code = piece[at]
        content += piece[at + 1 : at + code]
        at += code
        if code < 0xFF and at < len(piece):
            content.append(0)
    return bytes(content) if at == len(piece) else None


def fuzz(examples: int) -> int:
    """Check so many drawn lines; give how many frames were in them.

    Raises:
        AssertionError: a promise is broken.
    """
    frames = 0

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(lines(), st.lists(st.integers(0), max_size=5))
    def each(line: bytes, cuts: list[int]) -> None:
        nonlocal frames
        frames += check(line, cuts)

    each()
    return frames


def line_of(data: bytes) -> bytes:
    """Make a line of a fuzzer's bytes: a length below 128 and so many bytes as they are, or a length and a frame."""
    line = bytearray()
    at = 0
    while at < len(data):
        size = data[at]
        part = data[at + 1 : at + 1 + (size & 0x7F)]
        at += 1 + len(part)
        if size < 0x80:
            line += part
        else:
            kind, sequence, session = (*part[:3], 0, 0, 0)[:3]
            line += encode_frame(kind, sequence, session, part[3:] * (1 + sequence % 4))
    return bytes(line)


def _one_input(data: bytes) -> None:
    check(line_of(data[2:]), tuple(data[:2]))


def main() -> None:
    """Run under atheris, with libFuzzer's options."""
    import atheris  # noqa: PLC0415 - only here

    atheris.instrument_all()
    atheris.Setup(sys.argv, _one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
