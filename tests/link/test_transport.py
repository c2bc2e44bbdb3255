"""Opening ports, and what is said when that fails; reading, writing and breaking streams over loop:// and a pty."""

import contextlib
import errno
import os
import pty
import socket
import threading
import time

import pytest
import serial

import bitloop
from bitloop.errors import DeviceTimeoutError, PortError, TransportError, UsageError
from bitloop.link import ports
from bitloop.link.open import open_transport
from bitloop.link.transport import SerialTransport, port_names


def test_importing_bitloop_makes_its_urls_known():
    assert "bitloop.link.urls" in serial.protocol_handler_packages
    assert bitloop.__version__


def test_a_port_that_is_not_there_names_those_that_are(monkeypatch):
    monkeypatch.setattr(ports, "port_names", lambda: ["/dev/ttyACM0", "/dev/ttyUSB7"])
    with pytest.raises(
        PortError, match=r"no port /dev/ttyNONE; ports there are: /dev/ttyACM0, /dev/ttyUSB7\. .*sim://native"
    ):
        SerialTransport("/dev/ttyNONE")
    monkeypatch.setattr(ports, "port_names", list)
    with pytest.raises(PortError, match="this machine has no serial port now"):
        SerialTransport("/dev/ttyNONE")


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (serial.SerialException(errno.EACCES, "could not open port: Permission denied"), "dialout"),
        (serial.SerialException(errno.EBUSY, "could not open port: Device or resource busy"), "is busy"),
        (
            serial.SerialException("could not open port 'COM5': PermissionError(13, 'Access is denied.', None, 5)"),
            "another program",
        ),
        (
            serial.SerialException("could not open port 'COM9': FileNotFoundError(2, 'no such file')"),
            "there is no port",
        ),
        (
            serial.SerialException("Could not configure port: (25, 'Inappropriate ioctl')"),
            "cannot be opened: Could not configure",
        ),
    ],
)
def test_what_to_do_when_a_port_does_not_open(monkeypatch, error, what):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(serial, "serial_for_url", fail)
    with pytest.raises(PortError, match=what) as caught:
        SerialTransport("/dev/ttyX")
    assert caught.value.__cause__ is error


def test_urls_that_do_not_open():
    with pytest.raises(PortError, match=r"socket://127\.0\.0\.1:1 cannot be opened: .*refused"):
        SerialTransport("socket://127.0.0.1:1")
    with pytest.raises(PortError, match="protocol 'nosuch' not known"):
        SerialTransport("nosuch://x")
    with pytest.raises(UsageError, match="empty"):
        SerialTransport("")
    with pytest.raises(UsageError, match="baud rate of 0"):
        SerialTransport("loop://", baud=0)


def test_what_has_no_rate_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"socket://127.0.0.1:{server.getsockname()[1]}"
        with contextlib.closing(SerialTransport(url)) as transport:
            assert transport.baud == 0
    with contextlib.closing(SerialTransport("loop://")) as transport:
        assert transport.baud == 0
    for url, baud, fixed in (
        ("sim://native", 0, False),
        ("sim://native?baud=auto", 115200, False),
        ("sim://native?baud=9600", 9600, True),
    ):
        with contextlib.closing(open_transport(url)) as transport:
            assert (transport.baud, getattr(transport, "has_fixed_baud", False)) == (baud, fixed)


def test_port_names_is_a_list_of_names():
    assert all(isinstance(name, str) for name in port_names())


def test_loop_reads_what_was_written():
    port = SerialTransport("loop://")
    assert port.description == "loop://"
    port.write(bytes(range(256)) * 15)
    data = b""
    while len(data) < 256 * 15:
        data += port.read(1.0)
    assert data == bytes(range(256)) * 15
    began = time.monotonic()
    assert port.read(0.05) == b""
    assert 0.04 < time.monotonic() - began < 1
    assert port.read(0.0) == b""
    port.close()
    port.close()
    with pytest.raises(TransportError, match="loop:// broke"):
        port.read(0.1)
    with pytest.raises(TransportError):
        port.write(b"x")


@pytest.fixture
def terminal():
    """A pty: our end as a descriptor, the other as the name of a real serial port."""
    ours, theirs = pty.openpty()
    yield ours, os.ttyname(theirs)
    for descriptor in (ours, theirs):
        with contextlib.suppress(OSError):
            os.close(descriptor)


def test_a_real_port_reads_at_once_and_all(terminal):
    ours, name = terminal
    port = SerialTransport(name)
    os.write(ours, b"x" * 1000)
    data = b""
    while len(data) < 1000:
        data += port.read(1.0)
    assert data == b"x" * 1000
    threading.Timer(0.1, lambda: os.write(ours, b"late")).start()
    began = time.monotonic()
    assert port.read(5.0) == b"late"
    assert time.monotonic() - began < 2
    port.write(b"\0\x11\x13\xff")  # no flow control, no translation
    assert os.read(ours, 100) == b"\0\x11\x13\xff"
    port.close()


def test_a_port_that_is_open_already_is_busy(terminal):
    _, name = terminal
    first = SerialTransport(name)
    with pytest.raises(PortError, match="is busy: another program has it open"):
        SerialTransport(name)
    first.close()
    SerialTransport(name).close()


def test_an_unplugged_port(terminal):
    ours, name = terminal
    port = SerialTransport(name)
    os.close(ours)
    with pytest.raises(TransportError, match=f"the connection to {name} broke"):
        port.read(0.2)
    port.close()


def test_a_device_that_takes_nothing_any_more(terminal):
    _, name = terminal
    port = SerialTransport(name, write_timeout_s=0.2)
    with pytest.raises(DeviceTimeoutError, match="takes no more bytes"):
        port.write(bytes(1 << 20))
    port.close()
