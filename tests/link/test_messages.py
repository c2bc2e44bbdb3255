"""Bodies of messages against bytes written out by hand from docs/protocol.md, and bounds."""

import contextlib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop import spec
from bitloop.errors import DeviceError, DoesNotFitError, ProtocolError
from bitloop.link.refusals import describe_error, error_from
from bitloop.link.wire import messages as m
from bitloop.spec import MessageType, Status

HASH = bytes(range(32))
BY_HAND = [
    (m.HelloRequest(1, 0), "0100 0000"),
    (m.Hello(0, 3, b"\x01\x00"), "00 03 0100"),
    (m.EchoRequest(b"abc"), "616263"),
    (m.Echo(b""), ""),
    (m.StatsRequest(), ""),
    (m.Stats(b"\x01\x04\x05\x00\x00\x00"), "0104 05000000"),
    (m.Log(1, b"hi"), "01 6869"),
    (m.Error(-17, 0x10, 5000, 4096), "efff 10 00 88130000 00100000"),
    (m.UploadBegin(0x01020304, 8192, HASH), "04030201 00200000" + HASH.hex()),
    (m.UploadReady(256, 65536), "00010000 00000100"),
    (m.UploadData(16, b"\x00\xff"), "10000000 00ff"),
    (m.UploadAck(18, 4096), "12000000 00100000"),
    (m.UploadEnd(), ""),
    (m.UploadDone(HASH, 8192), HASH.hex() + "00200000"),
    (m.RunBegin(0, 3, 0xFFFF, 10000), "00 03 ffff 10270000"),
    (m.RunReady(8, 52, 6272), "0800 3400 80180000"),
    (m.RunData(784, b"\x01"), "10030000 01"),
    (m.StreamData(2, 784, b"\x01"), "02000000 10030000 01"),
    (m.RunCredit(784, 1568, 1), "10030000 20060000 01000000"),
    (
        m.RunCredit(784, 1568, 1, m.WeightsCredit(2, 3, 0x04030201)),
        "10030000 20060000 01000000 02000000 03000000 01020304",
    ),
    (m.Result(7, 1, b"\x09"), "07000000 01 00 09"),
    (m.RunAck(7, 1), "07000000 01"),
    (m.RunEnd(), ""),
    (m.RunDone(10000), "10270000"),
    (m.ReadActivation(64, 120), "40000000 7800"),
    (m.ActivationData(64, 128, b"\x01\x02"), "40000000 80000000 0102"),
    (m.UploadReady(8, 4096, ((16, 32),)), "08000000 00100000 10000000 20000000"),
    (m.UploadAck(8, 4096, ((16, 32), (33, 4096))), "08000000 00100000 10000000 20000000 21000000 00100000"),
    (m.RunCredit(784, 1568, 1, None, ((785, 1568),)), "10030000 20060000 01000000 11030000 20060000"),
    (
        m.RunCredit(1568, 1568, 1, m.WeightsCredit(2, 3, 9), ((4, 5), (6, 9))),
        "20060000 20060000 01000000 02000000 03000000 09000000 04000000 05000000 06000000 09000000",
    ),
    (m.BaudRequest(921600), "00100e00"),
    (m.BaudReady(923076), "c4150e00"),
    (m.BaudCommit(921600), "00100e00"),
    (m.BaudDone(921600), "00100e00"),
    (m.TensorsRequest(258), "0201"),
    (m.Tensors(3, 6, b"\x09" * 16), "0300 0600" + "09" * 16),
    (m.UploadDelta(0x01020304, 8192, HASH, HASH[:16]), "04030201 00200000" + HASH.hex() + HASH[:16].hex()),
    (m.UploadCopy(1, 256, 512, 70000), "0100 00010000 00020000 70110100"),
    (m.UploadCopied(2, 0, 4096, ((512, 1024),)), "0200 00000000 00100000 00020000 00040000"),
    (m.CodeTable(1, 64, b"\x21"), "01 00 4000 21"),
    (m.CodeReady(1, 65), "01 00 4100"),
    (m.UploadCoded(16, 300, 3, b"\xff"), "10000000 2c01 03 ff"),
    (m.RunCoded(784, 300, 1, b"\x80"), "10030000 2c01 01 80"),
    (m.StreamCoded(2, 784, 300, 2, b"\x80"), "02000000 10030000 2c01 02 80"),
]


def test_every_message_of_the_protocol_is_there():
    assert set(m.MESSAGES) == {int(member) for member in MessageType}
    assert {type(message) for message, _ in BY_HAND} == set(m.MESSAGES.values())
    assert all(kind == cls.TYPE for kind, cls in m.MESSAGES.items())


@pytest.mark.parametrize(("message", "by_hand"), BY_HAND, ids=[type(message).__name__ for message, _ in BY_HAND])
def test_bodies_written_by_hand(message, by_hand):
    body = bytes.fromhex(by_hand)
    assert message.encode() == body
    assert type(message).decode(body) == message


RANGED = (m.UploadReady, m.UploadAck, m.UploadCopied)


@pytest.mark.parametrize("size", range(60))
def test_credit_tells_of_weights_or_does_not(size):
    body = bytearray(size)
    for at in range(4 if size % 8 == 4 else 16, size - 3, 4):  # what may be ranges: ascending
        body[at : at + 4] = at.to_bytes(4, "little")
    if size >= 12 and size % 4 == 0 and size != 16:
        credit = m.RunCredit.decode(bytes(body))
        assert (credit.weights is None) == (size % 8 == 4)
        assert len(credit.ranges) == (size - (12 if credit.weights is None else 24)) // 8
    else:
        with pytest.raises(ProtocolError, match=f"RUN_CREDIT has a body of {size} bytes, expected 12, or 24"):
            m.RunCredit.decode(bytes(body))


def test_ranges_of_credit_are_of_the_pixels_while_some_are_missing():
    pixels = m.RunCredit.decode(m.RunCredit(5, 9, 0, m.WeightsCredit(0, 7, 8), ((6, 7),)).encode())
    assert pixels.of_pixels
    weights = m.RunCredit.decode(m.RunCredit(9, 9, 0, m.WeightsCredit(0, 2, 8), ((6, 7),)).encode())
    assert not weights.of_pixels


IMPOSSIBLE = [
    ("behind next", ((8, 9),)),
    ("touching next", ((10, 11),)),
    ("empty", ((12, 12),)),
    ("backwards", ((14, 12),)),
    ("touching one another", ((12, 14), (14, 15))),
    ("overlapping", ((12, 14), (13, 15))),
    ("descending", ((20, 21), (12, 13))),
    ("too many", tuple((12 + 2 * i, 13 + 2 * i) for i in range(8))),
]


@pytest.mark.parametrize(("what", "ranges"), IMPOSSIBLE, ids=[what for what, _ in IMPOSSIBLE])
def test_impossible_ranges_are_refused(what, ranges):
    for message in (
        m.UploadReady(10, 99, ranges),
        m.UploadAck(10, 99, ranges),
        m.UploadCopied(0, 10, 99, ranges),
        m.RunCredit(10, 99, 0, None, ranges),
        m.RunCredit(99, 99, 0, m.WeightsCredit(0, 10, 99), ranges),
    ):
        with pytest.raises(ProtocolError, match="which cannot be; its firmware is faulty"):
            type(message).decode(message.encode())


@given(st.lists(st.integers(11, 0xFFFFFFFF), unique=True, max_size=14), st.sampled_from(RANGED))
def test_ranges_round_trip(bounds, cls):
    bounds = sorted(bounds)[: len(bounds) // 2 * 2]
    ranges = tuple(zip(bounds[::2], bounds[1::2], strict=True))
    message = cls(*([10] * (len(fields(cls)) - 1)), ranges)
    assert cls.decode(message.encode()) == message


def test_pieces_of_tensors():
    record = bytes.fromhex("00010000 02000000 0102030405060708")
    assert m.Tensors(1, 3, 2 * record).pieces() == [m.HeldPiece(256, 2, bytes(range(1, 9)))] * 2
    assert m.Tensors(0, 0, b"").pieces() == []
    for bad in (m.Tensors(0, 3, record[:-1]), m.Tensors(2, 3, 2 * record), m.Tensors(0, 3, b"")):
        with pytest.raises(ProtocolError, match="TENSORS has"):
            bad.pieces()


@pytest.mark.parametrize(
    "cls",
    [cls for cls in m.MESSAGES.values() if cls not in (m.RunCredit, *RANGED)],
    ids=lambda cls: cls.__name__,
)
@given(body=st.binary(max_size=60))
def test_any_body_is_read_or_refused(cls, body):
    size = cls.LAYOUT.size
    if len(body) < size or (len(body) > size and not cls.TAIL):
        with pytest.raises(ProtocolError, match=cls.TYPE.name):
            cls.decode(body)
    else:
        assert type(cls.decode(body)) is cls


@pytest.mark.parametrize("cls", [m.RunCredit, *RANGED], ids=lambda cls: cls.__name__)
@given(body=st.binary(max_size=60))
def test_any_body_with_ranges_is_read_or_refused(cls, body):
    with contextlib.suppress(ProtocolError):
        assert cls.decode(body).encode() == body


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=255)), max_size=6))
def test_fields_round_trip(tagged):
    assert m.parse_fields(m.join_fields(tagged), "HELLO") == tagged


@pytest.mark.parametrize("bad", ["01", "0102", "010261", "0100 05"])
def test_cut_fields_are_refused(bad):
    with pytest.raises(ProtocolError, match="HELLO ends within a field"):
        m.parse_fields(bytes.fromhex(bad), "HELLO")


def test_details_stand_behind_their_names():
    text = describe_error(m.Error(Status.BAD_CODE, MessageType.UPLOAD_END, 3, 17))
    assert (
        text
        == "the device refused UPLOAD_END: a tensor holds a code that is no finite number (tensor 3, element 17) [BAD_CODE]"  # noqa: E501
    )
    one = describe_error(m.Error(Status.BAD_LAYER_CHAIN, MessageType.UPLOAD_END, 2, 0))
    assert one.endswith("(layer 2) [BAD_LAYER_CHAIN]")


@pytest.mark.parametrize("status", Status)
def test_every_status_becomes_an_error(status):
    error = error_from(m.Error(status, MessageType.UPLOAD_END, 9, 4))
    assert isinstance(error, DeviceError | ProtocolError)
    if isinstance(error, DeviceError):
        assert error.status == status
        assert error.details == (9, 4)


def test_an_unknown_status_keeps_its_numbers():
    error = error_from(m.Error(-99, 0x77, 5, 6))
    assert isinstance(error, DeviceError)
    assert "type 0x77" in str(error)
    assert "-99" in str(error)
    assert "5 and 6" in str(error)


def test_no_memory_names_the_missing_bytes():
    error = error_from(m.Error(Status.NO_MEMORY, MessageType.UPLOAD_BEGIN, 5000, 4096))
    assert isinstance(error, DoesNotFitError)
    assert (error.needed_bytes, error.available_bytes, error.missing_bytes) == (5000, 4096, 904)
    assert "904" in str(error)


@pytest.mark.parametrize(
    ("major", "side"), [(spec.PROTOCOL_MAJOR - 1, "firmware is older"), (spec.PROTOCOL_MAJOR + 1, "host is older")]
)
def test_another_major_version_says_which_side_to_update(major, side):
    error = error_from(m.Error(Status.BAD_PROTOCOL, MessageType.HELLO_REQUEST, major, 7))
    assert isinstance(error, ProtocolError)
    assert side in str(error)
    assert f"{major}.7" in str(error)
