"""The folder of a sweep, and its files; whatever ends the sweep, they are whole or can be gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.journal import whole_bytes
from bitloop.bench.strict import plain
from bitloop.errors import DataError, UsageError
from bitloop.study.results import SWEEP_VERSION, Begun, Outcome, from_line, outcomes_of, to_line

__all__ = ["Lines", "SweepFolder"]

_LOGGER = logging.getLogger(__name__)


class SweepFolder:
    """Where a sweep keeps its files.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = path / "sweep.json"
        self.cells = path / "cells.jsonl"
        self.device = path / "device.jsonl"
        self.result = path / "result.json"
        self.table = path / "cells.csv"
        self.page = path / "sweep.html"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder if need be, and keep other processes from writing into it.

        Raises:
            UsageError: the path is a file, cannot be made, or another process writes there.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"{self.path} is a file; --out names a folder")
        with RunDirectory(self.path).locked():
            yield

    def begin(self, begun: Begun) -> Begun:
        """Begin a sweep here, or see that the one begun here was asked the same.

        Returns:
            What is in ``sweep.json``: as given, or as it was begun earlier.

        Raises:
            UsageError: another sweep was begun here, or the folder cannot be written.
            DataError: ``sweep.json`` is damaged.
        """
        if not self.begun.exists():
            if self.cells.exists():
                raise UsageError(
                    f"{self.cells} is there, but no {self.begun.name} that says of what; name another --out"
                )
            text = json.dumps(plain(dataclasses.asdict(begun)), indent=2, ensure_ascii=False, allow_nan=False)
            write_file(self.begun, f"{text}\n".encode())
            return begun
        earlier = self.read_begun()
        differs = [
            field.name
            for field in dataclasses.fields(earlier.asked)
            if _comparable(getattr(earlier.asked, field.name)) != _comparable(getattr(begun.asked, field.name))
        ]
        if differs:
            raise UsageError(
                f"{self.path} holds another sweep: {_differences(earlier, begun, differs)}; give the same "
                "command to go on with it, or name another --out"
            )
        if earlier.versions != begun.versions:
            _LOGGER.warning("the sweep in %s was begun with other versions: %s", self.path, earlier.versions)
        return earlier

    def read_begun(self) -> Begun:
        """Read ``sweep.json``.

        Raises:
            DataError: it is missing, damaged, or of another version.
        """
        try:
            text = self.begun.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.begun} cannot be read: {error}; is this the folder of a sweep?") from error
        begun = from_line(Begun, text, self.begun.name)
        if begun.version != SWEEP_VERSION:
            raise DataError(f"{self.begun} is of version {begun.version}, this bitloop reads {SWEEP_VERSION}")
        return begun

    def read_cells(self, begun: Begun) -> dict[str, Outcome]:
        """Read the cells that were measured, by their key; a last line that was cut off is left out.

        Raises:
            DataError: a line is damaged, or of another sweep.
        """
        found: dict[str, Outcome] = {}
        known = set(begun.asked.cells)
        for outcome in outcomes_of(read_lines(self.cells), str(self.cells)):
            if outcome.cell not in known or outcome.cell in found:
                raise DataError(
                    f"{self.cells}: cell {outcome.cell!r} is there twice, or not of this sweep; begin a new one"
                )
            if outcome.measured is not None:
                outcome.measured.right_images(begun.asked.images)
            found[outcome.cell] = outcome
        return found


class Lines:
    """Appends lines to a file, each at once and as a whole.

    Args:
        path: the file; what of its last line was cut off is removed.

    Raises:
        UsageError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        keep = whole_bytes(path)
        try:
            self._file = path.open("ab", buffering=0)
            self._file.truncate(keep)
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}") from error
        self._path = path
        self._end = keep

    def append(self, value: object) -> None:
        """Write a dataclass as a line, and bring it to the disk; see :meth:`extend`."""
        self.extend([value])

    def extend(self, values: Sequence[object]) -> None:
        """Write dataclasses as lines, and bring them to the disk together.

        Raises:
            UsageError: they cannot be written, as on a full disk; what was written before stays, and nothing else.
        """
        data = memoryview("".join(f"{to_line(value)}\n" for value in values).encode())
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise UsageError(
                f"{self._path} cannot be written: {error.strerror}; make room, then give the same command again"
            ) from error
        self._end += written

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_lines(path: Path) -> list[str]:
    """Return the whole lines of a file; none where it is missing.

    Raises:
        DataError: it cannot be read.
    """
    keep = whole_bytes(path)
    if not keep:
        return []
    try:
        return path.read_bytes()[:keep].decode("utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _comparable(value: object) -> object:
    """Return a value for comparison; the order of the cells decides nothing."""
    return frozenset(value) if isinstance(value, tuple) else value


def _differences(earlier: Begun, begun: Begun, names: list[str]) -> str:
    words = []
    for name in names:
        if name == "cells":
            before, now = set(earlier.asked.cells), set(begun.asked.cells)
            words.append(
                f"its grid has {len(before - now):,} cells that this one lacks, and lacks {len(now - before):,}"
            )
        else:
            words.append(f"{name} was {getattr(earlier.asked, name)}, now it is {getattr(begun.asked, name)}")
    return "; ".join(words)
