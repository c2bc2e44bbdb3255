"""A sweep: cells measured in parallel, kept as they are done, and put together at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from bitloop.bench.checks import check_fit
from bitloop.bench.files import write_file
from bitloop.bench.identity import host_identity, versions
from bitloop.bench.interrupt import InterruptGuard
from bitloop.bench.strict import plain
from bitloop.data.dataset import Dataset, Images
from bitloop.data.splits import Split
from bitloop.errors import DisagreementError, Interrupted, SealedSplitError, UsageError
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.study.device import DeviceCell, DeviceOptions, measure_on_device, read_device
from bitloop.study.evaluate import Evaluator, score
from bitloop.study.folder import Lines, SweepFolder
from bitloop.study.grid import BASE, UNQUANTIZED, Cell, Grid, base_recipe, recipe_of
from bitloop.study.results import SWEEP_VERSION, Asked, Begun, Outcome
from bitloop.study.statistics import MARGIN
from bitloop.study.summary import Row, best_per_width, cells_csv, row_document, rows_of, winner_of
from bitloop.study.workers import Job, measure_all

__all__ = ["SPLITS", "Progress", "Sweep", "SweepOptions", "run_sweep", "sweep_images"]

SPLITS = (Split.SEARCH.value, Split.CONFIRM.value)
CHECKED_IMAGES = 20
"""Images of every cell on which core and reference are compared."""
VERIFIED_IMAGES = 1_000
"""Images on which they are compared for the winner and for the network in binary32."""

Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """How a sweep is done.

    Attributes:
        checked_images: of each cell, computed again in full by reference and core.
        processes: how many measure; None is one a processor.
        margin: the loss of accuracy that is put up with, as a share.
        command: what started the sweep, for its record.
        device: where the cells are measured besides; None is nowhere.
    """

    checked_images: int = CHECKED_IMAGES
    processes: int | None = None
    margin: float = MARGIN
    command: str = ""
    device: DeviceOptions | None = None


@dataclass(frozen=True, eq=False)
class Sweep:
    """A sweep that is complete.

    Attributes:
        folder: where its files are.
        begun: how it was begun.
        outcomes: of all cells, by their key.
        rows: the cells that were measured; the first is the network in binary32.
        best: of each width.
        winner: the smallest cell that is not inferior, or None.
        margin: by which that was judged.
        verified: images on which core and reference agree bit for bit, by cell: the base's and the winner's.
        measured_now: cells that were not there before.
        device: of the cells that were measured on a device too, by their key; each agreed bit for bit, or was refused.
    """

    folder: SweepFolder
    begun: Begun
    outcomes: dict[str, Outcome]
    rows: list[Row]
    best: list[Row]
    winner: Row | None
    margin: float
    verified: dict[str, int]
    measured_now: int
    device: dict[str, DeviceCell]

    @property
    def refused(self) -> list[Outcome]:
        """Cells whose spec cannot be had."""
        return [outcome for outcome in self.outcomes.values() if outcome.measured is None]

    def document(self) -> dict[str, object]:
        """Return what came of it, as ``result.json`` holds it."""
        return {
            "version": SWEEP_VERSION,
            "asked": plain({**vars(self.begun.asked)}),
            "margin": self.margin,
            "fp32": row_document(self.rows[0]),
            "winner": None if self.winner is None else row_document(self.winner),
            "verified": self.verified,
            "best": [row_document(row) for row in self.best],
            "refused": {outcome.cell: outcome.refused for outcome in self.refused},
            "device": [vars(cell) for cell in self.device.values()],
        }


def sweep_images(dataset: Dataset, split: str, limit: int | None) -> Images:
    """Return the images of a split that a study may look at.

    Raises:
        SealedSplitError: the test split: nothing is chosen by looking at it.
        UsageError: another split that is not for choosing, or unknown.
        DataError: the limit is below 1.
    """
    if split == Split.TEST.value:
        raise SealedSplitError(
            "the test split is sealed, and no study reaches it: choose on 'search', confirm on 'confirm', and run what "
            "was chosen once with bitloop run --split test"
        )
    if split not in SPLITS:
        raise UsageError(f"a study runs on one of the splits {', '.join(SPLITS)}, not on {split!r}")
    images = dataset.split(Split(split))
    return images if limit is None else images.first(limit)


def run_sweep(
    network: Network,
    images: Images,
    grid: Grid,
    out: Path,
    *,
    options: SweepOptions | None = None,
    progress: Progress | None = None,
) -> Sweep:
    """Measure the cells of a grid, or those that are not in the folder yet, and say what they show.

    Args:
        network: what is swept.
        images: of the search or confirm split.
        grid: the cells.
        out: the folder; one that holds the same sweep is gone on with.
        options: how it is done.
        progress: called with a stage, how much of it is done, and how much there is.

    Raises:
        UsageError: an option makes no sense, the folder holds another sweep, or cannot be written.
        SealedSplitError: the images are of the test split.
        NetworkError, FormatError: network, images and grid do not go together.
        DisagreementError: core and reference differ, or a device and the host.
        LinkError, DeviceError: the device could not be reached, or was lost; all cells of the host are kept.
        WorkerError: a process crashed.
        Interrupted: Ctrl-C; the cells done are kept.
    """
    options = options or SweepOptions()
    if images.split.value not in SPLITS:
        raise SealedSplitError(f"a sweep runs on {' or '.join(SPLITS)}, not on the {images.split.value} split")
    if not 0.0 < options.margin < 1.0 or options.checked_images < 0:
        raise UsageError("a margin lies between 0 and 1, and the number of images to check is not negative")
    base = quantize(network, base_recipe(UNQUANTIZED))
    check_fit(base, images)
    cells = grid.cells(network)
    folder = SweepFolder(out)
    asked = Asked(
        network=network.name,
        network_sha256=base.sha256,
        dataset=images.dataset,
        dataset_sha256=images.sha256,
        split=images.split.value,
        images=len(images),
        checked=min(options.checked_images, len(images)),
        others=grid.others,
        cells=tuple(cell.key for cell in cells),
    )
    work = _Work(network, images, cells, grid.others, folder, progress)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with folder.locked():
        begun = folder.begin(Begun(SWEEP_VERSION, started, options.command, asked, versions(), host_identity()))
        outcomes = folder.read_cells(begun)
        before = len(outcomes)
        _measure(work, outcomes, options)
        rows = rows_of(begun, outcomes)
        winner = winner_of(rows, options.margin)
        sweep = Sweep(
            folder=folder,
            begun=begun,
            outcomes={key: outcomes[key] for key in begun.asked.cells},
            rows=rows,
            best=best_per_width(rows),
            winner=winner,
            margin=options.margin,
            verified=_verify(work, outcomes, winner),
            measured_now=len(outcomes) - before,
            device=read_device(folder.device, begun.asked.cells, None, DeviceCell),
        )
        _write(sweep)  # before the device is asked: what may go wrong there takes nothing of this with it
        if options.device is not None:
            sweep = replace(sweep, device=_on_device(work, sweep, options.device))
            _write(sweep)
    return sweep


def _write(sweep: Sweep) -> None:
    """Write what came of a sweep, as a table and as JSON."""
    table = cells_csv(sweep.begun, sweep.outcomes, sweep.rows, sweep.device)
    write_file(sweep.folder.table, table.encode())
    text = json.dumps(sweep.document(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(sweep.folder.result, f"{text}\n".encode())


@dataclass(frozen=True, eq=False)
class _Work:
    """What the steps of a sweep share."""

    network: Network
    images: Images
    cells: list[Cell]
    others: str
    folder: SweepFolder
    progress: Progress | None

    def step(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)


def _measure(work: _Work, outcomes: dict[str, Outcome], options: SweepOptions) -> None:
    """Measure the cells that are missing, and keep each at once."""
    left = [cell for cell in work.cells if cell.key not in outcomes]
    if not left:
        return
    processes = max(1, options.processes or os.cpu_count() or 1)
    layers = len({cell.layer for cell in left})
    job = Job(
        architecture=work.network.architecture.to_dict(),
        parameters=dict(work.network.parameters),
        dataset=work.network.dataset,
        pixels=work.images.pixels,
        labels=work.images.labels,
        others=work.others,
        checked=options.checked_images,
        uses=len(left) // (layers * processes),
    )
    try:
        with Lines(work.folder.cells) as lines, InterruptGuard() as guard:
            for outcome in measure_all(job, left, processes=processes):
                with guard.held():
                    lines.append(outcome)
                    outcomes[outcome.cell] = outcome
                work.step("cells", len(outcomes), len(work.cells))
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted after {len(outcomes):,} of {len(work.cells):,} cells; they are in {work.folder.path}, and "
            "the same command goes on with the rest"
        ) from error


def _verify(work: _Work, outcomes: dict[str, Outcome], winner: Row | None) -> dict[str, int]:
    """Hold core and reference together on many images for the two cells that everything is said of."""
    part = work.images.first(VERIFIED_IMAGES)
    evaluator = Evaluator(quantize(work.network, base_recipe(work.others)), part.pixels)
    verified: dict[str, int] = {}
    chosen = [cell for cell in work.cells if cell == BASE or (winner is not None and cell.key == winner.cell)]
    for number, cell in enumerate(chosen, start=1):
        model = quantize(work.network, recipe_of(cell, work.others))
        worth = score(evaluator.logits(model), part.labels)
        verified[cell.key] = evaluator.check(model, worth, len(part))
        measured = outcomes[cell.key].measured
        if measured is None or (measured.right_images(len(work.images))[: len(part)] != worth.right).any():
            raise DisagreementError(
                f"cell {cell.key}: measured again, other images are labelled right; its line was changed, or this "
                "machine computes wrongly: begin the sweep anew in another folder"
            )
        work.step("verify", number, len(chosen))
    return verified


def _on_device(work: _Work, sweep: Sweep, options: DeviceOptions) -> dict[str, DeviceCell]:
    """Measure the cells that a device has not run yet, and keep each at once."""
    keys, path = sweep.begun.asked.cells, sweep.folder.device
    part = work.images.first(options.images)
    found = read_device(path, keys, len(part), DeviceCell)
    left = [cell for cell in work.cells if cell.key not in found and sweep.outcomes[cell.key].measured is not None]
    if left:
        with Lines(path) as lines:
            measured = measure_on_device(
                work.network, part, left, work.others, options, earlier=dict(found), progress=work.progress
            )
            for line in measured:
                lines.append(line)
                found[line.cell] = line
    return {key: found[key] for key in keys if key in found}
