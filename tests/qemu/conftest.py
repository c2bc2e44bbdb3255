"""What tests in emulators share: URLs of boards that can be started here, processes, short waits."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bitloop.boards import find_board
from bitloop.firmware import find
from bitloop.firmware.build import firmware_elf
from bitloop.link.channel import Timing
from bitloop.link.session import Session

TIMING = Timing(timeout_s=2.0, connect_timeout_s=5.0, image_timeout_s=2.0, retry_s=0.25)
"""Short, so that a device that is gone is soon given up; long against an image of these tests."""

GONE_S = 5.0


@pytest.fixture(scope="session")
def url_of() -> Callable[[str], str]:
    """Give the URL of an emulated board, its firmware built; skip where a tool is missing, fail where it does."""

    def url(name: str) -> str:
        board = find_board(name)
        missing = [*find.missing_to_build(board.environment), *find.missing_to_emulate(board)]
        if missing:
            pytest.skip(f"{board.url} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
        firmware_elf(board.environment)
        return board.url

    return url


@pytest.fixture
def f405(url_of: Callable[[str], str]) -> str:
    """The URL of the board that most tests are done on."""
    return url_of("stm32f405")


@pytest.fixture
def session(f405: str) -> Iterator[Session]:
    """A session with it, connected."""
    with Session(f405, timing=TIMING) as session:
        session.connect()
        yield session


def alive(process_id: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    if not Path("/proc/self").exists():
        return True
    try:
        stat = Path(f"/proc/{process_id}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended between the two questions
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(*process_ids: int, within_s: float = GONE_S) -> bool:
    """Tell whether all processes have ended, or do within the time."""
    deadline = time.monotonic() + within_s
    while any(alive(process_id) for process_id in process_ids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
