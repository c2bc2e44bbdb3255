"""``bitloop study``: what a file declares, from training to the device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options

if TYPE_CHECKING:
    from bitloop.study.experiment.experiment import Study


@console.handled
def study(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What is to be done (docs/experiments.md).")],
    *,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="DIR", help="Folder; the same command goes on there. Default: <file>.out."),
    ] = None,
    data: options.Data = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, help="Processes. Default: one a processor.", show_default=False)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Read the file, say what it asks for, and do nothing.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Do what a study's file declares: train, sweep, search, compare, open the test set once, run on devices.

    Writes study.json, study.md, study.html and tables/*.csv; what is done is kept, and an interrupted study goes on.
    """
    from bitloop.report.experiment_page import write_study_page  # noqa: PLC0415 - numpy
    from bitloop.study.experiment.experiment import StudyOptions, run_study  # noqa: PLC0415 - numpy
    from bitloop.study.experiment.file import read_study  # noqa: PLC0415 - numpy
    from bitloop.study.experiment.networks import plans_of  # noqa: PLC0415 - numpy

    declared = read_study(file)
    if check:
        plans = plans_of(declared, data or declared.dataset)
        rows = [
            ("networks", ", ".join(plan.label for plan in plans)),
            *(("sweep", f"{each.name}: {', '.join(each.networks)}") for each in declared.sweep),
            *(("search", f"{each.name}: {', '.join(each.networks)}") for each in declared.search),
            *(
                ("comparison", f"{each.name}: {', '.join(entry.network for entry in each.entries)}")
                for each in declared.comparison
            ),
            ("test set", "stays sealed" if declared.test is None else f"opened: {declared.test.reason}"),
            *(("device", f"{each.url}: {each.images:,} images of {each.split}") for each in declared.device),
        ]
        console.print_table(declared.title, ("", ""), rows)
        return
    with console.progress(many=True) as step:
        found = run_study(
            declared,
            out or file.with_suffix(".out"),
            options=StudyOptions(data=data, processes=jobs, command=console.command_line()),
            progress=step,
        )
    page = write_study_page(found)
    if as_json:
        console.print_json(found.document())
        return
    _show(found)
    console.print_text(f"Page: {page}")


def _show(found: Study) -> None:
    for table in found.tables:
        # What all lines have in common is said once, so that a line has room.
        common = {
            column
            for column in range(1, len(table.columns))
            if len(table.rows) > 1 and table.rows[0][column] and len({row[column] for row in table.rows}) == 1
        }
        shown = [column for column in table.filled if column not in common]
        console.print_table(
            table.title,
            [table.columns[column] for column in shown],
            [[row[column] for column in shown] for row in table.rows],
            right=tuple(place for place, column in enumerate(shown) if table.is_number(column)),
        )
        if common:
            said = "; ".join(f"{table.columns[column]}: {table.rows[0][column]}" for column in sorted(common))
            console.print_text(f"All lines: {said}")
        for note in table.notes:
            console.print_text(note)
