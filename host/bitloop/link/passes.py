"""Weights that travel with each batch of a run: one pass over them after another, as the device asks for them."""

from __future__ import annotations

from collections.abc import Sequence

from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.coding import Coder, Piece
from bitloop.link.delivery.stream import Frames, StreamSender
from bitloop.link.delivery.window import Flight, Window
from bitloop.link.wire import messages
from bitloop.link.wire.message import Ranges


class Passes:
    """Feeds the pass that the device is in.

    Args:
        window: What is under way, pixels among it.
        data: What one batch needs of the weights.
        batch: Images of a batch.
        images: Images in all.
        info: The device.
        coder: Codes pieces of ``data``; None: it travels as it is.

    Attributes:
        number: The pass under way, counted from 0.
    """

    def __init__(
        self,
        window: Window,
        data: memoryview,
        *,
        batch: int,
        images: int,
        info: DeviceInfo,
        coder: Coder | None = None,
    ) -> None:
        self.number = 0
        self._length = len(data)
        self._batch = batch
        self._images = images
        frames = Frames(
            self._plain,
            messages.StreamData.LAYOUT.size,
            self._coded,
            messages.StreamCoded.LAYOUT.size,
            messages.RunCredit.LAYOUT.size + messages.WeightsCredit.LAYOUT.size,
        )
        self._sender = StreamSender(window, data, info, frames=frames, coder=coder)

    @property
    def stage(self) -> int:
        """How much of the pass the device has asked for: what it computes with."""
        return self._sender.limit

    @property
    def satisfied(self) -> bool:
        """Whether everything that the device asked for was sent."""
        return self._sender.satisfied

    @property
    def most_results(self) -> int:
        """How many results there may be: those of the passes before, and of this one if all its weights were sent."""
        done = self.number + (self._sender.highest == self._length)
        return min(done * self._batch, self._images)

    def pump(self) -> bool:
        """Post all frames that credit and window allow; give True if there was any."""
        return self._sender.pump()

    def answer(
        self, settled: Sequence[Flight], credit: messages.WeightsCredit, ranges: Ranges, *, most_results: int
    ) -> tuple[bool, bool]:
        """Take what an answer or event says of the weights; what it says of an earlier pass is past.

        Args:
            settled: The frames of which the answer tells; none for an event.
            credit: What it says.
            ranges: What of the pass the device holds beyond a gap.
            most_results: How many images the device can have computed by the pixels that were sent.

        Returns:
            Whether the device has taken more than was known, and whether it asks for more than before.

        Raises:
            ProtocolError: The device claims what cannot be.
        """
        if credit.pass_number < self.number:
            return False, False
        if credit.pass_number > self.number:
            self._next_pass(credit, most_results)
        if credit.limit > self._length or max(credit.next, *(end for _, end in ranges), 0) > credit.limit:
            raise ProtocolError(
                f"the device is at byte {credit.next} of the weights and asks for them up to {credit.limit}, a pass "
                f"has {self._length}; its firmware is faulty"
            )
        if credit.limit and min((self.number + 1) * self._batch, self._images) > most_results:
            raise ProtocolError(
                f"the device asks for weights of pass {self.number}, but its images were not sent in full; "
                "its firmware is faulty"
            )
        before = self._sender.limit
        progress = self._sender.answer(settled, credit.next, credit.limit, ranges)
        return progress, self._sender.limit > before

    def _next_pass(self, credit: messages.WeightsCredit, most_results: int) -> None:
        done = min(credit.pass_number * self._batch, self._images)
        over = self.number * self._batch >= self._images
        if credit.pass_number != self.number + 1 or over or done > min(self.most_results, most_results):
            raise ProtocolError(
                f"the device says that it is in pass {credit.pass_number} over the weights, but cannot be done with "
                f"pass {self.number}; its firmware is faulty"
            )
        self.number = credit.pass_number
        self._sender.start(0, 0)

    def _plain(self, offset: int, data: bytes) -> messages.Message:
        return messages.StreamData(self.number, offset, data)

    def _coded(self, offset: int, piece: Piece) -> messages.Message:
        return messages.StreamCoded(self.number, offset, *piece)
