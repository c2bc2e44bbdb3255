"""``bitloop atlas``: what each bit position of a model's codes is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.devices import device_options

if TYPE_CHECKING:
    from bitloop.study.atlas import Atlas
    from bitloop.study.atlas_summary import AtlasRow

SHOWN_ROWS = 15
"""Points that are printed; all of them are in the folder."""


@console.handled
def atlas(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .blm file, or a network to quantize on the fly.")],
    *,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", metavar="URL", help="Measure each point on a device too.", show_default=False),
    ] = None,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    share: Annotated[
        float, typer.Option(metavar="S", help="Share of a tensor's codes that is flipped; one code at least.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="By which these are chosen.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder; the same command goes on there. Default: atlases/<model>."
        ),
    ] = None,
    data: options.Data = None,
    split: Annotated[str, typer.Option(help="search or confirm; an atlas reaches no test image.")] = "search",
    limit: options.Limit = None,
    verify: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images of each point computed again by core and reference.")
    ] = 20,
    device_images: Annotated[int, typer.Option(min=1, help="Images of each point that the device runs.")] = 100,
    baud: options.Baud = 115200,
    max_baud: options.MaxBaud = 921600,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Flip each bit position of the codes, of each layer's weights and biases, and rank what accuracy that costs.

    Writes atlas.json, points.jsonl (as points are done), points.csv, result.json and atlas.html; with --device also
    device.jsonl. Exits with 3 if device and host disagree.
    """
    from bitloop.report.atlas_page import write_atlas_page  # noqa: PLC0415 - numpy
    from bitloop.study.atlas import AtlasOptions, run_atlas  # noqa: PLC0415 - numpy
    from bitloop.study.bit_positions import check_choice  # noqa: PLC0415 - numpy
    from bitloop.study.sweep import sweep_images  # noqa: PLC0415 - numpy

    check_choice(share, seed)  # what makes no sense is told before any data is loaded
    loaded = sources.load_model(model, weights=weights, biases=biases, overrides=overrides or ())
    default_data, name = sources.names_of_model(loaded)
    images = sweep_images(sources.load_dataset(data, default_data), split, limit)
    with console.progress() as step:
        found = run_atlas(
            loaded,
            images,
            out or Path("atlases") / name,
            options=AtlasOptions(
                share=share,
                seed=seed,
                checked_images=verify,
                command=console.command_line(),
                device=device_options(
                    device, device_images, baud=baud, max_baud=max_baud, timeout=timeout, with_latency=False
                ),
            ),
            progress=step,
        )
    page = write_atlas_page(found)
    if as_json:
        console.print_json(found.document())
    else:
        show(found)
        console.print_text(f"Page: {page}")


def show(found: Atlas) -> None:
    """Print the costliest points, the sums, and what they mean."""
    from bitloop.report import words  # noqa: PLC0415 - numpy
    from bitloop.report.atlas_page import atlas_headline, device_headline, struck_words  # noqa: PLC0415 - numpy

    asked = found.begun.asked
    total = found.base.total
    title = (
        f"{asked.model} on {asked.dataset} {asked.split}, {total:,} images; {len(found.rows):,} points, "
        f"{struck_words(asked)}\nwithout a flip {words.percent(found.base.value, total=total)}, 95 % interval "
        f"{words.interval(found.base)}"
    )
    columns = ["tensor", "bit", "loss", "at most", "p", "accuracy", "95 % interval", "mean |Δ|", "changed"]
    if found.device:
        columns.append("device")
    rows = [row_words(found, row) for row in found.ranking[:SHOWN_ROWS]]
    console.print_table(title, columns, rows, right=tuple(range(2, len(columns))))
    for name, groups in (("kind of bits", found.kinds), ("tensor", found.tensors)):
        console.print_table(
            "",
            (name, "of", "points", "mean loss", "most", "costliest"),
            [
                (
                    group.name,
                    group.of,
                    f"{group.points:,}",
                    f"{100 * group.mean_loss:+.2f}",
                    f"{100 * group.worst.comparison.loss:+.2f}",
                    group.worst.name,
                )
                for group in groups
            ],
            right=(2, 3, 4),
        )
    console.print_text(
        "loss: points of accuracy less than without a flip; at most: its upper one-sided 95 % bound (Tango); p: exact "
        "McNemar; mean |Δ|: of a changed value, in RMS of its tensor; changed: codes, others would be no number"
    )
    console.print_text(f"{atlas_headline(found)}.", style="bold green")
    if found.device:
        console.print_text(f"{device_headline(found)}.")
    console.print_text(f"Core and reference bit-identical on {asked.checked:,} images of every point")


def row_words(found: Atlas, row: AtlasRow) -> tuple[str, ...]:
    """Return the cells of a table for a point."""
    from bitloop.report import words  # noqa: PLC0415 - numpy
    from bitloop.report.atlas_page import change_words, device_words, p_words  # noqa: PLC0415 - numpy

    comparison = row.comparison
    cells = (
        row.tensor,
        row.position.name,
        f"{100 * comparison.loss:+.2f}",
        f"{100 * comparison.bound:+.2f}",
        p_words(comparison.p),
        words.percent(row.accuracy.value, total=row.accuracy.total),
        words.interval(row.accuracy),
        change_words(row.mean_change),
        f"{row.changed:,}",
    )
    return (*cells, device_words(found, row)) if found.device else cells
