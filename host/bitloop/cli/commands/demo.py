"""``bitloop demo``: the main job end to end, on the simulated device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.commands.run import command_line, end
from bitloop.errors import DataError

if TYPE_CHECKING:
    from bitloop.bench.record import RunRecord
    from bitloop.data.dataset import Dataset


@dataclass(frozen=True)
class Job:
    """One of the demo's runs."""

    network: str
    weights: str
    biases: str
    limit: int | None = None


JOBS = (
    Job("mlp", "fp32", "fp32"),
    Job("mlp", "e4m3:pow2", "e5m2"),
    Job("cnn", "int4:channel", "fp16", 1000),
)


@console.handled
def demo(
    data: options.Data = None,
    device: options.Device = "sim://native",
    limit: options.Limit = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/<time>-demo.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Quantize networks, stream them and the test images to a simulated device, and compare, end to end."""
    from bitloop.bench.files import RunDirectory  # noqa: PLC0415 - numpy
    from bitloop.bench.run import RunOptions  # noqa: PLC0415 - numpy
    from bitloop.bench.run import run as run_on_device  # noqa: PLC0415 - numpy
    from bitloop.bench.select import select_images  # noqa: PLC0415 - numpy
    from bitloop.report.page import write_report  # noqa: PLC0415 - numpy

    dataset = find_dataset(data)
    root = out or Path("runs") / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-demo"
    directories = [root / f"{job.network}-{job.weights}".replace(":", "-") for job in JOBS]
    for directory in directories:
        RunDirectory(directory).check()
    suffix = "" if dataset.name == "mnist" else f"-{dataset.name}"
    models = [
        sources.load_model(f"{job.network}{suffix}", weights=job.weights, biases=job.biases, overrides=())
        for job in JOBS
    ]
    chosen = select_images(dataset, "test", limit=limit, reason="demo")
    console.say(f"data: {dataset.name} ({dataset.origin}); device: {device}")
    records: list[RunRecord] = []
    for job, model, directory in zip(JOBS, models, directories, strict=True):
        console.say(f"{model.name}, weights {job.weights}, biases {job.biases}: quantized, now on the device …")
        with console.progress() as step:
            record = run_on_device(
                model,
                device,
                chosen.images if job.limit is None else chosen.images.first(job.limit),
                out_dir=directory,
                options=RunOptions(command=command_line()),
                vault=chosen.openings,
                progress=step,
            )
        write_report(directory)
        records.append(record)
        if record.status != "complete":
            break
    if as_json:
        console.print_json([record.to_dict() for record in records])
    else:
        print_demo(records, directories)
    for record in records:
        end(record)


def find_dataset(data: str | None) -> Dataset:
    """Load MNIST, or, where it cannot be had, scikit-learn's digits, and say so loudly."""
    if data is not None:
        return sources.load_dataset(data)
    try:
        return sources.load_dataset("mnist")
    except DataError as error:
        console.warn(f"MNIST cannot be had: {error}")
        console.warn("all of this demo runs on scikit-learn's UCI digits instead, with networks trained for them")
        return sources.load_dataset("digits")


def print_demo(records: list[RunRecord], directories: list[Path]) -> None:
    """Print the sizes, and what the runs showed."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    sizes = [
        (
            record.model.name,
            _formats(record),
            f"{record.sizes.weights:,}",
            f"{record.sizes.biases:,}",
            f"{record.sizes.scales:,}",
            f"{record.sizes.total:,}",
            f"{record.sizes.fp32 / record.sizes.total:.1f}×",
        )
        for record in records
    ]
    columns = ("network", "formats", "weights", "biases", "scales", "in all", "vs fp32")
    console.print_table("What the models take, in bytes", columns, sizes, right=(2, 3, 4, 5, 6))
    rows = []
    for record in records:
        accuracy, latency = record.accuracy, record.latency
        rows.append(
            (
                record.model.name,
                _formats(record),
                f"{record.dataset.measured:,}",
                "–"
                if accuracy is None
                else f"{words.percent(accuracy.device.value, total=record.dataset.measured)} "
                f"({words.interval(accuracy.device)})",
                f"{record.exact.matching:,} of {record.exact.total:,}",
                "–" if latency is None else words.ticks(latency.median),
                f"{record.ram.predicted:,}",
                "–" if record.ram.measured is None else f"{record.ram.measured:,}",
            )
        )
    unit = next((record.latency.unit for record in records if record.latency is not None), "ticks")
    first = records[0]
    heads = ("network", "formats", "images", "accuracy (95 %)", "logits identical", "latency", "RAM planned", "used")
    where = f"On {first.device.board}, {first.dataset.name} {first.dataset.split}"
    title = f"{where}; latency: median, {unit}; RAM: arena, bytes"
    console.print_table(title, heads, rows, right=(2, 4, 5, 6, 7))
    for record, directory in zip(records, directories, strict=False):
        style = "bold green" if record.verdict == "exact" else "bold red"
        console.print_text(record.headline, style=style)
        console.print_text(f"  Report: {directory / 'report.html'}")


def _formats(record: RunRecord) -> str:
    """Return the formats of weights and biases in one text."""
    return f"{record.model.weights} / {record.model.biases}"
