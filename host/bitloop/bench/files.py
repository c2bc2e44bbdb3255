"""The directory of a run, and its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.errors import UsageError
from bitloop.files import write_atomically

__all__ = ["RunDirectory", "write_file"]


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UsageError: if it cannot be written there, or not whole.
    """
    try:
        write_atomically(path, data)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class RunDirectory:
    """Where a run keeps its three files."""

    path: Path

    @property
    def record(self) -> Path:
        """``run.json``."""
        return self.path / "run.json"

    @property
    def samples(self) -> Path:
        """``samples.jsonl``."""
        return self.path / "samples.jsonl"

    @property
    def report(self) -> Path:
        """``report.html``."""
        return self.path / "report.html"

    def check(self, *, force: bool = False) -> None:
        """See that a run may be written here, without touching anything.

        Raises:
            UsageError: if the path is no directory, or holds a run and ``force`` is not set.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; --out names a directory")
        held = [file.name for file in (self.record, self.samples, self.report) if file.exists()]
        if held and not force:
            raise UsageError(f"{self.path} already holds a run ({', '.join(held)}); name another, or say --force")

    def create(self, *, force: bool = False) -> None:
        """Make the directory, and clear it of an earlier run if ``force`` is set; other files stay.

        Raises:
            UsageError: as :meth:`check`, or if the directory cannot be made.
        """
        self.check(force=force)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for file in (self.record, self.samples, self.report):
                file.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(f"{self.path} cannot be made the directory of a run: {error.strerror}") from error
