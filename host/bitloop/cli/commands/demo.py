"""``bitloop demo``: the main job end to end, on the simulated device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.commands.run import end
from bitloop.errors import DataError, ToolchainError

if TYPE_CHECKING:
    from bitloop.bench.record import RunRecord
    from bitloop.bench.select import Selection
    from bitloop.data.dataset import Dataset
    from bitloop.quantize.model import Model


@dataclass(frozen=True)
class Job:
    """One of the demo's runs."""

    network: str
    weights: str
    biases: str
    limit: int | None = None

    @property
    def folder(self) -> str:
        """The run directory's name."""
        return f"{self.network}-{self.weights}".replace(":", "-")


JOBS = (
    Job("mlp", "fp32", "fp32"),
    Job("mlp", "e4m3:pow2", "e5m2"),
    Job("cnn", "int4:channel", "fp16", 1000),
)


EMULATED = "stm32f405"
EMULATED_LIMIT = 500
"""Images of each run in the emulator, whose line carries some 40 of them a second."""


@console.handled
def demo(
    *,
    data: options.Data = None,
    device: options.Device = "sim://native",
    limit: options.Limit = None,
    placement: options.Placement = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Default: runs/<time>-demo.", show_default=False)
    ] = None,
    with_qemu: Annotated[
        bool | None,
        typer.Option(
            "--with-qemu/--without-qemu",
            help=f"Whether qemu://{EMULATED} does the same with its first {EMULATED_LIMIT} images. Default: where "
            "emulator and firmware toolchain are there.",
            show_default=False,
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Quantize networks, stream them and the test images to a simulated device, and compare, end to end."""
    from bitloop.bench.files import RunDirectory  # noqa: PLC0415 - numpy
    from bitloop.bench.select import select_images  # noqa: PLC0415 - numpy

    emulated = find_emulated(device, wanted=with_qemu)
    dataset = find_dataset(data)
    root = out or Path("runs") / f"{datetime.now().strftime('%Y%m%d-%H%M%S')}-demo"
    places = [(device, root)] if emulated is None else [(device, root), (emulated, root / EMULATED)]
    for _, folder in places:
        for job in JOBS:
            RunDirectory(folder / job.folder).check()
    suffix = "" if dataset.name == "mnist" else f"-{dataset.name}"
    models = [
        sources.load_model(f"{job.network}{suffix}", weights=job.weights, biases=job.biases, overrides=())
        for job in JOBS
    ]
    chosen = select_images(dataset, "test", limit=limit, reason="demo")
    every: list[RunRecord] = []
    for place, folder in places:
        console.say(f"data: {dataset.name} ({dataset.origin}); device: {place}")
        most = EMULATED_LIMIT if place == emulated else None
        records = run_jobs(place, folder, models, chosen, most=most, placement=placement)
        every += records
        if not as_json:
            if place == device:
                print_sizes(records)
            print_results(records, [folder / job.folder for job in JOBS])
        if records[-1].status != "complete":
            break
    if as_json:
        console.print_json([record.to_dict() for record in every])
    for record in every:
        end(record)


def find_emulated(device: str, *, wanted: bool | None) -> str | None:
    """Return the URL of the emulated board the demo runs on as well, its firmware built, or None where it does not.

    Args:
        device: the demo's own device; with another than its default nobody asks for more.
        wanted: True, False, or None for: where all is there that it needs.

    Raises:
        ToolchainError: it is wanted, and something that it needs is missing.
    """
    from bitloop.boards import find_board  # noqa: PLC0415 - beside the rest
    from bitloop.firmware.build import firmware_elf  # noqa: PLC0415 - builds
    from bitloop.link.urls.protocol_qemu import program_of  # noqa: PLC0415 - pyserial

    board = find_board(EMULATED)
    if (
        board.emulator is None
        or wanted is False
        or device == board.url
        or (wanted is None and device != "sim://native")
    ):
        return None
    try:
        program_of(board.name, board.emulator)
        firmware_elf(board.environment)
    except ToolchainError as error:
        if wanted:
            raise
        console.say(f"not in an emulator of a real chip ({error})")
        console.say(f"scripts/demo --with-qemu installs what {board.url} needs, and runs all of this on it as well")
        return None
    return board.url


def run_jobs(
    device: str,
    root: Path,
    models: list[Model],
    chosen: Selection,
    *,
    most: int | None,
    placement: str = "auto",
) -> list[RunRecord]:
    """Run each job on a device, with ``most`` images at most, until one does not come to its end."""
    from bitloop.bench.run import RunOptions  # noqa: PLC0415 - numpy
    from bitloop.bench.run import run as run_on_device  # noqa: PLC0415 - numpy
    from bitloop.report.page import write_report  # noqa: PLC0415 - numpy

    records: list[RunRecord] = []
    for job, model in zip(JOBS, models, strict=True):
        console.say(f"{model.name}, weights {job.weights}, biases {job.biases}: quantized, now on the device …")
        limits = [limit for limit in (job.limit, most) if limit is not None]
        with console.progress() as step:
            record = run_on_device(
                model,
                device,
                chosen.images.first(min(limits)) if limits else chosen.images,
                out_dir=root / job.folder,
                options=RunOptions(command=console.command_line(), placement=placement),
                vault=chosen.openings,
                progress=step,
            )
        write_report(root / job.folder)
        records.append(record)
        if record.status != "complete":
            break
    return records


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


def print_sizes(records: list[RunRecord]) -> None:
    """Print what the models take."""
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


def print_results(records: list[RunRecord], directories: list[Path]) -> None:
    """Print what the runs on one device showed."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

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
