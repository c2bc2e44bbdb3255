"""The folder of a study, and its files; whatever ends the study, they are whole or can be gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.journal import whole_bytes
from bitloop.bench.record import Versions
from bitloop.bench.strict import plain
from bitloop.errors import DataError, UsageError
from bitloop.study.results import SWEEP_VERSION, Begun, Outcome, from_line, outcomes_of, to_line

__all__ = ["Lines", "StudyFolder", "SweepFolder", "read_lines"]

_LOGGER = logging.getLogger(__name__)


class StudyBegun(Protocol):
    """How a study was begun: a dataclass, as is what it was asked."""

    @property
    def version(self) -> int:
        """Of the folder's files."""

    @property
    def asked(self) -> Any:
        """What decides every figure of the study."""

    @property
    def versions(self) -> Versions:
        """Of the software."""


B = TypeVar("B", bound=StudyBegun)


class StudyFolder(Generic[B]):
    """Where a study keeps its files.

    Args:
        path: the folder.
        noun: what the study is called, and its files after it.
        parts: what it measures, in the plural.
        kind: how it was begun; the version it must have.
        version: of its files.

    Attributes:
        path: the folder.
        begun: how the study was begun, written first.
        lines: what was measured, line by line.
        device: the same of a device.
        result: what came of it.
        table: the same, line by line.
        page: the same for people.
    """

    def __init__(self, path: Path, *, noun: str, parts: str, kind: type[B], version: int) -> None:
        self.path = path
        self.begun = path / f"{noun}.json"
        self.lines = path / f"{parts}.jsonl"
        self.device = path / "device.jsonl"
        self.result = path / "result.json"
        self.table = path / f"{parts}.csv"
        self.page = path / f"{noun}.html"
        self._noun, self._parts, self._kind, self._version = noun, parts, kind, version

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

    def begin(self, begun: B) -> B:
        """Begin a study here, or see that the one begun here was asked the same.

        Returns:
            What is in the file: as given, or as it was begun earlier.

        Raises:
            UsageError: another study was begun here, or the folder cannot be written.
            DataError: the file is damaged.
        """
        if not self.begun.exists():
            if self.lines.exists():
                raise UsageError(
                    f"{self.lines} is there, but no {self.begun.name} that says of what; name another --out"
                )
            self._write_begun(begun)
            return begun
        earlier = self.read_begun()
        differs = [
            field.name
            for field in dataclasses.fields(earlier.asked)
            if self._comparable(earlier, field.name) != self._comparable(begun, field.name)
        ]
        if differs:
            raise UsageError(
                f"{self.path} holds another {self._noun}: {self._differences(earlier, begun, differs)}; give the same "
                "command to go on with it, or name another --out"
            )
        if earlier.versions != begun.versions:
            _LOGGER.warning("%s was begun with other versions: %s", self.path, earlier.versions)
        return earlier

    def read_begun(self) -> B:
        """Read how the study was begun.

        Raises:
            DataError: it is missing, damaged, or of another version.
        """
        try:
            text = self.begun.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.begun} cannot be read: {error}; is this its folder?") from error
        begun = from_line(self._kind, text, self.begun.name)
        if begun.version != self._version:
            raise DataError(f"{self.begun} is of version {begun.version}, this bitloop reads {self._version}")
        return begun

    def _write_begun(self, begun: B) -> None:
        assert dataclasses.is_dataclass(begun)
        text = json.dumps(plain(dataclasses.asdict(begun)), indent=2, ensure_ascii=False, allow_nan=False)
        write_file(self.begun, f"{text}\n".encode())

    def _comparable(self, begun: B, name: str) -> object:
        """Return what was asked, for comparison; the order of the parts decides nothing."""
        value = getattr(begun.asked, name)
        return frozenset(value) if name == self._parts else value

    def _differences(self, earlier: B, begun: B, names: list[str]) -> str:
        words = []
        for name in names:
            before, now = getattr(earlier.asked, name), getattr(begun.asked, name)
            if name == self._parts:
                more, fewer = len(set(before) - set(now)), len(set(now) - set(before))
                words.append(f"it has {more:,} {name} that this one lacks, and lacks {fewer:,}")
            else:
                words.append(f"{name} was {_words(before)}, now it is {_words(now)}")
        return "; ".join(words)


class SweepFolder(StudyFolder[Begun]):
    """Where a sweep keeps its files.

    Attributes:
        cells: the cells that were measured, line by line.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, noun="sweep", parts="cells", kind=Begun, version=SWEEP_VERSION)
        self.cells = self.lines

    def begin(self, begun: Begun) -> Begun:
        """Begin a sweep here, or go on with the one that was begun here, with more cells than then if need be.

        What a cell is worth hangs on no other cell, so that those of the smaller grid stay as they are.

        Raises:
            As :meth:`StudyFolder.begin`: a cell of the sweep that was begun here is not asked for, or anything else
            differs.
        """
        if not self.begun.exists():
            return super().begin(begun)
        earlier = self.read_begun()
        if set(earlier.asked.cells) < set(begun.asked.cells):
            grown = dataclasses.replace(earlier, asked=dataclasses.replace(earlier.asked, cells=begun.asked.cells))
            if grown.asked == begun.asked:
                self._write_begun(grown)
        return super().begin(begun)

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


def _words(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
