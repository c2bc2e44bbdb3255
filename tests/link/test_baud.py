"""The line's rate: climbed to where it proves itself, never beyond, and both sides always meet again."""

import secrets

import fake_device as fd
import numpy as np
import pytest
from baud_device import BAUD_COMMIT, BAUD_DONE, BAUD_READY, BAUD_REQUEST, BOOT, RatedDevice, RatedTransport
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitloop.errors import BitloopError, DeviceTimeoutError, LinkError, TransportError
from bitloop.link.session import Session
from bitloop.spec import RunMode, RunOutput


def open_line(device=None, *, max_baud=921_600, line=None, **options):
    transport = line or RatedTransport(device or RatedDevice(), **options)
    return Session(transport, clock=transport.clock, max_baud=max_baud), transport


def connected(device=None, **options):
    session, line = open_line(device, **options)
    session.connect()
    return session, line


def assert_at(session, line, baud):
    assert session.baud == line.baud == line.device.rate == baud
    assert line.device.committed or baud == BOOT


def ask(session, line):
    """One request that goes on until it is answered; no climbing. Give how long it took."""
    began = line.now
    session._rate.reached_baud = 0
    session.stats()
    return line.now - began


# --- climbing ---


@pytest.mark.parametrize(
    ("target", "device_most", "clean", "reached"),
    [
        (921_600, 2_000_000, 1 << 30, 921_600),
        (3_000_000, 2_000_000, 1 << 30, 2_000_000),
        (3_000_000, 3_000_000, 1_200_000, 1_000_000),
        (2_500_000, 4_000_000, 1 << 30, 2_500_000),
        (2_500_000, 4_000_000, 500_000, 460_800),
        (921_600, 921_600, 200_000, BOOT),
        (BOOT, 2_000_000, 1 << 30, BOOT),
        (150_000, 140_000, 1 << 30, 140_000),
    ],
)
@pytest.mark.parametrize("delay_s", [0.0005, 0.03])
def test_the_greatest_rate_that_proves_itself(target, device_most, clean, reached, delay_s):
    session, line = connected(
        RatedDevice(max_baud=device_most), max_baud=target, clean_up=clean, clean_down=clean, delay_s=delay_s
    )
    assert_at(session, line, reached)
    assert max([*line.changes, BOOT]) <= max(min(target, device_most), BOOT)
    up = session.counters.crc_errors
    session.upload(fd.make_image(), 4096)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 4, 5, 1), dtype=np.uint8)
    results = list(session.run(pixels, RunMode.THROUGHPUT, RunOutput.LOGITS))
    assert [r.logits.tobytes() for r in results] == [fd.compute(image, 10).tobytes() for image in pixels]
    assert session.counters.crc_errors == up
    assert_at(session, line, reached)


@pytest.mark.parametrize("direction", ["clean_up", "clean_down"])
def test_each_direction_is_proved(direction):
    session, line = connected(**{direction: 500_000})
    assert_at(session, line, 460_800)


def test_a_rate_that_carries_little_ones_only_is_none():
    """Echoes are as long as the frames allow: here only long ones suffer."""

    class Long(RatedTransport):
        def carry(self, data, sent, received, clean):
            return super().carry(data, sent, received, clean if len(data) > 150 else 1 << 30)

    session, line = open_line(line=Long(RatedDevice(body_bytes=256), clean_down=500_000))
    session.connect()
    assert_at(session, line, 460_800)


def test_bytes_that_nobody_sent_speak_against_a_rate():
    class Chatter(RatedDevice):
        def send(self, kind, sequence, body):
            if self.rate == 921_600 and kind == fd.ECHO and len(body) == self.body_bytes:
                self.out.append((self.rate, b"\x03\xee\xaa\0"))
            super().send(kind, sequence, body)

    session, line = connected(Chatter())
    assert_at(session, line, 460_800)


@pytest.mark.parametrize("what", ["lost", "other"])
def test_one_echo_that_does_not_come_back_speaks_against_a_rate(what):
    class Once(RatedDevice):
        done = False

        def on_echo(self, sequence, body):
            if self.rate == 921_600 and len(body) == self.body_bytes and not self.done:
                self.done = True
                if what == "lost":
                    return
                body = body[:-1] + bytes([body[-1] ^ 1])
            super().on_echo(sequence, body)

    session, line = connected(Once())
    assert_at(session, line, 460_800)


def test_noise_while_the_rate_changes_does_not_matter():
    class Glitch(RatedDevice):
        def change(self, rate):
            super().change(rate)
            if hasattr(self, "out") and rate != BOOT:
                self.out.append((rate, b"\xff\xfe"))
                self.pending += b"\xfe"

    session, line = connected(Glitch())
    assert_at(session, line, 921_600)


@pytest.mark.parametrize("refuses", [(921_600,), (921_600, 460_800)])
def test_a_rate_that_the_device_refuses(refuses):
    session, line = connected(RatedDevice(refuses=refuses))
    assert_at(session, line, 460_800 if len(refuses) == 1 else 230_400)
    assert line.now < 1


def test_a_rate_that_the_port_refuses():
    session, line = open_line()
    line.port_refuses = (921_600,)
    session.connect()
    assert_at(session, line, 460_800)


@pytest.mark.parametrize(("off", "reached"), [(1.021, BOOT), (0.979, BOOT), (1.019, 921_600), (0.981, 921_600)])
def test_a_rate_that_the_device_makes_badly(off, reached):
    session, line = connected(RatedDevice(off=off))
    assert_at(session, line, reached)


def test_what_is_left_alone():
    for max_baud in (None, 0):
        session, line = connected(max_baud=max_baud)
        assert_at(session, line, BOOT)
        assert not line.changes
        assert BAUD_REQUEST not in line.device.kinds
    session, line = connected(RatedDevice(has_rates=False))
    assert_at(session, line, BOOT)
    session, line = open_line(baud=0)
    session.connect()
    assert session.baud == 0
    assert not line.changes


def test_the_line_without_a_rate_is_asked_nothing():
    device = RatedDevice()
    session, line = open_line(device, baud=0)
    session.connect()
    line.wait(60)
    session.stats()
    assert not line.changes
    assert BAUD_REQUEST not in device.kinds


def test_a_line_of_a_fixed_rate_keeps_it():
    device = RatedDevice()
    line = RatedTransport(device)
    line.has_fixed_baud = True
    session, _ = open_line(line=line)
    session.connect()
    assert session.baud == BOOT
    assert not line.changes
    assert BAUD_REQUEST not in device.kinds


def test_a_session_that_is_replayed_sends_the_same_bytes(monkeypatch):
    sent = []
    for number in (77, 77, 78):
        monkeypatch.setattr(secrets, "randbelow", lambda below, number=number: number)
        _, line = connected(clean_up=500_000)
        sent.append(line.written)
    assert sent[0] == sent[1]
    assert len(sent[0]) > 2048
    assert sent[0] != sent[2]


# --- losses ---


@pytest.mark.parametrize("kind", [BAUD_READY, BAUD_DONE])
@pytest.mark.parametrize("count", [1, 2])
def test_an_answer_that_is_lost(kind, count):
    session, line = connected(RatedDevice(lose={kind: count}))
    assert_at(session, line, 921_600)
    assert not line.device.lose[kind]


def test_no_rate_is_ever_kept():
    session, line = connected(RatedDevice(lose={BAUD_DONE: 1000}))
    assert line.device.kinds.count(BAUD_COMMIT) >= 3
    assert_at(session, line, BOOT)
    assert line.now < 20


@pytest.mark.parametrize("kind", [BAUD_REQUEST, fd.ECHO_REQUEST, BAUD_COMMIT])
def test_a_device_that_dies_in_the_middle(kind):
    session, line = open_line(RatedDevice(dies_on=kind))
    with pytest.raises(DeviceTimeoutError):
        session.connect()
    assert session.baud == BOOT
    assert line.now < 20
    line.device.reset()
    line.device.dies_on = 0
    session.recover(1.0)
    assert_at(session, line, 921_600)


def test_a_device_that_restarts_at_its_rate():
    session, line = connected()
    line.device.reset()
    with pytest.raises(LinkError, match=r"restarted during the upload \(boot 1 → 2"):
        session.upload(fd.make_image(payload=4000), 8192)
    session.recover(5.0)
    assert_at(session, line, 921_600)
    session.upload(fd.make_image(), 4096)


# --- meeting again ---


@pytest.mark.parametrize("committed", [False, True])
@pytest.mark.parametrize("idle_s", [0.0, 0.5, 1.5, 9.5])
def test_a_device_that_a_dead_host_left_at_its_rate(committed, idle_s):
    device = RatedDevice()
    device.change(921_600)
    device.committed = committed
    session, line = open_line(device)
    line.wait(idle_s)
    session.connect()
    # Under 3 s until it is heard; what comes then is the climb.
    assert line.now - idle_s < 3.5
    assert_at(session, line, 921_600)


def test_connecting_again_finds_the_device_at_its_rate_at_once():
    session, line = connected()
    began, changes = line.now, len(line.changes)
    session.connect()
    assert line.now - began < 0.6
    assert line.changes[changes:] == [BOOT, 921_600]
    assert_at(session, line, 921_600)


def test_an_uncommitted_rate_is_committed_or_left():
    session, line = connected()
    line.device.committed = False
    session.connect()
    assert_at(session, line, 921_600)

    class Stubborn(RatedDevice):
        def handle(self, kind, sequence, session, body):
            if kind == BAUD_COMMIT and self.kinds.count(kind) == 1:
                self.kinds.append(kind)
                self.error(kind, sequence, fd.BAD_STATE)
                return
            super().handle(kind, sequence, session, body)

    session, line = connected(Stubborn())
    assert_at(session, line, 921_600)
    changes = len(line.changes)
    session.connect()
    # Heard at its rate, not kept there: back, and up again.
    assert line.changes[changes:] == [BOOT, 921_600, BOOT, 921_600]
    assert_at(session, line, 921_600)


def test_the_next_program_finds_the_device_at_once():
    session, line = connected()
    assert_at(session, line, 921_600)
    began = line.now
    session.close()
    assert line.device.rate == BOOT
    assert line.now - began < 0.1


@pytest.mark.parametrize("kind", ["dies", "vanishes"])
def test_a_device_that_is_gone_does_not_hold_up_the_end(kind):
    session, line = connected()
    line.device.dead = True
    if kind == "vanishes":

        def gone(*_):
            raise TransportError("gone")

        line.read = line.write = gone
    began = line.now
    session.close()
    assert line.now - began < 1.0


@pytest.mark.parametrize("pause_s", [5.0, 8.0, 9.0, 9.7, 10.2, 12.0, 100.0])
@pytest.mark.parametrize("clock_factor", [0.9, 1.0, 1.1])
def test_a_pause_between_two_requests(pause_s, clock_factor):
    session, line = connected(RatedDevice(clock_factor=clock_factor))
    line.wait(pause_s)
    began = line.now
    session.stats()
    assert line.now - began < 4.5
    assert_at(session, line, 921_600)  # climbed again
    assert session.counters.frames_down


def test_a_line_that_becomes_bad_at_its_rate():
    session, line = connected()
    line.clean_up = line.clean_down = 500_000
    session.upload(fd.make_image(payload=4000), 8192)
    assert session.baud == line.device.rate == BOOT
    changes = len(line.changes)
    session.stats()
    assert_at(session, line, 460_800)
    assert line.changes[changes:] == [460_800]  # what did not hold is not tried again


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("image_s", [0.5, 3.0, 12.0])
def test_a_device_that_computes_for_long(mode, image_s):
    session, line = connected(RatedDevice(image_s=image_s, slots=2))
    session.upload(fd.make_image(), 4096)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 1), dtype=np.uint8)
    results = list(session.run(pixels, mode, RunOutput.LOGITS))
    assert [r.logits.tobytes() for r in results] == [fd.compute(image, 10).tobytes() for image in pixels]
    assert line.changes == [921_600]
    assert_at(session, line, 921_600)


def test_a_verdict_that_takes_long_is_no_silence():
    class Slow(RatedDevice):
        def on_upload_end(self, sequence, body):
            super().on_upload_end(sequence, body)
            if not hasattr(self, "later"):
                self.busy_until = self.polled + 6.0
                self.later, self.out = self.out, []

        def poll(self, now):
            super().poll(now)
            if now >= self.busy_until and getattr(self, "later", None):
                self.out, self.later = self.later, []

    session, line = connected(Slow(arena_bytes=1 << 20, body_bytes=1024, window_bytes=4096))
    session.upload(fd.make_image(payload=400_000), 500_000)
    assert line.changes == [921_600]
    assert_at(session, line, 921_600)


def test_a_device_that_is_gone_leaves_the_host_at_the_boot_rate():
    session, line = connected()
    line.device.dead = True
    with pytest.raises(DeviceTimeoutError):
        session.connect()
    assert session.baud == BOOT
    line.device.reset()
    session.connect()
    assert_at(session, line, 921_600)


def test_connecting_again_after_a_long_silence_tries_the_rate_as_well():
    session, line = connected()
    line.wait(8.4)  # the device is still there
    line.device.silent_s = -60.0  # and stays
    line.wait(30)
    session.connect()
    assert line.changes == [921_600, BOOT, 921_600]


def test_half_a_frame_from_another_rate_is_forgotten():
    session, _ = connected()
    session._channel.decoder.feed(b"\x05cut")
    session._channel.set_baud(BOOT)
    assert not session._channel.decoder.pending


faults = st.builds(fd.LineFaults, drop=st.sampled_from([0.0, 0.1, 0.4]), flip=st.sampled_from([0.0, 0.1]))


@settings(max_examples=60, deadline=None)
@given(
    clean_up=st.sampled_from([0, 300_000, 700_000, 1 << 30]),
    clean_down=st.sampled_from([0, 300_000, 700_000, 1 << 30]),
    trouble=faults,
    lose=st.dictionaries(st.sampled_from([BAUD_READY, BAUD_DONE, fd.ECHO, fd.HELLO]), st.integers(1, 6)),
    dies_on=st.sampled_from([0, 0, BAUD_REQUEST, fd.ECHO_REQUEST, BAUD_COMMIT]),
    silence_s=st.sampled_from([0.0, 1.0, 4.0, 9.0, 15.0]),
    clock_factor=st.sampled_from([0.9, 1.0, 1.1]),
    delay_s=st.sampled_from([0.0005, 0.02, 0.2]),
    seed=st.integers(0, 10**6),
)
@example(
    clean_up=1 << 30, clean_down=1 << 30, trouble=fd.LineFaults(), lose={}, dies_on=BAUD_COMMIT, silence_s=0.0,
    clock_factor=1.0, delay_s=0.002, seed=0,
)  # fmt: skip
def test_both_sides_meet_within_three_seconds_of_good_line(
    *, clean_up, clean_down, trouble, lose, dies_on, silence_s, clock_factor, delay_s, seed
):
    device = RatedDevice(lose=dict(lose), dies_on=dies_on, clock_factor=clock_factor)
    line = RatedTransport(
        device, clean_up=max(clean_up, BOOT), clean_down=max(clean_down, BOOT), delay_s=delay_s, seed=seed
    )
    line.faults = trouble
    session, _ = open_line(line=line, max_baud=1_000_000)
    is_connected = True
    try:
        session.connect()
        for _ in range(5):
            session.stats()
    except BitloopError:
        is_connected = session.info is not None
    line.faults = fd.LineFaults()
    device.lose.clear()
    device.dies_on = 0
    if device.dead:
        device.reset()
        is_connected = False
    line.silent = True
    line.wait(silence_s)
    line.silent = False
    # From now on the line is good at the boot rate, and as good as it is above.
    began = line.now
    if is_connected and device.session == session._channel.session:
        took_s = ask(session, line)
    else:
        session._rate._max_baud = session._rate.reached_baud = 0
        session.connect()
        took_s = line.now - began
    assert took_s <= 3.0 + 4 * delay_s
    assert session.baud == device.rate
    session.close()
