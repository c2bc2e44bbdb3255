"""Which device is behind a port, how it is found again, and what is said when a port does not open."""

import contextlib
import errno
import grp
import logging
import os
import pty
import select
import subprocess
import sys
from types import SimpleNamespace

import pytest
import serial
from serial.tools.list_ports_common import ListPortInfo

from bitloop.errors import PortError, TransportError, UsageError
from bitloop.link import latency, ports
from bitloop.link import transport as module
from bitloop.link.ports import PortIdentity
from bitloop.link.transport import SerialTransport, actual_baud


def entry(name, numbers=(0x0403, 0x6001), serial_number=None, location=None):
    info = ListPortInfo(name)
    info.vid, info.pid = numbers
    info.serial_number, info.location = serial_number, location
    return info


@pytest.fixture
def listed(monkeypatch):
    """The ports that the machine has: a list that a test may change."""
    entries = []
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(entries))
    return entries


@pytest.fixture
def plug():
    """Plug in a device: gives our end as a descriptor, and the port's name."""
    descriptors = []

    def make():
        ours, theirs = pty.openpty()
        descriptors.extend((ours, theirs))
        return ours, os.ttyname(theirs)

    yield make
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@pytest.fixture
def unplug():
    """Pull the cable: the port's other end is closed."""
    return os.close


def says(port, ours, data=b"hello"):
    os.write(ours, data)
    return port.read(5.0) == data


def test_a_cable_that_comes_back_under_another_name_is_found_by_its_serial_number(listed, plug, unplug, caplog):
    ours, name = plug()
    listed[:] = [entry(name, serial_number="A10K", location="1-1")]
    port = SerialTransport(name)
    port.set_baud(230400)
    unplug(ours)
    with pytest.raises(TransportError, match="broke"):
        port.read(5.0)
    _, other = plug()
    listed[:] = [entry(other, serial_number="B20K", location="1-1")]
    with pytest.raises(
        PortError,
        match=f"USB device 0403:6001 with serial number A10K, last at {name} is not there; ports there are: {other}",
    ):
        port.reopen()
    with pytest.raises(TransportError):
        port.read(0.1)
    ours, now = plug()
    listed.append(entry(now, serial_number="A10K", location="2-4"))  # another socket of the machine, too
    with caplog.at_level(logging.INFO):
        port.reopen()
    assert f"is now {now}" in caplog.text
    assert says(port, ours)
    assert port.baud == 115200
    port.close()


def test_the_old_name_is_not_taken_where_it_is_another_device_now(listed, plug):
    _, name = plug()
    listed[:] = [entry(name, serial_number="A10K")]
    port = SerialTransport(name)
    other, now = plug()
    listed[:] = [entry(name, serial_number="B20K"), entry(now, serial_number="A10K")]
    port.reopen()
    assert says(port, other)
    port.close()


def test_of_two_devices_that_cannot_be_told_apart_the_one_of_the_same_name_is_taken(listed, plug):
    devices = sorted((plug(), plug(), plug()), key=lambda device: device[1])
    listed[:] = [entry(name, serial_number="0001") for _, name in devices]  # as cheap adapters have it
    port = SerialTransport(devices[1][1])
    port.reopen()
    assert says(port, devices[1][0])
    port.close()


def test_a_device_of_several_ports_is_found_by_its_interface(listed, plug):
    first, second = plug(), plug()
    listed[:] = [
        entry(first[1], serial_number="A", location="1-1:1.0"),
        entry(second[1], serial_number="A", location="1-1:1.1"),
    ]
    port = SerialTransport(second[1])
    listed[:] = [
        entry(first[1], serial_number="A", location="3-2:1.1"),
        entry(second[1], serial_number="A", location="3-2:1.0"),
    ]
    port.reopen()
    assert says(port, first[0])
    port.close()


def test_a_device_without_a_serial_number_is_found_where_it_is_plugged_in(listed, plug):
    _, name = plug()
    listed[:] = [entry(name, (0x1A86, 0x7523), location="1-3")]
    port = SerialTransport(name)
    ours, now = plug()
    listed[:] = [entry(name, (0x1A86, 0x7523), location="1-4"), entry(now, (0x1A86, 0x7523), location="1-3")]
    port.reopen()
    assert says(port, ours)
    listed.pop()
    with pytest.raises(PortError, match=f"USB device 1A86:7523 at 1-3, last at {name} is not there"):
        port.reopen()


def test_a_port_that_is_no_usb_device_is_opened_by_its_name(listed, plug):
    ours, name = plug()
    port = SerialTransport(name)
    port.reopen()
    assert says(port, ours)
    listed[:] = [entry("/dev/ttyOTHER", serial_number="A")]
    port.reopen()
    assert says(port, ours)
    port.close()


def test_a_link_to_a_port_stays_the_name_of_it(listed, plug, tmp_path):
    ours, name = plug()
    link = tmp_path / "by-id"
    link.symlink_to(name)
    listed[:] = [entry(name, serial_number="A10K")]
    assert PortIdentity.of(str(link)) == PortIdentity(str(link), 0x0403, 0x6001, "A10K", "")
    port = SerialTransport(str(link))
    port.reopen()
    assert port.description == str(link)
    assert port.port.port == str(link)
    assert says(port, ours)
    port.close()


def test_ports_that_cannot_be_listed_are_none(monkeypatch):
    def fail():
        raise TypeError("int() argument must be a string")  # what pyserial says when a device goes meanwhile

    monkeypatch.setattr("serial.tools.list_ports.comports", fail)
    assert ports.port_names() == []
    assert PortIdentity.of("/dev/ttyX") == PortIdentity("/dev/ttyX")


def test_a_simulated_device_is_a_new_process():
    port = SerialTransport("sim://native")
    first = port.port._process.pid
    port.reopen()
    assert port.port._process.pid != first
    port.close()


def test_a_port_that_another_process_has_open_is_busy(plug):
    _, name = plug()
    words = (
        "import sys,serial; p=serial.Serial(sys.argv[1], exclusive=True); print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", words, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert select.select([other.stdout], [], [], 20)[0]
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(PortError, match=f"{name} is busy: another program has it open"):
            SerialTransport(name)
        other.communicate()
    SerialTransport(name).close()


def denied(monkeypatch):
    def fail(*args, **kwargs):
        raise serial.SerialException(errno.EACCES, "could not open port: [Errno 13] Permission denied")

    monkeypatch.setattr(serial, "serial_for_url", fail)


def test_no_permission_names_the_group_and_what_to_do(monkeypatch, tmp_path):
    denied(monkeypatch)
    file = tmp_path / "tty"
    file.touch()
    file.chmod(0o660)
    group = SimpleNamespace(gr_name="uucp")
    monkeypatch.setattr(grp, "getgrgid", lambda number: group if number == file.stat().st_gid else None)
    with pytest.raises(PortError) as caught:
        SerialTransport(str(file))
    assert f"{file} may not be opened: " in str(caught.value)
    assert "It belongs to the group uucp: become a member (sudo usermod -aG uucp $USER, then log in again)" in str(
        caught.value
    )
    assert 'udev rule (SUBSYSTEM=="tty", MODE="0660", GROUP="dialout"' in str(caught.value)

    file.chmod(0o600)
    with pytest.raises(PortError, match=r"Its group is uucp, which may not write to it either: add a udev rule"):
        SerialTransport(str(file))
    file.chmod(0o660)
    group.gr_name = "root"
    with pytest.raises(PortError, match=r"Its group is root: add a udev rule"):
        SerialTransport(str(file))
    with pytest.raises(PortError, match=r"belongs to the group dialout: become a member"):
        SerialTransport("/dev/ttyNONE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells the rate of a port")
def test_the_rate_that_a_driver_has(plug):
    _, name = plug()
    port = SerialTransport(name, baud=9600)
    assert actual_baud(port.port) == 9600
    for baud in (921600, 250000, 123456):  # in the table, and not
        port.set_baud(baud)
        assert actual_baud(port.port) == baud == port.baud
    port.close()
    assert actual_baud(SimpleNamespace()) is None


def test_a_rate_that_is_not_supported(plug, monkeypatch):
    _, name = plug()
    port = SerialTransport(name)
    monkeypatch.setattr(module, "actual_baud", lambda opened: 460800 if opened.baudrate == 500000 else opened.baudrate)
    with pytest.raises(TransportError, match=f"{name} cannot be set to 500000 baud: its driver takes 460800 instead"):
        port.set_baud(500000)
    assert port.baud == port.port.baudrate == 115200
    with pytest.raises(UsageError, match="a baud rate of 0 makes no sense"):
        port.set_baud(0)
    with pytest.raises(TransportError, match="cannot be set to 10000000000000 baud"):
        port.set_baud(10**13)
    assert port.baud == port.port.baudrate == 115200
    port.close()
    with pytest.raises(PortError, match=r"cannot be set to 500000 baud.*choose a rate that the adapter has"):
        SerialTransport(name, baud=500000)
    SerialTransport(name).close()  # it was not left open

    def fail(*args, **kwargs):
        raise ValueError("Failed to set custom baud rate (31): [Errno 22] Invalid argument")

    monkeypatch.setattr(serial, "serial_for_url", fail)
    with pytest.raises(PortError, match=r"cannot be set to 31 baud: Failed to set custom baud rate \(31\)"):
        SerialTransport(name, baud=31)


class Adapter:
    """A port; ``timer`` is the file that its driver changes when low latency is asked for, as ftdi_sio does."""

    def __init__(self, timer=None):
        self.timer = timer

    def set_low_latency_mode(self, on):
        if self.timer is None or not on:
            raise ValueError("Failed to update ASYNC_LOW_LATENCY flag to True: [Errno 25]")
        with self.timer.open("w") as file:
            file.write("1\n")


@pytest.fixture
def timer(monkeypatch, tmp_path):
    """The latency timer's file of ttyUSB0."""
    monkeypatch.setattr(latency, "DEVICES", tmp_path)
    monkeypatch.setattr(sys, "platform", "linux")
    (tmp_path / "ttyUSB0").mkdir()
    file = tmp_path / "ttyUSB0" / "latency_timer"
    file.write_text("16\n")
    return file


def test_the_latency_timer_is_set_where_it_may_be_written(timer, caplog):
    with caplog.at_level(logging.INFO):
        latency.lower_latency(Adapter(), "/dev/ttyUSB0")
        latency.lower_latency(Adapter(), "/dev/ttyUSB0")
        latency.lower_latency(Adapter(), "/dev/ttyUSB1")  # no such timer
    assert timer.read_text() == "1\n"
    assert [record.getMessage() for record in caplog.records] == [
        "/dev/ttyUSB0: latency timer changed from 16 to 1 ms",
        "/dev/ttyUSB0: latency timer is 1 ms",
    ]


def test_the_driver_is_asked_where_the_timer_may_not_be_written(timer, caplog, monkeypatch):
    def refuse(self, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(timer), "write_text", refuse)
    with caplog.at_level(logging.INFO):
        latency.lower_latency(Adapter(), "/dev/ttyUSB0")
        assert "latency timer is 16 ms, and may not be changed" in caplog.text
        assert f"(echo 1 | sudo tee {timer})" in caplog.text
        latency.lower_latency(Adapter(timer), "/dev/ttyUSB0")
    assert "latency timer changed from 16 to 1 ms" in caplog.text


def test_the_latency_timer_is_looked_for_when_a_port_is_opened(monkeypatch, plug):
    looked = []
    monkeypatch.setattr(module, "lower_latency", lambda port, name: looked.append(name))
    _, name = plug()
    SerialTransport(name).close()
    SerialTransport("loop://").close()
    assert looked == [name]
