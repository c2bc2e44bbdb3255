"""Frames under way that nobody has answered yet: how much more may be sent, and when an answer is overdue."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from bitloop.link.channel import MAX_RETRY_S, Channel
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.wire import messages
from bitloop.link.wire.frame import body_that_fits

MOST_UNDER_WAY = 100  # well below 255, so that a sequence number names one frame


@dataclass(frozen=True)
class Sent:
    """Bytes of a stream that a frame carries.

    Attributes:
        stream: Number of the stream in its window; -1 where the frame carries nothing of any.
        begin: Offset of the first byte.
        end: Offset behind the last.
    """

    stream: int = -1
    begin: int = 0
    end: int = 0


@dataclass
class Flight:
    """A frame under way."""

    sequence: int
    size_bytes: int
    sent: Sent
    sent_at: float
    alone: bool  # nothing else was under way when it was posted
    doomed: bool = False  # the device ignores it, since something before it is missing


class Window:
    """Frames that nobody has answered yet, of all streams that share the device's buffer.

    Args:
        channel: Where to.
        window_bytes: Most encoded bytes that may be unanswered.
        quality: What is known of the line.
        retry_s: How long an answer may take as long as none was measured.
    """

    def __init__(self, channel: Channel, window_bytes: int, quality: LineQuality, *, retry_s: float) -> None:
        self.channel = channel
        self.window_bytes = window_bytes
        self.quality = quality
        self._retry_s = retry_s
        self._streams = 0
        self._flights: deque[Flight] = deque()
        self._under_way_bytes = 0
        self._heard_at = channel.clock()
        quality.at_rate(channel.baud)

    def add_stream(self) -> int:
        """Give a number for a stream that takes part."""
        self._streams += 1
        return self._streams - 1

    def under_way(self, stream: int) -> Iterator[Flight]:
        """Give the frames of a stream that are under way, in the order they were sent; none that the device ignores."""
        return (flight for flight in self._flights if flight.sent.stream == stream and not flight.doomed)

    def has_room(self, body_bytes: int) -> bool:
        """Tell whether a frame with such a body may be sent now; one alone always may."""
        return self.room(body_bytes, body_bytes) > 0

    def room(self, least_bytes: int, most_bytes: int) -> int:
        """Give the longest body, from ``least_bytes`` to ``most_bytes``, that may be sent now; 0 if there is none.

        One frame alone always may.
        """
        if not self._flights:
            return most_bytes
        if self._under_way_bytes > self.quality.enough_bytes or len(self._flights) >= MOST_UNDER_WAY:
            return 0
        fits = min(body_that_fits(self.window_bytes - self._under_way_bytes), most_bytes)
        return fits if fits >= least_bytes else 0

    def post(self, message: messages.Message, sent: Sent | None = None) -> int:
        """Post a message whose answer tells what the device holds; give its sequence number."""
        frame = self.channel.post(message)
        while len(self._flights) >= 2 * MOST_UNDER_WAY:
            self._under_way_bytes -= self._flights.popleft().size_bytes
        alone = not self._flights
        self._flights.append(Flight(frame.sequence, frame.size_bytes, sent or Sent(), self.channel.clock(), alone))
        self._under_way_bytes += frame.size_bytes
        return frame.sequence

    def answered(self, sequence: int) -> list[Flight]:
        """Take the number of an answer: it says that all frames up to that one were handled, or lost.

        Returns:
            These frames; none for an event, or an answer of which a later one has told already.
        """
        now = self.channel.clock()
        if not sequence or all(flight.sequence != sequence for flight in self._flights):
            return []
        settled: list[Flight] = []
        while not settled or settled[-1].sequence != sequence:
            settled.append(self._flights.popleft())
            self._under_way_bytes -= settled[-1].size_bytes
        head = settled[0]
        if head is settled[-1]:
            if head.alone:
                self.quality.note_delay(head.size_bytes, now - head.sent_at)
                self.channel.note_delay(now - head.sent_at)
            elif head.sent_at <= self._heard_at:
                self.quality.note_busy(head.size_bytes, now - self._heard_at)
        self._heard_at = now
        return settled

    def heard(self) -> None:
        """Note a sign of life, behind which an answer may be queued; or a question, which begins another wait."""
        self._heard_at = self.channel.clock()

    def overdue_s(self, asked: int, *, least_s: float = 0.0, most_s: float = MAX_RETRY_S) -> float:
        """Give in how many seconds the oldest answer is overdue, 0.0 or less if it is.

        Where nothing is under way it is the next sign of life.

        Args:
            asked: How often the device was asked since there was progress; each time twice as long is waited.
            least_s: Least patience.
            most_s: Where doubling ends.
        """
        since = max(self._heard_at, self._flights[0].sent_at) if self._flights else self._heard_at
        head_bytes = self._flights[0].size_bytes if self._flights else 0
        patience_s = max(self.quality.patience_s(head_bytes, self._retry_s), least_s)
        return since + max(patience_s, min(patience_s * 2.0**asked, most_s)) - self.channel.clock()

    def forgive(self, seconds: float) -> None:
        """Do not count time in which nobody listened as delay of the line."""
        self._heard_at += seconds
        for flight in self._flights:
            flight.sent_at += seconds
