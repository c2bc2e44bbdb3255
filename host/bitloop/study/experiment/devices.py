"""What a study chose, on devices: each run is one of ``bitloop run``, and each logit must be the host's."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitloop.bench.files import RunDirectory
from bitloop.bench.options import RunOptions
from bitloop.bench.record import RunRecord, read_record
from bitloop.bench.run import run
from bitloop.data.dataset import Images
from bitloop.data.vault import Opening
from bitloop.errors import DataError, DisagreementError, DoesNotFitError, LinkError, UsageError
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.context import Context
from bitloop.study.experiment.file import Device
from bitloop.study.experiment.tables import Table, Value

__all__ = ["OnDevice", "device_table", "run_on_device"]


@dataclass(frozen=True, eq=False)
class OnDevice:
    """A choice on a device.

    Attributes:
        device: of the study's file.
        choice: what was run.
        record: of the run; None where it was refused.
        refused: why it does not fit; None if it does.
    """

    device: Device
    choice: Choice
    record: RunRecord | None
    refused: str | None


def run_on_device(
    device: Device,
    choices: Sequence[Choice],
    images: Callable[[], Images],
    openings: Callable[[], tuple[Opening, ...]],
    context: Context,
) -> list[OnDevice]:
    """Run choices on a device; those that were run before, exactly, are not run again.

    Args:
        device: which one.
        choices: of all sections.
        images: gives those of the device's split; called only if something is run.
        openings: gives the vault's openings for the records, after ``images``; none of an open split.
        context: what the sections share.

    Raises:
        UsageError: the split has fewer images than the device shall run.
        DisagreementError: a logit of the device is not the host's.
        LinkError, DeviceError: the device could not be reached, or was lost.
    """
    first: dict[str, str] = {}
    for choice in choices:
        first.setdefault(choice.instance.name, choice.instance.label)
    chosen = {
        choice.model.sha256: choice
        for choice in reversed(choices)
        if (not device.sections or choice.section in device.sections)
        and (not device.first_seed or choice.instance.label == first[choice.instance.name])
    }
    found = []
    slug = re.sub(r"[^a-zA-Z0-9]+", "-", device.url).strip("-")
    for number, choice in enumerate(reversed(chosen.values()), start=1):
        directory = context.folder / "devices" / f"{slug}-{device.split}" / choice.key
        record = _earlier(directory, choice, device)
        refused = None
        if record is None:
            part = images().first(device.images)
            if len(part) < device.images:
                raise UsageError(
                    f"{device.url} shall run {device.images:,} images, but {device.split} has {len(part):,} here"
                )
            options = RunOptions(force=True, command=context.command)
            try:
                record = run(choice.model, device.url, part, out_dir=directory, options=options, vault=openings())
            except DoesNotFitError as error:
                refused = str(error)
        if record is not None:
            _raise_unless_exact(record, choice, device)
        found.append(OnDevice(device, choice, record, refused))
        context.step(device.url, number, len(chosen))
    return found


def device_table(found: Sequence[OnDevice]) -> Table:
    """Return a line a run."""
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    for one in found:
        choice, record = one.choice, one.record
        head = (one.device.url, choice.section, choice.instance.label, choice.words)
        if record is None:
            rows.append((*head, one.refused or "", *[""] * 5))
            raw.append((*head, choice.model.sha256, one.device.split, *[None] * 8, one.refused))
            continue
        latency, ram = record.latency, record.ram
        rows.append(
            (
                *head,
                f"{record.exact.matching:,} of {record.exact.total:,} exact",
                "–" if latency is None else f"{latency.median:,.0f} {latency.unit}",
                f"{ram.predicted:,}",
                "–" if ram.measured is None else f"{ram.measured:,}",
                record.placement.kind,
                "simulated" if record.simulated else "chip",
            )
        )
        raw.append(
            (
                *(*head, choice.model.sha256, one.device.split, record.exact.total, record.exact.matching),
                *((None, None) if latency is None else (latency.median, latency.unit)),
                *(ram.predicted, ram.measured, record.placement.kind, int(record.simulated), None),
            )
        )
    return Table(
        name="devices",
        title="On devices: every logit compared with the host's, bit for bit",
        columns=(
            *("device", "section", "network", "formats", "logits", "median latency", "arena", "written", "weights"),
            "is",
        ),
        rows=tuple(rows),
        raw_columns=(
            *("device", "section", "network", "formats", "model_sha256", "split", "images", "exact"),
            *(
                "latency_median",
                "latency_unit",
                "arena_predicted",
                "arena_written",
                "placement",
                "simulated",
                "refused",
            ),
        ),
        raw=tuple(raw),
        notes=("Arena: bytes planned for it, and the highest byte of it that was written, where the device tells.",),
    )


def _earlier(directory: Path, choice: Choice, device: Device) -> RunRecord | None:
    """Return the record of a run that need not be repeated."""
    path = RunDirectory(directory).record
    if not path.exists():
        return None
    try:
        record = read_record(path)
    except DataError:
        return None
    there = record.model.sha256, record.dataset.split, record.dataset.requested, record.status, record.verdict
    wanted = choice.model.sha256, device.split, device.images, "complete", "exact"
    return record if there == wanted else None


def _raise_unless_exact(record: RunRecord, choice: Choice, device: Device) -> None:
    if record.verdict == "disagree":
        raise DisagreementError(f"{choice.key} on {device.url}: {record.headline}")
    if record.verdict != "exact":
        raise LinkError(f"{choice.key} on {device.url}: {record.headline}; the same command goes on with the rest")
