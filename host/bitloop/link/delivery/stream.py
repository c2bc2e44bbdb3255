"""A stream of bytes to the device: what it holds, what is under way, and what of the rest is sent next.

Uploads and runs send the same way: frames of (offset, bytes), each answered with what the device holds and the limit up
to which it has room. The line keeps its order, so an answer settles all frames that were sent before the one that it
answers: what the device does not hold of them is sent again, and nothing else. Pixels and streamed weights are two
streams, but share the device's buffer, and one answer tells of both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.coding import Coder, Piece
from bitloop.link.delivery.intervals import Intervals
from bitloop.link.delivery.quality import longest_body
from bitloop.link.delivery.window import Flight, Sent, Window
from bitloop.link.wire import messages
from bitloop.link.wire.message import Ranges

_MOST_CODED = 0xFFFF
_WORTH_SENDING = 75  # percent of a frame for which there is room: less is not sent, but more room waited for


@dataclass(frozen=True)
class Frames:
    """How bytes of a stream are put into frames.

    Attributes:
        plain: Makes the message that carries bytes at an offset.
        plain_head: How many bytes of its body come before them.
        coded: The same for coded bytes.
        coded_head: The same for coded bytes.
        answer_head: How many bytes of an answer's body come before its ranges.
    """

    plain: Callable[[int, bytes], messages.Message]
    plain_head: int
    coded: Callable[[int, Piece], messages.Message]
    coded_head: int
    answer_head: int


UPLOAD_FRAMES = Frames(
    messages.UploadData,
    messages.UploadData.LAYOUT.size,
    lambda offset, piece: messages.UploadCoded(offset, *piece),
    messages.UploadCoded.LAYOUT.size,
    messages.UploadAck.LAYOUT.size,
)
RUN_FRAMES = Frames(
    messages.RunData,
    messages.RunData.LAYOUT.size,
    lambda offset, piece: messages.RunCoded(offset, *piece),
    messages.RunCoded.LAYOUT.size,
    messages.RunCredit.LAYOUT.size,
)


class StreamSender:
    """Sends a stream of bytes within credit and window.

    Args:
        window: What is under way, of this stream and of others.
        data: The whole stream.
        info: The device: how long its frames are, and how many ranges it keeps.
        frames: How to make frames.
        coder: Codes pieces of ``data``; None: all travels as it is.
        unit_bytes: What the device can begin with while more is on the way; 0: it needs all that there is credit for.

    Attributes:
        limit: Up to where the device has room.
        position: Up to where everything was sent once, or is held.
        highest: Up to where the device can hold anything.
        some: From here on the device has something to work on: what there is credit for may all be in one frame.
        enough: Behind this it has enough: short frames are not sent there, but more credit is waited for.
    """

    def __init__(
        self,
        window: Window,
        data: memoryview,
        info: DeviceInfo,
        *,
        frames: Frames,
        coder: Coder | None = None,
        unit_bytes: int = 0,
    ) -> None:
        self._window = window
        self._data = data
        self._frames = frames
        self._coder = coder
        self._unit_bytes = unit_bytes
        self._longest_body = longest_body(info.body_bytes, window.window_bytes)
        room = (info.longest_sent - frames.answer_head) // 8
        self._most_ranges = min(info.ranges, room)
        self._number = window.add_stream()
        self._held = Intervals()
        self._missing = Intervals()
        self.limit = self.position = self.highest = 0
        self.some = self.enough = len(data)

    @property
    def done(self) -> bool:
        """True when the device has everything."""
        return self._held.prefix == len(self._data)

    @property
    def next(self) -> int:
        """Up to where the device has everything."""
        return self._held.prefix

    @property
    def held_bytes(self) -> int:
        """How many bytes the device has."""
        return self._held.total

    @property
    def satisfied(self) -> bool:
        """Whether everything that there is credit for is held or under way."""
        return self._gap() is None

    @property
    def sent_up_to(self) -> int:
        """Up to where everything is held or under way."""
        return next((begin for begin, _ in self._missing), self.position)

    def start(self, next_offset: int, limit: int, ranges: Ranges = ()) -> None:
        """Begin with what the device says that it holds.

        Raises:
            ProtocolError: It lies behind the end.
        """
        end = max(next_offset, *(end for _, end in ranges)) if ranges else next_offset
        if end > len(self._data):
            raise ProtocolError(f"the device asks for byte {end} of {len(self._data)}; its firmware is faulty")
        self._number = self._window.add_stream()  # what is still under way is of another stream from now on
        self._missing = Intervals()
        self._held = Intervals([(0, next_offset), *ranges])
        self.position, self.highest, self.limit = next_offset, end, limit

    def pump(self) -> bool:
        """Post all frames that credit and window allow; give True if there was any."""
        posted = False
        while (gap := self._gap()) is not None:
            begin, end = gap
            most = self._window.quality.body_bytes(self._longest_body, self._frames.plain_head)
            wanted = min(most, self._frames.plain_head + end - begin)
            body_bytes = self._window.room(_WORTH_SENDING * wanted // 100, most)
            if not body_bytes:
                return posted
            gap_end = end
            end, message = self._make(begin, end, body_bytes)
            short = end == gap_end == self.limit < len(self._data)
            if short and begin > self.enough and len(message.encode()) < _WORTH_SENDING * most // 100:
                return posted
            self._post(begin, end, message)
            posted = True
        return posted

    def probe(self) -> None:
        """Post a small frame of what the device lacks first, whether there is room or not: its answer tells all."""
        begin, end = self._held.gap_from(0, min(self.limit, len(self._data)))
        if begin == end:
            begin = max(begin - 1, 0)
        end, message = self._make(begin, max(end, begin + 1), min(spec.MIN_BODY_BYTES, self._longest_body))
        self._post(begin, end, message)

    def answer(self, settled: Sequence[Flight], next_offset: int, limit: int, ranges: Ranges = ()) -> bool:
        """Take what an answer or event says of this stream.

        Args:
            settled: The frames of which the answer tells; none for an event.
            next_offset: Up to where the device has everything.
            limit: How far it has room.
            ranges: What it holds beyond a gap.

        Returns:
            True if the device has taken more than was known.

        Raises:
            ProtocolError: The device claims bytes that were never sent.
        """
        claimed = max(next_offset, ranges[-1][1] if ranges else 0)
        if claimed > self.highest:
            raise ProtocolError(
                f"the device says that it has {claimed} bytes, but only {self.highest} were sent; "
                "its firmware is faulty"
            )
        before = self._held.total
        for begin, end in ((0, next_offset), *ranges):
            self._held.add(begin, end)
            self._missing.remove(begin, end)
        self.limit = max(self.limit, limit)
        self.position = max(self.position, self._held.prefix)
        if self._settle([flight for flight in settled if flight.sent.stream == self._number], len(ranges)):
            self._doom()
        return self._held.total > before

    def _gap(self) -> tuple[int, int] | None:
        """Give what is to be sent next: what was lost, else what was never sent."""
        for lost in self._missing:
            return lost
        begin, end = self._held.gap_from(self.position, min(self.limit, len(self._data)))
        if self._unit_bytes and begin < self.some and end < len(self._data):
            # Credit is short: with half of it in a frame, the device has something to begin with, and credit comes back
            # before the line has run out of what to carry.
            half = -(-(end - begin) // (2 * self._unit_bytes)) * self._unit_bytes
            end = min(end, begin + half)
        return (begin, end) if begin < end else None

    def _make(self, begin: int, end: int, body_bytes: int) -> tuple[int, messages.Message]:
        """Make a frame of bytes from ``begin`` on; give where they end."""
        frames = self._frames
        if self._coder is not None:
            room = body_bytes - frames.coded_head
            piece = self._coder.piece(begin, min(end - begin, _MOST_CODED), room)
            if piece is not None:
                return begin + piece.count, frames.coded(begin, piece)
        end = min(end, begin + body_bytes - frames.plain_head)
        return end, frames.plain(begin, bytes(self._data[begin:end]))

    def _post(self, begin: int, end: int, message: messages.Message) -> None:
        counters = self._window.channel.counters
        again = min(end, self.position) - begin
        if again > 0:
            counters.retransmissions += 1
            counters.retransmitted_bytes += again
        self._missing.remove(begin, end)
        self.position = max(self.position, end)
        self.highest = max(self.highest, end)
        self._window.post(message, Sent(self._number, begin, end))

    def _settle(self, settled: Sequence[Flight], ranges: int) -> bool:
        """Find out which frames were lost; give True if any was."""
        quality = self._window.quality
        any_lost = False
        for flight in settled:
            begin, end = flight.sent.begin, flight.sent.end
            if flight.doomed:
                continue
            if self._held.covers(begin, end):
                quality.survived(flight.size_bytes)
                continue
            any_lost = True
            # Where the device had no range left it may have ignored the frame; then nothing is known of the line.
            if ranges < self._most_ranges or begin <= self._held.prefix:
                quality.lost(flight.size_bytes)
            self._lose(begin, end)
        return any_lost

    def _lose(self, begin: int, end: int) -> None:
        """Send again what the device does not hold of this, unless it is under way once more."""
        self._missing.add(begin, end)
        for low, high in self._held:
            self._missing.remove(low, high)
        for flight in self._window.under_way(self._number):
            self._missing.remove(flight.sent.begin, flight.sent.end)

    def _doom(self) -> None:
        """Send again at once what the device will ignore when it comes, as it has no range left to keep it in."""
        coming = self._held.copy()
        doomed: list[Flight] = []
        for flight in self._window.under_way(self._number):
            begin, end = flight.sent.begin, flight.sent.end
            beyond = len(coming) - (coming.prefix > 0)
            if begin <= coming.prefix or coming.touches(begin, end) or beyond < self._most_ranges:
                coming.add(begin, end)
            else:
                doomed.append(flight)
        for flight in doomed:
            flight.doomed = True
        for flight in doomed:
            self._lose(flight.sent.begin, flight.sent.end)
