"""The commands, gathered. Nothing heavy is imported here: each command imports what it needs when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from bitloop import __version__
from bitloop.cli import console
from bitloop.cli.commands import (
    atlas,
    demo,
    devices,
    firmware,
    inspect,
    monitor,
    quantize,
    report,
    run,
    search,
    simulate,
    study,
    sweep,
    train,
)

EXIT_CODES = (
    (0, "all is well; device and host agree bit for bit"),
    (1, "an error bitloop did not expect"),
    (2, "an argument that makes no sense"),
    (3, "device and host disagree"),
    (4, "data missing, damaged or sealed"),
    (5, "a format, network or model that cannot be used"),
    (6, "the link: port, silence, garbage"),
    (7, "the device refused, or the model does not fit"),
    (8, "a compiler, emulator or build tool is missing, or failed"),
    (130, "Ctrl-C; what was measured is kept"),
)
"""As in :mod:`bitloop.errors`; a test holds the two together."""

_EPILOG = "\n\n".join(["Exit codes:", *(f"{code:>3}  {meaning}" for code, meaning in EXIT_CODES)])

app = typer.Typer(
    name="bitloop",
    help="How few bits do a network's weights and biases need, and what does it then really do on the chip?",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("devices")(devices.devices)
app.command("train")(train.train)
app.command("quantize")(quantize.quantize)
app.command("inspect")(inspect.inspect)
app.command("simulate")(simulate.simulate)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("search")(search.search)
app.command("study")(study.study)
app.command("atlas")(atlas.atlas)
app.command("report")(report.report)
app.command("monitor")(monitor.monitor)
app.add_typer(firmware.app, name="firmware")


def _show_version(value: bool) -> None:
    if value:
        console.OUT.print(f"bitloop {__version__}", highlight=False)
        raise typer.Exit


@app.callback()
def common(
    verbose: Annotated[
        int, typer.Option("--verbose", "-v", count=True, help="Show what goes on; twice for more.", show_default=False)
    ] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """How few bits do a network's weights and biases need, and what does it then really do on the chip?"""
    console.configure(verbose=verbose, debug=debug)
