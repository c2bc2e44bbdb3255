"""Tables of a study: made once, written as Markdown, CSV and JSON, and shown on its page."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.study.statistics import spread

__all__ = ["Table", "Value", "mean_sd", "p_value", "percent", "points", "to_csv", "to_markdown"]

Value = str | int | float | None


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        name: of its file.
        title: what it shows.
        columns: heads.
        rows: values as they are shown; numbers are right-aligned.
        raw: the same rows for programs, with columns of their own; None where the shown ones serve.
        raw_columns: heads of ``raw``.
        notes: sentences below it.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    raw_columns: tuple[str, ...]
    raw: tuple[tuple[Value, ...], ...]
    notes: tuple[str, ...] = ()

    @property
    def filled(self) -> tuple[int, ...]:
        """The columns that say something in some row."""
        return tuple(column for column in range(len(self.columns)) if any(row[column] for row in self.rows))

    def is_number(self, column: int) -> bool:
        """Tell whether a column holds numbers, or nothing, in each row."""
        return all(_is_number(row[column]) for row in self.rows) and any(row[column] for row in self.rows)


def to_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown has it, with title and notes."""
    marks = ["---:" if table.is_number(column) else "---" for column in table.filled]
    heads = [table.columns[column] for column in table.filled]
    rows = [_line([row[column] for column in table.filled]) for row in table.rows]
    lines = [f"**{table.title}**", "", _line(heads), _line(marks), *rows]
    for note in table.notes:
        lines += ["", note]
    return "\n".join(lines) + "\n"


def to_csv(table: Table) -> str:
    """Return the raw rows as RFC 4180 has them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(table.raw_columns)
    writer.writerows([["" if value is None else value for value in row] for row in table.raw])
    return text.getvalue()


def percent(share: float) -> str:
    """Return a share as percent with two decimals."""
    return f"{100 * share:.2f} %"


def points(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{100 * share:+.2f}"


def p_value(p: float) -> str:
    """Return a p with two digits; one that is nearly nothing is told as such."""
    return "<1e-99" if p < 1e-99 else f"{p:.2g}"


def mean_sd(values: Sequence[float]) -> str:
    """Return mean and standard deviation of shares in percent; of one value, that."""
    found = spread(values)
    return percent(found.mean) if found.sd is None else f"{100 * found.mean:.2f} ± {100 * found.sd:.2f} %"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _is_number(text: str) -> bool:
    return not text or (text[0] in "0123456789+-−–<≤" and not text[-1].isalpha())
