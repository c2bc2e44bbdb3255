"""A run: images on a device, a journal, the comparison with the host simulation, a record."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from bitloop.bench.attempt import Attempt, Progress
from bitloop.bench.begun import BEGUN_VERSION, Begun, DeviceKind, ImagesBegun
from bitloop.bench.beside import HostSimulation
from bitloop.bench.checks import check_fit
from bitloop.bench.compose import record_of
from bitloop.bench.files import RunDirectory
from bitloop.bench.identity import versions
from bitloop.bench.line import open_session
from bitloop.bench.options import MODES, LineOptions, RunOptions, check_options
from bitloop.bench.record import RunRecord, VaultOpening
from bitloop.bench.select import sent_images
from bitloop.bench.store import begun_store
from bitloop.data.dataset import Images
from bitloop.data.vault import Opening
from bitloop.link.channel import LogCallback, RawCallback
from bitloop.quantize.model import Model

__all__ = ["MODES", "LineOptions", "Progress", "RunOptions", "run"]


def run(
    model: Model,
    device_url: str,
    images: Images,
    *,
    out_dir: Path | None = None,
    options: RunOptions | None = None,
    vault: Sequence[Opening] = (),
    data: str | None = None,
    recording: Path | None = None,
    progress: Progress | None = None,
    on_log: LogCallback | None = None,
    on_raw: RawCallback | None = None,
) -> RunRecord:
    """Run images on a device and hold what it answers against the host simulation.

    Nothing is written before the device has taken the model. From then on nothing that was measured is lost: where the
    link breaks and the device can be reached again, the run goes on; when it is interrupted, or the device fails, the
    record says so, and holds what was measured until then; and whatever ended it, also the end of this process,
    :func:`bitloop.bench.resume.resume` goes on with it.

    Args:
        model: what is run.
        device_url: a port or any URL of pyserial's, such as ``sim://native``.
        images: which images, all of them.
        out_dir: the directory of the run; None writes nothing.
        options: how it is done.
        vault: openings of the test split that the images came from.
        data: where the images came from, the name of a data set or a directory, so that a resume finds them; None is
            the data set's name.
        recording: where to record all that crosses the line, for ``replay://FILE``; ``force`` replaces an earlier one.
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
    check_options(options)
    check_fit(model, images)
    directory = None if out_dir is None else RunDirectory(out_dir)
    if directory is not None:
        directory.check(force=options.force)
    sent = sent_images(images, options.pixel_bits)
    openings = tuple(VaultOpening(o.dataset, o.reason, o.count, o.time) for o in vault)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with ExitStack() as stack:
        session = stack.enter_context(
            open_session(
                device_url,
                options,
                on_log=on_log,
                on_raw=on_raw,
                recording=recording,
                overwrite=options.force,
                facts=facts_of(model, images, options),
            )
        )
        attempt = Attempt(session, device_url, model, sent, options, progress=progress)
        attempt.prepare()
        store = None
        if directory is not None:
            begun = Begun(
                version=BEGUN_VERSION,
                started=started,
                device_url=device_url,
                device=DeviceKind.of(attempt.info),
                options=options,
                images=ImagesBegun(
                    data=images.dataset if data is None else data,
                    dataset=images.dataset,
                    split=images.split.value,
                    count=len(images),
                    sha256=images.sha256,
                    sent_sha256=attempt.sent_sha256,
                ),
                model_sha256=model.sha256,
                image_sha256=attempt.plan.sha256,
                operations=attempt.operations,
                vault=openings,
                versions=versions(),
            )
            store = stack.enter_context(begun_store(directory, begun, model, attempt.part(), force=options.force))
            store.ends_with(lambda: attempt.part(ended=True))
        with HostSimulation(model, sent.pixels) as host:
            attempt.stream(host, store)
        attempt.finish()
        record = record_of(attempt, (), openings, started=started, command=options.command)
        if directory is not None:
            record.write(directory.record)
    return record


def facts_of(model: Model, images: Images, options: RunOptions) -> dict[str, str]:
    """Say what a run is about: all that a replay of its recording must have the same."""
    facts = {"model": model.name, "model SHA-256": model.sha256, "data": f"{images.dataset} {images.split.value}"}
    names = ["mode", "per_layer", "warm_up_images", "audit_images", "slots", "placement", "pixel_bits", "timing"]
    names += ["coded", "max_baud", "reconnect_s"]
    return {**facts, "images": str(len(images)), **{name: str(getattr(options, name)) for name in names}}
