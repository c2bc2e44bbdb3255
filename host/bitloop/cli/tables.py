"""Tables that several commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bitloop.cli import console
from bitloop.report import words

if TYPE_CHECKING:
    from bitloop.bench.record import RunRecord
    from bitloop.quantize.model import Model

__all__ = ["model_document", "print_model", "print_record", "summary_rows"]


SHOWN = 5
"""Interruptions that a table lists."""


def summary_rows(record: RunRecord) -> list[tuple[str, str]]:
    """Return the figures of a run, each with a name."""
    formats = [f"weights {record.model.weights}", f"biases {record.model.biases}", *record.model.overrides]
    rows = [
        ("model", f"{record.model.name}: {', '.join(formats)}"),
        ("device", f"{record.device.board}{' (simulated)' if record.simulated else ''} at {record.device.url}"),
        ("data", f"{record.dataset.name} {record.dataset.split}, {record.dataset.measured:,} images"),
    ]
    if record.dataset.pixel_bits is not None:
        rows.append(("pixels", f"of {record.dataset.pixel_bits} bits, on the device and in the host simulation"))
    rows += [("interrupted", words.interruption(interruption)) for interruption in record.interruptions[:SHOWN]]
    if len(record.interruptions) > SHOWN:
        rows.append(("interrupted", f"{len(record.interruptions) - SHOWN:,} times more: run.json lists them"))
    rows += [("vault", f"opening number {opening.count}: {opening.reason}") for opening in record.vault]
    if record.accuracy is not None:
        for name, side in (("accuracy, device", record.accuracy.device), ("accuracy, host", record.accuracy.host)):
            rows.append(
                (name, f"{words.percent(side.value, total=side.total)}  ({words.interval(side)}, n = {side.total:,})")
            )
    labels = record.labels
    rows.append(("labels agreeing", f"{labels.agreeing:,} of {labels.total:,}"))
    rows.append(("logits identical", f"{record.exact.matching:,} of {record.exact.total:,}"))
    if record.latency is not None:
        latency = record.latency
        marked = ", line and computing overlapped" if latency.overlapped else ""
        figures = (
            f"median {words.ticks(latency.median)}, p99 {words.ticks(latency.p99)}, max {words.ticks(latency.max)}"
        )
        rows.append(("latency", f"{figures} {latency.unit}{marked}"))
    rows.append(("weights", words.placement(record.placement)))
    ram = record.ram
    measured = "not measured" if ram.measured is None else f"measured {ram.measured:,} B"
    static = "" if ram.static is None else f"; static {ram.static:,} B"
    rows.append(("RAM, arena", f"predicted {ram.predicted:,} B, {measured}{static}"))
    rows.append(("RAM, stack", words.stack(ram)))
    rows.append(("RAM, by the build", words.build(ram)))
    sizes = record.sizes
    rows.append(
        (
            "size",
            f"{sizes.total:,} B (weights {sizes.weights:,}, biases {sizes.biases:,}, scales {sizes.scales:,}); "
            f"fp32 {sizes.fp32:,} B",
        )
    )
    link = record.link
    rate = "" if not link.images_per_second else f", {words.rate(link.images_per_second)} images/s"
    rows.append(
        (
            "link",
            f"{link.stream_bytes_up:,} B up, {link.stream_bytes_down:,} B down in {words.seconds(link.seconds)}{rate}, "
            f"{link.retransmissions:,} retransmissions",
        )
    )
    if words.line(link):
        rows.append(("on the line", words.line(link)))
    return rows


def print_record(record: RunRecord) -> None:
    """Print a run: the verdict first, then its figures."""
    style = {"exact": "bold green", "interrupted": "bold yellow"}.get(record.verdict, "bold red")
    console.print_text(record.headline, style=style)
    console.print_table("", ("", ""), summary_rows(record))


def model_document(model: Model) -> dict[str, object]:
    """Return what is known of a MODEL, for programs."""
    from dataclasses import asdict  # noqa: PLC0415 - beside the rest

    from bitloop.bench.identity import model_identity, sizes_of  # noqa: PLC0415 - numpy

    return {
        **asdict(model_identity(model)),
        "dataset": model.dataset,
        "layers": model.architecture.to_dict()["layers"],
        "multiplications": model.architecture.macs(),
        "sizes": asdict(sizes_of(model)),
    }


def print_model(model: Model, title: str) -> None:
    """Print a MODEL's tensors, sizes and hash."""
    from bitloop.bench.identity import sizes_of  # noqa: PLC0415 - numpy

    sizes = sizes_of(model)
    rows = [
        (
            tensor.name,
            tensor.spec,
            " × ".join(str(length) for length in tensor.shape),
            f"{tensor.elements:,}",
            f"{tensor.codes:,}",
            f"{tensor.scales:,}",
            f"{tensor.fp32:,}",
        )
        for tensor in sizes.tensors
    ]
    elements = sum(tensor.elements for tensor in sizes.tensors)
    rows.append(
        ("in all", "", "", f"{elements:,}", f"{sizes.weights + sizes.biases:,}", f"{sizes.scales:,}", f"{sizes.fp32:,}")
    )
    columns = ("tensor", "format", "shape", "elements", "codes", "scales", "fp32")
    console.print_table(f"{title}; sizes in bytes", columns, rows, right=(3, 4, 5, 6))
    smaller = f", {sizes.fp32 / sizes.total:.1f}× smaller than fp32" if sizes.total else ""
    console.print_text(f"{sizes.total:,} bytes of weights, biases and scales{smaller}")
    console.print_text(f"SHA-256 {model.sha256}")
