"""The sizes in docs/boards.md are those of real builds."""

from __future__ import annotations

from pathlib import Path

import pytest

import boards_page
from bitloop.boards import Board
from bitloop.firmware import find

PAGE = (Path(__file__).resolve().parents[2] / "docs/boards.md").read_text(encoding="utf-8")
LOCAL = [board for board in boards_page.boards() if find.is_local(board.environment)]


@pytest.mark.parametrize("board", LOCAL, ids=lambda board: board.name)
def test_the_page_has_the_sizes_that_a_build_has(board: Board) -> None:
    row = boards_page.row_of(PAGE, board)
    assert row is not None, "run scripts/generate"
    reason = boards_page.why_not_measured(board)
    if reason:
        pytest.skip(f"{board.name} cannot be built, {reason}; {find.SETUP} installs it")
    here = boards_page.toolchain(board.environment)
    if here != row[-1]:
        pytest.skip(f"{board.name} was measured with {row[-1]}, here is {here}")
    assert boards_page.measured(board) == row, "run scripts/generate"


def test_rows_that_are_not_measured_stay() -> None:
    table = PAGE.split("begin generated: memory -->\n")[1].split("\n<!-- end")[0]
    assert boards_page.memory_table(table, build=False) == table
    figure = table.splitlines()[2].split(" | ")[1]
    changed = table.replace(figure, "1")
    assert changed != table
    assert boards_page.memory_table(changed, build=False) == changed
    lines = table.splitlines()
    assert boards_page.memory_table("\n".join(lines[:2] + lines[3:]), build=False) != table
