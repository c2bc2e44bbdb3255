"""The window of bytes under way, frame by frame, and the pace that decides when to ask."""

import fake_device as fd
import pytest

from bitloop.link import messages
from bitloop.link.channel import Channel, Timing
from bitloop.link.pace import Pace
from bitloop.link.stream import StreamSender, Window
from bitloop.spec import RunMode


def sender_of(size=1000, *, body=104, window_bytes=2000):
    transport = fd.FakeTransport(fd.FakeDevice())
    channel = Channel(transport, clock=transport.clock)
    window = Window(channel, window_bytes)
    sender = StreamSender(window, memoryview(bytes(size)), messages.RunData, body_bytes=body)
    sender.start(0, 500)
    return sender, window, transport


def answer(sender, window, sequence, next_offset, limit):
    return sender.answer(window.answered(sequence), next_offset, limit)


def test_credit_bounds_what_is_sent():
    sender, window, _ = sender_of()
    assert sender.pump()
    assert (sender.position, window.channel.counters.frames_up) == (500, 5)
    assert not sender.pump()
    assert answer(sender, window, 1, 100, 600)
    assert sender.pump()
    assert sender.position == 600


def test_a_lost_frame_is_sent_again_once_however_often_its_loss_is_told():
    sender, window, _ = sender_of()
    sender.pump()  # frames 1 to 5; frame 2 gets lost
    assert answer(sender, window, 1, 100, 500)
    assert not answer(sender, window, 3, 100, 500)
    assert sender.position == 100
    sender.pump()  # frames 6 to 9
    assert window.channel.counters.retransmissions == 4
    assert not answer(sender, window, 4, 100, 500)
    assert not answer(sender, window, 5, 100, 500)
    assert sender.position == 500
    sender.pump()
    assert window.channel.counters.retransmissions == 4
    assert answer(sender, window, 6, 200, 500)
    assert answer(sender, window, 9, 500, 500)
    assert window.channel.counters.retransmitted_bytes == 400


def test_a_late_answer_moves_nothing_back():
    sender, window, _ = sender_of()
    sender.pump()
    answer(sender, window, 4, 400, 900)
    answer(sender, window, 1, 100, 500)
    assert (sender.next, sender.limit) == (400, 900)
    answer(sender, window, 0, 450, 700)  # an event
    assert (sender.next, sender.limit) == (450, 900)


def test_the_window_counts_encoded_bytes_that_nobody_answered():
    sender, window, _ = sender_of(window_bytes=400)
    sender.pump()
    sent = window.channel.counters.bytes_up
    assert 250 < sent <= 400
    assert not sender.pump()
    answer(sender, window, 1, 100, 500)
    assert sender.pump()


def test_what_was_sent_before_a_rewind_counts_as_lost():
    sender, _, _ = sender_of(window_bytes=400)
    sender.pump()
    sender.rewind()
    assert sender.position == 0
    assert sender.pump()


def test_time_in_which_nobody_listened_is_no_delay():
    sender, window, transport = sender_of()
    sender.pump()
    transport.now += 100
    window.forgive(100)
    transport.now += 0.25
    answer(sender, window, 1, 100, 500)
    assert window.channel.rtt_s == pytest.approx(0.25)


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
    assert pace.quiet_s(4, RunMode.THROUGHPUT) == pace.quiet_s(0, RunMode.TIMING) == 0.0


def test_a_first_image_is_waited_for_even_when_only_repairs_were_seen():
    pace = Pace(Timing())
    pace.batch(12.0, 4, clean=False)
    assert pace.image_s == 1.5
    assert pace.patience_s(4, 4) >= 5.0 + 12.0
    assert Pace(Timing()).patience_s(0, 0) == 5.0
    assert Pace(Timing()).patience_s(1, 0) == 35.0
