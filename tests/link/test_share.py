"""What part of a line's rate is payload, over a line with a rate, a delay and bit errors, in time of its own."""

import fake_device as fd
import numpy as np
import pytest
from paced_line import PacedLine

from bitloop.link.session import Session
from bitloop.spec import RunMode

FAST, SLOW = 921_600, 115_200
LARGE = {"body_bytes": 4096, "window_bytes": 65536, "arena_bytes": 1 << 20, "ranges": 7}


def connected(device, **line):
    transport = PacedLine(device, **line)
    session = Session(transport, clock=transport.clock)
    session.connect()
    return session, transport


def share(payload_bytes, seconds, baud):
    return payload_bytes * 10 / baud / seconds


def upload_share(size, device=None, **line):
    session, transport = connected(fd.FakeDevice(**(device or LARGE)), **line)
    image = fd.make_image(payload=size)
    report = session.upload(image, len(image))
    assert transport.device.image == image
    return share(size, report.seconds, transport.baud), session


@pytest.mark.parametrize("rtt_s", [0.001, 0.016])
def test_a_large_upload_fills_the_line(rtt_s):
    found, session = upload_share(400_000, rtt_s=rtt_s, baud=FAST)
    assert found >= 0.95
    assert session.counters.retransmissions == 0


@pytest.mark.parametrize("rtt_s", [0.001, 0.016])
def test_goodput_under_noise(rtt_s):
    clean, _ = upload_share(400_000, rtt_s=rtt_s, baud=FAST)
    for seed in range(3):
        noisy, session = upload_share(400_000, rtt_s=rtt_s, baud=FAST, bit_errors=1e-5, seed=seed)
        assert session.counters.retransmitted_bytes > 0
        assert noisy >= 0.80 * clean


@pytest.mark.parametrize("ranges", [0, 1, 3])
def test_goodput_under_noise_of_a_device_that_keeps_little(ranges):
    device = {"body_bytes": 200, "window_bytes": 424, "arena_bytes": 1 << 20, "ranges": ranges}
    clean, _ = upload_share(20_000, device, baud=SLOW)
    noisy, _ = upload_share(20_000, device, baud=SLOW, bit_errors=1e-5)
    assert clean >= 0.90
    assert noisy >= 0.80 * clean


def test_small_frames_and_a_small_window():
    device = fd.FakeDevice(body_bytes=200, window_bytes=424, slots=2, image_s=0.008, early_credit=True, ranges=2)
    session, transport = connected(device, baud=SLOW)
    device.arena_bytes = 8192
    image = fd.make_image((28, 28, 1), payload=5000, slots=2)
    report = session.upload(image, 8192)
    pixels = np.random.default_rng(0).integers(0, 256, (150, 28, 28, 1), dtype=np.uint8)
    began = transport.now
    results = list(session.run(pixels, RunMode.THROUGHPUT, coded=False))
    assert len(results) == 150
    assert share(len(image) + pixels.size, report.seconds + transport.now - began, SLOW) >= 0.90


@pytest.mark.parametrize(
    ("slots", "factor"),  # with two slots, a round trip lies between the end of one image and the beginning of the next
    [(2, 0.25), (2, 2.0), (8, 0.25), (8, 1.0), (8, 2.0), (64, 0.25), (64, 1.0), (64, 2.0)],
)
def test_line_and_computing_overlap(slots, factor):
    """What takes longer is what it takes, but for the beginning and the end."""
    shape = (16, 16, 1)
    image_s = factor * 256 * 10 / FAST
    device = fd.FakeDevice(**LARGE | {"window_bytes": 16384}, slots=slots, image_s=image_s, early_credit=True)
    session, transport = connected(device)
    session.upload(fd.make_image(shape, slots=slots), 4096)
    pixels = np.random.default_rng(0).integers(0, 256, (1000, *shape), dtype=np.uint8)
    began, busy = transport.now, transport.busy_s.copy()
    frames = session.counters.frames_up
    results = list(session.run(pixels, RunMode.THROUGHPUT))
    took = transport.now - began
    line_s = max(transport.busy_s[way] - busy[way] for way in busy)
    for result, one in zip(results, pixels, strict=True):
        assert result.logits.tobytes() == fd.compute(one, 10).tobytes()
    assert took <= 1.05 * max(line_s, 1000 * image_s)
    if slots == 64:  # the device has enough to work on meanwhile: frames are full, or nearly so
        assert session.counters.frames_up - frames <= 3 * pixels.size / 4096
    assert session.counters.retransmissions == session.counters.resend_requests == 0
