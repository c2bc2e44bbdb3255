"""``bitloop run``: a model on a device, held against the host simulation."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.devices import say_log, say_raw, timing_of
from bitloop.cli.tables import print_record
from bitloop.errors import Interrupted, UsageError

if TYPE_CHECKING:
    from bitloop.bench.options import LineOptions
    from bitloop.bench.record import RunRecord

DEFAULT_DEVICE = "sim://native"
_OF_A_RESUME = {"resume", "device", "data", "baud", "max_baud", "coded", "timeout", "reconnect", "as_json"}
"""What may be said besides --resume: where things are now, and how to wait; the rest the run has been begun with."""


@console.handled
def run(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A .blm file, or a network to quantize on the fly.", show_default=False),
    ] = None,
    *,
    resume: Annotated[
        Path | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Go on with the run in DIR, begun before, whatever ended it.",
            show_default=False,
        ),
    ] = None,
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
    pixel_bits: options.PixelBits = None,
    baud: options.Baud = 115200,
    max_baud: options.MaxBaud = 921600,
    coded: options.Coded = True,
    reconnect: options.Reconnect = None,
    timeout: options.Timeout = None,
    reason: options.Reason = None,
    record_file: options.Record = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier run, and an earlier recording.")] = False,
    as_json: options.Json = False,
) -> None:
    """Run images on a device, and hold what it answers against the host simulation, bit for bit.

    Writes run.json, samples.jsonl (as results arrive) and report.html. Exits with 3 if device and host disagree.
    """
    if resume is not None:
        go_on(context, resume, as_json=as_json)
        return
    if model is None:
        raise UsageError("name a MODEL to run, or a run to go on with: --resume DIR")
    from bitloop.bench.files import RunDirectory  # noqa: PLC0415 - numpy
    from bitloop.bench.run import RunOptions  # noqa: PLC0415 - numpy
    from bitloop.bench.run import run as run_on_device  # noqa: PLC0415 - numpy
    from bitloop.bench.select import select_images  # noqa: PLC0415 - numpy
    from bitloop.link.recording.file import check_free  # noqa: PLC0415 - numpy

    loaded = sources.load_model(model, weights=weights, biases=biases, overrides=overrides or ())
    default_data, name = sources.names_of_model(loaded)
    directory = out or default_directory(name, device)
    RunDirectory(directory).check(force=force)
    if record_file is not None:
        check_free(record_file, force=force)
    dataset = sources.load_dataset(data, default_data)
    chosen = select_images(dataset, split, limit=limit, reason=reason or f"bitloop run {loaded.name} on {device}")
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
                pixel_bits=pixel_bits,
                baud=baud,
                max_baud=max_baud,
                coded=coded,
                timing=timing_of(timeout),
                reconnect_s=reconnect,
                force=force,
                command=console.command_line(),
            ),
            vault=chosen.openings,
            data=place_of(data or default_data),
            recording=record_file,
            progress=step,
            on_log=say_log,
            on_raw=say_raw,
        )
    show(record, directory, as_json=as_json)


def go_on(context: typer.Context, directory: Path, *, as_json: bool) -> None:
    """Go on with a run.

    Raises:
        UsageError: something was said that would make it another run.
    """
    from bitloop.bench.resume import resume  # noqa: PLC0415 - numpy

    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    others = [_said(context, name) for name in given if name not in _OF_A_RESUME]
    if others:
        may = ", ".join(_said(context, name) for name in context.params if name in _OF_A_RESUME - {"resume"})
        raise UsageError(
            f"{', '.join(others)} cannot be said with --resume: the run goes on as it was begun. What may be said is "
            f"{may}; to run it otherwise, begin a new run"
        )
    data = given.get("data")
    with console.progress() as step:
        record = resume(
            directory,
            device_url=given.get("device"),
            line=lambda line: line_of(line, given),
            data=None if data is None else place_of(data),
            load=sources.load_dataset,
            progress=step,
            on_log=say_log,
            on_raw=say_raw,
        )
    show(record, directory, as_json=as_json)


def line_of(line: LineOptions, given: dict[str, Any]) -> LineOptions:
    """Return options of the line with those changed that were given."""
    return replace(
        line,
        baud=given.get("baud", line.baud),
        max_baud=given.get("max_baud", line.max_baud),
        coded=given.get("coded", line.coded),
        timing=timing_of(given["timeout"]) if "timeout" in given else line.timing,
        reconnect_s=given.get("reconnect", line.reconnect_s),
    )


def place_of(data: str) -> str:
    """Return where data is, so that it is found from any other directory too."""
    from bitloop.data.dataset import DATASETS  # noqa: PLC0415 - numpy

    return data if data in DATASETS else str(Path(data).absolute())


def show(record: RunRecord, directory: Path, *, as_json: bool) -> None:
    """Write a run's report, print what came of it, and leave as its verdict asks."""
    from bitloop.report.page import write_report  # noqa: PLC0415 - numpy

    report = write_report(directory)
    if as_json:
        console.print_json(record.to_dict())
    else:
        print_record(record)
        console.print_text(f"Report: {report}")
    end(record)


def _said(context: typer.Context, name: str) -> str:
    """Return what a parameter is called on the command line."""
    for parameter in context.command.params:
        if parameter.name == name:
            return "MODEL" if parameter.param_type_name == "argument" else parameter.opts[0]
    return name


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
