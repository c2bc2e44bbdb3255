"""Sweeps of a study: one over each network and seed, put together, and the smallest cell that holds for all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.data.dataset import Images
from bitloop.errors import UsageError
from bitloop.quantize.apply import quantize
from bitloop.quantize.spec import parse_tensor_spec
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.context import Context
from bitloop.study.experiment.file import SweepEntry
from bitloop.study.experiment.networks import Instance
from bitloop.study.experiment.tables import Table, Value, mean_sd, p_value, percent, points
from bitloop.study.grid import BASE, Cell, Grid, recipe_of
from bitloop.study.summary import Row
from bitloop.study.sweep import Sweep, SweepOptions, run_sweep

__all__ = ["Pooled", "SweepGroup", "Winner", "choices_of", "group_table", "matrix_tables", "run_group", "winner_table"]

_SHOWN = 40
"""Rows above which a table shows the best of each width alone; its CSV has all."""


@dataclass(frozen=True)
class Pooled:
    """A cell over all seeds of a network.

    Attributes:
        cell: its key.
        rows: one a seed, in the order of the seeds.
    """

    cell: str
    rows: tuple[Row, ...]

    @property
    def accuracies(self) -> list[float]:
        """One a seed."""
        return [row.accuracy.value for row in self.rows]

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return sum(row.comparison.loss for row in self.rows) / len(self.rows)

    @property
    def bound(self) -> float:
        """The greatest over the seeds."""
        return max(row.comparison.bound for row in self.rows)

    @property
    def total_bytes(self) -> int:
        """Weights, biases and scales; the same of all seeds."""
        return self.rows[0].total_bytes

    def order(self) -> tuple[int, float]:
        """Return what sorts cells: small before large, then accurate before less so."""
        return self.total_bytes, -sum(row.accuracy.correct for row in self.rows)


@dataclass(frozen=True, eq=False)
class Winner:
    """The smallest cell that holds, for one margin.

    Attributes:
        margin: in points.
        search: on the search split.
        confirm: on the confirm split; None where none of the candidates held there.
        tried: candidates that were looked at on the confirm split, this one included.
        admissible: cells that hold on the search split.
    """

    margin: float
    search: Pooled | None
    confirm: Pooled | None
    tried: int
    admissible: int


@dataclass(frozen=True, eq=False)
class SweepGroup:
    """A sweep over the seeds of one network, of one kind of tensors.

    Attributes:
        section: name of the sweep in the study.
        network: name of the network in the study.
        of: what was changed.
        instances: the seeds.
        search: one sweep a seed, on the search split.
        confirm: the same on the confirm split, of some cells or all; None where none were asked for.
        pooled: cells on the search split, the base first.
        winners: one a margin.
        others: spec of what was not swept.
    """

    section: str
    network: str
    of: str
    instances: tuple[Instance, ...]
    search: tuple[Sweep, ...]
    confirm: tuple[Sweep, ...] | None
    pooled: tuple[Pooled, ...]
    winners: tuple[Winner, ...]
    others: str


def run_group(entry: SweepEntry, of: str, instances: Sequence[Instance], context: Context) -> SweepGroup:
    """Sweep the seeds of a network, and confirm what was chosen.

    Candidates are the smallest cells whose loss is at most the margin with every seed on the search split. They are
    measured on the confirm split, and the smallest that holds there with every seed too wins.

    Args:
        entry: of the study's file.
        of: what is changed.
        instances: the seeds of one network.
        context: what the sections share.

    Raises:
        As :func:`bitloop.study.sweep.run_sweep`.
    """
    grid = entry.grid(of)
    swept = tuple(_sweep(entry, instance, context.search, grid, context) for instance in instances)
    pooled = pool(swept)
    candidates = {margin: admissible(pooled, margin) for margin in context.margins}
    confirmed: tuple[Sweep, ...] | None = None
    chosen = [cell for cells in candidates.values() for cell in cells[: entry.candidates]]
    if entry.confirm == "all" or (entry.confirm == "candidates" and chosen and not entry.per_layer):
        specs = tuple(sorted({cell.rows[0].spec for cell in chosen}))
        few = Grid(exponents=None, formats=specs, of=(of,), others=grid.others)
        what = grid if entry.confirm == "all" else few
        confirmed = tuple(_sweep(entry, instance, context.confirm, what, context) for instance in instances)
    looked_at = {} if confirmed is None else {cell.cell: cell for cell in pool(confirmed)}
    winners = tuple(
        _winner(margin, candidates[margin], looked_at, entry.candidates)
        for margin in context.margins
        if not entry.per_layer
    )
    return SweepGroup(
        section=entry.name,
        network=instances[0].name,
        of=of,
        instances=tuple(instances),
        search=swept,
        confirm=confirmed,
        pooled=pooled,
        winners=winners,
        others=grid.others,
    )


def _sweep(entry: SweepEntry, instance: Instance, images: Images, grid: Grid, context: Context) -> Sweep:
    where = f"{instance.label}-{grid.of[0]}-{images.split.value}"
    out = context.folder / "sweeps" / entry.name / where
    options = SweepOptions(processes=context.processes, margin=context.margins[0] / 100, command=context.command)

    def say(stage: str, done: int, total: int) -> None:
        context.step(f"{entry.name}: {where}, {stage}", done, total)

    return run_sweep(instance.network, images, grid, out, options=options, progress=say)


def pool(sweeps: Sequence[Sweep]) -> tuple[Pooled, ...]:
    """Return the cells that were measured with every seed, in the order of the grid.

    Raises:
        UsageError: a cell can be had with some seeds and not with others.
    """
    found = [{row.cell: row for row in sweep.rows} for sweep in sweeps]
    keys = [row.cell for row in sweeps[0].rows]
    for rows in found[1:]:
        if rows.keys() != found[0].keys():
            odd = sorted(rows.keys() ^ found[0].keys())[0]
            raise UsageError(f"cell {odd} can be had with some seeds and not with others; leave it out")
    return tuple(Pooled(key, tuple(rows[key] for rows in found)) for key in keys)


def admissible(pooled: Sequence[Pooled], margin: float) -> list[Pooled]:
    """Return the cells whose loss is at most the margin (in points) with every seed, the smallest first."""
    cells = [cell for cell in pooled if cell.cell != BASE.key and cell.bound <= margin / 100]
    return sorted(cells, key=Pooled.order)


def _winner(margin: float, cells: Sequence[Pooled], looked_at: dict[str, Pooled], most: int) -> Winner:
    tried = 0
    for cell in cells[:most]:
        there = looked_at.get(cell.cell)
        if there is None:
            continue
        tried += 1
        if there.bound <= margin / 100:
            return Winner(margin, cell, there, tried, len(cells))
    return Winner(margin, cells[0] if cells else None, None, tried, len(cells))


def choices_of(group: SweepGroup) -> list[Choice]:
    """Return what a group chose: a winner that was confirmed, with each seed."""
    found = []
    for winner in group.winners:
        if winner.confirm is None:
            continue
        row = winner.confirm.rows[0]
        recipe = recipe_of(Cell(row.of, row.layer, row.spec), group.others)
        for instance in group.instances:
            model = quantize(instance.network, recipe)
            found.append(Choice(group.section, winner.margin, instance, recipe, row.cell, model))
    return found


def group_table(group: SweepGroup) -> Table:
    """Return the cells of a group: of many, the best of each width."""
    shown = list(group.pooled)
    if len(shown) > _SHOWN:
        best: dict[float, Pooled] = {}
        for cell in shown[1:]:
            bits = cell.rows[0].bits
            if bits not in best or _worth(cell) > _worth(best[bits]):
                best[bits] = cell
        shown = [shown[0], *(best[bits] for bits in sorted(best))]
    count = len(group.instances)
    rows = []
    for cell in shown:
        row = cell.rows[0]
        base = cell.cell == BASE.key
        rows.append(
            (
                row.spec if row.layer is None else f"{row.layer}: {row.spec}",
                f"{row.bits:g}",
                f"{cell.total_bytes:,}",
                mean_sd(cell.accuracies),
                "" if base else points(cell.loss),
                "" if base else points(cell.bound),
                "" if base else " ".join(p_value(one.comparison.p) for one in cell.rows),
            )
        )
    raw = tuple(
        (
            instance.label,
            row.cell,
            row.layer,
            row.spec,
            row.bits,
            row.total_bytes,
            row.accuracy.total,
            row.accuracy.correct,
            row.accuracy.low,
            row.accuracy.high,
            row.cross_entropy,
            row.comparison.loss,
            row.comparison.bound,
            row.comparison.p,
        )
        for cell in group.pooled
        for instance, row in zip(group.instances, cell.rows, strict=True)
    )
    images = group.search[0].begun.asked
    what = f"{group.of} in one format, the rest in {group.others}"
    if group.of == "both":
        what = "weights and biases in one format"
    title = (
        f"{group.network}: {what}; {images.split} split, "
        f"{images.images:,} images, {count} {'seeds' if count > 1 else 'network'}"
    )
    hidden = len(group.pooled) - len(shown)
    return Table(
        name=f"{group.section}-{group.network}-{group.of}",
        title=title,
        columns=("format", "bits", "bytes", "accuracy", "loss", "at most", "McNemar p"),
        rows=tuple(rows),
        raw_columns=(
            *("network", "cell", "layer", "spec", "bits", "bytes", "images", "correct", "low", "high"),
            *("cross_entropy", "loss", "loss_bound", "mcnemar_p"),
        ),
        raw=raw,
        notes=(
            "Loss: points less than fp32, mean over the seeds; at most: the greatest of the seeds' upper one-sided "
            "95 % bounds (Tango); p: of each seed, a description.",
            *([f"The best of each width; {hidden:,} other cells are in the CSV."] if hidden else []),
        ),
    )


def winner_table(groups: Sequence[SweepGroup]) -> Table:
    """Return the winners of groups, one line a margin."""
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    for group in groups:
        base = group.pooled[0]
        for winner in group.winners:
            head = (group.network, group.of, f"{winner.margin:g}")
            if winner.search is None:
                rows.append((*head, "none", *[""] * 7))
                raw.append((group.network, group.of, winner.margin, *[None] * 9))
                continue
            cell, there = winner.search, winner.confirm
            rows.append(
                (
                    *head,
                    cell.rows[0].spec,
                    f"{cell.rows[0].bits:g}",
                    f"{cell.total_bytes:,}",
                    f"{base.total_bytes / cell.total_bytes:.1f}×",
                    mean_sd(cell.accuracies),
                    "–" if there is None else mean_sd(there.accuracies),
                    "–" if there is None else points(there.bound),
                    f"{'yes' if there else 'no'} ({winner.tried} of {winner.admissible:,})",
                )
            )
            raw.append(
                (
                    *(group.network, group.of, winner.margin, cell.rows[0].spec, cell.rows[0].bits, cell.total_bytes),
                    base.total_bytes / cell.total_bytes,
                    sum(cell.accuracies) / len(cell.accuracies),
                    None if there is None else sum(there.accuracies) / len(there.accuracies),
                    None if there is None else there.bound,
                    winner.tried,
                    winner.admissible,
                )
            )
    return Table(
        name=f"{groups[0].section}-winners",
        title=f"{groups[0].section}: the smallest that is not inferior with any seed",
        columns=(
            *("network", "changed", "margin", "format", "bits", "bytes", "smaller", "search", "confirm", "at most"),
            "confirmed",
        ),
        rows=tuple(rows),
        raw_columns=(
            *("network", "of", "margin", "spec", "bits", "bytes", "ratio", "search", "confirm", "confirm_bound"),
            *("tried", "admissible"),
        ),
        raw=tuple(raw),
        notes=(
            "At most: the greatest of the seeds' bounds of the loss on the confirm split, in points. Confirmed: how "
            "many candidates, the smallest first, were looked at there, of those admissible on the search split.",
        ),
    )


def matrix_tables(group: SweepGroup) -> list[Table]:
    """Return accuracies over format and pruning threshold, a table a rounding and scale; none without thresholds."""
    places: dict[str, dict[str, dict[float, Pooled]]] = {}
    for cell in group.pooled[1:]:
        spec = parse_tensor_spec(cell.rows[0].spec)
        besides = [part for part in str(spec).split(":")[1:] if not part.startswith("prune=")]
        kind = ", ".join(besides) or "no scale, nearest-even"
        places.setdefault(kind, {}).setdefault(spec.format.name, {})[spec.prune] = cell
    tables = []
    for number, (kind, formats) in enumerate(places.items(), start=1):
        thresholds = sorted({prune for cells in formats.values() for prune in cells})
        if len(thresholds) < 2:
            continue
        rows = tuple(
            (
                f"{name} ({cells[min(cells)].rows[0].bits:g} bits)",
                *(percent(_mean(cells[prune])) if prune in cells else "" for prune in thresholds),
            )
            for name, cells in formats.items()
        )
        raw = tuple((name, prune, _mean(cell)) for name, cells in formats.items() for prune, cell in cells.items())
        tables.append(
            Table(
                name=f"{group.section}-{group.network}-{group.of}-matrix{number}",
                title=f"{group.network}, {group.of}, {kind}: mean accuracy by threshold below which weights are zeroed",
                columns=("format", *(f"{prune:g}" for prune in thresholds)),
                rows=rows,
                raw_columns=("format", "threshold", "accuracy"),
                raw=raw,
            )
        )
    return tables


def _mean(cell: Pooled) -> float:
    return sum(cell.accuracies) / len(cell.accuracies)


def _worth(cell: Pooled) -> tuple[float, int]:
    return _mean(cell), -cell.total_bytes
