"""A run: pixels up, results down, in order, with the device's slots kept full; weights up too where they are streamed.

Nothing is sent while the device computes in timing mode, unless it has been silent for longer than its measured pace
explains; then one RUN_ACK asks where things stand, and everything missing is sent or asked for again.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.errors import ProtocolError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.link import messages
from bitloop.link.channel import MAX_RETRY_S, Channel, Timing
from bitloop.link.frame import Frame
from bitloop.link.pace import Pace
from bitloop.link.passes import Passes
from bitloop.link.refusals import error_from
from bitloop.link.stream import StreamSender, Window
from bitloop.link.upload import ImageShape, Progress
from bitloop.spec import MessageType, RunMode, RunOutput

_END_S = 2.0
_PROMPT_S = 0.1
"""What comes so soon after a question, beside the line's delay, may be its answer."""


@dataclass(frozen=True, eq=False)
class Result:
    """What the device computed for one image.

    Attributes:
        index: Position of the image in the run.
        label: The class that the device chose.
        ticks: Duration, in the unit of :attr:`bitloop.hello.DeviceInfo.timer_unit`.
        logits: float32 ``[classes]`` if asked for, bit for bit as they travelled.
        layer_ticks: uint32 ``[layers]`` if asked for.
    """

    index: int
    label: int
    ticks: int
    logits: npt.NDArray[np.float32] | None
    layer_ticks: npt.NDArray[np.uint32] | None


@dataclass(frozen=True)
class RunPlan:
    """What a run is asked to do."""

    mode: RunMode
    outputs: RunOutput
    stop_layer: int
    images: int
    shape: ImageShape

    @property
    def batch(self) -> int:
        """Images that the device computes one beside another."""
        return 1 if self.stop_layer != spec.NO_LAYER else self.shape.slots

    def record(self) -> np.dtype[np.void]:
        """Give the layout of a result record."""
        stops = self.stop_layer != spec.NO_LAYER
        logits = self.shape.logits if self.outputs & RunOutput.LOGITS and not stops else 0
        computed = self.stop_layer + 1 if stops else self.shape.layers
        layers = computed if self.outputs & RunOutput.LAYER_TICKS else 0
        return np.dtype(
            [("label", "<u2"), ("reserved", "<u2"), ("ticks", "<u8"), ("logits", "<f4", (logits,)),
             ("layer_ticks", "<u4", (layers,))]
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
    ) -> None:
        self._channel = channel
        self._plan = plan
        self._timing = timing
        self._window = Window(channel, info.window_bytes)
        self._sender = StreamSender(self._window, pixels, messages.RunData, body_bytes=info.body_bytes)
        self._passes: Passes | None = None
        if weights is not None:
            self._passes = Passes(
                self._window, weights, batch=plan.batch, images=plan.images, body_bytes=info.body_bytes
            )
        self._record = plan.record()
        self._received = 0  # results taken, in order
        self._gap_at = -1  # where a missing result was last asked for
        self._pace = pace
        self._answer_by = -math.inf  # what comes until then may be the answer to a question
        self._line_s = channel.rtt_s  # without what the device computes meanwhile
        self._measured = False  # a batch is measured once, when its first result comes
        self._progressed_at = self._asked_at = channel.clock()
        self._pause_s = timing.retry_s

    def begin(self) -> None:
        """Announce the run.

        Raises:
            DeviceError: The device refused.
            ProtocolError: Its results would have another length than the image says.
        """
        plan = self._plan
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
        self._sender.start(0, ready.limit)
        self._pace.begin_run()
        self._touch()

    def results(self, *, acknowledge: bool, progress: Progress | None) -> Iterator[Result]:
        """Give all results in order; the consumer's own time never counts against the device."""
        images = self._plan.images
        while self._received < images:
            self._pump()
            batch = self._receive()
            if acknowledge and batch:
                self._window.post(messages.RunAck(self._received, 0))
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
        self._sender.pump()
        if self._passes is not None:
            self._passes.pump()

    def _receive(self) -> list[Result]:
        now = self._channel.clock()
        silent_s = now - self._progressed_at
        waiting = self._waiting()
        stage = 0 if self._passes is None else self._passes.stage
        if silent_s >= self._pace.patience_s(waiting, self._received):
            raise self._channel.silence(
                f"no progress of the run after result {self._received} of {self._plan.images}", silent_s
            )
        quiet_s = self._pace.quiet_s(waiting, self._plan.mode, stage)
        if waiting:  # it may compute for so long: no sign that its rate has changed
            likely_s = 2 * self._pace.image_s * waiting or self._timing.image_timeout_s
            self._channel.explain(self._progressed_at + likely_s - now)
        pause_s = max(self._pause_s, 2 * self._channel.rtt_s) + quiet_s
        batch: list[Result] = []
        progress = wants_weights = False
        for frame in self._channel.receive(self._asked_at + pause_s - now):
            if frame.type == MessageType.RESULT:
                batch += self._take(frame)
            elif frame.type == MessageType.RUN_CREDIT:
                advanced, wanted = self._credit(frame)
                progress |= advanced
                wants_weights |= wanted
            elif frame.type == MessageType.ERROR:
                self._refused(messages.Error.decode(frame.body))
        now = self._channel.clock()
        if batch or progress or wants_weights:
            first = bool(batch) and not self._measured
            self._measured = bool(batch)
            self._pace.progress(now - self._progressed_at)
            if first or wants_weights:
                clean = now > self._answer_by
                self._pace.batch(now - self._progressed_at, waiting, clean=clean, stage=stage)
            self._touch()
        elif now - self._asked_at >= pause_s:
            self._ask_again()
            self._asked_at = now
            known = self._pace.image_s > 0 or not waiting
            self._pause_s = min(2 * self._pause_s, MAX_RETRY_S if known else math.inf)
        return batch

    def _touch(self) -> None:
        self._progressed_at = self._asked_at = self._channel.clock()
        self._pause_s = self._timing.retry_s
        self._line_s = min(self._line_s, self._channel.rtt_s)

    def _waiting(self) -> int:
        """Images that the device may be computing."""
        if self._passes is not None:
            pixels_sent = self._sender.position == min(self._sender.limit, self._plan.images * self._plan.shape.pixels)
            if not pixels_sent or not self._passes.satisfied:
                return 0
        return self._sender.position // self._plan.shape.pixels - self._received

    def _ask_again(self) -> None:
        self._answer_by = self._channel.clock() + _PROMPT_S + 2 * self._line_s
        self._channel.counters.resend_requests += 1
        self._window.post(messages.RunAck(self._received, 1))

    def _credit(self, frame: Frame) -> tuple[bool, bool]:
        """Give whether the device has taken more than was known, and whether it asks for more weights."""
        credit = messages.RunCredit.decode(frame.body)
        if credit.results_done > self._plan.images:
            raise ProtocolError(
                f"the device says {credit.results_done} results are done, {self._plan.images} images were announced; "
                "its firmware is faulty"
            )
        sent = self._window.answered(frame.sequence)
        progress = self._sender.answer(sent, credit.next, credit.limit)
        if (credit.weights is None) != (self._passes is None):
            says = "does not ask" if credit.weights is None else "asks"
            raise ProtocolError(
                f"the device {says} for weights with each batch, the image says otherwise; upload the model again, or "
                "update the firmware"
            )
        if self._passes is None or credit.weights is None:
            return progress, False
        most = self._sender.highest // self._plan.shape.pixels
        advanced, wanted = self._passes.answer(sent, credit.weights, most_results=most)
        return progress or advanced, wanted

    def _take(self, frame: Frame) -> list[Result]:
        message = messages.Result.decode(frame.body)
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
        if message.index > self._received:
            if self._gap_at != self._received:
                self._gap_at = self._received
                self._ask_again()
            return []
        if end <= self._received:
            return []
        skipped = self._received - message.index
        records = np.frombuffer(message.records, dtype=self._record)[skipped:]
        self._received = end
        return self._unpack(records, message.index + skipped)

    def _unpack(self, records: npt.NDArray[np.void], first: int) -> list[Result]:
        labels = records["label"].tolist()
        if max(labels) >= max(self._plan.shape.logits, 1):
            raise ProtocolError(
                f"the device sent label {max(labels)} for a network of {self._plan.shape.logits} classes; "
                "its firmware is faulty"
            )
        logits = records["logits"].astype(np.float32) if records["logits"].shape[1] else None
        layer_ticks = records["layer_ticks"].astype(np.uint32) if records["layer_ticks"].shape[1] else None
        return [
            Result(
                first + i,
                label,
                ticks,
                None if logits is None else logits[i],
                None if layer_ticks is None else layer_ticks[i],
            )
            for i, (label, ticks) in enumerate(zip(labels, records["ticks"].tolist(), strict=True))
        ]

    def _refused(self, error: messages.Error) -> None:
        if error.request not in (MessageType.RUN_DATA, MessageType.RUN_ACK, MessageType.STREAM_DATA):
            return
        raise error_from(error)


class ImageRun(Iterator[Result]):
    """Results of a run, in order; also a context manager. Made by :meth:`bitloop.link.session.Session.run`."""

    def __init__(self, results: Generator[Result, None, None]) -> None:
        self._results = results
        self._finished = False
        self._abandoned = False

    def __iter__(self) -> ImageRun:
        return self

    def __next__(self) -> Result:
        if self._abandoned:
            raise UsageError("this run was ended because its session was used for something else; begin another")
        try:
            return next(self._results)
        except BaseException:
            self._finished = True
            raise

    def __enter__(self) -> ImageRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run on the device, if it has not ended yet."""
        self._finished = True
        self._results.close()

    def abandon(self) -> None:
        """Close because the session is wanted for something else; asking for more results is an error from then on."""
        self._abandoned = not self._finished
        self.close()
