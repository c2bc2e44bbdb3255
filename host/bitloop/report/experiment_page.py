"""The page of a study as one HTML file without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.bench.metrics import Proportion
from bitloop.report import study_plots, words
from bitloop.report.environment import page_environment
from bitloop.report.page import Card
from bitloop.study.experiment.experiment import Study
from bitloop.study.experiment.sweeps import Pooled, SweepGroup
from bitloop.study.experiment.tables import Table
from bitloop.study.grid import BASE, grid_position
from bitloop.study.summary import Row

__all__ = ["render_study", "study_headline", "write_study_page"]

_SMALLEST_HEATMAP = 4


@dataclass(frozen=True)
class Part:
    """A table of the page, with drawings above it."""

    table: Table
    drawings: tuple[tuple[str, str], ...] = ()


def write_study_page(study: Study) -> Path:
    """Write ``study.html`` into the folder of a study, and return its path.

    Raises:
        UsageError: it cannot be written.
    """
    path = study.folder / "study.html"
    write_file(path, render_study(study).encode())
    return path


def study_headline(study: Study) -> str:
    """Return in one sentence the smallest that a sweep or search of the study found."""
    confirmed = [
        (winner.confirm.total_bytes, group.pooled[0].total_bytes, winner.confirm.rows[0].cell, group.network)
        for group in study.groups
        for winner in group.winners
        if winner.margin == study.file.margins[0] and winner.confirm is not None
    ]
    if not confirmed:
        return study.file.title
    size, whole, cell, network = max(confirmed, key=lambda found: found[1] / found[0])
    return (
        f"{network} in {cell}: {words.size(size)} ({whole / size:.1f}× smaller) within {study.file.margins[0]:g} points"
    )


def render_study(study: Study) -> str:
    """Return the page of a study; all text from outside is escaped."""
    drawings = _drawings(study)
    return (
        page_environment()
        .get_template("study.html.j2")
        .render(
            title=study.file.title,
            question=study.file.question,
            headline=study_headline(study),
            cards=_cards(study),
            parts=[Part(table, tuple(drawings.get(table.name, ()))) for table in study.tables],
            provenance=_provenance(study),
            words=words,
        )
    )


def _cards(study: Study) -> list[Card]:
    trained = [one for one in study.instances if one.seed is not None]
    kinds = {one.record.simulated for one in study.on_devices if one.record is not None}
    exact = sum(one.record.exact.matching for one in study.on_devices if one.record is not None)
    cards = [
        Card("Networks", words.count(len(study.instances)), (f"{len(trained):,} trained here",)),
        Card(
            "Choices",
            words.count(len({choice.model.sha256 for choice in study.choices})),
            ("formats that were confirmed, or declared, with each seed",),
        ),
        Card(
            "Test set",
            words.count(len(study.tested)) if study.tested else "sealed",
            ("MODELs measured once, registered before" if study.tested else "nothing of this study saw it",),
        ),
    ]
    if study.on_devices:
        names = [name for simulated, name in ((False, "chips"), (True, "simulated devices")) if simulated in kinds]
        notes = ("bit-identical to the host", " and ".join(names) or "no device")
        cards.append(Card("On devices", f"{words.count(exact)} images", notes))
    return cards


def _drawings(study: Study) -> dict[str, list[tuple[str, str]]]:
    """Return titles and drawings by the name of the table they stand above: what a network's sweeps share, first."""
    found: dict[str, list[tuple[str, str]]] = {}
    margin = study.file.margins[0] / 100
    together: dict[tuple[str, str], list[SweepGroup]] = {}
    for group in study.groups:
        together.setdefault((group.section, group.network), []).append(group)
    for number, groups in enumerate(together.values(), start=1):
        layered = groups[0].pooled[1].rows[0].layer is not None
        if not layered:
            found[_table_name(groups[0])] = _heatmaps(groups, margin, number)
        for group in groups:
            rows = [_mean_row(cell) for cell in group.pooled]
            drawn = found.setdefault(_table_name(group), [])
            name = f"{number}-{group.of}"
            if layered:
                drawn.append(("One layer at a time", study_plots.sensitivity(rows[1:], name=f"sensitivity{name}")))
            elif group.of != "biases":  # biases are so few that all their formats are of one size
                drawing = study_plots.pareto(rows[1:], rows[0], margin=margin, name=f"pareto{name}")
                drawn.append(("Bytes against accuracy", drawing))
    return found


def _table_name(group: SweepGroup) -> str:
    return f"{group.section}-{group.network}-{group.of}"


def _heatmaps(groups: Sequence[SweepGroup], margin: float, number: int) -> list[tuple[str, str]]:
    """Return a heatmap for all that is asked for besides the bits, weights and biases side by side."""
    panels: dict[str, dict[str, list[Row]]] = {}
    for group in groups:
        for cell in group.pooled[1:]:
            row = _mean_row(cell)
            place = grid_position(row.spec)
            if place is not None and "prune" not in place[2]:
                panels.setdefault(place[2], {}).setdefault(group.of, []).append(row)
    found = []
    for place_number, (besides, cells) in enumerate(panels.items()):
        if max(len(rows) for rows in cells.values()) >= _SMALLEST_HEATMAP:
            title = besides or "no scale, nearest"
            name = f"heatmap{number}-{place_number}"
            found.append((title, study_plots.heatmap(cells, margin=margin, name=name, title=title)))
    return found


def _mean_row(cell: Pooled) -> Row:
    """Return a cell over its seeds as one row, for a drawing: mean accuracy and loss, and the greatest bound."""
    count, row = len(cell.rows), cell.rows[0]
    if count == 1:
        return row
    accuracy = Proportion(
        correct=round(sum(one.accuracy.correct for one in cell.rows) / count),
        total=row.accuracy.total,
        value=sum(one.accuracy.value for one in cell.rows) / count,
        low=sum(one.accuracy.low for one in cell.rows) / count,
        high=sum(one.accuracy.high for one in cell.rows) / count,
    )
    comparison = replace(row.comparison, loss=0.0 if cell.cell == BASE.key else cell.loss, bound=cell.bound)
    return replace(row, accuracy=accuracy, comparison=comparison)


def _provenance(study: Study) -> list[tuple[str, str]]:
    return [
        ("File", study.file.path),
        ("SHA-256", study.file.sha256),
        ("Margins", ", ".join(f"{margin:g}" for margin in study.file.margins) + " points"),
        *(
            (f"Network {one.label}", str(one.network.metadata.get("command", "there before")))
            for one in study.instances
        ),
    ]
