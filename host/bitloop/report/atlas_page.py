"""The page of an atlas as one HTML file without anything from outside."""

from __future__ import annotations

from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.report import atlas_plots, words
from bitloop.report.environment import page_environment
from bitloop.report.page import Card
from bitloop.report.provenance import provenance_of
from bitloop.study.atlas import Atlas
from bitloop.study.atlas_results import BASE_KEY, AtlasAsked
from bitloop.study.atlas_summary import AtlasRow

__all__ = [
    "atlas_headline",
    "change_words",
    "device_headline",
    "device_words",
    "p_words",
    "render_atlas",
    "struck_words",
    "write_atlas_page",
]

SHOWN_ROWS = 20
"""Points of the first table; all of them are in the second."""


def write_atlas_page(atlas: Atlas) -> Path:
    """Write ``atlas.html`` into the folder of an atlas, and return its path.

    Raises:
        UsageError: it cannot be written.
    """
    write_file(atlas.folder.page, render_atlas(atlas).encode())
    return atlas.folder.page


def atlas_headline(atlas: Atlas) -> str:
    """Return in one sentence what an atlas showed."""
    costly = next((row for row in atlas.ranking if row.changed), None)
    if costly is None:
        return "No bit of this model can be flipped"
    free = sum(1 for row in atlas.rows if row.changed and row.comparison.loss <= 0)
    return (
        f"Costliest bit: {costly.name}, {100 * costly.comparison.loss:.1f} points; "
        f"{free:,} of {len(atlas.rows):,} positions cost nothing"
    )


def device_headline(atlas: Atlas) -> str:
    """Return in one sentence what a device did; "" where none was asked."""
    lines = list(atlas.device.values())
    if not lines:
        return ""
    ran = [line for line in lines if line.refused is None]
    sent = sum(line.upload_line_bytes or 0 for line in ran)
    copied = sum(line.copied_bytes or 0 for line in ran)
    refused = f", {len(lines) - len(ran):,} do not fit" if len(ran) < len(lines) else ""
    return (
        f"{len(ran):,} models bit-identical on {lines[0].board}{' (simulated)' if lines[0].simulated else ''}, "
        f"{lines[0].images:,} images each{refused}; {words.size(sent)} on the line to change them, "
        f"{words.size(copied)} taken over from the model before"
    )


def struck_words(asked: AtlasAsked) -> str:
    """Say which codes are flipped at a point."""
    if asked.share == 1.0:
        return "all codes of a tensor flipped"
    return f"{100 * asked.share:g} % of a tensor's codes flipped (seed {asked.seed})"


def change_words(value: float | None) -> str:
    """Return a mean change in few digits; a dash where there is none."""
    return "–" if value is None else f"{value:.3g}"


def p_words(p: float) -> str:
    """Return the p of a test in few digits."""
    return "<1e-99" if p < 1e-99 else f"{p:.2g}"


def device_words(atlas: Atlas, row: AtlasRow) -> str:
    """Return the accuracy that a device has at a point; of one that the flip does not change, that without it."""
    line = atlas.device.get(row.key if row.changed else BASE_KEY)
    if line is None:
        return "–"
    return "refused" if line.correct is None else words.percent(line.correct / line.images, total=line.images)


def render_atlas(atlas: Atlas) -> str:
    """Return the page of an atlas; all text from outside is escaped."""
    asked = atlas.begun.asked
    return (
        page_environment()
        .get_template("atlas.html.j2")
        .render(
            atlas=atlas,
            asked=asked,
            headline=atlas_headline(atlas),
            device=device_headline(atlas),
            device_base=atlas.device.get(BASE_KEY),
            simulated=any(line.simulated for line in atlas.device.values()),
            struck=struck_words(asked),
            cards=_cards(atlas),
            drawings=_drawings(atlas),
            shown=atlas.ranking[:SHOWN_ROWS],
            refused=sorted({line.refused for line in atlas.device.values() if line.refused is not None}),
            provenance=_provenance(atlas),
            change_words=change_words,
            p_words=p_words,
            device_words=lambda row: device_words(atlas, row),
            words=words,
        )
    )


def _drawings(atlas: Atlas) -> list[tuple[str, str, str]]:
    """Return format, heatmap and plot for the tensors of each format."""
    formats: dict[str, list[AtlasRow]] = {}
    for row in atlas.rows:
        formats.setdefault(row.format, []).append(row)
    return [
        (
            name,
            atlas_plots.atlas_heatmap(rows, name=f"heatmap{number}"),
            atlas_plots.error_by_bit(rows, name=f"bits{number}"),
        )
        for number, (name, rows) in enumerate(formats.items(), start=1)
    ]


def _cards(atlas: Atlas) -> list[Card]:
    total = atlas.base.total
    cards = [
        Card(
            "Accuracy without a flip",
            words.percent(atlas.base.value, total=total),
            (f"95 % interval {words.interval(atlas.base)}, n = {total:,}",),
        )
    ]
    for of in ("weights", "biases"):
        costly = next((row for row in atlas.ranking if row.of == of and row.changed), None)
        if costly is not None:
            comparison = costly.comparison
            cards.append(
                Card(
                    f"Costliest bit of the {of}",
                    f"{100 * comparison.loss:+.2f} points",
                    (
                        costly.name,
                        f"at most {100 * comparison.bound:+.2f} (95 %)",
                        f"McNemar p {p_words(comparison.p)}; codes flipped: {costly.changed:,}",
                    ),
                )
            )
    if atlas.correlation is not None:
        note = "Spearman's, of mean change of a value and loss, over all points"
        cards.append(Card("Predicted by the change", f"ρ = {atlas.correlation:.2f}", (note,)))
    checked = f"{atlas.begun.asked.checked:,} images of every point"
    cards.append(Card("Core and reference", "bit-identical", (checked,)))
    ran = [line for line in atlas.device.values() if line.refused is None]
    if ran:
        kind = "simulated device" if ran[0].simulated else "a chip"
        cards.append(Card(f"On {ran[0].board}", f"{len(ran):,} exact", (f"{ran[0].images:,} images each", kind)))
    return cards


def _provenance(atlas: Atlas) -> list[tuple[str, str]]:
    begun, asked = atlas.begun, atlas.begun.asked
    what = [
        ("Model", f"{asked.model}; {', '.join(dict.fromkeys(asked.formats))}"),
        ("Model SHA-256", asked.model_sha256),
        ("Data", f"{asked.dataset}, {asked.split}: {asked.images:,} images; the test split is sealed"),
        ("Data SHA-256", asked.dataset_sha256),
    ]
    return provenance_of(begun, what)
