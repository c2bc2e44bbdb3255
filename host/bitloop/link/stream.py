"""A window of numbered bytes under way: credit, go-back-N, and what is still unanswered.

Upload and run send the same way: frames of (offset, bytes), each answered with the offset that the device expects next
and the limit up to which it has room. Pixels and streamed weights are two streams, but share the device's buffer, and
one answer tells of both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from bitloop.errors import ProtocolError
from bitloop.link import messages
from bitloop.link.channel import Channel
from bitloop.link.frame import body_that_fits, encoded_size

_MOST_UNDER_WAY = 100  # well below 255, so that a sequence number names one frame
_SMALL_BODY = 48


@dataclass
class Sent:
    """A frame under way: its number and encoded size, and where each stream of the window stood behind it."""

    sequence: int
    size_bytes: int
    marks: tuple[tuple[int, int], ...]
    sent_at: float


class Window:
    """Frames that nobody has answered yet, of all streams that share the device's buffer.

    Args:
        channel: Where to.
        window_bytes: Most encoded bytes that may be unanswered.
    """

    def __init__(self, channel: Channel, window_bytes: int) -> None:
        self.channel = channel
        self.window_bytes = window_bytes
        self._streams: list[StreamSender] = []
        self._under_way: deque[Sent] = deque()
        self._under_way_bytes = 0

    def add(self, stream: StreamSender) -> int:
        """Let a stream take part; give its number."""
        self._streams.append(stream)
        return len(self._streams) - 1

    def has_room(self, body_bytes: int) -> bool:
        """Tell whether a frame with such a body may be sent now; one alone always may."""
        if not self._under_way:
            return True
        full = self._under_way_bytes + encoded_size(body_bytes) + 1 > self.window_bytes
        return not full and len(self._under_way) < _MOST_UNDER_WAY

    def post(self, message: messages.Message) -> None:
        """Post a message whose answer names the expected offsets."""
        frame = self.channel.post(message)
        while len(self._under_way) >= 2 * _MOST_UNDER_WAY:
            self._under_way_bytes -= self._under_way.popleft().size_bytes
        marks = tuple(stream.mark for stream in self._streams)
        self._under_way.append(Sent(frame.sequence, frame.size_bytes, marks, self.channel.clock()))
        self._under_way_bytes += frame.size_bytes

    def answered(self, sequence: int) -> Sent | None:
        """Take the number of an answer: it says that all frames up to that one were handled, or lost."""
        if not sequence or all(entry.sequence != sequence for entry in self._under_way):
            return None
        while True:
            entry = self._under_way.popleft()
            self._under_way_bytes -= entry.size_bytes
            if entry.sequence == sequence:
                self.channel.note_delay(self.channel.clock() - entry.sent_at)
                return entry

    def forget(self) -> None:
        """Count everything unanswered as lost."""
        self._under_way.clear()
        self._under_way_bytes = 0

    def forgive(self, seconds: float) -> None:
        """Do not count time in which nobody listened as delay of the line."""
        for entry in self._under_way:
            entry.sent_at += seconds


class StreamSender:
    """Sends a stream of bytes within credit and window.

    Args:
        window: What is under way, of this stream and of others.
        data: The whole stream.
        frame: Makes the message that carries bytes at an offset.
        body_bytes: Longest body the device takes.
        head_bytes: How many of them come before the data.
    """

    def __init__(
        self,
        window: Window,
        data: memoryview,
        frame: Callable[[int, bytes], messages.Message],
        *,
        body_bytes: int,
        head_bytes: int = 4,
    ) -> None:
        self._window = window
        self._data = data
        self._frame = frame
        self._head_bytes = head_bytes
        self._chunk_bytes = _body_bytes(body_bytes, window.window_bytes) - head_bytes
        self._number = window.add(self)
        self._round = 0
        self.highest = 0
        self.next = 0
        self.limit = 0
        self.position = 0

    @property
    def done(self) -> bool:
        """True when the device has everything."""
        return self.next == len(self._data)

    def start(self, offset: int, limit: int) -> None:
        """Begin at an offset that the device named.

        Raises:
            ProtocolError: The offset lies behind the end.
        """
        if offset > len(self._data):
            raise ProtocolError(f"the device asks for byte {offset} of {len(self._data)}; its firmware is faulty")
        self.next = self.position = self.highest = offset
        self.limit = limit
        self._round += 1

    @property
    def mark(self) -> tuple[int, int]:
        """How far was sent, and how often the stream has gone back."""
        return self.position, self._round

    def pump(self) -> bool:
        """Post all frames that credit and window allow; give True if there was any."""
        counters = self._window.channel.counters
        posted = False
        while True:
            begin = self.position
            size = min(self._chunk_bytes, self.limit - begin, len(self._data) - begin)
            if size <= 0 or not self._window.has_room(self._head_bytes + size):
                return posted
            if begin < self.highest:
                counters.retransmissions += 1
                counters.retransmitted_bytes += size
            self.position += size
            self.highest = max(self.highest, self.position)
            self._window.post(self._frame(begin, bytes(self._data[begin : self.position])))
            posted = True

    def answer(self, sent: Sent | None, next_offset: int, limit: int) -> bool:
        """Take what an answer or event says of this stream.

        If the device expects less than was sent up to the frame that it answers, the stream goes back to what it
        expects.

        Args:
            sent: The frame that was answered, None for an event.
            next_offset: What the device expects.
            limit: How far it has room.

        Returns:
            True if the device has taken more than was known.

        Raises:
            ProtocolError: The device claims bytes that were never sent.
        """
        if next_offset > self.highest:
            raise ProtocolError(
                f"the device says that it has {next_offset} bytes, but only {self.highest} were sent; "
                "its firmware is faulty"
            )
        progress = next_offset > self.next
        if next_offset >= self.next:
            self.next = next_offset
            self.limit = max(self.limit, limit)
            self.position = max(self.position, next_offset)
        if sent is not None:
            end, sent_round = sent.marks[self._number]
            if sent_round == self._round and self.next < end:
                self._go_back()
        return progress

    def rewind(self) -> None:
        """Go back to what the device is known to expect; everything unanswered counts as lost."""
        self._window.forget()
        self._go_back()

    def _go_back(self) -> None:
        self.position = self.next
        self._round += 1


def _body_bytes(body_bytes: int, window_bytes: int) -> int:
    """Give the body of a full frame: two fit the window where that leaves a frame worth sending."""
    half = body_that_fits(window_bytes // 2)
    return min(body_bytes, half if half >= _SMALL_BODY else body_that_fits(window_bytes))
