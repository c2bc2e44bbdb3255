"""A run's record, put together from what its parts measured and counted."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import add

import numpy as np

from bitloop.bench import judge as judging
from bitloop.bench.attempt import Attempt
from bitloop.bench.build import false_memory
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
from bitloop.bench.parts import Part
from bitloop.bench.record import (
    RECORD_VERSION,
    DataIdentity,
    ImageIdentity,
    LinkFigures,
    RunRecord,
    VaultOpening,
)
from bitloop.data.dataset import CLASSES
from bitloop.link.recording.replay import is_replay
from bitloop.spec import RunMode

__all__ = ["record_of"]

_REPLAY = "Replay of a recorded session, not measured now: "


def record_of(
    attempt: Attempt, past: Sequence[Part], vault: Sequence[VaultOpening], *, started: str, command: str
) -> RunRecord:
    """Put everything together.

    Args:
        attempt: the last part of the run, which holds all that was measured.
        past: the parts before.
        vault: all openings of the test split that the run took.
        started: when the run began.
        command: what began it.
    """
    info, plan, measured = attempt.info, attempt.plan, attempt.measured
    parts = [*past, attempt.part()]
    traffic = reduce(add, (part.traffic for part in parts))
    interruptions = tuple(interruption for part in parts for interruption in part.interruptions)
    ram = ram_of(plan.memory, info, attempt.stats, reserved=attempt.report.arena_bytes, build=attempt.build)
    claims = [*attempt.claims, *false_memory(ram, info)]
    if ram.measured is not None and ram.measured > ram.predicted:
        claims.append(f"the device wrote {ram.measured:,} bytes of its arena, the plan allows {ram.predicted:,}")
    exact = judging.exact_of(measured, attempt.divergence, audited=attempt.audited)
    labels = judging.labels_agreeing(measured)
    device = device_identity(attempt.device_url, info)
    verdict = judging.judge(
        exact,
        labels,
        requested=len(attempt.images),
        claims=claims,
        probe_failures=device.probe_failures,
        status=attempt.status,
        error=attempt.failure,
        interruptions=len(interruptions),
    )
    return RunRecord(
        version=RECORD_VERSION,
        status=attempt.status,
        verdict=verdict.verdict,
        headline=f"{_REPLAY if is_replay(attempt.device_url) else ''}{verdict.headline}",
        reasons=verdict.reasons,
        error=attempt.failure,
        interruptions=interruptions,
        command=command,
        started=started,
        seconds=sum(part.seconds for part in parts),
        mode=attempt.options.mode,
        simulated=info.simulated,
        exact=exact,
        labels=labels,
        accuracy=judging.accuracy_of(measured),
        confusion=judging.confusion_of(measured, CLASSES),
        latency=judging.latency_of(
            measured,
            info,
            plan.operations,
            overlapped=attempt.mode is RunMode.THROUGHPUT,
            warm_up_images=min(attempt.options.warm_up_images, len(attempt.images)),
        ),
        ram=ram,
        placement=placement_of(plan, streamed_bytes=traffic.streamed_bytes, traced_bytes=traffic.traced_bytes),
        link=_link_of(attempt, parts),
        sizes=sizes_of(attempt.model),
        dataset=DataIdentity(
            name=attempt.images.dataset,
            split=attempt.images.split.value,
            sha256=attempt.images.sha256,
            requested=len(attempt.images),
            measured=measured.count,
            image_shape=attempt.model.architecture.input_shape,
            classes=CLASSES,
            pixel_bits=attempt.options.pixel_bits,
            sent_sha256=attempt.sent_sha256,
        ),
        model=model_identity(attempt.model),
        image=ImageIdentity(plan.sha256, attempt.report.device_sha256, len(plan.image), len(plan.operations)),
        firmware=firmware_identity(info),
        device=device,
        vault=tuple(vault),
        versions=versions(),
        host=host_identity(),
    )


def _link_of(attempt: Attempt, parts: Sequence[Part]) -> LinkFigures:
    traffic = reduce(add, (part.traffic for part in parts))
    seconds = traffic.stream_seconds
    # Of a process that was killed the last second's images are in the journal, but not in its figures.
    timed = np.concatenate([attempt.measured.ticks[part.first : part.first + part.traffic.images] for part in parts])
    return LinkFigures(
        url=attempt.device_url,
        bytes_up=traffic.bytes_up,
        bytes_down=traffic.bytes_down,
        stream_bytes_up=traffic.stream_bytes_up,
        stream_bytes_down=traffic.stream_bytes_down,
        seconds=seconds,
        upload_seconds=traffic.upload_seconds,
        images_per_second=traffic.images / seconds if seconds > 0 else None,
        retransmissions=traffic.retransmissions,
        crc_errors=traffic.crc_errors,
        share=judging.share_of(timed, attempt.info, seconds=seconds, waited_s=traffic.waited_s),
        upload_line_bytes=traffic.upload_line_bytes,
        copied_bytes=traffic.copied_bytes,
        codings=tuple(attempt.codings),
        baud=attempt.session.baud or None,
    )
