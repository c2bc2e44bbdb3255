"""A run: connect, plan, upload, warm up, stream images, keep a journal, compare with the host simulation, record."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

import numpy as np

from bitloop.bench import judge as judging
from bitloop.bench.beside import HostSimulation
from bitloop.bench.build import build_memory, false_memory
from bitloop.bench.checks import check_fit, false_claims
from bitloop.bench.compare import bits, ulp_distance
from bitloop.bench.files import RunDirectory
from bitloop.bench.identity import (
    device_identity,
    firmware_identity,
    host_identity,
    model_identity,
    placement_of,
    ram_of,
    sizes_of,
    versions,
)
from bitloop.bench.interrupt import InterruptGuard
from bitloop.bench.journal import Journal, Sample, logits_to_hex, pack_pixels
from bitloop.bench.judge import Measured
from bitloop.bench.record import (
    RECORD_VERSION,
    DataIdentity,
    Divergence,
    Failure,
    ImageIdentity,
    LinkFigures,
    RunRecord,
    VaultOpening,
)
from bitloop.bench.trace import TRACED_IMAGES, find_divergence
from bitloop.data.dataset import CLASSES, Images
from bitloop.data.vault import Opening
from bitloop.errors import BitloopError, Interrupted, LinkError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Counters, LogCallback, RawCallback, Timing
from bitloop.link.replay import is_replay
from bitloop.link.run import Result
from bitloop.link.session import Session
from bitloop.link.transport import DEFAULT_BAUD
from bitloop.link.upload import UploadReport
from bitloop.plan.planner import PLACEMENTS, PlacementKind, Plan
from bitloop.plan.planner import plan as plan_image
from bitloop.quantize.model import Model
from bitloop.simulate.reference import labels as labels_of
from bitloop.spec import Capability, RunMode, RunOutput

__all__ = ["MODES", "Progress", "RunOptions", "run"]

_LOGGER = logging.getLogger(__name__)

MODES = {"timing": RunMode.TIMING, "throughput": RunMode.THROUGHPUT}
_PLACEMENTS: dict[str, PlacementKind] = {kind: kind for kind in PLACEMENTS}

_REPLAY = "Replay of a recorded session, not measured now: "

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with a stage (upload, warm-up, images, layers), how much of it is done, and how much there is."""


@dataclass(frozen=True)
class RunOptions:
    """How a run is done.

    Attributes:
        mode: "timing": nothing crosses the line while an image is computed; "throughput": line and computing overlap.
        per_layer: whether each layer is timed too, where the device can.
        warm_up_images: run before the first that counts, from the front of the same images.
        audit_images: of a run whose logits all agree, so many first images are run again and *every* layer's output is
            compared: an error that no logit shows is found too.
        slots: images the device shall hold at once (a batch, if weights are streamed), or None for as many as are
            useful and fit.
        placement: "resident": all weights are on the device, or the run is refused; "stream": those of every layer
            travel with each batch of images; "auto": weights do where they do not fit.
        baud: of a serial port.
        timing: how long to wait for what; None for the link's defaults.
        force: whether an earlier run in the directory is replaced, and an earlier recording.
        command: what started the run, for its record.
        record: where to record all that crosses the line, for ``replay://FILE``.
    """

    mode: str = "timing"
    per_layer: bool = True
    warm_up_images: int = 8
    audit_images: int = 1
    slots: int | None = None
    placement: str = "auto"
    baud: int = DEFAULT_BAUD
    timing: Timing | None = None
    force: bool = False
    command: str = ""
    record: Path | None = None


def run(
    model: Model,
    device_url: str,
    images: Images,
    *,
    out_dir: Path | None = None,
    options: RunOptions | None = None,
    vault: Sequence[Opening] = (),
    progress: Progress | None = None,
    on_log: LogCallback | None = None,
    on_raw: RawCallback | None = None,
) -> RunRecord:
    """Run images on a device and hold what it answers against the host simulation.

    Nothing is written before the device has taken the model. From then on nothing that was measured is lost: when the
    run is interrupted, or the device fails, the record says so, and holds what was measured until then.

    Args:
        model: what is run.
        device_url: a port or any URL of pyserial's, such as ``sim://native``.
        images: which images, all of them.
        out_dir: where ``run.json`` and ``samples.jsonl`` are written; None writes nothing.
        options: how it is done.
        vault: openings of the test split that the images came from.
        progress: called as the run goes on.
        on_log: gets level and text of each line that the device logs.
        on_raw: gets bytes outside of frames.

    Returns:
        The record, also when device and host disagree (``verdict`` says so) or when the run ended early (``status``).

    Raises:
        UsageError: an option makes no sense, there are no images, or the directory holds a run or cannot be made.
        NetworkError: the model does not take such images.
        LinkError: the device could not be reached, or was lost before the first image.
        DeviceError: the device refused the model.
    """
    options = options or RunOptions()
    if options.mode not in MODES:
        raise UsageError(f"unknown mode {options.mode!r}; there are {', '.join(MODES)}")
    if options.placement not in _PLACEMENTS:
        raise UsageError(f"unknown placement {options.placement!r}; there are {', '.join(_PLACEMENTS)}")
    if options.mode != "timing" and options.placement == "stream":
        raise UsageError("streamed weights run in timing mode; take --mode timing, or another placement")
    if options.warm_up_images < 0:
        raise UsageError(f"{options.warm_up_images} images make no warm-up; 0 leaves it out")
    if options.audit_images < 0:
        raise UsageError(f"{options.audit_images} images make no audit; 0 leaves it out")
    check_fit(model, images)
    directory = None if out_dir is None else RunDirectory(out_dir)
    if directory is not None:
        directory.check(force=options.force)
    started = datetime.now(timezone.utc)
    clock = time.monotonic()
    with Session(
        device_url,
        baud=options.baud,
        timing=options.timing,
        on_log=on_log,
        on_raw=on_raw,
        record=options.record,
        overwrite=options.force,
        facts=_facts(model, images, options),
    ) as session:
        attempt = _Attempt(session, model, images, options, progress)
        attempt.prepare(device_url)
        if directory is not None:
            directory.create(force=options.force)
        attempt.stream(directory)
        attempt.finish()
    record = attempt.record(device_url, vault, started=started, seconds=time.monotonic() - clock)
    if directory is not None:
        record.write(directory.record)
    return record


def _facts(model: Model, images: Images, options: RunOptions) -> dict[str, str]:
    """Say what a run is about: all that a replay of its recording must have the same."""
    facts = {"model": model.name, "model SHA-256": model.sha256, "data": f"{images.dataset} {images.split.value}"}
    names = ("mode", "per_layer", "warm_up_images", "audit_images", "slots", "placement", "timing")
    return {**facts, "images": str(len(images)), **{name: str(getattr(options, name)) for name in names}}


class _Attempt:
    """One run in the making."""

    def __init__(
        self, session: Session, model: Model, images: Images, options: RunOptions, progress: Progress | None
    ) -> None:
        self.session = session
        self.model = model
        self.images = images
        self.options = options
        self.progress = progress
        self.claims: list[str] = []
        self.failure: Failure | None = None
        self.status = "complete"
        self.stats: dict[str, int] = {}
        self.divergence: Divergence | None = None
        self.audited = 0
        self.before = Counters()
        self.counters = Counters()
        self.seconds = 0.0
        self.waited_s = 0.0

    def prepare(self, device_url: str) -> None:
        """Connect, plan, upload, compare hashes, warm up. An error here means that nothing was measured."""
        self.info: DeviceInfo = self.session.connect()
        options = self.options
        placement = _PLACEMENTS[options.placement]
        self.plan: Plan = plan_image(self.model, self.info, slots=options.slots, placement=placement)
        if self.plan.streamed is not None and MODES[options.mode] is not RunMode.TIMING:
            raise UsageError(
                f"the model does not fit the device ({self.info.board}) unless its weights are streamed, and streamed "
                "weights run in timing mode; take --mode timing"
            )
        self.report: UploadReport = self.session.upload(
            self.plan.image, self.plan.memory.total_bytes, self._step("upload"), weights=self.plan.streamed
        )
        self.claims = false_claims(device_url, self.info, self.plan, self.report)
        self.build = build_memory(device_url, self.info)
        self.per_layer = self.options.per_layer and Capability.LAYER_TICKS in self.info.capabilities
        self.outputs = RunOutput.LOGITS | (RunOutput.LAYER_TICKS if self.per_layer else RunOutput(0))
        mode = MODES[self.options.mode]
        if mode is RunMode.THROUGHPUT and Capability.THROUGHPUT not in self.info.capabilities:
            raise UsageError(f"the device ({self.info.board}) has no throughput mode; use --mode timing")
        self.mode = mode
        warm_up = self.images.pixels[: self.options.warm_up_images]
        if len(warm_up):
            for _ in self.session.run(warm_up, mode, self.outputs, self._step("warm-up")):
                pass
        self.measured = Measured.empty(
            self.images.index,
            self.images.labels,
            classes=CLASSES,
            operations=len(self.plan.operations) if self.per_layer else None,
        )

    def stream(self, directory: RunDirectory | None) -> None:
        """Stream the images, with the host simulation beside; keep each result at once."""
        self.before = replace(self.session.counters)
        step = self._step("images")
        journal = None if directory is None else Journal(directory.samples)
        began = self.session.clock()
        try:
            with HostSimulation(self.model, self.images.pixels) as host, InterruptGuard() as guard:
                results = self.session.run(self.images.pixels, self.mode, self.outputs)
                while True:
                    asked = self.session.clock()
                    result = next(results, None)
                    self.waited_s += self.session.clock() - asked
                    if result is None:
                        break
                    host_logits = host.logits(result.index)
                    with guard.held():
                        sample = self._take(result, host_logits)
                        if journal is not None:
                            journal.append([sample])
                    if step is not None:
                        step(self.measured.count, len(self.images))
            if self.measured.count != len(self.images):
                raise LinkError(
                    f"the device ended the run after {self.measured.count} of {len(self.images)} images; connect again"
                )
        except KeyboardInterrupt:
            self.status = "interrupted"
            self.failure = Failure("Interrupted", "Ctrl-C; what was measured is kept", Interrupted.exit_code)
        except BitloopError as error:
            self.status = "failed"
            self.failure = Failure(type(error).__name__, str(error), error.exit_code)
        finally:
            self.seconds = self.session.clock() - began
            if journal is not None:
                journal.close()
        self.counters = replace(self.session.counters)

    def finish(self) -> None:
        """Ask for statistics, and trace a disagreement; a device that is gone takes nothing of the record with it.

        After an interrupt nothing is asked: whoever pressed Ctrl-C waits for no device that may be silent.
        """
        if self.status != "complete":
            return
        try:
            self.stats = self.session.stats()
            rows = self.measured.failing[:TRACED_IMAGES]
            if not rows and Capability.ACTIVATIONS in self.info.capabilities:
                rows = list(range(min(self.options.audit_images, self.measured.count)))
            if rows:
                self.divergence = find_divergence(
                    self.session,
                    self.model,
                    self.plan.operations,
                    self.images.pixels[rows],
                    [int(self.images.index[row]) for row in rows],
                    progress=self._step("layers"),
                )
                self.audited = 0 if self.measured.failing else len(rows)
        except (BitloopError, KeyboardInterrupt) as error:
            _LOGGER.warning("after the run: %s", error or "interrupted")

    def record(self, device_url: str, vault: Sequence[Opening], *, started: datetime, seconds: float) -> RunRecord:
        """Put everything together."""
        info, plan, measured = self.info, self.plan, self.measured
        ram = ram_of(plan.memory, info, self.stats, reserved=self.report.arena_bytes, build=self.build)
        claims = [*self.claims, *false_memory(ram, info)]
        if ram.measured is not None and ram.measured > ram.predicted:
            claims.append(f"the device wrote {ram.measured:,} bytes of its arena, the plan allows {ram.predicted:,}")
        exact = judging.exact_of(measured, self.divergence, audited=self.audited)
        labels = judging.labels_agreeing(measured)
        device = device_identity(device_url, info)
        verdict = judging.judge(
            exact,
            labels,
            requested=len(self.images),
            claims=claims,
            probe_failures=device.probe_failures,
            status=self.status,
            error=self.failure,
        )
        return RunRecord(
            version=RECORD_VERSION,
            status=self.status,
            verdict=verdict.verdict,
            headline=f"{_REPLAY if is_replay(device_url) else ''}{verdict.headline}",
            reasons=verdict.reasons,
            error=self.failure,
            command=self.options.command,
            started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            seconds=seconds,
            mode=self.options.mode,
            simulated=info.simulated,
            exact=exact,
            labels=labels,
            accuracy=judging.accuracy_of(measured),
            confusion=judging.confusion_of(measured, CLASSES),
            latency=judging.latency_of(
                measured,
                info,
                plan.operations,
                overlapped=self.mode is RunMode.THROUGHPUT,
                warm_up_images=min(self.options.warm_up_images, len(self.images)),
            ),
            ram=ram,
            placement=placement_of(
                plan,
                streamed_bytes=self.counters.streamed_bytes - self.before.streamed_bytes,
                traced_bytes=self.session.counters.streamed_bytes - self.counters.streamed_bytes,
            ),
            link=self._link(device_url),
            sizes=sizes_of(self.model),
            dataset=DataIdentity(
                name=self.images.dataset,
                split=self.images.split.value,
                sha256=self.images.sha256,
                requested=len(self.images),
                measured=measured.count,
                image_shape=self.model.architecture.input_shape,
                classes=CLASSES,
            ),
            model=model_identity(self.model),
            image=ImageIdentity(plan.sha256, self.report.device_sha256, len(plan.image), len(plan.operations)),
            firmware=firmware_identity(info),
            device=device,
            vault=tuple(VaultOpening(o.dataset, o.reason, o.count, o.time) for o in vault),
            versions=versions(),
            host=host_identity(),
        )

    def _take(self, result: Result, host_logits: judging.F32) -> Sample:
        """Keep a result, and return its line of the journal."""
        measured, row = self.measured, result.index
        if result.logits is None or row != measured.count:
            raise LinkError(f"the device's result {row} came out of order or without logits; its firmware is faulty")
        measured.device[row] = result.label
        measured.host[row] = labels_of(host_logits[np.newaxis])[0]
        measured.device_logits[row] = result.logits
        measured.host_logits[row] = host_logits
        measured.ticks[row] = result.ticks
        if measured.layer_ticks is not None and result.layer_ticks is not None:
            measured.layer_ticks[row] = result.layer_ticks
        match = bool((bits(result.logits) == bits(host_logits)).all())
        if not match:
            measured.failing.append(row)
        true, host = int(self.images.labels[row]), int(measured.host[row])
        interesting = not match or result.label != true or host != true
        measured.count += 1
        return Sample(
            index=int(self.images.index[row]),
            label=true,
            device=result.label,
            host=host,
            match=match,
            ulp=0 if match else int(ulp_distance(result.logits, host_logits).max()),
            ticks=result.ticks,
            logits=logits_to_hex(result.logits),
            host_logits=None if match else logits_to_hex(host_logits),
            layer_ticks=None if result.layer_ticks is None else tuple(result.layer_ticks.tolist()),
            pixels=pack_pixels(self.images.pixels[row]) if interesting else None,
        )

    def _link(self, device_url: str) -> LinkFigures:
        now, before = self.counters, self.before
        return LinkFigures(
            url=device_url,
            bytes_up=now.bytes_up,
            bytes_down=now.bytes_down,
            seconds=self.seconds,
            upload_seconds=self.report.seconds,
            images_per_second=self.measured.count / self.seconds if self.seconds > 0 else None,
            retransmissions=now.retransmissions,
            crc_errors=now.crc_errors,
            stream_bytes_up=now.bytes_up - before.bytes_up,
            stream_bytes_down=now.bytes_down - before.bytes_down,
            share=judging.share_of(self.measured, self.info, seconds=self.seconds, waited_s=self.waited_s),
        )

    def _step(self, stage: str) -> Callable[[int, int], None] | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda done, total: progress(stage, done, total)
