"""A run gone on with: from its directory, whatever ended it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import fields, replace
from pathlib import Path

from bitloop.bench.attempt import ENDED, Attempt, Progress
from bitloop.bench.begun import Begun, read_begun
from bitloop.bench.beside import HostSimulation
from bitloop.bench.checks import check_fit
from bitloop.bench.compose import record_of
from bitloop.bench.files import RunDirectory
from bitloop.bench.identity import versions
from bitloop.bench.line import open_session
from bitloop.bench.options import LineOptions, RunOptions, check_line
from bitloop.bench.parts import seconds_between, timestamp
from bitloop.bench.record import Interruption, RunRecord, VaultOpening
from bitloop.bench.select import find_dataset, select_images, sent_images, sent_sha256
from bitloop.bench.store import Past, read_past, resumed_store
from bitloop.bench.take import replay
from bitloop.data.dataset import Dataset, Images
from bitloop.data.vault import MAX_REASON_LENGTH
from bitloop.link.channel import LogCallback, RawCallback

__all__ = ["resume"]

KILLED = "its process ended without a word: it was killed, or the power failed"


def resume(
    path: Path,
    *,
    device_url: str | None = None,
    line: Callable[[LineOptions], LineOptions] | None = None,
    data: str | None = None,
    load: Callable[[str], Dataset] = find_dataset,
    progress: Progress | None = None,
    on_log: LogCallback | None = None,
    on_raw: RawCallback | None = None,
) -> RunRecord:
    """Go on with a run whose process was killed, whose device was lost, or that was interrupted.

    Each whole line of its journal counts: what the device said is taken from it, and everything else is computed and
    compared anew. The images that are left are run, behind a warm-up, and the record is what an undisturbed run would
    have given, but for times, the line's figures and the interruption itself (:mod:`bitloop.bench.comparable`).

    Args:
        path: the run's directory.
        device_url: where the device is now; None is where it was.
        line: gives, of how the line was used, how it is used from now on; None leaves it.
        data: where the data is now, a name or a directory; None is where it was.
        load: loads a data set.
        progress: called as the run goes on.
        on_log: gets level and text of each line that the device logs.
        on_raw: gets bytes outside of frames.

    Raises:
        UsageError: there is no run that could go on, it is complete, or another process is at work on it.
        ModelError: the MODEL is not the run's any more.
        DataError: the data is not the run's, or a file of the directory is damaged.
        LinkError: the device could not be reached, is another, or runs another firmware.
        DeviceError: it refused the model.
    """
    directory = RunDirectory(path)
    read_begun(directory)  # so that no lock is left in a directory that holds no run
    with ExitStack() as stack:
        stack.enter_context(directory.locked())
        past = read_past(directory)
        options = past.begun.options if line is None else _with_line(past.begun.options, line)
        images, begun = _images(past.begun, load(past.begun.images.data if data is None else data))
        check_fit(past.model, images)
        host = stack.enter_context(HostSimulation(past.model, images.pixels))
        measured = replay(
            past.samples,
            images,
            host,
            operations=begun.operations,
            path=directory.samples,
            progress=None if progress is None else (lambda done, total: progress("journal", done, total)),
        )
        url = begun.device_url if device_url is None else device_url
        session = stack.enter_context(open_session(url, options, on_log=on_log, on_raw=on_raw))
        attempt = Attempt(session, url, past.model, images, options, progress=progress, begun=begun, measured=measured)
        attempt.prepare()
        attempt.interruptions.insert(0, _gap(past, measured.count, attempt.info.boot_count))
        store = stack.enter_context(resumed_store(directory, past, attempt.part()))
        if begun != past.begun:
            begun.write(directory.begun)
        store.ends_with(lambda: attempt.part(ended=True))
        attempt.stream(host, store)
        attempt.finish()
        record = record_of(attempt, past.parts, begun.vault, started=begun.started, command=options.command)
        record.write(directory.record)
    return record


def _with_line(options: RunOptions, line: Callable[[LineOptions], LineOptions]) -> RunOptions:
    names = [field.name for field in fields(LineOptions)]
    new = line(LineOptions(**{name: getattr(options, name) for name in names}))
    check_line(new)
    return replace(options, **{name: getattr(new, name) for name in names})


def _images(begun: Begun, dataset: Dataset) -> tuple[Images, Begun]:
    """Give the run's images as the device gets them, and the run with the opening of the vault that this took."""
    begun.images.check(dataset)
    reason = f"resume of: {begun.vault[0].reason}" if begun.vault else ""
    chosen = select_images(dataset, begun.images.split, limit=begun.images.count, reason=reason[:MAX_REASON_LENGTH])
    images = sent_images(chosen.images, begun.options.pixel_bits)
    begun.images.check_sent(sent_sha256(images))
    openings = tuple(VaultOpening(o.dataset, o.reason, o.count, o.time) for o in chosen.openings)
    return images, replace(begun, vault=(*begun.vault, *openings))


def _gap(past: Past, images: int, boot_count: int) -> Interruption:
    """Give the interruption between the last part and the one that begins now."""
    begun, now = past.begun, versions()
    last = past.parts[-1] if past.parts else None
    reason = KILLED if last is None or last.ended is None else last.ended
    if reason == ENDED:
        reason = "its record could not be written"
    if now != begun.versions:
        old, new = begun.versions, now
        reason += (
            f"; gone on with by bitloop {new.bitloop}, Python {new.python}, numpy {new.numpy} "
            f"(begun by {old.bitloop}, {old.python}, {old.numpy})"
        )
    return Interruption(
        images=images,
        resumed=True,
        reason=reason,
        seconds=0.0 if last is None else seconds_between(last.updated, timestamp()),
        boot_count_before=None if last is None else last.boot_count,
        boot_count_after=boot_count,
    )
