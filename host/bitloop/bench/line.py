"""Where a run's options of the line meet the link, and the link's own figures meet the record: here, and nowhere else.

What the link at hand cannot do is refused where it was asked for, and null in the record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.bench.options import LineOptions
from bitloop.errors import UsageError
from bitloop.link.channel import LogCallback, RawCallback
from bitloop.link.run import ImageRun
from bitloop.link.session import Session
from bitloop.link.upload import UploadReport
from bitloop.plan.planner import Plan
from bitloop.spec import RunMode, RunOutput

__all__ = ["baud_of", "coding_of", "copied_bytes_of", "open_session", "stream", "upload"]

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
    """Open a device's port as the options say.

    Raises:
        UsageError: a greatest rate is named, and the link has one rate only.
    """
    asked = {} if options.max_baud is None else {"max_baud": options.max_baud}
    if asked and "max_baud" not in inspect.signature(Session).parameters:
        raise UsageError("this link cannot change its rate; leave --max-baud out, and say --baud")
    make: Any = Session
    session: Session = make(
        device_url,
        baud=options.baud,
        timing=options.timing,
        on_log=on_log,
        on_raw=on_raw,
        record=recording,
        overwrite=overwrite,
        facts=facts,
        **asked,
    )
    return session


def upload(session: Session, plan: Plan, options: LineOptions, progress: Step | None) -> UploadReport:
    """Upload a plan's image; see :meth:`bitloop.link.session.Session.upload`."""
    send: Any = session.upload
    report: UploadReport = send(
        plan.image, plan.memory.total_bytes, progress, weights=plan.streamed, **_coded(Session.upload, options)
    )
    return report


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
    run: Any = session.run
    results: ImageRun = run(pixels, mode, outputs, progress, **_coded(Session.run, options))
    return results


def _coded(function: Callable[..., object], options: LineOptions) -> dict[str, bool]:
    # A link that cannot code sends plain bytes, whatever is asked for.
    return {"coded": options.coded} if "coded" in inspect.signature(function).parameters else {}


def copied_bytes_of(report: UploadReport) -> int:
    """Return the bytes of an upload that the device took over from the image it held."""
    return int(getattr(report, "copied_bytes", 0))


def coding_of(report: UploadReport) -> str | None:
    """Return how an upload was coded, None if it was not."""
    coding = getattr(report, "coding", "plain")
    return None if coding == "plain" else str(coding)


def baud_of(session: Session) -> int | None:
    """Return the line's rate now, None if it has none or does not tell."""
    return getattr(session, "baud", 0) or None
