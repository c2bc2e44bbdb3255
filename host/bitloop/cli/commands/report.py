"""``bitloop report``: the report of a run, made again, and in other forms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitloop.cli import console
from bitloop.cli.tables import print_record


@console.handled
def report(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The directory of a run.")],
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the samples as CSV.", show_default=False)
    ] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json instead of a table.")] = False,
) -> None:
    """Make report.html of a run again, from run.json and samples.jsonl. Exits with 0 whatever the run's verdict was."""
    from bitloop.bench.files import write_file  # noqa: PLC0415 - numpy
    from bitloop.report.page import load_run, write_report  # noqa: PLC0415 - numpy
    from bitloop.report.table import junit_xml, samples_csv  # noqa: PLC0415 - numpy

    record, samples = load_run(directory)
    path = write_report(directory)
    if csv is not None:
        write_file(csv, samples_csv(samples).encode())
    if junit is not None:
        write_file(junit, junit_xml(record).encode())
    if as_json:
        console.print_json(record.to_dict())
        return
    print_record(record)
    console.print_text(f"Report: {path}")
