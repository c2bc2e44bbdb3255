"""``bitloop run``: a model on a device, held against the host simulation."""

from __future__ import annotations

import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.tables import print_record
from bitloop.errors import Interrupted

if TYPE_CHECKING:
    from bitloop.bench.record import RunRecord

DEFAULT_DEVICE = "sim://native"


@console.handled
def run(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .blm file, or a network to quantize on the fly.")],
    *,
    device: options.Device = DEFAULT_DEVICE,
    data: options.Data = None,
    split: options.SplitName = "confirm",
    limit: options.Limit = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/<time>-<model>-<device>.")
    ] = None,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    mode: Annotated[str, typer.Option(help="timing: quiet line; throughput: line and computing overlap.")] = "timing",
    per_layer: Annotated[bool, typer.Option(help="Time each layer too.")] = True,
    warm_up: Annotated[int, typer.Option(min=0, help="Images run before the first that counts.")] = 8,
    audit: Annotated[int, typer.Option(min=0, help="Images whose every layer is compared.")] = 1,
    placement: options.Placement = "auto",
    slots: options.Slots = None,
    baud: options.Baud = 115200,
    timeout: options.Timeout = None,
    reason: options.Reason = None,
    record_file: options.Record = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run, and an earlier recording.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run images on a device, and hold what it answers against the host simulation, bit for bit.

    Writes run.json, samples.jsonl (as results arrive) and report.html. Exits with 3 if device and host disagree.
    """
    from bitloop.bench.files import RunDirectory  # noqa: PLC0415 - numpy
    from bitloop.bench.run import RunOptions  # noqa: PLC0415 - numpy
    from bitloop.bench.run import run as run_on_device  # noqa: PLC0415 - numpy
    from bitloop.bench.select import select_images  # noqa: PLC0415 - numpy
    from bitloop.hello import printable  # noqa: PLC0415 - numpy
    from bitloop.link.channel import Timing  # noqa: PLC0415 - numpy
    from bitloop.link.recording import check_free  # noqa: PLC0415 - numpy
    from bitloop.report.page import write_report  # noqa: PLC0415 - numpy

    loaded = sources.load_model(model, weights=weights, biases=biases, overrides=overrides or ())
    default_data, name = sources.names_of_model(loaded)
    directory = out or default_directory(name, device)
    RunDirectory(directory).check(force=force)
    if record_file is not None:
        check_free(record_file, force=force)
    dataset = sources.load_dataset(data, default_data)
    chosen = select_images(dataset, split, limit=limit, reason=reason or f"bitloop run {loaded.name} on {device}")
    timing = None if timeout is None else Timing(timeout, timeout, timeout)
    with console.progress() as step:
        record = run_on_device(
            loaded,
            device,
            chosen.images,
            out_dir=directory,
            options=RunOptions(
                mode=mode,
                per_layer=per_layer,
                warm_up_images=warm_up,
                audit_images=audit,
                slots=slots,
                placement=placement,
                baud=baud,
                timing=timing,
                force=force,
                command=command_line(),
                record=record_file,
            ),
            vault=chosen.openings,
            progress=step,
            on_log=lambda _, text: console.say(f"device: {text}"),
            on_raw=lambda data: console.say(f"device, no frame: {printable(data.strip())}"),
        )
    report = write_report(directory)
    if as_json:
        console.print_json(record.to_dict())
    else:
        print_record(record)
        console.print_text(f"Report: {report}")
    end(record)


def end(record: RunRecord) -> None:
    """Leave the command as a run's verdict asks: quietly when it is exact."""
    code = record.exit_code
    if code == Interrupted.exit_code:
        console.warn(record.headline)
    elif code:
        console.fail(record.headline)
    if code:
        raise typer.Exit(code)


def default_directory(model: str, device: str) -> Path:
    """Return ``runs/<time>-<model>-<device>``, with a number behind it where that is there already."""
    parts = urlsplit(device)
    words = f"{parts.scheme}-{parts.netloc}{parts.path}" if "://" in device else device
    place = "".join(c if c.isalnum() else "-" for c in words).strip("-") or "device"
    base = Path("runs") / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-{model}-{place}"
    path, number = base, 2
    while path.exists():
        path, number = base.with_name(f"{base.name}-{number}"), number + 1
    return path


def command_line() -> str:
    """Return the command that was given, as one could type it again."""
    return shlex.join(["bitloop", *sys.argv[1:]])
