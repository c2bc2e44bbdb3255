"""A run: pixels up, results down, in order, with the device's slots kept full; weights up too where they are streamed.

Nothing is sent while the device computes in timing mode, unless it has been silent for longer than its measured pace
explains; then one RUN_ACK asks where things stand, and everything missing is sent or asked for again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import MAX_RETRY_S, Channel, Timing
from bitloop.link.code_table import send_table
from bitloop.link.coding import Coder
from bitloop.link.delivery.pace import Pace
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.delivery.stream import RUN_FRAMES, StreamSender
from bitloop.link.delivery.window import Window
from bitloop.link.passes import Passes
from bitloop.link.refusals import error_from
from bitloop.link.results import Result, RunPlan, unpack
from bitloop.link.upload import Progress
from bitloop.link.wire import messages
from bitloop.link.wire.frame import Frame
from bitloop.spec import CodeTable, MessageType, RunMode

__all__ = ["Result", "Run"]

_END_S = 2.0
_PROMPT_S = 0.1
"""What comes so soon after a question, beside the line's delay, may be its answer."""
_MOST_EARLY = 64
_REQUESTS = (
    MessageType.RUN_DATA, MessageType.RUN_CODED, MessageType.RUN_ACK, MessageType.STREAM_DATA, MessageType.STREAM_CODED
)  # fmt: skip


class Run:
    """One run on the device, from RUN_BEGIN to RUN_END.

    Args:
        channel: Of a session that has said hello.
        info: The device.
        pixels: All images, one behind another, ``images * shape.pixels`` bytes.
        plan: What to do.
        timing: How long to wait.
        pace: Of this model on this device.
        weights: What each batch needs of streamed weights, None if all are in the image.
        quality: What is known of the line; it learns.
        coder: Codes pieces of the pixels; None: they travel as they are.
        weights_coder: The same for streamed weights.
    """

    def __init__(
        self,
        channel: Channel,
        info: DeviceInfo,
        pixels: memoryview,
        *,
        plan: RunPlan,
        timing: Timing,
        pace: Pace,
        weights: memoryview | None = None,
        quality: LineQuality | None = None,
        coder: Coder | None = None,
        weights_coder: Coder | None = None,
    ) -> None:
        self._channel = channel
        self._plan = plan
        self._timing = timing
        self._info = info
        self._coders = ((coder, CodeTable.PIXELS), (weights_coder, CodeTable.WEIGHTS))
        self._window = Window(channel, info.window_bytes, quality or LineQuality(), retry_s=timing.retry_s)
        unit_bytes = plan.shape.pixels if plan.mode == RunMode.THROUGHPUT else 0
        self._sender = StreamSender(self._window, pixels, info, frames=RUN_FRAMES, coder=coder, unit_bytes=unit_bytes)
        self._passes: Passes | None = None
        if weights is not None:
            self._passes = Passes(
                self._window, weights, batch=plan.batch, images=plan.images, info=info, coder=weights_coder
            )
        self._record = plan.record()
        self._slots = 1
        self._received = 0  # results taken, in order
        self._results_done = 0  # as the device says
        self._acknowledged = 0
        self._ack_due = False
        self._early: dict[int, messages.Result] = {}  # results behind a missing one
        self._gap_at = -1  # where a missing result was last asked for
        self._gap_sequence = 0  # number of the question; what comes behind its answer was sent behind it
        self._pace = pace
        self._answer_by = -math.inf  # what comes until then may be the answer to a question
        self._line_s = channel.rtt_s  # without what the device computes meanwhile
        self._measured = False  # a batch is measured once, when its first result comes
        self._progressed_at = self._results_at = channel.clock()
        self._repaired = False  # something was asked for since the results before
        self._asked = 0  # questions since there was progress

    def begin(self) -> None:
        """Announce the run.

        Raises:
            DeviceError: The device refused.
            ProtocolError: Its results would have another length than the image says.
        """
        plan = self._plan
        for coder, table in self._coders:
            send_table(self._channel, self._info, coder, table, self._timing)
        ready, _ = self._channel.request(
            messages.RunBegin(plan.mode, plan.outputs, plan.stop_layer, plan.images),
            messages.RunReady,
            timeout_s=self._timing.timeout_s,
            retry_s=self._timing.retry_s,
            doing="beginning the run",
        )
        if ready.record_bytes != self._record.itemsize:
            raise ProtocolError(
                f"the device announces results of {ready.record_bytes} bytes, the image says {self._record.itemsize}; "
                "upload the model again, or update the firmware"
            )
        if self._passes is not None and ready.slots != plan.batch:
            raise ProtocolError(
                f"the device announces batches of {ready.slots} images, the image says {plan.batch}; "
                "upload the model again, or update the firmware"
            )
        self._slots = ready.slots
        self._sender.start(0, ready.limit)
        self._pace.begin_run()
        self._touch()

    def results(self, *, acknowledge: bool, progress: Progress | None) -> Iterator[Result]:
        """Give all results in order; the consumer's own time never counts against the device."""
        images = self._plan.images
        while self._received < images:
            self._pump()
            batch = self._receive()
            if batch:
                self._ack_due |= acknowledge and self._device_may_wait()
                self._pump()
                self._channel.flush()
            left_at = self._channel.clock()
            for result in batch:
                yield result
                if progress is not None:
                    progress(result.index + 1, images)
            if batch:
                away_s = self._channel.clock() - left_at
                self._window.forgive(away_s)
                self._results_at += away_s
                self._touch()

    def end(self, *, orderly: bool) -> None:
        """Free the device.

        Args:
            orderly: Every result was taken: the device's count must fit, and failures are raised.

        Raises:
            ProtocolError: The device computed another number of images.
        """
        timeout_s = self._timing.timeout_s if orderly else min(_END_S, self._timing.timeout_s)
        done, attempts = self._channel.request(
            messages.RunEnd(),
            messages.RunDone,
            timeout_s=timeout_s,
            retry_s=self._timing.retry_s,
            doing="ending the run",
        )
        if orderly and attempts == 1 and done.images != self._plan.images:
            raise ProtocolError(
                f"the device says that it computed {done.images} images, {self._plan.images} results came; "
                "its firmware is faulty"
            )

    def _pump(self) -> None:
        """Post what credit and window allow; an acknowledgement first, as the device may wait for it."""
        if self._plan.mode == RunMode.THROUGHPUT:
            # It tells of credit when half of its slots are free: what is known of it may be so old.
            done, pixels = max(self._results_done, self._received), self._plan.shape.pixels
            self._sender.some = (done + (self._slots + 1) // 2) * pixels
            self._sender.enough = (done + self._slots - self._slots // 8) * pixels
        if self._ack_due and self._window.has_room(messages.RunAck.LAYOUT.size):
            self._acknowledge(resend=False)
        self._sender.pump()
        if self._passes is not None:
            self._passes.pump()

    def _device_may_wait(self) -> bool:
        """Tell whether results are to be acknowledged.

        In timing mode the device waits once it has sent all results of a batch. In throughput mode it never waits if
        those of half of its slots are acknowledged at once: it can compute the other half meanwhile.
        """
        if self._received == self._plan.images:
            return False
        if self._plan.mode == RunMode.TIMING:
            return self._received * self._plan.shape.pixels >= self._sender.limit
        return 2 * (self._received - self._acknowledged) >= self._slots

    def _acknowledge(self, *, resend: bool) -> int:
        self._ack_due = False
        self._acknowledged = self._received
        return self._window.post(messages.RunAck(self._received, int(resend)))

    def _receive(self) -> list[Result]:
        silent_s = self._channel.clock() - self._progressed_at
        waiting = self._waiting()
        stage = self._stage
        if silent_s >= self._pace.patience_s(waiting, self._received):
            raise self._channel.silence(
                f"no progress of the run after result {self._received} of {self._plan.images}", silent_s
            )
        quiet_s = self._pace.quiet_s(waiting, self._plan.mode, stage, (self._slots + 1) // 2)
        if waiting:  # it may compute for so long: no sign that its rate has changed
            likely_s = 2 * self._pace.image_s * waiting or self._timing.image_timeout_s
            self._channel.explain(likely_s - silent_s)
        batch: list[Result] = []
        progress = wants_weights = False
        frames = self._channel.receive(self._overdue_s(waiting, quiet_s))
        for frame in frames:
            if frame.type == MessageType.RESULT:
                batch += self._take(frame)
            elif frame.type == MessageType.RUN_CREDIT:
                advanced, wanted = self._credit(frame)
                progress |= advanced
                wants_weights |= wanted
            elif frame.type == MessageType.ERROR:
                self._refused(messages.Error.decode(frame.body))
        now = self._channel.clock()
        if frames:
            self._window.heard()
        if batch or progress or wants_weights:
            self._note(now, waiting, stage, results=len(batch), wants_weights=wants_weights)
            self._touch()
        elif self._overdue_s(waiting, quiet_s) <= 0:
            self._ask_again()
            self._window.heard()
            self._asked += 1
        return batch

    def _note(self, now: float, waiting: int, stage: int, *, results: int, wants_weights: bool) -> None:
        """Learn how long the device took."""
        seconds = now - self._progressed_at
        self._pace.progress(seconds)
        if (results and not self._measured) or wants_weights:
            self._pace.batch(seconds, waiting, clean=now > self._answer_by, asked=self._asked, stage=stage)
        self._measured = results > 0
        if results:
            if not self._repaired:
                self._pace.results(now - self._results_at, results)
            self._results_at, self._repaired = now, False

    def _overdue_s(self, waiting: int, quiet_s: float) -> float:
        """Give in how many seconds the device is to be asked where things stand.

        Args:
            waiting: Images that it may be computing.
            quiet_s: How long it may well be silent for that. If it is known, a question that is not answered then was
                more probably lost, and the next ones follow sooner.
        """
        if waiting and not self._pace.knows(self._stage):
            most_s = MAX_RETRY_S if self._pace.image_s else math.inf
            return self._window.overdue_s(self._asked, least_s=self._timing.retry_s, most_s=most_s) + quiet_s
        if not self._asked:
            return self._window.overdue_s(0) + quiet_s
        return self._window.overdue_s(self._asked, most_s=max(MAX_RETRY_S, quiet_s / 2))

    def _touch(self) -> None:
        self._progressed_at = self._channel.clock()
        self._window.heard()
        self._asked = 0
        self._line_s = min(self._line_s, self._channel.rtt_s)

    @property
    def _stage(self) -> int:
        """What the device computes with of the weights that travel."""
        return 0 if self._passes is None else self._passes.stage

    def _waiting(self) -> int:
        """Images that the device may be computing."""
        if self._passes is not None and not (self._sender.satisfied and self._passes.satisfied):
            return 0
        return self._sender.sent_up_to // self._plan.shape.pixels - self._received

    def _ask_again(self) -> None:
        self._answer_by = self._channel.clock() + _PROMPT_S + 2 * self._line_s
        self._channel.counters.resend_requests += 1
        self._repaired = True
        self._gap_sequence = self._acknowledge(resend=True)

    def _credit(self, frame: Frame) -> tuple[bool, bool]:
        """Give whether the device has taken more than was known, and whether it asks for more weights."""
        credit = messages.RunCredit.decode(frame.body)
        if credit.results_done > self._plan.images:
            raise ProtocolError(
                f"the device says {credit.results_done} results are done, {self._plan.images} images were announced; "
                "its firmware is faulty"
            )
        if frame.sequence and frame.sequence == self._gap_sequence:
            self._gap_at = -1
        self._results_done = max(self._results_done, credit.results_done)
        settled = self._window.answered(frame.sequence)
        progress = self._sender.answer(settled, credit.next, credit.limit, credit.ranges if credit.of_pixels else ())
        if (credit.weights is None) != (self._passes is None):
            says = "does not ask" if credit.weights is None else "asks"
            raise ProtocolError(
                f"the device {says} for weights with each batch, the image says otherwise; upload the model again, or "
                "update the firmware"
            )
        if self._passes is None or credit.weights is None:
            return progress, False
        most = self._sender.highest // self._plan.shape.pixels
        ranges = () if credit.of_pixels else credit.ranges
        advanced, wanted = self._passes.answer(settled, credit.weights, ranges, most_results=most)
        return progress or advanced, wanted

    def _take(self, frame: Frame) -> list[Result]:
        """Take results; those behind missing ones are kept, and the missing ones asked for."""
        message = messages.Result.decode(frame.body)
        self._check(message)
        if message.index > self._received:
            if len(self._early) < _MOST_EARLY:
                self._early[message.index] = message
            if self._gap_at != self._received:
                self._gap_at = self._received
                self._ask_again()
            return []
        results = self._append(message)
        for index in sorted(self._early):
            if index <= self._received:
                results += self._append(self._early.pop(index))
        return results

    def _check(self, message: messages.Result) -> None:
        end = message.index + message.count
        if len(message.records) != message.count * self._record.itemsize or not message.count:
            raise ProtocolError(
                f"a RESULT of {message.count} records has {len(message.records)} bytes, "
                f"expected {self._record.itemsize} each; host and firmware differ: update both"
            )
        if end * self._plan.shape.pixels > self._sender.highest:
            raise ProtocolError(
                f"the device sent a result of image {end - 1}, which it has not received in full; "
                "its firmware is faulty"
            )
        if self._passes is not None and end > self._passes.most_results:
            raise ProtocolError(
                f"the device sent a result of image {end - 1}, for which it has not received all weights; "
                "its firmware is faulty"
            )

    def _append(self, message: messages.Result) -> list[Result]:
        end = message.index + message.count
        if end <= self._received:
            return []
        skipped = self._received - message.index
        records = np.frombuffer(message.records, dtype=self._record)[skipped:]
        self._received = end
        return unpack(records, message.index + skipped, self._plan.shape.logits)

    def _refused(self, error: messages.Error) -> None:
        if error.request in _REQUESTS:
            raise error_from(error)
