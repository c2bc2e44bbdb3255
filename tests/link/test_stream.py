"""Streams frame by frame: what is sent, what is sent again, and when it is asked; and the pace of a device."""

import fake_device as fd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel, Timing
from bitloop.link.coding import Piece
from bitloop.link.delivery.pace import Pace
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.delivery.stream import RUN_FRAMES, StreamSender
from bitloop.link.delivery.window import Window
from bitloop.link.wire.frame import Decoder
from bitloop.spec import RunMode


class Line(fd.FakeTransport):
    """Keeps what was written."""

    def __init__(self):
        super().__init__(fd.FakeDevice())
        self.written = b""

    def write(self, data):
        self.written += data


def sender_of(size=1000, *, body=104, window_bytes=2000, ranges=0, limit=500, coder=None):
    line = Line()
    channel = Channel(line, clock=line.clock)
    quality = LineQuality()
    window = Window(channel, window_bytes, quality, retry_s=0.25)
    info = DeviceInfo(body_bytes=body, ranges=ranges)
    data = bytes(size) if coder is None else coder.data
    sender = StreamSender(window, memoryview(data), info, frames=RUN_FRAMES, coder=coder)
    sender.start(0, limit)
    return sender, window, line


def answer(sender, window, sequence, next_offset, limit, ranges=()):  # noqa: PLR0917
    return sender.answer(window.answered(sequence), next_offset, limit, ranges)


def sent_frames(window):
    """Give sequence number, begin and end of all frames since the last call."""
    window.channel.flush()
    line = window.channel.transport
    frames, line.written = Decoder().feed(line.written), b""
    found = []
    for frame in frames:
        begin = int.from_bytes(frame.body[:4], "little")
        count = int.from_bytes(frame.body[4:6], "little") if frame.type == fd.RUN_CODED else len(frame.body) - 4
        found.append((frame.sequence, begin, begin + count))
    return found


def spans(window):
    """Give the stretches that were sent since the last call; frames may be shorter on a line that loses."""
    found = []
    for _, begin, end in sent_frames(window):
        first = found.pop()[0] if found and found[-1][1] == begin else begin
        found.append((first, end))
    return found


def test_credit_bounds_what_is_sent():
    sender, window, _ = sender_of()
    assert sender.pump()
    assert (sender.position, window.channel.counters.frames_up) == (500, 5)
    assert not sender.pump()
    assert answer(sender, window, 1, 100, 600)
    assert sender.pump()
    assert sender.position == 600


def test_with_ranges_only_what_is_lost_is_sent_again_and_only_once():
    sender, window, _ = sender_of(ranges=7)
    sender.pump()
    assert len(sent_frames(window)) == 5  # 1 to 5; frame 2 gets lost
    assert answer(sender, window, 1, 100, 500)
    assert answer(sender, window, 3, 100, 500, ((200, 300),))
    assert not sender.satisfied
    sender.pump()
    assert spans(window) == [(100, 200)]
    assert answer(sender, window, 4, 100, 500, ((200, 400),))
    assert answer(sender, window, 5, 100, 500, ((200, 500),))
    sender.pump()
    assert sent_frames(window) == []
    assert answer(sender, window, 6, 160, 500, ((200, 500),))
    assert answer(sender, window, 7, 500, 500)
    assert sender.next == 500
    assert window.channel.counters.retransmitted_bytes == 100


def test_without_ranges_all_behind_the_loss_is_sent_again_once():
    sender, window, _ = sender_of()
    sender.pump()
    assert answer(sender, window, 1, 100, 500)
    assert not answer(sender, window, 3, 100, 500)
    sent_frames(window)
    sender.pump()
    again = sent_frames(window)
    assert (again[0][1], again[-1][2]) == (100, 500)
    assert [end for _, _, end in again[:-1]] == [begin for _, begin, _ in again[1:]]
    assert not answer(sender, window, 4, 100, 500)
    assert not answer(sender, window, 5, 100, 500)
    assert not sender.pump()
    assert answer(sender, window, again[0][0], again[0][2], 500)
    assert answer(sender, window, again[-1][0], 500, 500)
    assert window.channel.counters.retransmitted_bytes == 400


def test_what_a_device_has_no_range_left_for_is_sent_again_at_once():
    sender, window, _ = sender_of(ranges=1)
    sender.pump()  # 0 100 200 300 400; the first and the third get lost
    sent_frames(window)
    answer(sender, window, 2, 0, 500, ((100, 200),))
    sender.pump()
    assert spans(window) == [(0, 100)]
    answer(sender, window, 4, 0, 500, ((100, 200),))  # no range left for 300 to 400: ignored, and so will 400 to 500 be
    sender.pump()
    assert spans(window) == [(200, 500)]


def test_answers_that_are_lost_doubled_or_late_do_no_harm():
    sender, window, _ = sender_of(ranges=7)
    sender.pump()
    assert answer(sender, window, 4, 400, 900)
    assert not answer(sender, window, 1, 100, 500)
    assert not answer(sender, window, 4, 400, 900)
    assert not answer(sender, window, 2, 100, 500, ((200, 300),))
    assert (sender.next, sender.limit, sender.satisfied) == (400, 900, False)
    assert answer(sender, window, 0, 450, 700)  # an event
    assert (sender.next, sender.limit) == (450, 900)
    sender.pump()
    assert window.channel.counters.retransmissions == 0


def test_the_window_counts_encoded_bytes_that_nobody_answered():
    sender, window, _ = sender_of(window_bytes=400)
    sender.pump()
    sent = window.channel.counters.bytes_up
    assert 250 < sent <= 400
    assert not sender.pump()
    answer(sender, window, 1, 100, 500)
    assert sender.pump()


def test_a_question_is_one_small_frame_of_what_is_missing_first():
    sender, window, _ = sender_of(ranges=7, window_bytes=400)
    sender.pump()
    sent_frames(window)
    sender.probe()
    assert sent_frames(window) == [(4, 0, 60)]
    answer(sender, window, 4, 60, 500, ((100, 200),))  # its answer tells that the first and the third are lost
    sender.pump()
    first, second = spans(window)
    assert first == (60, 100)
    assert second[0] == 200


def test_a_question_where_there_is_no_credit():
    sender, window, _ = sender_of(limit=100)
    sender.pump()
    answer(sender, window, 1, 100, 100)
    sent_frames(window)
    sender.probe()
    assert sent_frames(window) == [(2, 99, 100)]


def test_bytes_that_were_never_sent():
    sender, window, _ = sender_of(ranges=7)
    sender.pump()
    with pytest.raises(ProtocolError, match="says that it has 501 bytes, but only 500 were sent"):
        answer(sender, window, 1, 100, 500, ((200, 501),))
    with pytest.raises(ProtocolError, match="asks for byte 1001 of 1000"):
        sender.start(0, 1000, ((10, 1001),))


def test_a_stream_that_begins_with_ranges_sends_what_lies_between():
    sender, window, _ = sender_of(ranges=7, limit=1000)
    sender.start(50, 1000, ((100, 300), (380, 990)))
    sender.pump()
    assert [frame[1:] for frame in sent_frames(window)] == [(50, 100), (300, 380), (990, 1000)]
    assert window.channel.counters.retransmissions == 0
    assert sender.held_bytes == 50 + 200 + 610


class Runs:
    """Codes zeros, eight of them a byte."""

    def __init__(self, data):
        self.data = data

    def piece(self, offset, most_count, room_bytes):
        count = min(most_count, 8 * room_bytes)
        if count < 16 or any(self.data[offset : offset + count]):
            return None
        return Piece(count, 1, bytes(-(-count // 8)))


def test_coded_frames_stand_for_more_bytes_than_they_have():
    data = bytes(300) + b"\1" * 200 + bytes(500)
    sender, window, _ = sender_of(coder=Runs(data), ranges=7, body=64, limit=1000)
    sender.pump()
    frames = sent_frames(window)
    assert [frame[1:] for frame in frames[:2]] == [(0, 60), (60, 120)]  # 456 bytes that are not all zeros follow
    assert [frame[1:] for frame in frames[-2:]] == [(540, 996), (996, 1000)]  # 57 bytes behind a head of 7
    answer(sender, window, frames[-1][0], 540, 1000, ((996, 1000),))
    sender.pump()
    assert spans(window) == [(540, 996)]
    assert window.channel.counters.retransmitted_bytes == 456


@given(st.data())
def test_a_device_gets_every_byte_whatever_is_lost(data):
    """A line that loses any frames and answers, and a device that keeps any number of ranges, byte by byte."""
    ranges = data.draw(st.integers(0, 7))
    size = 700
    sender, window, line = sender_of(size, ranges=ranges, window_bytes=600, limit=size)
    has = [False] * size
    for step in range(200):
        sender.pump()
        frames = sent_frames(window)
        if not frames:
            sender.probe()
            frames = sent_frames(window)
        lossy = step < 60
        for sequence, begin, end in frames:
            line.now += 0.01
            if lossy and data.draw(st.integers(0, 3)) == 0:
                continue
            before = has.copy()
            has[begin:end] = [True] * (end - begin)
            told = stretches(has)
            if len(told[1]) > ranges:
                has, told = before, stretches(before)
            if lossy and data.draw(st.integers(0, 3)) == 0:
                continue
            answer(sender, window, sequence, told[0], size, told[1])
        if sender.done:
            break
    assert all(has)
    assert sender.done


def stretches(has):
    """Give up to where everything is there, and the stretches beyond."""
    bounds = [i for i in range(len(has) + 1) if (i > 0 and has[i - 1]) != (i < len(has) and has[i])]
    pairs = list(zip(bounds[::2], bounds[1::2], strict=True))
    if pairs and pairs[0][0] == 0:
        return pairs[0][1], tuple(pairs[1:])
    return 0, tuple(pairs)


# --- how long an answer may take ---


def test_time_in_which_nobody_listened_is_no_delay():
    sender, window, line = sender_of()
    sender.pump()
    line.now += 100
    window.forgive(100)
    line.now += 0.25
    answer(sender, window, 1, 100, 500)
    assert window.channel.rtt_s == pytest.approx(0.25)


def test_an_answer_is_overdue_soon_behind_its_time_once_that_is_known():
    sender, window, line = sender_of(limit=1000)
    assert window.overdue_s(0) == pytest.approx(0.25)
    sender.pump()
    line.now += 0.01
    answer(sender, window, 1, 100, 1000)
    assert 0.03 < window.overdue_s(0) < 0.09
    line.now += 0.1
    assert window.overdue_s(0) < 0
    assert window.overdue_s(1) > window.overdue_s(0)
    assert window.overdue_s(30) == pytest.approx(window.overdue_s(20))
    window.heard()
    assert 0.03 < window.overdue_s(0) < 0.09


# --- the pace of a device ---


def test_a_repair_never_slows_the_next_one_down():
    pace = Pace(Timing())
    assert pace.quiet_s(4, RunMode.TIMING) == 1.0
    pace.batch(2.0, 4, clean=True)
    assert pace.image_s == 0.5
    pace.batch(8.0, 4, clean=False)
    assert pace.image_s == 0.5
    pace.batch(1.0, 4, clean=False)
    assert pace.image_s == 0.125
    pace.batch(4.0, 4, clean=True)
    assert pace.image_s == 1.0
    assert pace.quiet_s(4, RunMode.TIMING) > 4.0
    assert pace.quiet_s(0, RunMode.TIMING) == pace.quiet_s(0, RunMode.THROUGHPUT) == 0.0


def test_results_in_batches_are_waited_for():
    pace = Pace(Timing())
    assert pace.quiet_s(9, RunMode.THROUGHPUT, 0, 4) == 1.0
    pace.results(2.0, 4)
    assert pace.quiet_s(9, RunMode.THROUGHPUT, 0, 4) == 1.5 * 4 * 0.5
    assert pace.quiet_s(2, RunMode.THROUGHPUT, 0, 4) == 1.5 * 2 * 0.5
    for _ in range(40):
        pace.results(0.4, 4)
    assert pace.quiet_s(9, RunMode.THROUGHPUT, 0, 4) == pytest.approx(1.5 * 4 * 0.1, rel=0.01)
    pace.begin_run()
    assert pace.quiet_s(9, RunMode.THROUGHPUT, 0, 4) == 1.0


def test_a_first_image_is_waited_for_even_when_only_repairs_were_seen():
    pace = Pace(Timing())
    pace.batch(12.0, 4, clean=False)
    assert pace.image_s == 1.5
    assert pace.patience_s(4, 4) >= 5.0 + 12.0
    assert Pace(Timing()).patience_s(0, 0) == 5.0
    assert Pace(Timing()).patience_s(1, 0) == 35.0
