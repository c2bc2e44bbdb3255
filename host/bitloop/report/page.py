"""The report of a run as one HTML file without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.journal import Sample, logits_from_hex, read_samples, unpack_pixels
from bitloop.bench.metrics import in_units
from bitloop.bench.record import RunRecord, read_record
from bitloop.errors import DataError
from bitloop.report import plots, words
from bitloop.report.environment import page_environment
from bitloop.report.images import data_uri

__all__ = ["load_run", "render", "write_report"]

SHOWN_SAMPLES = 48
SHOWN_INTERRUPTIONS = 50
_COLOURS = {"exact": "good", "disagree": "bad", "failed": "bad", "interrupted": "warn"}


@dataclass(frozen=True)
class Card:
    """One figure of the summary."""

    title: str
    value: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """One image that was misclassified, or whose logits differ."""

    uri: str
    title: str
    label: int
    device: int
    host: int
    index: int
    ulp: int
    margin: str


def load_run(directory: Path) -> tuple[RunRecord, list[Sample]]:
    """Read a run's record and journal, and see that they belong together.

    Raises:
        DataError: one of them is missing or damaged, or they are of different runs.
    """
    files = RunDirectory(directory)
    record = read_record(files.record)
    samples = list(read_samples(files.samples))
    if len(samples) != record.dataset.measured:
        resumed = (
            f". If the run was resumed and broke off again: bitloop run --resume {directory}"
            if record.status != "complete"
            else ""
        )
        raise DataError(
            f"{files.samples} has {len(samples)} samples, {files.record.name} says {record.dataset.measured}: "
            f"they are not of one run{resumed}"
        )
    matching = sum(sample.match for sample in samples)
    if matching != record.exact.matching:
        raise DataError(
            f"{files.samples} has {matching} matching samples, {files.record.name} says {record.exact.matching}: "
            "they are not of one run"
        )
    return record, samples


def write_report(directory: Path) -> Path:
    """Make ``report.html`` of a run's directory from its record and journal, and return its path.

    Raises:
        DataError: as :func:`load_run`.
    """
    record, samples = load_run(directory)
    path = RunDirectory(directory).report
    write_file(path, render(record, samples).encode())
    return path


def render(record: RunRecord, samples: Sequence[Sample]) -> str:
    """Return the page of a run; all text from outside is escaped."""
    environment = page_environment()
    environment.filters.update(
        count=words.count,
        size=words.size,
        seconds=words.seconds,
        percent=words.percent,
        placement=words.placement,
        stack_words=words.stack,
        build_words=words.build,
        interruption=words.interruption,
        line=words.line,
    )
    ticks = np.array([sample.ticks for sample in samples], dtype=np.uint64)
    latency = record.latency
    histogram = layers = link = ""
    if latency is not None and len(ticks):
        shown = in_units(ticks, latency.units_per_tick)
        histogram = plots.latency_histogram(shown, unit=latency.unit, median=latency.median, p99=latency.p99)
        if latency.per_layer:
            layers = plots.layer_bars(latency.per_layer, unit=latency.unit)
    if record.link.share is not None:
        link = plots.link_bar(record.link.share)
    differing, wrong = _pictures(record, samples)
    return environment.get_template("report.html.j2").render(
        run=record,
        colour=_COLOURS.get(record.verdict, "warn"),
        cards=_cards(record),
        histogram=histogram,
        layers=layers,
        ram=plots.ram_bars(record.ram),
        link=link,
        confusion=_confusion(record),
        differing=differing,
        wrong=wrong,
        wrong_count=sum(sample.device != sample.label for sample in samples),
        provenance=_provenance(record),
        words=words,
        shown_interruptions=SHOWN_INTERRUPTIONS,
    )


def _no_bit_differs(run: RunRecord) -> str:
    exact = run.exact
    if exact.divergence is not None:
        return f"but layer {exact.divergence.layer} differs"
    images = "1 image" if exact.audited == 1 else f"{exact.audited:,} images"
    return f"no bit differs, nor in any layer of {images}" if exact.audited else "no bit differs"


def _cards(run: RunRecord) -> list[Card]:
    cards: list[Card] = []
    if run.accuracy is not None:
        device, host = run.accuracy.device, run.accuracy.host
        same = "the host simulation has the same" if device == host else f"host simulation {words.percent(host.value)}"
        cards.append(
            Card(
                "Accuracy on the device",
                words.percent(device.value, total=device.total),
                (f"95 % interval {words.interval(device)}, n = {device.total:,}", same),
            )
        )
    exact = f"{run.exact.matching:,} of {run.exact.total:,}"
    distance = _no_bit_differs(run) if run.exact.max_ulp == 0 else f"greatest distance {run.exact.max_ulp:,} ULP"
    cards.append(
        Card("Bit-identical logits", exact, (distance, f"{run.labels.agreeing:,} of {run.labels.total:,} labels agree"))
    )
    if run.latency is not None:
        overlapped = ("line and computing overlapped",) if run.latency.overlapped else ()
        cards.append(
            Card(
                "Latency, median",
                words.ticks(run.latency.median),
                (
                    run.latency.unit,
                    f"p99 {words.ticks(run.latency.p99)}, max {words.ticks(run.latency.max)}",
                    *overlapped,
                ),
            )
        )
    measured = "not measured" if run.ram.measured is None else f"measured {words.size(run.ram.measured)}"
    static = f"plus {words.size(run.ram.static)} of the firmware" if run.ram.static is not None else ""
    cards.append(
        Card("RAM, arena", words.size(run.ram.predicted), tuple(filter(None, (f"predicted; {measured}", static))))
    )
    ratio = run.sizes.fp32 / run.sizes.total if run.sizes.total else 0.0
    cards.append(
        Card(
            "Model size",
            words.size(run.sizes.total),
            (f"fp32 {words.size(run.sizes.fp32)}: {ratio:.1f}× smaller", "weights, biases and scales"),
        )
    )
    if run.link.images_per_second:
        cards.append(
            Card(
                "Streaming",
                f"{words.rate(run.link.images_per_second)} images/s",
                (
                    f"{words.size(run.link.stream_bytes_up)} up, {words.size(run.link.stream_bytes_down)} down",
                    f"{run.link.retransmissions:,} retransmissions",
                ),
            )
        )
    return cards


def _confusion(run: RunRecord) -> list[list[tuple[int, float]]]:
    """Return counts with their shade: share of the row, 0 to 1."""
    return [[(cell, cell / sum(row) if sum(row) else 0.0) for cell in row] for row in run.confusion or ()]


def _pictures(run: RunRecord, samples: Sequence[Sample]) -> tuple[list[Picture], list[Picture]]:
    """Return the first samples that differ between device and host, and the first that are misclassified."""
    differing = [sample for sample in samples if not sample.match][:SHOWN_SAMPLES]
    wrong = [sample for sample in samples if sample.match and sample.device != sample.label][:SHOWN_SAMPLES]
    return [_picture(run, s) for s in differing], [_picture(run, s) for s in wrong]


def _picture(run: RunRecord, sample: Sample) -> Picture:
    uri = "" if sample.pixels is None else data_uri(unpack_pixels(sample.pixels, run.dataset.image_shape))
    top = np.sort(logits_from_hex(sample.logits).astype(np.float64))
    margin = f"{top[-1] - top[-2]:.3g}" if len(top) > 1 and np.isfinite(top[-2:]).all() else "none"
    title = f"image {sample.index}: a {sample.label}, the device says {sample.device}, the host {sample.host}"
    return Picture(uri, title, sample.label, sample.device, sample.host, sample.index, sample.ulp, margin)


def _provenance(run: RunRecord) -> list[tuple[str, str]]:
    overrides = "".join(f", {text}" for text in run.model.overrides)
    rows = [
        ("Command", run.command or "–"),
        ("Started", f"{run.started}, took {words.seconds(run.seconds)}"),
        ("Model", f"{run.model.name}: weights {run.model.weights}, biases {run.model.biases}{overrides}"),
        ("Model SHA-256", run.model.sha256),
        ("Image SHA-256", run.image.sha256),
        ("Image SHA-256, by the device", run.image.device_sha256 or "–"),
        (
            "Data",
            f"{run.dataset.name}, {run.dataset.split}: {run.dataset.measured:,} of {run.dataset.requested:,} images",
        ),
        ("Data SHA-256", run.dataset.sha256),
        *([("Pixels", f"{run.dataset.pixel_bits} bits each, lossy")] if run.dataset.pixel_bits is not None else []),
        ("SHA-256 of the pixels sent", run.dataset.sent_sha256 or "–"),
        ("Device", f"{run.device.board} ({run.device.isa}) at {run.device.url}"),
        ("Device is", "simulated: no figure here is one of a chip" if run.simulated else "a chip"),
        *([("Emulated by", run.device.emulator)] if run.device.emulator else []),
        ("Device started", f"{run.device.boot_count:,} times; last because of: {run.device.reset_cause}"),
        ("Arithmetic probe", "; ".join(run.device.probe_failures) or "all cases right"),
        ("Firmware", f"{run.firmware.version}, protocol {run.firmware.protocol}"),
        ("Firmware SHA-256", run.firmware.hash or "–"),
        ("Software", f"bitloop {run.versions.bitloop}, Python {run.versions.python}, numpy {run.versions.numpy}"),
        ("Host", f"{run.host.system}, {run.host.machine}, {run.host.cpus} CPUs"),
    ]
    openings = [f"number {o.count} of {o.dataset}, {o.time}: {o.reason}" for o in run.vault]
    rows.append(("Test-set vault", "; ".join(openings) or "not opened"))
    return rows
