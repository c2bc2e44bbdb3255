"""``bitloop search``: the smallest formats, tensor by tensor, that lose no more accuracy than is put up with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.commands.sweep import listed
from bitloop.cli.devices import device_options

if TYPE_CHECKING:
    from bitloop.study.search.confirm import Candidate, Floating
    from bitloop.study.search.search import Search, SearchPlan


@console.handled
def search(
    network: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A network of the zoo, or a .npz, .keras or .tflite file.")
    ],
    *,
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Loss of accuracy that is put up with, in points.")
    ] = 0.3,
    objective: Annotated[
        str,
        typer.Option(
            metavar="WHAT,…",
            help="What is made small: bytes, latency, ram; the first decides. The others take --device.",
        ),
    ] = "bytes",
    weights: Annotated[
        str | None, typer.Option("--weights", "-w", metavar="SPEC,…", help="Formats that any weights may get.")
    ] = None,
    biases: Annotated[
        str | None, typer.Option("--biases", "-b", metavar="SPEC,…", help="Formats that any biases may get.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TENSOR=SPEC,…", help="Pin a tensor, or give it formats of its own. Repeatable."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="exhaustive: the whole grid; sampled: what Optuna proposes; auto: whole up to four layers."),
    ] = "auto",
    max_evaluations: Annotated[int, typer.Option(min=1, help="The largest grid that is evaluated whole.")] = 200_000,
    trials: Annotated[int, typer.Option(min=1, help="Proposals of Optuna that are evaluated, in all.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of what Optuna draws.")] = 0,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Optuna's storage, which machines may share. Default: a file in the folder."),
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of the study in the storage. Default: the network's.")
    ] = None,
    best: Annotated[int, typer.Option(min=1, help="How many of the best are confirmed.")] = 10,
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", metavar="URL", help="Measure the best on a device.", show_default=False),
    ] = None,
    device_images: Annotated[int, typer.Option(min=1, help="Images of each candidate that the device runs.")] = 100,
    device_candidates: Annotated[
        int, typer.Option(min=0, help="Candidates measured there at most, besides the best.")
    ] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", metavar="DIR", help="Folder; the same command goes on there. Default: searches/<network>."
        ),
    ] = None,
    data: options.Data = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", "-n", min=1, help="Only the first N images of each split.", show_default=False),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes. Default: one a processor.", show_default=False)
    ] = None,
    baud: options.Baud = 115200,
    max_baud: options.MaxBaud = 921600,
    as_json: options.Json = False,
) -> None:
    """Find the smallest assignment of formats, tensor by tensor, and confirm it on images that it was not chosen on.

    Up to four layers with parameters the whole grid is evaluated, so that the smallest of it is found for certain.
    Writes search.json, evaluations.jsonl (as they are done), result.json, candidates.csv, search.html and winner.blm.
    """
    from bitloop.report.search_page import write_search_page  # noqa: PLC0415 - numpy
    from bitloop.study.search.choices import choices_of  # noqa: PLC0415 - numpy
    from bitloop.study.search.search import SearchOptions, plan_search, run_search  # noqa: PLC0415 - numpy
    from bitloop.study.sweep import sweep_images  # noqa: PLC0415 - numpy

    loaded = sources.load_network(network)
    asked = SearchOptions(
        choices=choices_of(
            loaded,
            weights=None if weights is None else listed(weights, "--weights"),
            biases=None if biases is None else listed(biases, "--biases"),
            pinned=overrides or (),
        ),
        margin=max_drop / 100,
        objectives=listed(objective, "--objective"),
        method=method,
        max_evaluations=max_evaluations,
        trials=trials,
        seed=seed,
        storage=storage,
        study_name=study_name,
        best=best,
        processes=jobs,
        device=device_options(device, device_images, baud=baud, max_baud=max_baud),
        device_candidates=device_candidates,
        command=console.command_line(),
    )
    planned = plan_search(loaded, asked)
    console.say(plan_words(planned))
    dataset = sources.load_dataset(data, loaded.dataset or "mnist")
    with console.progress() as step:
        found = run_search(
            loaded,
            sweep_images(dataset, "search", limit),
            sweep_images(dataset, "confirm", limit),
            asked,
            out or Path("searches") / Path(network).stem,
            progress=step,
        )
    page = write_search_page(found)
    if as_json:
        console.print_json(found.document())
    else:
        show(found)
        console.print_text(f"Page: {page}")


def plan_words(planned: SearchPlan) -> str:
    """Say what a search will do."""
    grid = f"{planned.choices.count:,} assignments of formats to {len(planned.choices.tensors):,} tensors"
    if planned.method == "exhaustive":
        return f"{grid}: all are evaluated, so that the smallest is found for certain"
    return f"{grid}: {planned.evaluations:,} proposals of Optuna are evaluated, after what each tensor costs alone"


def show(found: Search) -> None:
    """Print the best on both splits, and what they mean."""
    from bitloop.report.search_page import search_headline  # noqa: PLC0415 - numpy

    asked = found.begun.asked
    console.print_table(
        f"{asked.network} on {asked.dataset}: {len(found.evaluations):,} of {found.choices.count:,} assignments "
        f"evaluated, {found.admissible:,} admissible; the best {len(found.candidates):,}, chosen on {asked.images:,} "
        f"images of search, confirmed on {asked.confirm_images:,} of confirm",
        ("", "bytes", "search", "at most", "confirm", "loss", "at most", "p (Holm)", ""),
        [
            base_words(found.fp32, found.fp32_bytes),
            *(candidate_words(number, candidate) for number, candidate in enumerate(found.candidates, start=1)),
        ],
        right=(0, 1, 2, 3, 4, 5, 6, 7),
    )
    for number, candidate in enumerate(found.candidates, start=1):
        console.print_text(f"{number:>3}  {candidate.evaluation.key}")
    console.print_text(
        "loss: points of accuracy less than fp32; at most: its upper one-sided 95 % bound (Tango); "
        f"p: of a loss of {100 * asked.margin:g} points or more on confirm, adjusted for their number"
    )
    if found.device:
        show_device(found)
    if found.curse is not None:
        winner = "" if found.curse.winner is None else f", the winner by {found.curse.winner:+.2f}"
        console.print_text(
            f"Winner's curse: on confirm the best {found.curse.count} lose {found.curse.mean:+.2f} points more than on "
            f"search in the mean{winner}"
        )
    verified = ", ".join(f"{name} on {count:,} images" for name, count in found.verified.items())
    console.print_text(f"Core and reference bit-identical: {verified}")
    if found.winner is None:
        console.print_text(f"{search_headline(found)}.", style="bold yellow")
        return
    console.print_text(f"{search_headline(found)}.", style="bold green")
    formats = zip(found.choices.tensors, found.winner.evaluation.specs, strict=True)
    console.print_text("\n".join(f"  {tensor} = {spec}" for tensor, spec in formats))
    console.print_text(f"MODEL: {found.folder.winner}")


def base_words(fp32: tuple[Floating, Floating], size: int) -> tuple[str, ...]:
    """Return the row of the network in binary32."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    search, confirm = (words.percent(one.accuracy.value, total=one.accuracy.total) for one in fp32)
    return "fp32", f"{size:,}", search, "", confirm, "", "", "", ""


def candidate_words(number: int, candidate: Candidate) -> tuple[str, ...]:
    """Return the row of a candidate."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    return (
        str(number),
        f"{candidate.total_bytes:,}",
        words.percent(candidate.search_accuracy.value, total=candidate.search_accuracy.total),
        f"{100 * candidate.search.bound:+.2f}",
        words.percent(candidate.confirm_accuracy.value, total=candidate.confirm_accuracy.total),
        f"{100 * candidate.confirm.loss:+.2f}",
        f"{100 * candidate.confirm.bound:+.2f}",
        f"{candidate.p_holm:.2g}",
        "confirmed" if candidate.is_confirmed else "not confirmed",
    )


def show_device(found: Search) -> None:
    """Print what was measured on the device."""
    from bitloop.report import words  # noqa: PLC0415 - numpy

    one = next(iter(found.device.values()))
    unit = next((cell.latency_unit for cell in found.device.values() if cell.latency_unit), None) or "no unit"
    sizes = {evaluation.key: evaluation.total_bytes for evaluation in found.evaluations}
    rows = []
    for key, cell in found.device.items():
        ram = cell.ram_bytes
        rows.append(
            (
                key,
                f"{sizes[key]:,}",
                "–" if cell.latency_median is None else words.ticks(cell.latency_median),
                "–" if ram is None else f"{ram:,}",
                cell.refused or ("front" if key in found.objective_front else ""),
            )
        )
    title = (
        f"On {one.board}{' (simulated)' if one.simulated else ''}, {one.images:,} images each, bit-identical to the "
        f"host; latency is the median in {unit}"
    )
    if found.objective_front:
        title += f"; front of {', '.join(found.begun.asked.objectives)}"
    console.print_table(title, ("formats", "bytes", "latency", "RAM", ""), rows, right=(1, 2, 3))
