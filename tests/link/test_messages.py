"""Bodies of messages against bytes written out by hand from docs/protocol.md, and bounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop import spec
from bitloop.errors import DeviceError, DoesNotFitError, ProtocolError
from bitloop.link import messages as m
from bitloop.link.refusals import describe_error, error_from
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


@pytest.mark.parametrize("size", range(60))
def test_credit_tells_of_weights_or_does_not(size):
    if size in (12, 24):
        assert (m.RunCredit.decode(bytes(size)).weights is None) == (size == 12)
    else:
        with pytest.raises(ProtocolError, match=f"RUN_CREDIT has a body of {size} bytes, expected 12, or 24"):
            m.RunCredit.decode(bytes(size))


@pytest.mark.parametrize(
    "cls", [cls for cls in m.MESSAGES.values() if cls is not m.RunCredit], ids=lambda cls: cls.__name__
)
@given(body=st.binary(max_size=60))
def test_any_body_is_read_or_refused(cls, body):
    size = cls.LAYOUT.size
    if len(body) < size or (len(body) > size and not cls.TAIL):
        with pytest.raises(ProtocolError, match=cls.TYPE.name):
            cls.decode(body)
    else:
        assert type(cls.decode(body)) is cls


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
