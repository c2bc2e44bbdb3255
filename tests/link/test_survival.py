"""Lines that lose, flip, double and cut frames: right results or a named error, no wrong figure, no hang."""

import fake_device as fd
import numpy as np
import pytest

from bitloop.errors import BitloopError, DeviceError, LinkError
from bitloop.link.session import Session
from bitloop.spec import RunMode, RunOutput

SHAPE = (4, 5, 1)
KINDS = {
    "drops": fd.LineFaults(drop=0.05),
    "flips": fd.LineFaults(flip=0.05),
    "doubles": fd.LineFaults(duplicate=0.2),
    "cuts": fd.LineFaults(truncate=0.05),
    "noise": fd.LineFaults(noise=0.1),
    "all": fd.LineFaults(drop=0.03, flip=0.03, duplicate=0.05, truncate=0.03, noise=0.03),
}


def whole_session(faults, seed, mode, *, read_limit=1 << 30, image_s=0.004, count=60, transports=None):
    device = fd.FakeDevice(slots=5, body_bytes=160, window_bytes=640, image_s=image_s)
    transport = fd.FakeTransport(device, faults, seed)
    transport.read_limit = read_limit
    if transports is not None:
        transports.append(transport)
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    session = Session(transport, clock=transport.clock)
    session.connect()
    image = fd.make_image(payload=2500, seed=seed)
    report = session.upload(image, 8192)
    results = list(session.run(pixels, mode, RunOutput.LOGITS))
    activation = session.trace(pixels[0], 1)
    session.close()
    assert device.image == image
    assert report.resumed_bytes == 0
    assert [result.index for result in results] == list(range(count))
    for result, one in zip(results, pixels, strict=True):
        assert result.logits.tobytes() == fd.compute(one, 10).tobytes()
        assert result.ticks == int(one.sum()) + (1 << 33)
    assert activation.tobytes() == fd.compute(pixels[0].ravel()[::-1], 30).tobytes()
    return session, transport


def outcome(faults, seed, mode):
    """The error that a short session ended with, or None, and how long it took."""
    transports = []
    try:
        whole_session(faults, seed, mode, count=15, transports=transports)
    except BitloopError as error:
        return error, transports[0].now
    return None, transports[0].now


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_results_are_those_of_an_undisturbed_line(kind, seed, mode):
    session, transport = whole_session(KINDS[kind], seed, mode)
    assert transport.now < 120
    if kind != "doubles":
        assert session.counters.crc_errors + transport.device.bad_frames + session.counters.retransmissions > 0


@pytest.mark.parametrize("seed", range(30))
def test_very_bad_lines_end_well_or_with_a_name(seed):
    strength = 0.05 + 0.02 * (seed % 10)
    faults = fd.LineFaults(drop=strength, flip=strength, duplicate=strength, truncate=strength, noise=strength)
    error, elapsed_s = outcome(faults, seed, RunMode(seed % 2))
    assert elapsed_s < 600
    if error is not None:
        assert isinstance(error, LinkError | DeviceError)
        assert "fake://device" in str(error) or "the device" in str(error)


@pytest.mark.parametrize("read_limit", [1, 3, 17])
def test_bytes_in_any_pieces(read_limit):
    whole_session(KINDS["all"], 99, RunMode.THROUGHPUT, read_limit=read_limit)


def test_a_clean_line_needs_no_repair():
    for mode in RunMode:
        session, transport = whole_session(fd.LineFaults(), 1, mode)
        counters = session.counters
        assert counters.retransmissions == counters.resend_requests == counters.crc_errors == counters.stale_frames == 0
        assert transport.device.bad_frames == transport.device.disturbances == 0


def test_most_very_bad_lines_end_well():
    """Repair must be worth its name: at a tenth of all frames damaged, most sessions still come through."""
    faults = fd.LineFaults(drop=0.05, flip=0.05)
    errors = [outcome(faults, 1000 + seed, RunMode.THROUGHPUT)[0] for seed in range(20)]
    assert errors.count(None) >= 19
