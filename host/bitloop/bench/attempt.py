"""One process's work on a run: connect, plan, upload, warm up, stream, ask for statistics; and go on behind a break."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TypeAlias

from bitloop.bench import line, parts
from bitloop.bench.begun import Begun, DeviceKind
from bitloop.bench.beside import HostSimulation
from bitloop.bench.build import build_memory
from bitloop.bench.checks import false_claims
from bitloop.bench.interrupt import InterruptGuard
from bitloop.bench.judge import Measured
from bitloop.bench.meter import Meter
from bitloop.bench.options import MODES, PLACEMENT_KINDS, RunOptions, reconnect_seconds
from bitloop.bench.record import Divergence, Failure, Interruption
from bitloop.bench.select import sent_sha256
from bitloop.bench.store import RunStore
from bitloop.bench.take import count, take
from bitloop.bench.trace import TRACED_IMAGES, find_divergence
from bitloop.data.dataset import CLASSES, Images
from bitloop.errors import (
    BitloopError,
    Cause,
    DeviceError,
    DeviceTimeoutError,
    Interrupted,
    LinkError,
    PortError,
    ProtocolError,
    UsageError,
)
from bitloop.hello import DeviceInfo
from bitloop.link.session import Session
from bitloop.link.upload import UploadReport
from bitloop.plan.planner import Plan
from bitloop.plan.planner import plan as plan_image
from bitloop.quantize.model import Model
from bitloop.spec import Capability, RunMode, RunOutput

__all__ = ["Attempt", "Progress"]

_LOGGER = logging.getLogger(__name__)

ENDED = "the run came to its end"
"""Why a part ended that nothing cut short."""
_TRIES = 3
"""How often in a row a device is reached again without an image gained in between."""
_OFFER_S = 0.5
_NOISES = {Cause.GARBAGE, Cause.WRONG_BAUD, Cause.BOOT_ROM, Cause.PANIC, Cause.OTHER_FIRMWARE}

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage (journal, upload, warm-up, images, layers), how much of it is done, and how much there is."""


class Attempt:
    """One part of a run in the making.

    Args:
        session: not yet connected.
        device_url: what it leads to.
        model: what is run.
        images: all images of the run, as the device gets them.
        options: how it is done.
        progress: called as it goes on.
        begun: how the run was begun, where this goes on with one.
        measured: what was measured before, in an earlier part.
    """

    def __init__(
        self,
        session: Session,
        device_url: str,
        model: Model,
        images: Images,
        options: RunOptions,
        *,
        progress: Progress | None,
        begun: Begun | None = None,
        measured: Measured | None = None,
    ) -> None:
        self.session = session
        self.device_url = device_url
        self.model = model
        self.images = images
        self.options = options
        self.mode = MODES[options.mode]
        self.progress = progress
        self.kind = None if begun is None else begun.device
        self.meter = Meter(session)
        self.claims: list[str] = []
        self.codings: list[str] = []
        self.interruptions: list[Interruption] = []
        self.failure: Failure | None = None
        self.status = "complete"
        self.stats: dict[str, int] = {}
        self.divergence: Divergence | None = None
        self.audited = 0
        self.started = parts.timestamp()
        self._clock = time.monotonic()
        self._reconnect_s = reconnect_seconds(options, session.origin)
        self._begun = begun
        self._measured = measured
        self._first = self.done
        self._progressed = session.clock()
        self._gained = -1
        self._tries = 0
        self._plan: Plan | None = None
        self._store: RunStore | None = None
        self._offered = 0.0

    @property
    def done(self) -> int:
        """Images measured so far, in all parts."""
        return 0 if self._measured is None else self._measured.count

    @property
    def measured(self) -> Measured:
        """What was measured."""
        if self._measured is None:
            self._measured = Measured.empty(
                self.images.index,
                self.images.labels,
                classes=CLASSES,
                operations=self.operations,
            )
        return self._measured

    @property
    def plan(self) -> Plan:
        """The plan for the device."""
        if self._plan is None:
            raise UsageError("nothing is planned before a device is connected")
        return self._plan

    @property
    def operations(self) -> int | None:
        """How many operations are timed, None where none is."""
        return len(self.plan.operations) if self.per_layer else None

    @cached_property
    def sent_sha256(self) -> str:
        """The SHA-256 of all images as the device gets them."""
        return sent_sha256(self.images)

    @property
    def seconds(self) -> float:
        """How long this part has worked."""
        return time.monotonic() - self._clock

    def prepare(self) -> None:
        """Connect, plan, upload, compare hashes, warm up. An error here means that nothing was measured.

        Raises:
            LinkError: the device could not be reached, or was lost and did not come back.
            DeviceError: the device refused the model.
            UsageError: it has no such mode.
        """
        try:
            info = self.session.connect()
        except LinkError as error:
            # Whoever names the wrong port shall not wait twice, unless asked to.
            if isinstance(error, DeviceTimeoutError) and self.options.reconnect_s is None:
                raise
            self._go_on(error)
            return
        self._meet(info)
        try:
            self._load()
        except LinkError as error:
            self._go_on(error)

    def stream(self, host: HostSimulation, store: RunStore | None) -> None:
        """Stream the images that are left, with the host simulation beside; keep each result at once."""
        self._store = store
        try:
            with InterruptGuard() as guard:
                self._surviving(lambda: self._stretch(host, guard))
        except KeyboardInterrupt:
            self.status = "interrupted"
            self.failure = Failure("Interrupted", "Ctrl-C; what was measured is kept", Interrupted.exit_code)
        except BitloopError as error:
            self.status = "failed"
            self.failure = Failure(type(error).__name__, str(error), error.exit_code)

    def finish(self) -> None:
        """Ask for statistics, and trace a disagreement; a device that is gone takes nothing of the record with it.

        After an interrupt nothing is asked: whoever pressed Ctrl-C waits for no device that may be silent.
        """
        if self.status != "complete":
            return
        try:
            self._surviving(self._ask)
        except (BitloopError, KeyboardInterrupt) as error:
            _LOGGER.warning("after the run: %s", error or "interrupted")

    def part(self, *, ended: bool = False) -> parts.Part:
        """Return the figures of this part, as they are now."""
        why = None
        if ended:
            why = ENDED if self.failure is None else self.failure.message
        return parts.Part(
            started=self.started,
            updated=parts.timestamp(),
            device_url=self.device_url,
            boot_count=self.info.boot_count,
            first=self._first,
            seconds=self.seconds,
            traffic=self.meter.traffic(),
            interruptions=tuple(self.interruptions),
            ended=why,
        )

    def _meet(self, info: DeviceInfo) -> None:
        """Take a device, the first or the one that came back; the plan is made for the first."""
        if self.kind is not None:
            self.kind.check(info, self.session.description)
        self.info = info
        if self._plan is not None:
            return
        self.kind = self.kind or DeviceKind.of(info)
        self._plan = plan_image(
            self.model, info, slots=self.options.slots, placement=PLACEMENT_KINDS[self.options.placement]
        )
        if self._plan.streamed is not None and self.mode is not RunMode.TIMING:
            raise UsageError(
                f"the model does not fit the device ({info.board}) unless its weights are streamed, and streamed "
                "weights run in timing mode; take --mode timing"
            )
        if self.mode is RunMode.THROUGHPUT and Capability.THROUGHPUT not in info.capabilities:
            raise UsageError(f"the device ({info.board}) has no throughput mode; use --mode timing")
        self.build = build_memory(self.device_url, info)
        self.per_layer = self.options.per_layer and Capability.LAYER_TICKS in info.capabilities
        self.outputs = RunOutput.LOGITS | (RunOutput.LAYER_TICKS if self.per_layer else RunOutput(0))
        if self._begun is not None:
            self._begun.check_plan(self._plan.sha256, self.operations, self.device_url)

    def _load(self) -> None:
        """Upload what the device lacks, compare what it says of it, warm up."""
        before = self.session.counters.bytes_up
        self.report: UploadReport = line.upload(self.session, self.plan, self.options, self._step("upload"))
        self._note_coding("model", self.report.coding)
        self.meter.uploaded(self.report, self.session.counters.bytes_up - before)
        claims = false_claims(self.device_url, self.info, self.plan, self.report)
        self.claims += [claim for claim in claims if claim not in self.claims]
        warm_up = self.images.pixels[: self._warm_up_images()]
        if len(warm_up):
            step = self._step("warm-up")
            for _ in line.stream(self.session, warm_up, self.mode, self.outputs, self.options, progress=step):
                pass

    def _warm_up_images(self) -> int:
        """Return how many images are run without counting."""
        left = len(self.images) - self.done
        # Where fewer images are left than the device holds, its memory would not be filled as by the whole run, and the
        # peak that is measured would be another.
        slots = min(self.plan.memory.slots, len(self.images))
        fill = slots if self.done and left < slots else 0
        return max(fill, self.options.warm_up_images if left else 0)

    def _stretch(self, host: HostSimulation, guard: InterruptGuard) -> None:
        """Stream what is left, until it is done or the link breaks."""
        first, measured, step = self.done, self.measured, self._step("images")
        if first == len(self.images):
            return
        with self.meter.streaming():
            left = self.images.pixels[first:]
            results = line.stream(self.session, left, self.mode, self.outputs, self.options)
            self._note_coding("pixels", self.session.pixels_coding)
            while True:
                asked = self.session.clock()
                result = next(results, None)
                now = self.session.clock()
                self.meter.waited(asked, now)
                if result is None:
                    break
                row = first + result.index
                host_logits = host.logits(row)
                with guard.held():
                    sample = take(measured, self.images, replace(result, index=row) if first else result, host_logits)
                    if self._store is not None:
                        self._store.append(sample)
                    count(measured, sample)
                    self.meter.image()
                self._progressed = now
                if self._store is not None and time.monotonic() - self._offered >= _OFFER_S:
                    self._offered = time.monotonic()
                    self._store.offer(self.part())
                if step is not None:
                    step(measured.count, len(self.images))
        if measured.count != len(self.images):
            raise LinkError(
                f"the device ended the run after {measured.count} of {len(self.images)} images; connect again"
            )

    def _ask(self) -> None:
        self.stats = self.session.stats()
        measured = self.measured
        rows = measured.failing[:TRACED_IMAGES]
        if not rows and Capability.ACTIVATIONS in self.info.capabilities:
            rows = list(range(min(self.options.audit_images, measured.count)))
        if rows:
            with self.meter.tracing():
                self.divergence = find_divergence(
                    self.session,
                    self.model,
                    self.plan.operations,
                    self.images.pixels[rows],
                    [int(self.images.index[row]) for row in rows],
                    progress=self._step("layers"),
                )
            self.audited = 0 if measured.failing else len(rows)

    def _surviving(self, work: Callable[[], None]) -> None:
        """Do something with the device, again where the link broke and the device was reached again."""
        self._progressed = self.session.clock()
        while True:
            try:
                work()
                return
            except LinkError as error:  # noqa: PERF203 - each try comes after a break
                self._go_on(error)

    def _go_on(self, error: LinkError) -> None:
        """Reach the device again after an error, and get it ready; note the interruption.

        Raises:
            LinkError: the error, if that cannot be done.
        """
        before = None if self._plan is None else self.info.boot_count
        problem = error
        while True:
            self._tries = self._tries + 1 if self.done == self._gained else 1
            self._gained = self.done
            if not self._curable(problem):
                raise problem if problem is error else _given_up(error, str(problem)) from problem
            if self._tries > _TRIES:
                raise _given_up(error, f"no image was gained after {_TRIES} reconnections") from problem
            _LOGGER.warning("at image %d: %s. Trying to reach the device again", self.done, problem)
            try:
                info = self.session.recover(self._reconnect_s)
            except LinkError as second:
                waited = f"it could not be reached again within {self._reconnect_s:g} s"
                raise _given_up(error, waited) from second
            self._meet(info)
            try:
                self._load()
                break
            except LinkError as second:
                problem = second
        self.interruptions.append(
            Interruption(
                images=self.done,
                resumed=False,
                reason=str(error),
                seconds=self.session.clock() - self._progressed,
                boot_count_before=before,
                boot_count_after=self.info.boot_count,
            )
        )
        self._progressed = self.session.clock()

    def _curable(self, error: LinkError) -> bool:
        """Tell whether the device may come back: not if it is faulty, another's, or gone for good, or nobody waits."""
        if self._reconnect_s <= 0 or isinstance(error, PortError) or error.cause is Cause.ENDED:
            return False
        if error.cause is Cause.SHARED:
            # A device that refused lost its state, by a reset most likely; one that answers another is another's.
            return isinstance(error.__cause__, DeviceError)
        if isinstance(error, ProtocolError):
            # What a device sends that starts again, or at another rate, is no violation of the protocol.
            return self._plan is not None and error.cause in _NOISES
        return True

    def _note_coding(self, what: str, coding: str) -> None:
        text = f"{what}: {coding}"
        if text not in self.codings:
            self.codings.append(text)

    def _step(self, stage: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda done, total: progress(stage, done, total)


def _given_up(error: LinkError, why: str) -> LinkError:
    """Give the error with which it began, and why the run could not go on."""
    error.args = (f"{error}; {why}", *error.args[1:])
    return error
