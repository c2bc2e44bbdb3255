"""A window of numbered bytes under way: credit, go-back-N, and what is still unanswered.

Upload and run send the same way: frames of (offset, bytes), each answered with the offset that the device expects next
and the limit up to which it has room.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from bitloop.errors import ProtocolError
from bitloop.link import messages
from bitloop.link.channel import Channel
from bitloop.link.frame import body_that_fits, encoded_size

_OFFSET_BYTES = 4
_MOST_UNDER_WAY = 100  # well below 255, so that a sequence number names one frame
_SMALL_BODY = 48


@dataclass
class _UnderWay:
    sequence: int
    size_bytes: int
    end: int
    round: int
    sent_at: float


class StreamSender:
    """Sends a stream of bytes within credit and window.

    Args:
        channel: Where to.
        data: The whole stream.
        kind: The message that carries it.
        body_bytes: Longest body the device takes.
        window_bytes: Most encoded bytes that may be unanswered.
    """

    def __init__(
        self,
        channel: Channel,
        data: memoryview,
        kind: type[messages.UploadData] | type[messages.RunData],
        *,
        body_bytes: int,
        window_bytes: int,
    ) -> None:
        self._channel = channel
        self._data = data
        self._kind = kind
        self._chunk_bytes = _chunk_bytes(body_bytes, window_bytes)
        self._window_bytes = window_bytes
        self._under_way: deque[_UnderWay] = deque()
        self._under_way_bytes = 0
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

    def pump(self) -> bool:
        """Post all frames that credit and window allow; give True if there was any."""
        posted = False
        while len(self._under_way) < _MOST_UNDER_WAY:
            size = min(self._chunk_bytes, self.limit - self.position, len(self._data) - self.position)
            if size <= 0:
                break
            if self._under_way and self._under_way_bytes + encoded_size(_OFFSET_BYTES + size) + 1 > self._window_bytes:
                break
            chunk = self._data[self.position : self.position + size]
            frame = self._channel.post(self._kind(self.position, bytes(chunk)))
            if self.position < self.highest:
                self._channel.counters.retransmissions += 1
                self._channel.counters.retransmitted_bytes += size
            self.position += size
            self.highest = max(self.highest, self.position)
            self._remember(frame.sequence, frame.size_bytes)
            posted = True
        return posted

    def post(self, message: messages.Message) -> None:
        """Post another message whose answer also names the expected offset, such as RUN_ACK."""
        frame = self._channel.post(message)
        while len(self._under_way) >= 2 * _MOST_UNDER_WAY:
            self._under_way_bytes -= self._under_way.popleft().size_bytes
        self._remember(frame.sequence, frame.size_bytes)

    def answer(self, sequence: int, next_offset: int, limit: int) -> bool:
        """Take an answer or event.

        The device handles frames in order: an answer to one says that all earlier ones were handled, or lost. If it
        then expects less than was sent up to that frame, the stream goes back to what it expects.

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
        answered = self._pop_through(sequence)
        progress = next_offset > self.next
        if next_offset >= self.next:
            self.next = next_offset
            self.limit = max(self.limit, limit)
            self.position = max(self.position, next_offset)
        if answered is not None:
            self._channel.note_delay(self._channel.clock() - answered.sent_at)
            if answered.round == self._round and self.next < answered.end:
                self._go_back()
        return progress

    def rewind(self) -> None:
        """Go back to what the device is known to expect; everything unanswered counts as lost."""
        self._under_way.clear()
        self._under_way_bytes = 0
        self._go_back()

    def forgive(self, seconds: float) -> None:
        """Do not count time in which nobody listened as delay of the line."""
        for entry in self._under_way:
            entry.sent_at += seconds

    def _go_back(self) -> None:
        self.position = self.next
        self._round += 1

    def _remember(self, sequence: int, size_bytes: int) -> None:
        self._under_way.append(_UnderWay(sequence, size_bytes, self.position, self._round, self._channel.clock()))
        self._under_way_bytes += size_bytes

    def _pop_through(self, sequence: int) -> _UnderWay | None:
        if not sequence or all(entry.sequence != sequence for entry in self._under_way):
            return None
        while True:
            entry = self._under_way.popleft()
            self._under_way_bytes -= entry.size_bytes
            if entry.sequence == sequence:
                return entry


def _chunk_bytes(body_bytes: int, window_bytes: int) -> int:
    """Give the payload of a full frame: two fit the window where that leaves a frame worth sending."""
    half = body_that_fits(window_bytes // 2)
    body = half if half >= _SMALL_BODY else body_that_fits(window_bytes)
    return min(body_bytes, body) - _OFFSET_BYTES
