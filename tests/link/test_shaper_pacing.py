"""When bytes arrive, in computed time: no clock is read here."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.link.line.moments import Moments
from bitloop.link.line.options import LineOptions, Silence, Vanishing
from bitloop.link.line.pacing import PacedLine


def taken(line, now):
    return b"".join(data for data, _ in line.take(now))


def test_a_frame_is_there_when_its_last_byte_has_gone_over():
    line = PacedLine(delay_s=0.5)
    line.put(b"abc\0defg\0", 10.0, 10_000)  # a byte a millisecond
    assert line.next_at() == pytest.approx(10.504)
    assert taken(line, 10.5039) == b""
    assert line.take(10.5041) == [(b"abc\0", 10_000)]
    assert line.next_at() == pytest.approx(10.509)
    assert taken(line, 10.5089) == b""
    assert line.queued_bytes == 5
    assert taken(line, 10.5091) == b"defg\0"
    assert line.queued_bytes == 0
    assert line.next_at() == math.inf


def test_of_a_long_frame_parts_are_handed_over():
    line = PacedLine()
    line.put(b"x" * 20, 0.0, 10_000)
    assert line.next_at() == pytest.approx(0.006)  # 5 ms behind the first byte
    assert taken(line, 0.0065) == b"x" * 6
    assert line.next_at() == pytest.approx(0.012)
    assert taken(line, 0.0195) == b"x" * 13
    assert line.next_at() == pytest.approx(0.020)


def test_who_comes_late_finds_all_that_is_due():
    line = PacedLine()
    line.put(b"ab\0", 0.0, 10)
    line.put(b"cd\0", 2.0, 10)  # while the line is busy: no gap
    assert taken(line, 5.9) == b"ab\0cd"
    assert taken(line, 6.1) == b"\0"
    line.put(b"e\0", 100.0, 10)  # after a pause: it begins anew
    assert taken(line, 101.5) == b"e"
    assert taken(line, 102.1) == b"\0"


def test_the_rate_may_change_and_each_piece_tells_its_own():
    line = PacedLine()
    line.put(b"ab", 0.0, 10)
    line.put(b"cd", 0.0, 20)  # half a second a byte
    assert line.take(3.0) == [(b"ab", 10), (b"cd", 20)]


def test_without_a_rate_only_the_delay_counts():
    line = PacedLine(delay_s=0.25)
    line.put(b"x" * 1000, 1.0, 115200, is_paced=False)
    assert line.waiting_bytes(1.0) == 0
    assert line.next_at() == 1.25
    assert taken(line, 1.24) == b""
    assert len(taken(line, 1.25)) == 1000


def test_what_waits_for_the_line():
    line = PacedLine(delay_s=5)
    line.put(b"x" * 100, 0.0, 10)
    assert [line.waiting_bytes(t) for t in (0.0, 0.5, 1.0, 98.5, 99.0, 100.0, 200.0)] == [100, 100, 99, 2, 1, 0, 0]
    assert line.waiting_until(40) == pytest.approx(60.0)
    line.clear()
    assert line.waiting_bytes(1.0) == 0
    assert line.take(1000) == []


@given(
    st.lists(st.tuples(st.floats(0, 0.02), st.binary(max_size=300)), max_size=20),
    st.floats(0, 0.02),
    st.floats(0, 0.05),
    st.integers(0, 5),
    st.lists(st.floats(0, 0.01), min_size=1, max_size=50),
)
@settings(max_examples=200)
def test_nothing_overtakes_is_lost_or_early(writes, delay_s, jitter_s, key, pauses):
    baud = 115200
    line = PacedLine(delay_s, jitter_s, key)
    now, put, leaves_at, out = 0.0, b"", [], b""
    for pause, data in writes:
        now += pause
        line.put(data, now, baud)
        for _ in data:
            leaves_at.append(max(leaves_at[-1] if leaves_at else 0.0, now) + 10 / baud)
        put += data
        out += taken(line, now)
    for pause in [*pauses, 10.0]:
        now += pause
        before = len(out)
        out += taken(line, now)
        assert put.startswith(out)
        for index in range(before, len(out)):
            assert leaves_at[index] + delay_s <= now + 1e-9
    assert out == put
    assert line.queued_bytes == 0


@given(st.lists(st.sampled_from([b"\0", b"\0\0", b"a", b"bcd"]), max_size=30), st.integers(0, 80), st.integers(0, 50))
@settings(max_examples=100)
def test_jitter_does_not_depend_on_the_pieces(words, cut, key):
    data = b"".join(words)
    lines = [PacedLine(jitter_s=1.0, key=key) for _ in range(2)]
    lines[0].put(data, 0.0, 115200, is_paced=False)
    lines[1].put(data[:cut], 0.0, 115200, is_paced=False)
    lines[1].put(data[cut:], 0.0, 115200, is_paced=False)
    for k in range(100):
        assert taken(lines[0], k / 90) == taken(lines[1], k / 90)


@given(st.binary(min_size=1, max_size=2000), st.integers(0, 3))
@settings(max_examples=100)
def test_jitter_is_at_most_what_was_asked_and_does_not_slow_the_line(data, key):
    baud, jitter_s = 115200, 0.003
    line = PacedLine(0.001, jitter_s, key)
    line.put(data, 0.0, baud)
    end = len(data) * 10 / baud + 0.001
    assert taken(line, end + jitter_s + 1e-9) == data
    plain = PacedLine(0.001)
    plain.put(data, 0.0, baud)
    assert taken(plain, end + 1e-9) == data


def test_jitter_differs_from_burst_to_burst():
    line = PacedLine(jitter_s=1.0, key=3)
    delays = []
    for k in range(20):
        line.put(b"a\0", 10.0 * k, 10_000)
        delays.append(line.next_at() - 10 * k - 0.002)
        line.take(10.0 * k + 5)
    assert len({round(delay, 6) for delay in delays}) == 20
    assert all(0 <= delay <= 1 for delay in delays)


def test_a_silence_loses_all_bytes_for_its_time():
    moments = Moments(LineOptions(silences=(Silence(5, 2.0),)))
    assert moments.pass_on(b"abc", 1.0) == b"abc"
    assert moments.pass_on(b"defg", 2.0) == b"de"
    assert moments.pass_on(b"hi", 3.9) == b""
    assert moments.pass_on(b"jk", 4.0) == b"jk"
    assert moments.pass_on(b"l" * 100, 4.1) == b"l" * 100


def test_moments_come_in_order_of_bytes():
    moments = Moments(LineOptions(silences=(Silence(6, 1.0), Silence(2, 1.0)), vanishings=(Vanishing(9, 3.0),)))
    assert moments.pass_on(b"abcdef", 0.0) == b"ab"
    assert moments.pass_on(b"ghijklmn", 1.0) == b"ghij"
    assert moments.pass_on(b"opqrst", 2.0) == b"opq"
    assert moments.gone == Vanishing(9, 3.0)
    assert moments.back_at == 5.0
    assert moments.pass_on(b"u", 6.0) == b""  # until somebody opens it again
    moments.come_back()
    assert moments.pass_on(b"u", 6.0) == b"u"


def test_a_port_that_is_gone_from_the_start():
    moments = Moments(LineOptions(vanishings=(Vanishing(0, 1.0),)))
    assert moments.pass_on(b"", 0.0) == b""
    assert moments.gone is not None
