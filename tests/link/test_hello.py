"""HELLO's fields against bytes written out by hand, and what is refused."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.errors import ProtocolError
from bitloop.hello import MIN_WINDOW_BYTES, DeviceInfo, printable, probe_crc
from bitloop.spec import Capability, Coding, FormatKind, HelloTag, LayerKind, ResetCause, TimerUnit

HASH = bytes(range(32))
BY_HAND = {
    1: "0100 0000",
    2: b"1.2.3".hex(),
    3: HASH.hex(),
    4: b"nucleo_f446re".hex(),
    5: b"ARMv7E-M".hex(),
    6: "007a030a",
    7: "01 007a030a",
    8: "78563412",
    9: "00000000 00004000",
    10: "00800000",
    11: "0001",
    12: "00040000",
    13: "03000000",
    14: "02000000",
    15: "06000000",
    16: "01",
    17: "0100",
    18: "08",
    19: "04",
    20: "07000000",
    21: HASH.hex(),
    22: "00100000",
    23: "2000 4000",
    24: "01",
    25: "c800",
    26: "03",
    27: "07",
    28: "00c20100 00100e00",
}


def test_every_field_by_hand():
    assert set(BY_HAND) == {int(tag) for tag in HelloTag}
    info = DeviceInfo.from_fields([(tag, bytes.fromhex(value)) for tag, value in BY_HAND.items()])
    assert info == DeviceInfo(
        protocol_major=1, protocol_minor=0, firmware_version="1.2.3", firmware_hash=HASH.hex(), board="nucleo_f446re",
        isa="ARMv7E-M", clock_hz=168000000, timer_unit=TimerUnit.CYCLES, ticks_per_second=168000000,
        probe_crc=0x12345678, probe_results=(0, 0x400000), arena_bytes=32768, body_bytes=256, window_bytes=1024,
        capabilities=Capability.LAYER_TICKS | Capability.ACTIVATIONS, layer_kinds=2, format_kinds=6, layouts=(1,),
        packings=(1, 0), table_bits=8, reset_cause=ResetCause.WATCHDOG, boot_count=7, image_hash=HASH.hex(),
        static_bytes=4096, max_layers=32, max_tensors=64, simulated=True,
        send_body_bytes=200, codings=Coding.RUNS | Coding.CODES, ranges=7, baud=115200, max_baud=921600,
    )  # fmt: skip
    assert info.supports_layer(LayerKind.DENSE)
    assert not info.supports_layer(LayerKind.CONV2D)
    assert info.supports_format(FormatKind.INTEGER)
    assert not info.supports_format(FormatKind.BINARY)
    assert DeviceInfo.from_fields(info.to_fields()) == info


def test_unknown_tags_values_and_bits_are_taken():
    info = DeviceInfo.from_fields([(250, b"?"), (7, b"\x63\1\0\0\0"), (19, b"\xc8"), (13, b"\xff\xff\xff\xff")])
    assert info.timer_unit == 99
    assert "99" in info.ticks_word
    assert info.reset_cause == 200
    assert Capability.STACK_PEAK in info.capabilities


@pytest.mark.parametrize("tag", [tag for tag in HelloTag if tag not in (2, 4, 5, 16, 17)])
@given(value=st.binary(max_size=50))
def test_a_field_of_another_length_is_refused(tag, value):
    right = len(bytes.fromhex(BY_HAND[tag]))
    if len(value) == right or (tag == HelloTag.PROBE_RESULTS and len(value) % 4 == 0):
        return
    with pytest.raises(ProtocolError, match=tag.name):
        DeviceInfo.from_fields([(tag, value)])


def test_a_field_twice_is_refused():
    with pytest.raises(ProtocolError, match="BOARD twice"):
        DeviceInfo.from_fields([(4, b"a"), (4, b"a")])


@pytest.mark.parametrize(
    ("tag", "value"), [(11, (63).to_bytes(2, "little")), (12, (MIN_WINDOW_BYTES - 1).to_bytes(4, "little"))]
)
def test_buffers_below_the_protocol_s_least_are_refused(tag, value):
    with pytest.raises(ProtocolError, match="the least is"):
        DeviceInfo.from_fields([(tag, value)])


@pytest.mark.parametrize(("tag", "value"), [(25, b"\x3f\0"), (27, b"\x08")])
def test_limits_that_cannot_be_are_refused(tag, value):
    with pytest.raises(ProtocolError, match="its firmware is faulty, flash it again"):
        DeviceInfo.from_fields([(tag, value)])


def test_what_a_device_sends_is_as_long_as_what_it_takes_unless_it_says_otherwise():
    assert DeviceInfo(body_bytes=300).longest_sent == 300
    assert DeviceInfo(body_bytes=300, send_body_bytes=64).longest_sent == 64


def test_text_of_a_device_cannot_steer_a_terminal():
    info = DeviceInfo.from_fields([(4, b"evil\x1b[2J\n\xff")])
    assert info.board == "evil\ufffd[2J\ufffd\ufffd"
    assert printable("Grüße".encode()) == "Grüße"


def test_probe_failures():
    good = DeviceInfo.native_default()
    assert good.probe_failures() == []
    results = list(good.probe_results)
    results[0] = 0x33800000
    # A device that computes wrongly and is honest about it: the case is named, the CRC is right.
    (fused,) = replace(good, probe_results=tuple(results), probe_crc=probe_crc(results)).probe_failures()
    assert fused.startswith("fused multiply-add")
    assert "0x33800000" in fused
    assert len(replace(good, probe_crc=good.probe_crc ^ 1).probe_failures()) == 1
    assert replace(good, probe_crc=None).probe_failures() == ["no CRC-32 of the results sent"]
    assert "10 results sent, 11 expected" in replace(good, probe_results=good.probe_results[:-1]).probe_failures()
    assert DeviceInfo().probe_failures()


def test_probe_crc_is_over_little_endian_words():
    assert probe_crc([0x34333231, 0x38373635]) == zlib.crc32(b"12345678") == 0x9AE0DAAF
