"""A session with a device: hello, upload, runs, traces, statistics. What a program uses of the link."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import struct
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.errors import (
    BitloopError,
    Cause,
    DeviceError,
    DeviceResetError,
    DeviceTimeoutError,
    LinkError,
    ProtocolError,
    UsageError,
)
from bitloop.hello import DeviceInfo
from bitloop.link.baud import Rate
from bitloop.link.channel import Channel, Clock, Counters, LogCallback, RawCallback, Timing
from bitloop.link.code_table import coding_name
from bitloop.link.coding import Coder, choose_pixels, choose_weights
from bitloop.link.delivery.pace import Pace
from bitloop.link.delivery.quality import LineQuality
from bitloop.link.handshake import say_hello
from bitloop.link.image_shape import ImageShape, Weights, check_weights
from bitloop.link.open import open_transport
from bitloop.link.recording.recorder import draw_session_number
from bitloop.link.results import ImageRun, Result, RunPlan
from bitloop.link.run import Run
from bitloop.link.transport import DEFAULT_BAUD, Transport
from bitloop.link.upload import Progress, UploadReport, upload
from bitloop.link.urls.emulation import Emulation
from bitloop.link.wire import messages
from bitloop.spec import ResetCause, RunMode, RunOutput, StatsTag, Status, TimerUnit

logger = logging.getLogger(__name__)

_DIAGNOSIS_S = 1.5
_RECOVER_PAUSE_S = 0.1
_NATIVE_IMAGE_TIMEOUT_S = 5.0
_STATS_NAMES = {int(tag): tag.name.lower() for tag in StatsTag}


class Session:
    """A session over a port, a pyserial URL or a transport.

    Args:
        port: ``/dev/ttyUSB0``, ``COM5``, ``sim://native``, ``socket://host:port``, ``replay://FILE``, … or an open
            transport.
        baud: Bits a second of a serial port.
        timing: How long to wait for what; None for the defaults, with a shorter wait for a first image where the
            device is a process on this machine.
        on_log: Gets level (:class:`bitloop.spec.LogLevel`) and text of each line the device logs.
        on_raw: Gets bytes outside of frames: banners, panics.
        clock: Seconds that never go back; a transport's own clock comes first.
        record: Where to record all that crosses the port, so that ``replay://FILE`` gives it back; not of an open
            transport.
        overwrite: Whether the recording may replace a file.
        facts: What the session is about, for the recording.
        max_baud: Most bits a second that the line may be brought to; None or 0 leaves its rate alone.

    Raises:
        PortError: The port cannot be opened.
        UsageError: The recording is there already, or cannot be written.

    Attributes:
        info: What the device said of itself; None before :meth:`connect`.
        pixels_coding: How the pixels of the last run travel, as :attr:`UploadReport.coding` says it of an image.
        clock: The seconds that this session counts: what is timed by them has the same duration in a replay.
    """

    def __init__(
        self,
        port: str | Transport,
        *,
        baud: int = DEFAULT_BAUD,
        timing: Timing | None = None,
        on_log: LogCallback | None = None,
        on_raw: RawCallback | None = None,
        clock: Clock = time.monotonic,
        record: Path | None = None,
        overwrite: bool = False,
        facts: Mapping[str, str] | None = None,
        max_baud: int | None = None,
    ) -> None:
        self.info: DeviceInfo | None = None
        self._given_timing = timing
        self._timing = timing or Timing()
        if isinstance(port, str):
            port = open_transport(port, baud=baud, record=record, force=overwrite, clock=clock, facts=facts)
        self._transport = port
        # What is recorded once is what a replay must be given: the time, and whatever is drawn by lot.
        self.clock: Clock = getattr(port, "clock", None) or clock
        self._draw_number: Callable[[], int] = getattr(port, "session_number", None) or draw_session_number
        self._sleep: Callable[[float], None] = getattr(port, "sleep", None) or time.sleep
        self._channel = Channel(port, clock=self.clock, on_log=on_log, on_raw=on_raw)
        self._rate = Rate(self._channel, 0 if getattr(port, "has_fixed_baud", False) else max_baud or 0)
        self._shape: ImageShape | None = None
        self._weights: Weights | None = None
        self._weights_coder: Coder | None = None
        self.pixels_coding = coding_name(None)
        self._quality = LineQuality(self._channel.baud)
        self._pace = Pace(self._timing)
        self._run: ImageRun | None = None
        self._closed = False
        self._heard = 0  # how much text had come when a request began

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def counters(self) -> Counters:
        """What has crossed the line so far."""
        return self._channel.counters

    @property
    def description(self) -> str:
        """The port's name."""
        return self._transport.description

    @property
    def origin(self) -> str:
        """The URL of the device, of a replay that of the recorded one."""
        return getattr(self._transport, "origin", None) or self.description

    @property
    def baud(self) -> int:
        """The line's rate now, in bits a second; 0 if it has none."""
        return self._channel.baud

    def connect(self) -> DeviceInfo:
        """Begin a session; the device drops any run or upload under way, but keeps a loaded image.

        It begins at the rate at which the port was opened, then goes as high as line, device and ``max_baud`` allow.

        Raises:
            DeviceTimeoutError: Nothing was answered.
            ProtocolError: What answers is no bitloop firmware, or speaks another major version.
        """
        self._ready(connected=False)
        self._shape = None
        self._channel.session = self._draw_number()
        info = self._hello(self._rate.patience_s(self._timing.connect_timeout_s))
        self._channel.decoder.limit(info.longest_sent)
        if self._given_timing is None and info.timer_unit == TimerUnit.HOST_NANOSECONDS:
            self._timing = dataclasses.replace(self._timing, image_timeout_s=_NATIVE_IMAGE_TIMEOUT_S)
        self.info = info
        logger.info("%s: %s, firmware %s", self.description, info.board, info.firmware_version)
        self._rate.settle(info, self._timing)
        return info

    def recover(self, timeout_s: float) -> DeviceInfo:
        """Reach the device again after a :class:`LinkError`: open the port anew if it broke, and begin a session.

        What the device holds is told by its hello; an upload that follows sends only what it lacks. A device that was a
        process of this machine and has ended is not started again.

        Args:
            timeout_s: How long to try, the time for a cable to come back.

        Raises:
            LinkError: It could not be reached in time: the last reason.
        """
        self._run = None
        deadline = self._channel.clock() + timeout_s
        reopens = False
        while True:
            try:
                if reopens:
                    self._transport.reopen()
                return self.connect()
            except LinkError as error:  # noqa: PERF203 - each try comes after a wait
                if error.cause is Cause.ENDED or self._channel.clock() >= deadline:
                    raise
                logger.info("not yet reached again: %s", error)
                reopens = reopens or not isinstance(error, DeviceTimeoutError)
                self._sleep(_RECOVER_PAUSE_S)

    def echo(self, data: bytes) -> float:
        """Send bytes there and back; give the seconds that took.

        Args:
            data: As long as frames of both directions allow, ``info.body_bytes`` and ``info.longest_sent``.

        Raises:
            ProtocolError: Other bytes came back.
        """
        info = self._ready()
        most = min(info.body_bytes, info.longest_sent)
        if len(data) > most:
            raise UsageError(f"{len(data)} bytes are too many for an echo, the device takes {most}")
        started = self._channel.clock()
        answer, _ = self._request(messages.EchoRequest(data), messages.Echo, "waiting for an echo")
        if answer.data != data:
            raise ProtocolError("the device echoed other bytes than it was sent; its firmware is faulty")
        return self._channel.clock() - started

    def stats(self) -> dict[str, int]:
        """Give the device's counters by the lower-case names of :class:`bitloop.spec.StatsTag`, those it has.

        Raises:
            ProtocolError: A counter has another length than 4 bytes.
        """
        self._ready()
        answer, _ = self._request(messages.StatsRequest(), messages.Stats, "asking for statistics")
        counters: dict[str, int] = {}
        for tag, value in messages.parse_fields(answer.fields, "STATS"):
            name = _STATS_NAMES.get(tag)
            if name is None:
                continue
            if len(value) != 4:
                raise ProtocolError(f"STATS holds {name} in {len(value)} bytes, 4 expected; host and firmware differ")
            (counters[name],) = struct.unpack("<I", value)
        return counters

    def upload(
        self,
        image: bytes,
        arena_bytes: int,
        progress: Progress | None = None,
        *,
        weights: Weights | None = None,
        coded: bool = True,
    ) -> UploadReport:
        """Send an image, or the rest of it, or nothing when the device holds it already.

        Where the device holds another image, it is asked to take over what is the same in both.

        Args:
            image: As planned for this device.
            arena_bytes: Memory that it needs in all.
            progress: Called with bytes held by the device, and bytes of the image.
            weights: Those that the image leaves out (:attr:`bitloop.plan.Plan.streamed`): nothing of them is sent now,
                runs and traces send them with each batch.
            coded: Compress where the device can decode it and it is shorter.

        Returns:
            Among others the SHA-256 that the device computed: compare it.

        Raises:
            DoesNotFitError: The device lacks the memory.
            DeviceError: The device found the image faulty.
            LinkError: The line broke, the device fell silent or was reset.
            UsageError: The weights are not those that the image leaves out.
        """
        info = self._ready()
        shape = ImageShape.of(image)
        check_weights(shape, weights)
        self._shape = None
        self._pace = Pace(self._timing)
        sha256 = hashlib.sha256(image).hexdigest()
        coder = choose_weights(image, info) if coded and info.image_hash != sha256 else None
        with self._explaining("the upload"):
            report = upload(
                self._channel,
                info,
                image,
                arena_bytes,
                timing=self._timing,
                progress=progress,
                quality=self._quality,
                coder=coder,
            )
        self.info = dataclasses.replace(self.info or info, image_hash=sha256)
        self._shape = shape
        self._weights = weights
        self._weights_coder = choose_weights(weights.data, info) if coded and weights is not None else None
        return report

    def run(
        self,
        pixels: npt.NDArray[np.uint8],
        mode: RunMode = RunMode.TIMING,
        outputs: RunOutput = RunOutput.LOGITS,
        progress: Progress | None = None,
        *,
        coded: bool = True,
    ) -> ImageRun:
        """Run images on the device; the results come in order, as they arrive.

        Args:
            pixels: uint8 ``[N, H, W, C]``; the shape of the uploaded image's input.
            mode: Timing (quiet line while computing) or throughput.
            outputs: What results hold besides label and ticks.
            progress: Called with results taken, and images in all.
            coded: Compress the pixels where the device can decode it and it is shorter; nothing of them is lost.

        Returns:
            An iterator of :class:`bitloop.link.run.Result`. Close it, or take it to its end, before the session is used
            for anything else; if it is left, the next call on the session closes it.

        Raises:
            UsageError: The pixels do not fit, nothing was uploaded in this session, or streamed weights are to run in
                throughput mode.
        """
        plan = self._plan(pixels, mode, outputs, spec.NO_LAYER)
        coder = choose_pixels(pixels, self.info or DeviceInfo()) if coded else None
        self.pixels_coding = coding_name(coder)
        self._run = ImageRun(self._steps(plan, _bytes_of(pixels), progress, coder))
        return self._run

    def trace(self, pixels: npt.NDArray[np.uint8], layer: int) -> npt.NDArray[np.float32]:
        """Run one image up to a layer, and read what that layer put out.

        Args:
            pixels: uint8 ``[H, W, C]`` or ``[1, H, W, C]``.
            layer: Index of the image's layer record.

        Returns:
            float32, one-dimensional, bit for bit as on the device.

        Raises:
            DeviceError: There is no such layer.
        """
        if pixels.ndim == 3:
            pixels = pixels[np.newaxis]
        plan = self._plan(pixels, RunMode.TIMING, RunOutput(0), layer)
        if plan.images != 1:
            raise UsageError(f"a trace takes one image, {plan.images} were given")
        info = self._ready()
        run = self._new_run(info, plan, _bytes_of(pixels))
        with self._explaining("the trace"):
            run.begin()
            for _ in run.results(acknowledge=False, progress=None):
                pass
            values = self._read_activation(info)
            run.end(orderly=True)
        return values

    def close(self) -> None:
        """End a run under way, and close the port. Closing twice is no error."""
        if self._closed:
            return
        try:
            self._leave_run()
            self._rate.leave()
        finally:
            self._closed = True
            self._transport.close()

    def _hello(self, timeout_s: float) -> DeviceInfo:
        """Ask the device who it is; add what it cannot know, that it is emulated."""
        info = say_hello(self._channel, timeout_s=timeout_s, other_baud=self._rate.reached_baud)
        emulation: Emulation | None = getattr(self._transport, "emulation", None)
        if emulation is None:
            return info
        return info.emulated(str(emulation), emulation.instructions_per_tick(info.ticks_per_second))

    def _ready(self, *, connected: bool = True) -> DeviceInfo:
        if self._closed:
            raise UsageError("the session is closed; open another")
        self._leave_run()
        if self.info is None:
            if connected:
                raise UsageError("the session is not connected; call connect() first")
            return DeviceInfo()
        if connected:
            self._rate.keep(self.info, self._timing)
        return self.info

    def _leave_run(self) -> None:
        run, self._run = self._run, None
        if run is not None:
            run.abandon()

    def _request(self, message: messages.Message, answer: type[messages.M], doing: str) -> tuple[messages.M, int]:
        return self._channel.request(
            message, answer, timeout_s=self._timing.timeout_s, retry_s=self._timing.retry_s, doing=doing
        )

    def _plan(self, pixels: npt.NDArray[np.uint8], mode: RunMode, outputs: RunOutput, stop_layer: int) -> RunPlan:
        info = self._ready()
        shape = self._shape
        if shape is None:
            raise UsageError("no image was uploaded in this session; upload first (it is quick if the device holds it)")
        if pixels.dtype != np.uint8 or pixels.shape[1:] != shape.input_shape:
            raise UsageError(
                f"pixels are {pixels.dtype} {list(pixels.shape)}, the model takes uint8 [N, "
                f"{', '.join(map(str, shape.input_shape))}]"
            )
        if len(pixels) and not pixels.size:
            raise UsageError(f"images of {list(shape.input_shape)} have no pixels")
        if pixels.size > spec.NO_OFFSET:
            raise UsageError(f"{len(pixels)} images are too many for one run; cut them into several")
        if not 0 <= stop_layer <= spec.NO_LAYER:
            raise UsageError(f"layer {stop_layer} makes no sense")
        if shape.streamed_bytes and mode != RunMode.TIMING:
            raise UsageError(
                "streamed weights run in timing mode; take that, or keep the weights on the device (placement resident)"
            )
        plan = RunPlan(mode, outputs, stop_layer, len(pixels), shape)
        room = info.longest_sent - messages.Result.LAYOUT.size
        if plan.record().itemsize > room:
            raise UsageError(
                f"a result of {plan.record().itemsize} bytes does not fit the device's frames, which have room for "
                f"{room}; ask for fewer outputs: labels only, or no layer ticks"
            )
        return plan

    def _new_run(self, info: DeviceInfo, plan: RunPlan, data: memoryview, coder: Coder | None = None) -> Run:
        weights: memoryview | None = None
        if self._weights is not None:
            end = self._weights.ends[min(plan.stop_layer, plan.shape.layers - 1)]
            weights = memoryview(self._weights.data)[:end]
        return Run(
            self._channel,
            info,
            data,
            plan=plan,
            timing=self._timing,
            pace=self._pace,
            weights=weights,
            quality=self._quality,
            coder=coder,
            weights_coder=self._weights_coder if weights is not None else None,
        )

    def _read_activation(self, info: DeviceInfo) -> npt.NDArray[np.float32]:
        head = messages.ActivationData.LAYOUT.size
        data = bytearray()
        total: int | None = None
        while total is None or len(data) < total:
            answer, _ = self._request(
                messages.ReadActivation(len(data), info.longest_sent - head),
                messages.ActivationData,
                "reading an activation",
            )
            if total is None:
                total = answer.total
            fits = answer.total == total and answer.offset == len(data) and len(data) + len(answer.data) <= total
            if not fits or not answer.data or total % 4 or total > info.arena_bytes:
                raise ProtocolError(
                    f"asked for byte {len(data)} of an activation of {total} bytes, the device sent "
                    f"{len(answer.data)} bytes at {answer.offset} of {answer.total}; its firmware is faulty"
                )
            data += answer.data
        return np.frombuffer(bytes(data), dtype="<f4").astype(np.float32)

    def _steps(
        self, plan: RunPlan, data: memoryview, progress: Progress | None, coder: Coder | None
    ) -> Generator[Result, None, None]:
        info = self.info or DeviceInfo()
        run = self._new_run(info, plan, data, coder)
        with self._explaining("the run"):
            try:
                run.begin()
                yield from run.results(acknowledge=True, progress=progress)
                run.end(orderly=True)
            except BitloopError:
                raise
            except BaseException:  # left early, or Ctrl-C: the device shall be free for what comes next
                self._end_quietly(run)
                raise

    def _end_quietly(self, run: Run) -> None:
        try:
            run.end(orderly=False)
        except BitloopError as error:
            logger.info("the run could not be ended: %s", error)

    @contextlib.contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        """Find out why a device fell silent or lost its state, and raise an error that says so."""
        self._heard = self._channel.words.end
        try:
            yield
        except (DeviceTimeoutError, ProtocolError) as error:
            if self._restarted(what, error) or isinstance(error, ProtocolError):
                raise
            raise DeviceTimeoutError(
                f"{error}. It answers a hello, so the line is good: the firmware hangs, or needs a longer timeout",
                cause=Cause.PANIC if error.cause is Cause.PANIC else Cause.HANG,
            ) from error
        except DeviceError as error:
            if error.status not in (Status.BAD_STATE, Status.NO_MODEL):
                raise
            self._restarted(what, error)
            raise LinkError(
                f"the device lost its state during {what}: {error}. It was reset, or another program uses it; "
                "connect and begin again",
                cause=Cause.SHARED,
            ) from error

    def _restarted(self, what: str, error: BitloopError) -> bool:
        """Ask for a hello; give False if it came and shows no restart, True if none came."""
        before = self.info
        try:
            after = self._hello(self._rate.patience_s(_DIAGNOSIS_S))
        except BitloopError as second:
            logger.info("no hello after %s: %s", error, second)
            return True
        self.info = after
        if before is None or after.boot_count == before.boot_count:
            return False
        self._shape = None
        panic = self._channel.words.panic_since(self._heard)
        raise DeviceResetError(
            f"{self.description}: the device restarted during {what} (boot {before.boot_count} → {after.boot_count}, "
            f"cause: {_cause(after.reset_cause)}"
            + (f"). It had panicked: {panic}. " if panic else "); ")
            + "begin again with the upload. Check its power supply if this repeats",
            boots=(before.boot_count, after.boot_count),
            reset_cause=after.reset_cause,
            panic=panic,
        ) from error


def _cause(reset_cause: int) -> str:
    try:
        return ResetCause(reset_cause).name.lower().replace("_", " ")
    except ValueError:
        return f"unknown code {reset_cause}"


def _bytes_of(pixels: npt.NDArray[np.uint8]) -> memoryview:
    return memoryview(pixels.tobytes())
