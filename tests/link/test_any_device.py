"""Whatever a device sends, the host reads it or refuses it by name: the host's part of fuzzing."""

from __future__ import annotations

import contextlib

from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.refusals import error_from
from bitloop.link.wire import messages
from bitloop.link.wire.frame import CorruptFrame, Decoder, Frame, RawBytes, encode_frame
from bitloop.spec import HelloTag, MessageType

FIELDS = st.tuples(st.sampled_from([*HelloTag, 0, 99]), st.binary(max_size=12))
HELLOS = st.builds(
    lambda part, parts, fields: bytes([part, parts]) + messages.join_fields(fields),
    st.integers(0, 255),
    st.integers(0, 255),
    st.lists(FIELDS, max_size=6),
)
BODIES = st.binary(max_size=120) | HELLOS
FRAMES = st.builds(
    encode_frame,
    st.sampled_from([*MessageType]) | st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 65535),
    BODIES,
)


def read(frame: Frame) -> None:
    """Read a frame as far as it can be read."""
    kind = messages.MESSAGES.get(frame.type)
    if kind is None:
        return
    message = kind.decode(frame.body)
    if isinstance(message, messages.Hello):
        DeviceInfo.from_fields(messages.parse_fields(message.fields, "HELLO"))
    elif isinstance(message, messages.Error):
        assert str(error_from(message))


@given(st.lists(FRAMES | st.binary(max_size=60), max_size=8), st.integers(spec.MIN_BODY_BYTES, 300))
@settings(max_examples=1000, deadline=None)
def test_any_stream_is_read_or_refused(pieces: list[bytes], body_bytes: int) -> None:
    """Frames with a right CRC and a body of anything, between bytes that are none."""
    decoder = Decoder(body_bytes)
    for item in [*decoder.feed(b"".join(pieces)), *decoder.flush()]:
        assert isinstance(item, Frame | CorruptFrame | RawBytes)
        if isinstance(item, Frame):
            assert len(item.body) <= body_bytes
            with contextlib.suppress(ProtocolError):
                read(item)


@given(st.lists(FIELDS, max_size=20))
@settings(max_examples=500, deadline=None)
def test_any_fields_make_a_device_or_are_refused(fields: list[tuple[int, bytes]]) -> None:
    with contextlib.suppress(ProtocolError):
        DeviceInfo.from_fields(fields)
