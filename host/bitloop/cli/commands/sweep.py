"""``bitloop sweep``: accuracy, cross-entropy and bytes over a grid of formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.devices import device_options
from bitloop.errors import UsageError

if TYPE_CHECKING:
    from bitloop.study.grid import Grid
    from bitloop.study.summary import Row
    from bitloop.study.sweep import Sweep


@console.handled
def sweep(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A network of the zoo, or a .npz, .keras or .tflite file.")
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder; the same command goes on there. Default: sweeps/<network>."
        ),
    ] = None,
    exponents: Annotated[
        str | None, typer.Option(metavar="A-B", help="Exponent bits of the float grid. Default: 1-8.")
    ] = None,
    mantissas: Annotated[
        str | None, typer.Option(metavar="A-B", help="Mantissa bits of the float grid. Default: 0-10.")
    ] = None,
    ints: Annotated[str | None, typer.Option(metavar="A-B", help="Widths of integers, e.g. 2-8.")] = None,
    formats: Annotated[
        str | None, typer.Option(metavar="SPEC,…", help="Formats besides, e.g. e4m3,int4:channel,ternary.")
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(metavar="SCALE,…", help="none, pow2, fp32, channel, channel:pow2, …; default: each format's own."),
    ] = None,
    rounding: Annotated[
        str | None,
        typer.Option(metavar="ROUNDING,…", help="nearest, toward_zero, away, stochastic, stochastic:seed=7."),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(metavar="X,…", help="Zero what is smaller, with every format; 0 is none.", show_default=False),
    ] = None,
    of: Annotated[
        str, typer.Option("--of", metavar="WHAT,…", help="What is changed: weights, biases, both.")
    ] = "weights",
    per_layer: Annotated[bool, typer.Option("--per-layer", help="Change one layer at a time.")] = False,
    others: Annotated[str, typer.Option(metavar="SPEC", help="Format of what is not changed.")] = "fp32",
    data: options.Data = None,
    split: Annotated[str, typer.Option(help="search or confirm; a sweep reaches no test image.")] = "search",
    limit: options.Limit = None,
    verify: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images of each cell computed again by core and reference.")
    ] = 20,
    margin: Annotated[float, typer.Option(help="Loss of accuracy that is put up with, in points.")] = 0.3,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes. Default: one a processor.", show_default=False)
    ] = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="URL", help="Measure the cells on a device too.", show_default=False),
    ] = None,
    device_images: Annotated[int, typer.Option(min=1, help="Images of each cell that the device runs.")] = 100,
    baud: options.Baud = 115200,
    max_baud: options.MaxBaud = 921600,
    as_json: options.Json = False,
) -> None:
    """Measure a network over a grid of formats, exactly; keep each cell, and go on where it was.

    Without any of --exponents, --mantissas, --ints and --formats the grid is E 1-8 × M 0-10. Writes sweep.json,
    cells.jsonl (as cells are done), cells.csv, result.json and sweep.html.
    """
    from bitloop.network.network import load_network  # noqa: PLC0415 - numpy
    from bitloop.report.study_page import write_sweep_page  # noqa: PLC0415 - numpy
    from bitloop.study.sweep import SweepOptions, run_sweep, sweep_images  # noqa: PLC0415 - numpy

    loaded = load_network(network)
    grid = grid_of(
        exponents=exponents,
        mantissas=mantissas,
        ints=ints,
        formats=formats,
        scale=scale,
        rounding=rounding,
        prune=prune,
        of=of,
        per_layer=per_layer,
        others=others,
    )
    grid.cells(loaded)  # what cannot be swept is told before any data is loaded
    images = sweep_images(sources.load_dataset(data, loaded.dataset or "mnist"), split, limit)
    with console.progress() as step:
        found = run_sweep(
            loaded,
            images,
            grid,
            out or Path("sweeps") / Path(network).stem,
            options=SweepOptions(
                checked_images=verify,
                processes=jobs,
                margin=margin / 100,
                command=console.command_line(),
                device=device_options(on, device_images, baud=baud, max_baud=max_baud),
            ),
            progress=step,
        )
    page = write_sweep_page(found)
    if as_json:
        console.print_json(found.document())
    else:
        show(found)
        console.print_text(f"Page: {page}")


def grid_of(
    *,
    exponents: str | None,
    mantissas: str | None,
    ints: str | None,
    formats: str | None,
    scale: str | None,
    rounding: str | None,
    prune: str | None,
    of: str,
    per_layer: bool,
    others: str,
) -> Grid:
    """Return the grid that options ask for; without any range or format it is the float grid.

    Raises:
        UsageError: an option cannot be read.
    """
    from bitloop.study.grid import EXPONENTS, MANTISSAS, Grid, parse_range  # noqa: PLC0415 - numpy

    floats = exponents is not None or mantissas is not None or (ints is None and formats is None)
    return Grid(
        exponents=(EXPONENTS if exponents is None else parse_range(exponents, "exponent bits")) if floats else None,
        mantissas=MANTISSAS if mantissas is None else parse_range(mantissas, "mantissa bits"),
        ints=None if ints is None else parse_range(ints, "widths of integers"),
        formats=() if formats is None else listed(formats, "--formats"),
        scales=("",) if scale is None else listed(scale, "--scale"),
        roundings=("",) if rounding is None else listed(rounding, "--rounding"),
        prunes=(0.0,) if prune is None else tuple(number(text, "--prune") for text in listed(prune, "--prune")),
        of=listed(of, "--of"),
        per_layer=per_layer,
        others=others,
    )


def number(text: str, option: str) -> float:
    """Return a number of a list.

    Raises:
        UsageError: it is none.
    """
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{option} is a list of numbers; {text!r} is none") from error


def listed(text: str, option: str) -> tuple[str, ...]:
    """Return the words of a list with commas.

    Raises:
        UsageError: one of them is empty.
    """
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise UsageError(f"{option} is a list with commas; {text!r} has an empty place")
    return words


def show(found: Sweep) -> None:
    """Print the best cells of each width, and what they mean."""
    from bitloop.report.study_page import sweep_headline  # noqa: PLC0415 - numpy

    asked = found.begun.asked
    base = found.rows[0]
    title = (
        f"{asked.network} on {asked.dataset} {asked.split}, {asked.images:,} images; {len(asked.cells) - 1:,} cells, "
        "the best of each width"
    )
    columns = (
        "changed",
        "bits",
        "format",
        "accuracy",
        "95 % interval",
        "cross-entropy",
        "bytes",
        "loss",
        "at most",
        "p",
    )
    shown = (base, *found.best)
    console.print_table(title, columns, [row_words(row) for row in shown], right=(1, 3, 5, 6, 7, 8, 9))
    if found.device:
        show_device(found, [row.cell for row in shown])
    console.print_text(
        "loss: points of accuracy less than fp32; at most: its upper one-sided 95 % bound (Tango); p: exact McNemar"
    )
    if found.refused:
        first = found.refused[0]
        console.print_text(f"{len(found.refused):,} cells cannot be had, the first: {first.cell}: {first.refused}")
    if found.winner is None:
        console.print_text(f"{sweep_headline(found)}.", style="bold yellow")
    else:
        chosen = f"Chosen on {asked.split}: confirm it before you believe it."
        console.print_text(f"{sweep_headline(found)}. {chosen}", style="bold green")
    verified = ", ".join(f"{cell} on {count:,} images" for cell, count in found.verified.items())
    console.print_text(f"Core and reference bit-identical: {verified}; every cell on {asked.checked:,}")


def show_device(found: Sweep, keys: list[str]) -> None:
    """Print what the same cells took on the device."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    cells = [found.device[key] for key in keys if key in found.device]
    ran = [cell for cell in found.device.values() if cell.refused is None]
    one = next(iter(found.device.values()))
    unit = next((cell.latency_unit for cell in ran), None) or "no unit"
    rows = [
        (
            cell.cell,
            "–" if cell.latency_median is None else words.ticks(cell.latency_median),
            *(
                "–" if value is None else f"{value:,}"
                for value in (cell.ram_predicted, cell.ram_measured, cell.image_bytes, cell.upload_line_bytes)
            ),
            cell.refused or "",
        )
        for cell in cells
    ]
    columns = ("cell", "latency", "RAM", "written", "image", "on the line", "refused")
    title = (
        f"On {one.board}{' (simulated)' if one.simulated else ''}, {one.images:,} images a cell: {len(ran):,} cells "
        f"bit-identical to the host; latency is the median in {unit}, the rest bytes"
    )
    console.print_table(title, columns, rows, right=(1, 2, 3, 4, 5))


def row_words(row: Row) -> tuple[str, ...]:
    """Return the cells of a table for a cell of the sweep."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    total = row.accuracy.total
    changed = "nothing" if row.of == "base" else row.of if row.layer is None else f"{row.layer}.{row.of}"
    return (
        changed,
        f"{row.bits:g}",
        row.spec,
        words.percent(row.accuracy.value, total=total),
        words.interval(row.accuracy),
        "–" if row.cross_entropy is None else f"{row.cross_entropy:.4f}",
        f"{row.total_bytes:,}",
        *(("", "", "") if row.of == "base" else _loss_words(row)),
    )


def _loss_words(row: Row) -> tuple[str, str, str]:
    comparison = row.comparison
    return (
        f"{100 * comparison.loss:+.2f}",
        f"{100 * comparison.bound:+.2f}",
        "<1e-99" if comparison.p < 1e-99 else f"{comparison.p:.2g}",
    )
