"""How long frames are for a measured rate of losses, and how long an answer may take."""

import math
import random

import pytest

from bitloop.link.delivery.quality import LineQuality, longest_body

OVERHEAD = 8 + 2 + 4  # header and CRC-32, COBS and the end, the offset


def goodput(payload, rate):
    return payload / (payload + OVERHEAD) * (1 - rate) ** (payload + OVERHEAD)


@pytest.mark.parametrize("rate", [1e-5, 8e-5, 1e-3])
def test_the_body_is_the_best_one_for_the_rate(rate):
    """By trying all lengths."""
    quality = LineQuality()
    quality._loss_interval = 1 / rate
    best = max(range(1, 20000), key=lambda payload: goodput(payload, rate))
    found = quality.body_bytes(65535, 4) - 4
    assert abs(found - best) <= 1
    assert 0.9 < found / math.sqrt(OVERHEAD / rate) < 1.05


def feed(quality, rate, total, seed=0, most=4096):
    """Send frames over a line on which each byte is struck at a rate; give the lengths of bodies."""
    source = random.Random(seed)
    bodies = []
    sent = 0
    while sent < total:
        body = quality.body_bytes(most, 4)
        size = body + 10
        (quality.lost if source.random() > (1 - rate) ** size else quality.survived)(size)
        bodies.append(body)
        sent += size
    return bodies


@pytest.mark.parametrize("rate", [1e-5, 8e-5, 4e-4])
def test_the_rate_is_found_and_the_goodput_is_near_the_best(rate):
    got, best = 0.0, 0.0
    for seed in range(5):
        bodies = feed(LineQuality(), rate, 1_000_000, seed)[20:]
        got += sum(goodput(body - 4, rate) * body for body in bodies) / sum(bodies)
        best += goodput(min(math.sqrt(OVERHEAD / rate), 4092), rate)
    assert got > 0.97 * best


def test_a_clean_line_has_the_longest_frames_from_the_first_one_on():
    assert set(feed(LineQuality(), 0.0, 100_000)) == {4096}


def test_a_line_that_has_become_clean_is_known_to_be():
    quality = LineQuality()
    assert feed(quality, 1e-3, 100_000)[-1] < 250
    bodies = feed(quality, 0.0, 200_000)
    assert bodies == sorted(bodies)
    lost_to_overhead = sum(OVERHEAD for _ in bodies) / sum(bodies)
    assert lost_to_overhead < 0.03
    assert quality.body_bytes(4096, 4) > 700


def test_a_burst_counts_once():
    burst, single = LineQuality(), LineQuality()
    for quality, count in ((burst, 16), (single, 1)):
        for _ in range(50):
            quality.survived(1000)
        for _ in range(count):
            quality.lost(1000)
    assert burst.loss_rate == single.loss_rate == 1 / 51_000


def test_the_least_body_is_that_of_the_protocol():
    quality = LineQuality()
    quality.lost(10)
    assert quality.body_bytes(4096, 4) == quality.body_bytes(64, 4) == 64


@pytest.mark.parametrize(
    ("body", "window", "found"), [(4096, 65536, 4096), (200, 424, 200), (200, 300, 139), (64, 74, 63)]
)
def test_two_frames_fit_the_window(body, window, found):
    assert longest_body(body, window) == found


def test_how_long_an_answer_may_take():
    """RFC 6298: the first measurement R gives R and R / 2, so that 3 R are waited; here beside the time on the line."""
    quality = LineQuality(100_000)
    assert quality.patience_s(1000, 0.25) == pytest.approx(0.25 + 0.1)
    quality.note_delay(1000, 0.1 + 0.05)
    assert quality.patience_s(1000, 0.25) == pytest.approx(0.05 + 4 * 0.025 + 0.1)
    quality.note_delay(1000, 0.1 + 0.09)
    srtt, rttvar = 0.05 + 0.04 / 8, 0.025 + (0.04 - 0.025) / 4
    assert quality.patience_s(0, 0.25) == pytest.approx(srtt + 4 * rttvar)
    for _ in range(200):
        quality.note_delay(0, 0.01)
    assert 0.03 < quality.patience_s(0, 0.25) < 0.06


def test_the_rate_of_the_line_is_measured():
    quality = LineQuality(9600)
    for _ in range(100):
        quality.note_busy(500, 0.005)
    assert quality.byte_s == pytest.approx(1e-5)
    quality.note_delay(0, 0.02)
    assert quality.round_trip_bytes == pytest.approx(2000, abs=1)
    assert quality.enough_bytes == pytest.approx(12_000, abs=2)
    quality.at_rate(9600)
    assert quality.byte_s == pytest.approx(1e-5)
    quality.at_rate(115_200)
    assert quality.byte_s == pytest.approx(10 / 115_200)
    assert LineQuality(0).byte_s == 0.0
