"""A line that is played: in real time, in front of a device that sends back what it gets."""

import contextlib
import os
import select
import socket
import threading
import time

import pytest

from bitloop.errors import DeviceTimeoutError, PortError, TransportError
from bitloop.link.line import shaper
from bitloop.link.line.options import split_url
from bitloop.link.line.shaper import BUFFER_BYTES, ShapedTransport
from bitloop.link.open import open_transport
from bitloop.link.urls.emulation import Emulation
from bitloop.link.wire import messages
from bitloop.link.wire.frame import Decoder, Frame, encode_frame
from bitloop.monitor import Monitor
from bitloop.spec import MessageType


class Ours:
    """A transport over a socket; the test is the device at the other end."""

    description = "ours"
    emulation = Emulation("qemu-x", "1", "m", 3, 4)

    def __init__(self):
        self.baud = 115200
        self.port = self
        self.opened = 0
        self.closed = False
        self.bauds = []
        self.fails = None
        self._open()

    def _open(self):
        self._socket, self.device = socket.socketpair()
        self._socket.setblocking(False)
        self.device.settimeout(5.0)
        self.opened += 1

    def fileno(self):
        return self._socket.fileno()

    def read(self, timeout_s):
        if self.fails is not None:
            raise self.fails
        select.select([self._socket], [], [], timeout_s)
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return b""
        if not data:
            raise TransportError("the connection to ours broke: it ended")
        return data

    def write(self, data):
        self._socket.settimeout(0.2)
        try:
            self._socket.sendall(data)
        except TimeoutError as error:
            raise DeviceTimeoutError("ours takes no more bytes") from error
        finally:
            self._socket.setblocking(False)

    def set_baud(self, baud):
        self.baud = baud
        self.bauds.append(baud)

    def reopen(self):
        self.close()
        self._open()
        self.baud = 115200
        self.closed = False

    def close(self):
        self.closed = True
        self._socket.close()
        self.device.close()


@pytest.fixture
def shaped():
    """Make a line of options in front of our own transport; gives both."""
    with contextlib.ExitStack() as stack:

        def make(options, **more):
            inner = Ours()
            url = f"ours://?{options}"
            transport = ShapedTransport(inner, split_url(url)[1], url=url, **more)
            stack.callback(transport.close)
            return transport, inner

        yield make


def drain(read, count, timeout_s=5.0):
    """Read ``count`` bytes, or what comes until nothing does."""
    data = b""
    while len(data) < count and (more := read(timeout_s)):
        data += more
    return data


def test_400_kb_take_their_time_to_one_percent(shaped):
    """The rate is that of the line: 10 bits a byte, however late the thread is; and never above it."""
    count, baud = 400_000, 921_600
    data = (bytes(range(1, 250)) + b"\0") * (count // 250)
    ideal_s = count * 10 / baud
    taken_s = []
    for _ in range(3):  # another program may disturb some
        transport, inner = shaped(f"baud={baud}")
        began = time.monotonic()
        writer = threading.Thread(target=transport.write, args=(data,))
        writer.start()
        got = bytearray()
        while len(got) < count:
            got += inner.device.recv(65536)
            assert len(got) <= (time.monotonic() - began) * baud / 10 + 1
        taken_s.append(time.monotonic() - began)
        writer.join()
        assert got == data
        if taken_s[-1] <= 1.01 * ideal_s:
            break
    assert ideal_s <= min(taken_s) <= 1.01 * ideal_s


def test_both_directions_have_the_rate_at_the_same_time(shaped):
    count, baud = 40_000, 460_800
    transport, inner = shaped(f"baud={baud}")
    ideal_s = count * 10 / baud
    began = time.monotonic()
    up = []
    threads = [
        threading.Thread(target=transport.write, args=(b"u" * count,)),
        threading.Thread(target=inner.device.sendall, args=(b"d" * count,)),
        threading.Thread(target=lambda: up.append(drain(lambda _: inner.device.recv(65536), count))),
    ]
    for thread in threads:
        thread.start()
    assert drain(transport.read, count) == b"d" * count
    assert ideal_s <= time.monotonic() - began < 1.3 * ideal_s
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 1.3 * ideal_s
    assert up == [b"u" * count]


def test_a_write_waits_for_room_in_the_buffer_and_not_for_the_line(shaped):
    transport, _ = shaped("baud=115200")
    began = time.monotonic()
    transport.write(b"x" * BUFFER_BYTES)
    assert time.monotonic() - began < 0.1
    transport.write(b"x" * 2304)  # 0.2 s of the line
    assert 0.19 < time.monotonic() - began < 0.5


def test_the_round_trip(shaped):
    transport, inner = shaped("rtt=60ms")
    for _ in range(3):
        began = time.monotonic()
        transport.write(b"ping\0")
        assert inner.device.recv(100) == b"ping\0"
        assert 0.0295 < time.monotonic() - began < 0.06
        inner.device.sendall(b"pong\0")
        assert transport.read(1.0) == b"pong\0"
        assert 0.0595 < time.monotonic() - began < 0.12


def test_nothing_arrives_within_the_timeout(shaped):
    transport, _ = shaped("rtt=1ms")
    began = time.monotonic()
    assert transport.read(0.05) == b""
    assert 0.045 < time.monotonic() - began < 0.5
    assert transport.read(0.0) == b""


def test_a_fault_strikes_the_same_bytes_whatever_the_timing(shaped):
    data = os.urandom(3000) + b"\0"

    def passed(pieces, pause_s, options):
        transport, inner = shaped(f"drop=0.01&flip=0.001&dup=0.01&burst=0.001&frame_dup=0.3&seed=11{options}")
        for start in range(0, len(data), pieces):
            transport.write(data[start : start + pieces])
            time.sleep(pause_s)
        inner.device.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            got = b""
            while True:
                got += inner.device.recv(65536)
        return got

    whole = passed(10_000, 0, "")
    assert whole != data
    assert passed(150, 0.003, "&rtt=5ms&jitter=2ms&baud=921600") == whole


def test_set_baud_waits_until_all_has_left(shaped):
    transport, inner = shaped("baud=115200&rtt=20ms")
    transport.write(b"x" * 1152)  # 0.1 s
    began = time.monotonic()
    transport.set_baud(460800)
    assert 0.09 < time.monotonic() - began < 0.4
    assert inner.bauds == [460800]
    assert len(drain(lambda _: inner.device.recv(65536), 1152)) == 1152
    assert transport.baud == 115200  # the line's own


def test_what_is_handed_through(shaped):
    transport, inner = shaped("rtt=1ms")
    assert transport.description == "ours://?rtt=1ms"
    assert transport.port is inner
    assert transport.emulation == inner.emulation
    assert transport.baud == 115200


def test_closing_ends_the_thread(shaped):
    before = threading.active_count()
    transport, inner = shaped("baud=9600")
    assert threading.active_count() == before + 1
    transport.write(b"x" * 1000)  # a second of the line
    began = time.monotonic()
    transport.close()
    transport.close()
    assert time.monotonic() - began < 0.5
    assert threading.active_count() == before
    assert inner.closed
    for use in (lambda: transport.read(0.1), lambda: transport.write(b"x"), lambda: transport.set_baud(9600)):
        with pytest.raises(TransportError, match=r"ours://\?baud=9600 broke: the port is closed"):
            use()


def test_what_breaks_in_the_thread_reaches_the_host(shaped):
    transport, inner = shaped("rtt=1ms")
    time.sleep(0.05)  # the thread has read once, and waits
    inner.fails = ZeroDivisionError("a bug")
    inner.device.sendall(b"x")
    with pytest.raises(TransportError, match=r"ours://\?rtt=1ms broke: a bug") as caught:
        transport.read(5.0)
    assert isinstance(caught.value.__cause__.__cause__, ZeroDivisionError)
    with pytest.raises(TransportError, match="a bug"):
        transport.write(b"x")
    inner.fails = None
    transport.reopen()
    inner.device.sendall(b"again")
    assert transport.read(5.0) == b"again"


def test_the_last_words_arrive_before_the_end(shaped):
    transport, inner = shaped("rtt=100ms&baud=115200")
    inner.device.sendall(b"panic: no stack\0")
    inner.device.close()
    assert drain(transport.read, 16) == b"panic: no stack\0"
    with pytest.raises(TransportError, match="it ended"):
        transport.read(5.0)


def test_closing_does_not_wait_for_last_words(shaped):
    transport, inner = shaped("rtt=60s")
    inner.device.sendall(b"panic\0")
    inner.device.close()
    time.sleep(0.1)
    began = time.monotonic()
    transport.close()
    assert time.monotonic() - began < 1


def test_a_device_that_takes_nothing_any_more(shaped):
    transport, _ = shaped("rtt=0s", write_timeout_s=0.3)
    began = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match="takes no more bytes"):
        transport.write(bytes(1 << 24))
    assert time.monotonic() - began < 3


def test_a_line_whose_thread_is_held_takes_no_more_than_it_can_keep(shaped, monkeypatch):
    transport, inner = shaped("rtt=0s", write_timeout_s=0.3)
    held = threading.Event()
    inner.write = lambda data: held.wait(10)
    transport.write(b"x")
    with pytest.raises(DeviceTimeoutError, match=r"ours://\?rtt=0s takes no more bytes"):
        transport.write(bytes(1 << 24))
    with pytest.raises(DeviceTimeoutError, match="rate cannot be changed"):
        transport.set_baud(9600)
    monkeypatch.setattr(shaper, "_JOIN_S", 0.1)
    with pytest.raises(PortError, match="a write to its port does not come back"):
        transport.reopen()
    held.set()
    transport.reopen()
    transport.close()


def test_a_silence(shaped):
    transport, inner = shaped("silence=5:300ms")
    transport.write(b"abcdefg")
    assert inner.device.recv(100) == b"abcde"
    began = time.monotonic()
    inner.device.sendall(b"lost")
    transport.write(b"lost")
    assert transport.read(0.15) == b""
    time.sleep(max(0.0, began + 0.35 - time.monotonic()))
    transport.write(b"up")
    inner.device.sendall(b"down")
    assert inner.device.recv(100) == b"up"
    assert transport.read(5.0) == b"down"


def test_a_port_that_vanishes_and_returns_with_the_same_device(shaped):
    transport, inner = shaped("vanish=4:300ms&rtt=1ms")
    transport.set_baud(460800)
    transport.write(b"abcd")
    assert inner.device.recv(100) == b"abcd"
    with pytest.raises(TransportError, match="the port has vanished; check cable and power"):
        transport.read(5.0)
    with pytest.raises(TransportError, match="vanished"):
        transport.write(b"x")
    with pytest.raises(PortError, match=r"there is no port ours://.* comes back in 0\.\d s"):
        transport.reopen()
    inner.device.sendall(b"lost")
    time.sleep(0.35)
    with pytest.raises(TransportError, match="vanished"):  # nobody has opened it again
        transport.read(0.1)
    transport.reopen()
    assert inner.opened == 1
    assert transport.baud == 115200  # as the port was first
    transport.write(b"efgh")
    assert inner.device.recv(100) == b"efgh"
    inner.device.sendall(b"hello")
    assert transport.read(5.0) == b"hello"


def test_a_port_that_vanishes_and_loses_power(shaped):
    transport, inner = shaped("vanish=1:0s:power&vanish=3:50ms")
    first = inner.device
    transport.write(b"a")
    assert first.recv(10) == b"a"
    with pytest.raises(TransportError, match="vanished"):
        transport.read(5.0)
    transport.reopen()
    assert inner.opened == 2
    transport.write(b"bcd")
    assert inner.device.recv(10) == b"bc"
    with pytest.raises(TransportError, match="vanished"):
        transport.read(5.0)
    time.sleep(0.06)
    transport.reopen()
    assert inner.opened == 2


def test_reopening_without_need_opens_anew_and_loses_what_is_under_way(shaped):
    transport, inner = shaped("baud=9600")
    transport.write(b"x" * 100)
    transport.reopen()
    assert inner.opened == 2
    transport.write(b"y")
    assert inner.device.recv(100) == b"y"


def test_half_a_swap_is_under_way_too(shaped):
    transport, inner = shaped("frame_swap=1")
    transport.write(b"a\0")
    transport.reopen()
    transport.write(b"b\0c\0")
    assert inner.device.recv(100) == b"c\0b\0"


def test_a_port_that_does_not_come_back_at_once(shaped, monkeypatch):
    transport, inner = shaped("rtt=1ms")
    whole = inner.reopen

    def fail():
        raise PortError("there is no port ours")

    monkeypatch.setattr(inner, "reopen", fail)
    for _ in range(2):
        with pytest.raises(PortError, match="no port ours"):
            transport.reopen()
    with pytest.raises(TransportError, match="is not open"):
        transport.read(0.1)
    monkeypatch.setattr(inner, "reopen", whole)
    transport.reopen()
    inner.device.sendall(b"again")
    assert transport.read(5.0) == b"again"


def test_rates_are_real(shaped, monkeypatch):
    """Where the port tells the device's rate, each side hears what the other sends at another one as garbage."""
    with pytest.raises(PortError, match="must tell its device's rate, and this one cannot"):
        shaped("baud=auto")

    monkeypatch.setattr(Ours, "device_baud", 57600, raising=False)
    transport, inner = shaped("baud=auto")
    transport.write(b"\0")
    assert inner.device.recv(10) == b"\xf8"  # twice the receiver's rate: see test_another_rate_by_hand
    inner.device.sendall(b"\x0f")
    assert transport.read(5.0) == b"\xfe\x80"
    transport.set_baud(57600)
    began = time.monotonic()
    transport.write(b"x" * 576)
    assert drain(lambda _: inner.device.recv(65536), 576) == b"x" * 576
    assert 0.099 < time.monotonic() - began < 0.3  # paced by the sender's rate
    inner.device.sendall(b"old")
    assert transport.read(5.0) == b"old"
    monkeypatch.setattr(Ours, "device_baud", 115200)
    transport.set_baud(115200)
    transport.write(b"new")
    assert inner.device.recv(10) == b"new"
    began = time.monotonic()
    inner.device.sendall(b"y" * 1152)
    assert drain(transport.read, 1152) == b"y" * 1152
    assert 0.099 < time.monotonic() - began < 0.3


def test_what_was_sent_before_a_change_of_rate_has_the_old_one(shaped, monkeypatch):
    """The device sends, and then changes: what the port tells is told behind what was sent."""
    changes = threading.Event()

    def device_baud(self):
        if not changes.is_set():
            return 115200
        if changes.is_set() and not sent:
            sent.append(self.device.send(b"ready\0"))
        return 921600

    sent = []
    monkeypatch.setattr(Ours, "device_baud", property(device_baud), raising=False)
    transport, _ = shaped("baud=auto&rtt=40ms")
    changes.set()
    transport.write(b"x")  # wakes the line
    assert transport.read(5.0) == b"ready\0"


def hello(transport):
    """Ask a simulated device who it is."""
    transport.write(b"\0" + encode_frame(MessageType.HELLO_REQUEST, 1, 77, messages.HelloRequest().encode()))
    decoder = Decoder()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for item in decoder.feed(transport.read(0.5)):
            if isinstance(item, Frame) and item.type == MessageType.HELLO:
                return item
    return None


def test_a_simulated_device_behind_a_line_loses_its_state_with_its_power():
    with contextlib.closing(
        open_transport("sim://native?boot_count=7&rtt=2ms&vanish=30:50ms&vanish=400:0s:power")
    ) as t:
        first = t.port._process.pid
        assert hello_or_gone(t) is None
        time.sleep(0.1)
        t.reopen()
        assert t.port._process.pid == first
        while hello_or_gone(t) is not None:
            pass
        t.reopen()
        assert t.port._process.pid != first
        assert hello(t) is not None


def hello_or_gone(transport):
    with contextlib.suppress(TransportError):
        return hello(transport)
    with pytest.raises(TransportError, match="vanished"):
        transport.read(0.0)
    return None


def test_a_monitor_takes_a_line_too():
    with Monitor("sim://native?baud=115200&rtt=1ms") as monitor:
        monitor.say_hello()
        assert any("HELLO" in event.text.upper() for event in monitor.events(seconds=1.0))
