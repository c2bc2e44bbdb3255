"""What the sections of a study share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bitloop.data.dataset import Images
from bitloop.errors import UsageError
from bitloop.study.experiment.measures import Measures

__all__ = ["Context", "Progress", "made"]

Progress = Callable[[str, int, int], None]


def made(folder: Path) -> Path:
    """Make a folder if need be, and return it.

    Raises:
        UsageError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}") from error
    return folder


@dataclass(frozen=True, eq=False)
class Context:
    """What every section needs.

    Attributes:
        folder: of the study.
        search: images that are chosen on.
        confirm: images that confirm it.
        measures: keeps what single MODELs are worth.
        margins: losses of accuracy that are put up with, in points.
        processes: how many train and measure; None is one a processor.
        command: what started the study.
        progress: called with a stage, how much of it is done, and how much there is.
    """

    folder: Path
    search: Images
    confirm: Images
    measures: Measures
    margins: tuple[float, ...]
    processes: int | None = None
    command: str = ""
    progress: Progress | None = None

    def step(self, stage: str, done: int, total: int) -> None:
        """Say how far a stage is."""
        if self.progress is not None:
            self.progress(stage, done, total)
