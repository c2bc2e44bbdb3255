"""A session against a device in Python, written from the protocol's page, with a clock of its own."""

import hashlib
import random

import fake_device as fd
import numpy as np
import pytest

from bitloop.errors import (
    DeviceError,
    DeviceTimeoutError,
    DoesNotFitError,
    LinkError,
    ProtocolError,
    TransportError,
    UsageError,
)
from bitloop.link.channel import Timing
from bitloop.link.session import Session
from bitloop.spec import RunMode, RunOutput, Status

SHAPE = (4, 5, 1)
BOTH = RunOutput.LOGITS | RunOutput.LAYER_TICKS


def open_session(device=None, *, faults=None, seed=0, timing=None, **callbacks):
    transport = fd.FakeTransport(device or fd.FakeDevice(), faults, seed)
    return Session(transport, timing=timing, clock=transport.clock, **callbacks), transport


def connected(device=None, **options):
    session, transport = open_session(device, **options)
    session.connect()
    return session, transport


def ready(device=None, image=None, **options):
    session, transport = connected(device, **options)
    session.upload(image or fd.make_image(), 4096)
    return session, transport


def images(count, seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def assert_right(results, pixels):
    assert [result.index for result in results] == list(range(len(pixels)))
    for result, image in zip(results, pixels, strict=True):
        expected = fd.compute(image, 10)
        assert result.logits.dtype == np.float32
        assert result.logits.tobytes() == expected.tobytes()
        assert result.label == int(np.argmax(expected))
        assert result.ticks == int(image.sum()) + (1 << 33)


# --- hello ---


def test_hello_in_many_parts():
    device = fd.FakeDevice(hello_body=64, extra_hello=[(250, b"from the future"), (21 + 2, b"\x20\0\x40\0")])
    session, _transport = connected(device)
    assert session.info.board == "fake"
    assert session.info.max_layers == 32
    assert session.info.window_bytes == 512
    assert 0 < device.session <= 0xFFFF
    assert session.counters.frames_down >= 2
    assert session.counters.retransmissions == 0


def test_a_device_that_boots_for_a_while_is_waited_for():
    device = fd.FakeDevice()
    session, transport = open_session(device)
    device.busy_until = 2.5
    session.connect()
    assert 2.5 <= transport.now < 4


def test_nothing_there():
    session, transport = open_session()
    transport.silent = True
    with pytest.raises(
        DeviceTimeoutError, match=r"fake://device: no answer to HELLO_REQUEST for 5\.\d s; last heard: nothing"
    ):
        session.connect()
    assert 5 <= transport.now < 7


def test_something_answers_but_not_bitloop():
    session, transport = open_session()
    transport.silent = False
    chatter = random.Random(3)

    class Chatter(fd.FakeDevice):
        def poll(self, now):
            self.out.append(chatter.randbytes(40))
            self.busy_until = now + 0.1

    session, transport = open_session(Chatter())
    with pytest.raises(
        ProtocolError, match=r"something answers on fake://device, but not bitloop firmware: .*Seen: [0-9a-f]{2} "
    ):
        session.connect()
    assert transport.now < 7


def test_a_shell_answers():
    class Shell(fd.FakeDevice):
        def poll(self, now):
            if self.pending:
                self.out.append(b"login: \r\nPassword:\r\n")
                self.pending.clear()

    seen = []
    session, _ = open_session(Shell(), on_raw=seen.append)
    with pytest.raises(ProtocolError, match=r"not bitloop firmware.*Seen: '.*login: .*Password"):
        session.connect()
    assert b"login" in b"".join(seen)


@pytest.mark.parametrize(("major", "side"), [(0, "firmware is older"), (2, "host is older")])
def test_another_major_version(major, side):
    session, _ = open_session(fd.FakeDevice(protocol_major=major))
    with pytest.raises(ProtocolError, match=f"protocol {major}.0, this host 1.2; the {side}"):
        session.connect()


def test_another_major_version_in_a_hello_all_the_same():
    class Confused(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, body.replace(b"\1\4\1\0\0\0", b"\1\4\2\0\3\0") if kind == fd.HELLO else body)

    session, _ = open_session(Confused())
    with pytest.raises(ProtocolError, match=r"protocol 2.3, this host 1.2; the host is older"):
        session.connect()


def test_impossible_hello_part():
    class Wrong(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, b"\x05\x02" if kind == fd.HELLO else body)

    session, _ = open_session(Wrong())
    with pytest.raises(ProtocolError, match="part 5 of a HELLO in 2 parts"):
        session.connect()


def test_logs_and_raw_bytes_reach_their_callbacks():
    logs, raw = [], []
    device = fd.FakeDevice()
    device.out.append(b"ets Jul 29 2019 12:21:46\r\nrst:0x1\r\n")
    device.out.append(fd.encode(fd.LOG, 0, 0, b"\x02before any session"))
    session, _ = connected(device, on_log=lambda level, text: logs.append((level, text)), on_raw=raw.append)
    device.out.append(fd.encode(fd.LOG, 0, device.session, b"\x01half \xff way\x1b"))
    device.out.append(fd.encode(fd.LOG, 0, device.session ^ 1 or 2, b"\x01of another session"))
    session.stats()
    assert b"".join(raw).startswith(b"ets Jul 29")
    assert logs == [(2, "before any session"), (1, "half \ufffd way\ufffd")]
    assert session.counters.log_frames == 2
    assert session.counters.stale_frames == 1
    assert session.counters.raw_bytes == 35


# --- echo, stats ---


def test_echo_and_stats():
    session, _ = connected()
    assert session.echo(bytes(range(128))) >= 0
    with pytest.raises(UsageError, match="129 bytes are too many for an echo, the device takes 128"):
        session.echo(bytes(129))
    stats = session.stats()
    assert stats == {"frames_received": 3, "crc_errors": 0, "stale_frames": 0}


def test_an_answer_to_an_earlier_request_is_passed_over():
    device = fd.FakeDevice()
    session, _ = connected(device)
    for sequence in range(256):
        if sequence != device.frames + 1:
            device.out.append(fd.encode(fd.ECHO, sequence, device.session, b"earlier"))
    session.echo(b"now")
    assert session.counters.retransmissions == 0


def test_half_a_frame_left_on_the_line_costs_nothing():
    device = fd.FakeDevice()
    session, _ = connected(device)
    device.pending += b"\x05cut"
    session.stats()
    assert session.counters.retransmissions == 0
    assert device.bad_frames == 1


def test_bodies_longer_than_the_device_offered_are_refused():
    logs = []
    device = fd.FakeDevice(body_bytes=128)
    session, _ = connected(device, on_log=lambda level, text: logs.append(text))
    for size in (127, 128):
        device.out.append(fd.encode(fd.LOG, 0, device.session, b"\1" + b"\1" * size))
    session.stats()
    assert len(logs) == 1
    assert session.counters.crc_errors == 1


def test_a_wrong_echo():
    class Wrong(fd.FakeDevice):
        def on_echo(self, sequence, body):
            self.send(fd.ECHO, sequence, body[::-1])

    session, _ = connected(Wrong())
    with pytest.raises(ProtocolError, match="other bytes"):
        session.echo(b"ab")


def test_order_of_calls():
    session, transport = open_session()
    with pytest.raises(UsageError, match="connect"):
        session.stats()
    session.connect()
    with pytest.raises(UsageError, match="upload first"):
        session.run(images(1))
    session.close()
    session.close()
    assert transport.closed
    with pytest.raises(UsageError, match="closed"):
        session.stats()


# --- upload ---


@pytest.mark.parametrize("window", [74, 100, 512, 4096])
@pytest.mark.parametrize("body", [64, 200, 1024])
def test_upload_arrives_within_the_window(body, window):
    device = fd.FakeDevice(body_bytes=body, window_bytes=window, arena_bytes=1 << 20)
    image = fd.make_image(payload=5000)
    steps = []
    session, _transport = connected(device)
    report = session.upload(image, 8192, lambda done, total: steps.append((done, total)))
    assert device.image == image
    assert report.device_sha256 == hashlib.sha256(image).hexdigest()
    assert (report.arena_bytes, report.image_bytes, report.resumed_bytes) == (8192, len(image), 0)
    assert steps[0] == (0, len(image))
    assert steps[-1] == (len(image), len(image))
    assert sorted(steps) == steps
    assert device.most_pending <= window
    assert session.counters.retransmissions == 0


def test_a_held_image_is_not_sent_again():
    session, _transport = ready()
    up = session.counters.bytes_up
    report = session.upload(fd.make_image(), 4096)
    assert report.resumed_bytes == report.image_bytes
    assert session.counters.bytes_up - up < 200
    other = session.upload(fd.make_image(seed=1), 4096)
    assert other.resumed_bytes == 0


def test_a_broken_upload_goes_on_where_it_was():
    device = fd.FakeDevice()
    image = fd.make_image(payload=3000)
    session, transport = connected(device)
    transport.script[12] = lambda line: setattr(line, "silent", True)
    with pytest.raises(DeviceTimeoutError, match=r"no progress of the upload at byte \d+ of 3068"):
        session.upload(image, 8192)
    held = len(device.image)
    assert 0 < held < len(image)
    transport.silent = False
    again = Session(transport, clock=transport.clock)
    again.connect()
    report = again.upload(image, 8192)
    assert report.resumed_bytes >= held
    assert device.image == image


def test_too_large_a_model_names_the_missing_bytes():
    session, _transport = connected(fd.FakeDevice(arena_bytes=4096))
    with pytest.raises(DoesNotFitError) as caught:
        session.upload(fd.make_image(), 5000)
    assert (caught.value.needed_bytes, caught.value.available_bytes, caught.value.missing_bytes) == (5000, 4096, 904)
    assert session.stats()["frames_received"]  # the session goes on


def test_a_hash_that_differs_is_the_device_s_word():
    class Liar(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, b"\xee" * 32 + body[32:] if kind == fd.UPLOAD_DONE else body)

    session, _ = connected(Liar())
    assert session.upload(fd.make_image(), 4096).device_sha256 == "ee" * 32


def test_a_device_that_claims_what_was_never_sent():
    class Liar(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, (10**6).to_bytes(4, "little") * 2 if kind == fd.UPLOAD_ACK else body)

    session, _ = connected(Liar())
    with pytest.raises(ProtocolError, match="says that it has 1000000 bytes, but only"):
        session.upload(fd.make_image(), 4096)


def test_no_image_at_all():
    session, _ = connected()
    with pytest.raises(UsageError, match="0 bytes"):
        session.upload(b"", 4096)


# --- runs ---


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("slots", [1, 3, 16])
@pytest.mark.parametrize("body", [64, 512])
def test_run(mode, slots, body):
    device = fd.FakeDevice(slots=slots, body_bytes=body, window_bytes=600, image_s=0.01)
    session, _transport = ready(device)
    pixels = images(37)
    steps = []
    results = list(session.run(pixels, mode, RunOutput.LOGITS, lambda done, total: steps.append((done, total))))
    assert_right(results, pixels)
    assert steps == [(i + 1, 37) for i in range(37)]
    assert all(result.layer_ticks is None for result in results)
    assert device.computed_total == 37
    assert device.disturbances == 0
    assert device.most_pending <= 600
    assert session.counters.retransmissions == session.counters.resend_requests == 0
    assert not device.run


@pytest.mark.parametrize("mode", RunMode)
def test_slow_images_are_waited_for_and_not_disturbed(mode):
    """8 s an image: longer than the timeout, and in timing mode 32 s without a word."""
    device = fd.FakeDevice(slots=4, image_s=8.0)
    session, transport = ready(device, timing=Timing(image_timeout_s=60))
    pixels = images(10)
    assert_right(list(session.run(pixels, mode)), pixels)
    assert transport.now < 90
    if mode == RunMode.TIMING:
        # Only while the first batch runs is the pace unknown; then the line is quiet.
        assert device.disturbances <= 6
        before = device.disturbances
        assert_right(list(session.run(pixels, mode)), pixels)
        assert device.disturbances == before


def test_layer_ticks_and_labels_only():
    session, _ = ready()
    pixels = images(5)
    for result in session.run(pixels, RunMode.TIMING, BOTH):
        assert result.layer_ticks.tolist() == [result.label, result.label + 1, result.label + 2]
        assert result.layer_ticks.dtype == np.uint32
    for result, image in zip(session.run(pixels, RunMode.TIMING, RunOutput(0)), pixels, strict=True):
        assert result.logits is None
        assert result.label == int(np.argmax(fd.compute(image, 10)))


def test_no_images():
    session, _ = ready()
    assert list(session.run(images(0))) == []


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((2, 5, 4, 1), np.uint8), r"uint8 \[2, 5, 4, 1\]"),
        (np.zeros((2, *SHAPE), np.float32), "float32"),
        (np.zeros(SHAPE, np.uint8), r"the model takes uint8 \[N, 4, 5, 1\]"),
    ],
)
def test_pixels_that_do_not_fit(pixels, what):
    session, _ = ready()
    with pytest.raises(UsageError, match=what):
        session.run(pixels)


def test_pixels_in_any_memory_order():
    session, _ = ready()
    pixels = images(6)[::-1, :, ::-1]
    assert_right(list(session.run(pixels)), pixels)


@pytest.mark.parametrize("mode", RunMode)
def test_results_that_overlap_are_taken_once(mode):
    class Overlapping(fd.FakeDevice):
        def send(self, kind, sequence, body):
            if kind == fd.RESULT and body[4] == 1 and body[:4] != bytes(4):
                index = int.from_bytes(body[:4], "little") - 1
                body = index.to_bytes(4, "little") + b"\2\0" + self.records[index] + body[6:]
            super().send(kind, sequence, body)

    session, _ = ready(Overlapping(slots=1))
    pixels = images(12)
    assert_right(list(session.run(pixels, mode)), pixels)


def test_a_slow_consumer_is_not_the_device_s_fault():
    device = fd.FakeDevice(slots=2)
    session, transport = ready(device)
    pixels = images(8)
    results = []
    for result in session.run(pixels):
        results.append(result)
        transport.now += 100.0
    assert_right(results, pixels)
    assert session.counters.resend_requests == 0


def test_leaving_a_run_frees_the_device():
    device = fd.FakeDevice()
    session, _ = ready(device)
    pixels = images(30)
    for number, _ in enumerate(session.run(pixels)):
        if number == 5:
            break
    run = session.run(pixels)
    assert not device.run
    assert next(run).index == 0
    run.close()
    assert not device.run
    assert_right(list(session.run(pixels)), pixels)


def test_a_run_that_was_pushed_aside_says_so():
    session, _ = ready()
    run = session.run(images(30))
    next(run)
    session.stats()
    with pytest.raises(UsageError, match="used for something else"):
        next(run)


def test_ctrl_c_while_waiting_frees_the_device():
    device = fd.FakeDevice(image_s=0.5)
    session, transport = ready(device)

    def interrupt(line):
        raise KeyboardInterrupt

    run = session.run(images(30))
    next(run)
    transport.script[device.frames + 3] = interrupt
    with pytest.raises(KeyboardInterrupt):
        list(run)
    assert not device.run
    assert session.stats()["frames_received"]


def test_close_in_the_middle_of_a_run():
    device = fd.FakeDevice()
    session, transport = ready(device)
    next(session.run(images(30)))
    session.close()
    assert not device.run
    assert transport.closed


# --- devices that fail in the middle ---


def test_silence_in_the_middle_of_a_run():
    device = fd.FakeDevice(image_s=0.1)
    session, transport = ready(device)
    results = session.run(images(50))
    next(results)
    transport.silent = True
    began = transport.now
    with pytest.raises(
        DeviceTimeoutError, match=r"no progress of the run after result \d+ of 50 for .*last heard: RESULT"
    ):
        list(results)
    assert transport.now - began < 15


def test_a_hanging_device_that_still_says_hello():
    class Hangs(fd.FakeDevice):
        def work(self, now):
            if self.computed_total < 6:
                super().work(now)

    session, _ = ready(Hangs())
    with pytest.raises(DeviceTimeoutError, match="It answers a hello, so the line is good: the firmware hangs"):
        list(session.run(images(20)))


def test_reset_in_the_middle_of_a_run():
    device = fd.FakeDevice(image_s=0.01)
    raw = []
    session, transport = ready(device, on_raw=raw.append)
    transport.script[device.frames + 20] = lambda line: line.device.reset()
    with pytest.raises(LinkError, match=r"restarted during the run \(boot 1 → 2, cause: watchdog\)"):
        list(session.run(images(50)))
    assert b"boot: fake device" in b"".join(raw)
    with pytest.raises(UsageError, match="upload first"):
        session.run(images(5))
    session.upload(fd.make_image(), 4096)
    pixels = images(5)
    assert_right(list(session.run(pixels)), pixels)


def test_reset_in_the_middle_of_an_upload():
    device = fd.FakeDevice(banner=b"")
    session, transport = connected(device)
    transport.script[8] = lambda line: line.device.reset()
    with pytest.raises(LinkError, match=r"restarted during the upload \(boot 1 → 2"):
        session.upload(fd.make_image(payload=4000), 8192)


def test_another_program_takes_the_model_away():
    device = fd.FakeDevice()
    session, _ = ready(device)
    device.loaded = False
    with pytest.raises(LinkError, match=r"lost its state during the run: .*NO_MODEL"):
        list(session.run(images(2)))


def test_a_run_that_the_device_dropped():
    device = fd.FakeDevice(image_s=0.01)
    session, transport = ready(device)
    transport.script[device.frames + 10] = lambda line: setattr(line.device, "run", False)
    with pytest.raises(LinkError, match=r"lost its state during the run: .*BAD_STATE"):
        list(session.run(images(50)))


def test_garbage_in_the_middle_of_a_run():
    noise = random.Random(1)

    class Mad(fd.FakeDevice):
        mad = False

        def send(self, kind, sequence, body):
            if self.mad:
                self.out.append(noise.randbytes(20))
            else:
                super().send(kind, sequence, body)

    device = Mad(image_s=0.01)
    session, _ = ready(device)
    run = session.run(images(50))
    next(run)
    device.mad = True
    with pytest.raises(ProtocolError, match=r"fake://device has begun to send garbage: .*last heard: RESULT"):
        list(run)


def test_a_broken_stream():
    session, transport = ready()
    run = session.run(images(50))
    next(run)

    def gone(timeout_s):
        raise TransportError("unplugged")

    transport.read = gone
    with pytest.raises(TransportError, match="unplugged"):
        list(run)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda body: body[:4] + b"\x02" + body[5:], "RESULT of 2 records has"),
        (lambda body: body[:4] + b"\x00" + body[5:], "RESULT of 0 records has"),
        (lambda body: b"\xff\xff\0\0" + body[4:], "has not received in full"),
        (lambda body: body[:6] + b"\x0a\0" + body[8:], "label 10 for a network of 10 classes"),
    ],
)
def test_impossible_results(change, what):
    class Wrong(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, change(body) if kind == fd.RESULT else body)

    session, _ = ready(Wrong(slots=1))
    with pytest.raises(ProtocolError, match=what):
        list(session.run(images(3)))


def test_impossible_counts():
    class Credit(fd.FakeDevice):
        def credit(self, sequence):
            self.send(fd.RUN_CREDIT, sequence, b"\0" * 8 + b"\xff\0\0\0")

    session, _ = ready(Credit())
    with pytest.raises(ProtocolError, match="255 results are done, 3 images were announced"):
        list(session.run(images(3)))

    class Done(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, b"\x02\0\0\0" if kind == fd.RUN_DONE else body)

    session, _ = ready(Done())
    with pytest.raises(ProtocolError, match="computed 2 images, 3 results came"):
        list(session.run(images(3)))

    class Record(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, b"\x01\0\x10\0" + body[4:] if kind == fd.RUN_READY else body)

    session, _ = ready(Record())
    with pytest.raises(ProtocolError, match="results of 16 bytes, the image says 52"):
        list(session.run(images(3)))


# --- traces ---


@pytest.mark.parametrize("body", [64, 256])
def test_trace(body):
    session, transport = ready(fd.FakeDevice(body_bytes=body))
    image = images(1)[0]
    expected = fd.compute(image.ravel()[::-1], 30)
    values = session.trace(image, 1)
    assert values.dtype == np.float32
    assert values.tobytes() == expected.tobytes()
    assert not transport.device.run
    assert session.trace(image[None], 0).tobytes() == expected.tobytes()


def test_trace_of_no_such_layer():
    session, _ = ready()
    with pytest.raises(DeviceError) as caught:
        session.trace(images(1)[0], 3)
    assert caught.value.status == Status.BAD_ARGUMENT
    with pytest.raises(UsageError, match="one image, 2 were given"):
        session.trace(images(2), 1)


@pytest.mark.parametrize("total", [0, 6, 1 << 20])
def test_impossible_activations(total):
    class Wrong(fd.FakeDevice):
        def on_read_activation(self, sequence, body):
            self.send(fd.ACTIVATION, sequence, body[:4] + total.to_bytes(4, "little") + bytes(min(total, 40)))

    session, _ = ready(Wrong())
    with pytest.raises(ProtocolError, match="of an activation"):
        session.trace(images(1)[0], 1)
