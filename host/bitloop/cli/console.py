"""Where output goes: results to stdout; messages, progress and the log to stderr."""

from __future__ import annotations

import functools
import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import ParamSpec, TypeVar

import typer
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from bitloop.errors import BitloopError, Interrupted

__all__ = [
    "ERR",
    "OUT",
    "command_line",
    "configure",
    "handled",
    "print_json",
    "print_table",
    "print_text",
    "progress",
    "say",
    "warn",
    "write_text",
]

_PIPE_WIDTH = 120

OUT = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
ERR = Console(stderr=True, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")
Step = Callable[[str, int, int], None]


class _Settings:
    debug = False


def configure(*, verbose: int, debug: bool) -> None:
    """Set up the log (warnings, with -v information, with -vv everything), and whether errors show a traceback."""
    _Settings.debug = debug
    level = (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)]
    logger = logging.getLogger("bitloop")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    logger.addHandler(RichHandler(console=ERR, show_path=False, show_time=verbose > 0, markup=False))
    logger.setLevel(level)
    logger.propagate = False


def handled(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors into one message on stderr and their exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except BitloopError as error:
            if _Settings.debug:
                raise
            fail(str(error))
            raise typer.Exit(error.exit_code) from error
        except KeyboardInterrupt as error:
            fail("interrupted")
            raise typer.Exit(Interrupted.exit_code) from error

    return wrapped


def fail(message: str) -> None:
    """Print an error."""
    ERR.print(Text.assemble(("error: ", "bold red"), message), highlight=False)


def warn(message: str) -> None:
    """Print a warning."""
    ERR.print(Text.assemble(("warning: ", "bold yellow"), message), highlight=False)


def say(message: str) -> None:
    """Print what is being done."""
    ERR.print(Text(message, style="dim"), highlight=False)


def print_json(document: object) -> None:
    """Print a result for programs."""
    write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(text: str) -> None:
    """Write text to stdout as it is."""
    sys.stdout.write(text)
    sys.stdout.flush()


def print_text(text: str, *, style: str = "") -> None:
    """Print a line of a result; nothing in it is taken as markup."""
    OUT.print(Text(text, style=style), highlight=False)


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()
) -> None:
    """Print a table.

    Args:
        title: above it, or "".
        columns: heads; with all of them empty, none is shown.
        rows: cells; nothing in them is taken as markup.
        right: numbers of the columns that are set flush right.
    """
    table = Table(
        title=Text(title, style="bold") if title else None,
        title_justify="left",
        title_style="",
        show_header=any(columns),
        box=box.SIMPLE_HEAD if any(columns) else box.SIMPLE,
        pad_edge=False,
    )
    for number, column in enumerate(columns):
        flush = number in right
        table.add_column(Text(column), justify="right" if flush else "left", no_wrap=flush, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    OUT.print(table, soft_wrap=False)


def command_line() -> str:
    """Return the command that was given, as one could type it again."""
    return shlex.join(["bitloop", *sys.argv[1:]])


@contextmanager
def progress(*, many: bool = False) -> Iterator[Step]:
    """Show progress bars on stderr, one a stage, if someone looks; gives a function of stage, done and total.

    Args:
        many: there are more stages than a screen has lines, and they take long: a bar goes once its stage is done, and
            where nobody looks, a line says when a stage begins.
    """
    bars = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=ERR,
        transient=True,
        disable=not ERR.is_terminal,
    )
    tasks: dict[str, TaskID] = {}

    def step(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage.ljust(10), total=total or None)
            if many and bars.disable:
                said = f"{datetime.now().astimezone():%H:%M:%S} {stage}" + (f" ({total:,})" if total else "")
                ERR.print(Text(said), highlight=False, soft_wrap=True)
        bars.update(tasks[stage], completed=done, total=total or None, visible=not (many and total and done >= total))

    with bars:
        yield step
