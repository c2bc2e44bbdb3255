"""The directory of a run, and its files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from bitloop.errors import UsageError
from bitloop.files import write_atomically

__all__ = ["RunDirectory", "write_file"]

_LOGGER = logging.getLogger(__name__)


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
    """Where a run keeps its files."""

    path: Path

    @property
    def begun(self) -> Path:
        """``begun.json``: how the run was begun, there from its beginning."""
        return self.path / "begun.json"

    @property
    def model(self) -> Path:
        """``model.blm``: the MODEL, there from the beginning too."""
        return self.path / "model.blm"

    @property
    def samples(self) -> Path:
        """``samples.jsonl``: what was measured, line by line as it came."""
        return self.path / "samples.jsonl"

    @property
    def parts(self) -> Path:
        """``parts.json``: what each part of the run took, brought up to date about once a second."""
        return self.path / "parts.json"

    @property
    def record(self) -> Path:
        """``run.json``: the record, there at the end."""
        return self.path / "run.json"

    @property
    def report(self) -> Path:
        """``report.html``: the record for people."""
        return self.path / "report.html"

    def check(self, *, force: bool = False) -> None:
        """See that a run may be written here, without touching anything.

        Raises:
            UsageError: if the path is no directory, or holds a run and ``force`` is not set.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; --out names a directory")
        held = [file.name for file in self._files() if file.exists()]
        if held and not force:
            more = f", or go on with it: --resume {self.path}" if self.begun.exists() else ""
            raise UsageError(f"{self.path} already holds a run ({', '.join(held)}); name another, or say --force{more}")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing here; the directory is made where it is missing.

        The operating system gives the lock back when its process ends, however that comes about: what stays behind is
        an empty file that locks nothing.

        Raises:
            UsageError: another process writes here, or the directory cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._not_made(error) from error
        lock = FileLock(self.path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout as error:
            raise UsageError(
                f"another process is writing the run in {self.path}; wait until it has ended, or end it"
            ) from error
        except (OSError, NotImplementedError) as error:
            # A file system without locks must not keep anyone from measuring.
            _LOGGER.warning("%s cannot be locked against other processes: %s", self.path, error)
        try:
            yield
        finally:
            lock.release()

    def create(self, *, force: bool = False) -> None:
        """Make the directory, and clear it of an earlier run if ``force`` is set; other files stay.

        Raises:
            UsageError: as :meth:`check`, or if the directory cannot be made.
        """
        self.check(force=force)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.clear()
        except OSError as error:
            raise self._not_made(error) from error

    def clear(self) -> None:
        """Remove the files of a run.

        Raises:
            OSError: one of them cannot be removed.
        """
        for file in self._files():
            file.unlink(missing_ok=True)

    def sync(self) -> None:
        """Bring the names of new files to the disk, where the operating system can do that."""
        with contextlib.suppress(OSError):
            handle = os.open(self.path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    def _files(self) -> tuple[Path, ...]:
        # begun.json first: without it nothing is taken for a run that could go on while the others are removed.
        return (self.begun, self.record, self.samples, self.parts, self.report, self.model)

    def _not_made(self, error: OSError) -> UsageError:
        return UsageError(f"{self.path} cannot be made the directory of a run: {error.strerror}")
