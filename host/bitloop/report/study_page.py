"""The page of a sweep as one HTML file without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.report import study_plots, words
from bitloop.report.environment import page_environment
from bitloop.report.page import Card
from bitloop.report.provenance import provenance_of
from bitloop.study.grid import BASE, grid_position
from bitloop.study.summary import Row
from bitloop.study.sweep import Sweep

__all__ = ["render_sweep", "sweep_headline", "write_sweep_page"]


def write_sweep_page(sweep: Sweep) -> Path:
    """Write ``sweep.html`` into the folder of a sweep, and return its path.

    Raises:
        UsageError: it cannot be written.
    """
    write_file(sweep.folder.page, render_sweep(sweep).encode())
    return sweep.folder.page


def sweep_headline(sweep: Sweep) -> str:
    """Return in one sentence what a sweep showed."""
    points = f"{100 * sweep.margin:g} points"
    if sweep.winner is None:
        return f"No cell is within {points} of fp32 with 95 % confidence"
    ratio = sweep.rows[0].total_bytes / sweep.winner.total_bytes
    return (
        f"Smallest within {points} of fp32: {sweep.winner.cell}, {words.size(sweep.winner.total_bytes)} "
        f"({ratio:.1f}× smaller)"
    )


def render_sweep(sweep: Sweep) -> str:
    """Return the page of a sweep; all text from outside is escaped."""
    base, cells = sweep.rows[0], [row for row in sweep.rows if row.of != BASE.of]
    layers = [row for row in cells if row.layer is not None]
    return (
        page_environment()
        .get_template("sweep.html.j2")
        .render(
            asked=sweep.begun.asked,
            headline=sweep_headline(sweep),
            colour="warn" if sweep.winner is None else "good",
            points=f"{100 * sweep.margin:g}",
            cards=_cards(sweep),
            heatmaps=_heatmaps(sweep, cells),
            pareto=study_plots.pareto(cells, base, margin=sweep.margin) if cells else "",
            sensitivity=study_plots.sensitivity(layers) if layers else "",
            best=[base, *sweep.best],
            rows=sweep.rows,
            refused=sweep.refused,
            device=list(sweep.device.values()),
            unit=next((cell.latency_unit for cell in sweep.device.values() if cell.latency_unit), ""),
            provenance=_provenance(sweep),
            words=words,
        )
    )


def _heatmaps(sweep: Sweep, cells: Sequence[Row]) -> list[tuple[str, str]]:
    """Return title and drawing for each layer (or all) and what is asked for besides, weights and biases in one."""
    groups: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in cells:
        place = grid_position(row.spec)
        if place is not None:
            groups.setdefault((row.layer or "", place[2]), {}).setdefault(row.of, []).append(row)
    found = []
    for number, ((layer, besides), panels) in enumerate(groups.items(), start=1):
        if max(len(rows) for rows in panels.values()) < 4:
            continue  # a table says as much
        title = ", ".join(filter(None, (layer and f"layer {layer}", besides or "no scale, nearest")))
        drawing = study_plots.heatmap(panels, margin=sweep.margin, name=f"heatmap{number}", title=title)
        found.append((title, drawing))
    return found


def _cards(sweep: Sweep) -> list[Card]:
    base, winner, asked = sweep.rows[0], sweep.winner, sweep.begun.asked
    total = base.accuracy.total
    cards = [
        Card(
            "Accuracy in fp32",
            words.percent(base.accuracy.value, total=total),
            (f"95 % interval {words.interval(base.accuracy)}, n = {total:,}", words.size(base.total_bytes)),
        )
    ]
    if winner is not None:
        comparison = winner.comparison
        cards.append(
            Card(
                f"Winner: {winner.cell}",
                words.percent(winner.accuracy.value, total=total),
                (
                    f"95 % interval {words.interval(winner.accuracy)}",
                    f"loses {100 * comparison.loss:+.2f} points, at most {100 * comparison.bound:+.2f} (95 %)",
                    f"right in fp32 only: {comparison.only_reference:,}, in this only: {comparison.only_candidate:,}",
                ),
            )
        )
    verified = ", ".join(f"{cell}: {count:,} images" for cell, count in sweep.verified.items())
    refused = f"{len(sweep.refused):,} cannot be had" if sweep.refused else "none refused"
    cards += [
        Card("Cells", f"{len(asked.cells) - 1:,}", (f"on {asked.images:,} images of {asked.split}", refused)),
        Card("Core and reference", "bit-identical", (verified, f"every cell: {asked.checked:,} images")),
    ]
    ran = [cell for cell in sweep.device.values() if cell.refused is None]
    if ran:
        simulated = "simulated device" if ran[0].simulated else "a chip"
        cards.append(
            Card(
                f"On {ran[0].board}",
                f"{len(ran):,} cells exact",
                (f"{ran[0].images:,} images each, bit-identical to the host", simulated),
            )
        )
    return cards


def _provenance(sweep: Sweep) -> list[tuple[str, str]]:
    begun, asked = sweep.begun, sweep.begun.asked
    what = [
        ("Network", f"{asked.network}; what is not swept: {asked.others}"),
        ("Network SHA-256", asked.network_sha256),
        ("Data", f"{asked.dataset}, {asked.split}: {asked.images:,} images; the test split is sealed"),
        ("Data SHA-256", asked.dataset_sha256),
    ]
    return provenance_of(begun, what)
