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
    "swaps": fd.LineFaults(swap=0.3, drop=0.05),
    "all": fd.LineFaults(drop=0.03, flip=0.03, duplicate=0.05, truncate=0.03, noise=0.03, swap=0.05),
}
AGES = {
    "first": {},
    "ranges": {"ranges": 3, "early_credit": True},
    "modern": {"ranges": 7, "early_credit": True, "codings": 3, "delta": True, "send_body_bytes": 100},
}
"""What devices of different ages can."""


def pixels_of(count, seed):
    """Images that are mostly zero, so that coding them pays."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((count, *SHAPE)) < 0.7, 0, rng.integers(0, 256, (count, *SHAPE))).astype(np.uint8)


def whole_session(faults, seed, mode, *, age="first", read_limit=1 << 30, image_s=0.004, count=60, transports=None):
    device = fd.FakeDevice(slots=5, body_bytes=160, window_bytes=640, image_s=image_s, **AGES[age])
    transport = fd.FakeTransport(device, faults, seed)
    transport.read_limit = read_limit
    if transports is not None:
        transports.append(transport)
    pixels = pixels_of(count, seed)
    session = Session(transport, clock=transport.clock)
    session.connect()
    image = fd.make_image(payload=2500, seed=seed)
    report = session.upload(image, 8192)
    results = list(session.run(pixels, mode, RunOutput.LOGITS))
    activation = session.trace(pixels[0], 1)
    session.close()
    assert device.image == image
    assert (device.coded_frames > 0) == (age == "modern")
    assert report.resumed_bytes == 0
    assert [result.index for result in results] == list(range(count))
    for result, one in zip(results, pixels, strict=True):
        assert result.logits.tobytes() == fd.compute(one, 10).tobytes()
        assert result.ticks == int(one.sum()) + (1 << 33)
    assert activation.tobytes() == fd.compute(pixels[0].ravel()[::-1], 30).tobytes()
    return session, transport


def outcome(faults, seed, mode, age):
    """The error that a short session ended with, or None, and how long it took."""
    transports = []
    try:
        whole_session(faults, seed, mode, age=age, count=15, transports=transports)
    except BitloopError as error:
        return error, transports[0].now
    return None, transports[0].now


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_results_are_those_of_an_undisturbed_line(kind, seed, mode, age):
    session, transport = whole_session(KINDS[kind], seed, mode, age=age)
    assert transport.now < 120
    if kind != "doubles":
        counters = session.counters
        repaired = counters.retransmissions + counters.resend_requests
        assert counters.crc_errors + transport.device.bad_frames + repaired > 0


@pytest.mark.parametrize("age", AGES)
@pytest.mark.parametrize("seed", range(20))
def test_very_bad_lines_end_well_or_with_a_name(seed, age):
    strength = 0.05 + 0.02 * (seed % 10)
    faults = fd.LineFaults(drop=strength, flip=strength, duplicate=strength, truncate=strength, noise=strength)
    error, elapsed_s = outcome(faults, seed, RunMode(seed % 2), age)
    assert elapsed_s < 600
    if error is not None:
        assert isinstance(error, LinkError | DeviceError)
        assert "fake://device" in str(error) or "the device" in str(error)


@pytest.mark.parametrize("read_limit", [1, 3, 17])
def test_bytes_in_any_pieces(read_limit):
    for age in AGES:
        whole_session(KINDS["all"], 99, RunMode.THROUGHPUT, age=age, read_limit=read_limit)


@pytest.mark.parametrize("age", AGES)
def test_a_clean_line_needs_no_repair(age):
    for mode in RunMode:
        session, transport = whole_session(fd.LineFaults(), 1, mode, age=age)
        counters = session.counters
        assert counters.retransmissions == counters.resend_requests == counters.crc_errors == counters.stale_frames == 0
        assert transport.device.bad_frames == transport.device.disturbances == 0


@pytest.mark.parametrize("age", AGES)
def test_most_very_bad_lines_end_well(age):
    """Repair must be worth its name: at a tenth of all frames damaged, most sessions still come through."""
    faults = fd.LineFaults(drop=0.05, flip=0.05)
    errors = [outcome(faults, 1000 + seed, RunMode.THROUGHPUT, age)[0] for seed in range(20)]
    assert errors.count(None) >= 19
