"""Where a run's options of the line meet the link: here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitloop.bench.options import LineOptions
from bitloop.link.channel import LogCallback, RawCallback
from bitloop.link.results import ImageRun
from bitloop.link.session import Session
from bitloop.link.upload import UploadReport
from bitloop.plan.planner import Plan
from bitloop.spec import RunMode, RunOutput

__all__ = ["open_session", "stream", "upload"]

Step = Callable[[int, int], None]


def open_session(
    device_url: str,
    options: LineOptions,
    *,
    on_log: LogCallback | None,
    on_raw: RawCallback | None,
    recording: Path | None = None,
    overwrite: bool = False,
    facts: Mapping[str, str] | None = None,
) -> Session:
    """Open a device's port as the options say; see :class:`bitloop.link.session.Session`."""
    return Session(
        device_url,
        baud=options.baud,
        max_baud=options.max_baud,
        timing=options.timing,
        on_log=on_log,
        on_raw=on_raw,
        record=recording,
        overwrite=overwrite,
        facts=facts,
    )


def upload(session: Session, plan: Plan, options: LineOptions, progress: Step | None) -> UploadReport:
    """Upload a plan's image; see :meth:`bitloop.link.session.Session.upload`."""
    return session.upload(plan.image, plan.memory.total_bytes, progress, weights=plan.streamed, coded=options.coded)


def stream(
    session: Session,
    pixels: npt.NDArray[np.uint8],
    mode: RunMode,
    outputs: RunOutput,
    options: LineOptions,
    *,
    progress: Step | None = None,
) -> ImageRun:
    """Run images; see :meth:`bitloop.link.session.Session.run`."""
    return session.run(pixels, mode, outputs, progress, coded=options.coded)
