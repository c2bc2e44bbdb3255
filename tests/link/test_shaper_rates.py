"""Real rates: a simulated device changes its own, and is understood only where the port follows."""

import contextlib
import struct
import time

import pytest

from bitloop.link.open import open_transport
from bitloop.link.urls import protocol_sim
from bitloop.link.wire import messages
from bitloop.link.wire.frame import Decoder, Frame, encode_frame
from bitloop.spec import MessageType

URL = "sim://native?baud=auto&max_baud=921600&cable=460800&rtt=2ms"
BYTES = bytes(range(64))


@pytest.fixture
def ask():
    """Open the line; gives the transport and a function that asks once, and gives the answer or None."""
    with contextlib.closing(open_transport(URL)) as transport:
        decoder = Decoder()
        number = 0

        def ask_once(kind, body, timeout_s=5.0):
            nonlocal number
            number += 1
            transport.write(b"\0" + encode_frame(kind, number, 77, body))
            deadline = time.monotonic() + timeout_s
            while time.monotonic() < deadline:
                for item in decoder.feed(transport.read(0.05)):
                    if isinstance(item, Frame) and item.sequence == number:
                        return item.type, item.body
            return None

        yield transport, ask_once


def test_a_rate_is_heard_by_who_has_it_and_carried_by_a_cable_that_can(ask):
    transport, ask_once = ask
    assert transport.port.device_baud == transport.baud == 115200
    hello = ask_once(MessageType.HELLO_REQUEST, messages.HelloRequest().encode())
    assert hello is not None
    assert struct.pack("<BBII", 28, 8, 115200, 921600) in hello[1]

    rate = struct.pack("<I", 460800)
    assert ask_once(MessageType.BAUD_REQUEST, rate) == (MessageType.BAUD_READY, rate)  # at the old rate
    assert transport.port.device_baud == 460800
    assert ask_once(MessageType.ECHO_REQUEST, BYTES, 0.2) is None  # the port is at the old one
    transport.set_baud(460800)
    assert transport.baud == 460800
    assert ask_once(MessageType.ECHO_REQUEST, BYTES) == (MessageType.ECHO, BYTES)
    assert ask_once(MessageType.BAUD_COMMIT, rate) == (MessageType.BAUD_DONE, rate)

    rate = struct.pack("<I", 921600)
    assert ask_once(MessageType.BAUD_REQUEST, rate) == (MessageType.BAUD_READY, rate)
    transport.set_baud(921600)
    assert all(ask_once(MessageType.ECHO_REQUEST, BYTES, 0.1) is None for _ in range(3))  # the cable does not carry it
    time.sleep(2.5)
    assert transport.port.device_baud == 115200  # the device gave up
    transport.set_baud(115200)
    assert ask_once(MessageType.ECHO_REQUEST, BYTES) == (MessageType.ECHO, BYTES)


def test_the_port_alone_tells_its_devices_rate_too():
    with contextlib.closing(protocol_sim.Serial("sim://native?baud=auto&boot_baud=9600")) as port:
        assert port.device_baud == 9600
    assert port.device_baud is None
    with contextlib.closing(protocol_sim.Serial("sim://native")) as port:
        assert port.device_baud is None


@pytest.mark.parametrize(
    ("option", "field"),
    [
        ("send_body=64", struct.pack("<BBH", 25, 2, 64)),
        ("ranges=3", struct.pack("<BBB", 27, 1, 3)),
        ("codings=1", struct.pack("<BBB", 26, 1, 1)),
    ],
)
def test_a_simulated_device_can_be_less_able(option, field):
    """The fields of HELLO as docs/protocol.md has them: tag, length, value."""
    with contextlib.closing(open_transport(f"sim://native?body=128&{option}")) as transport:
        transport.write(b"\0" + encode_frame(MessageType.HELLO_REQUEST, 1, 77, messages.HelloRequest().encode()))
        decoder = Decoder()
        parts = b""
        deadline = time.monotonic() + 5
        while field not in parts:
            assert time.monotonic() < deadline
            for item in decoder.feed(transport.read(0.1)):
                if isinstance(item, Frame):
                    parts += item.body[2:]
