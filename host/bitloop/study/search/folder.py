"""The folder of a search, and its files; whatever ends the search, they are whole or can be gone on with."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.record import HostIdentity, Versions
from bitloop.bench.strict import plain
from bitloop.errors import DataError, UsageError
from bitloop.study.folder import read_lines
from bitloop.study.results import from_line
from bitloop.study.search.choices import Assignment
from bitloop.study.search.evaluations import Evaluation, read_evaluation
from bitloop.study.search.library import Library

__all__ = ["SEARCH_VERSION", "SearchAsked", "SearchBegun", "SearchFolder"]

_LOGGER = logging.getLogger(__name__)

SEARCH_VERSION = 1


@dataclass(frozen=True)
class SearchAsked:
    """What decides every figure of a search.

    Attributes:
        network: its name.
        network_sha256: of its MODEL in binary32.
        dataset: name of the data set.
        dataset_sha256: of all of it.
        images: of the search split, from the front.
        confirm_images: of the confirm split, from the front.
        margin: the loss of accuracy that is put up with, as a share.
        objectives: what is made small.
        method: "exhaustive" or "sampled".
        tensors: ``<tensor>=<spec>,<spec>,…``, what is chosen from.
        seed: of the sampler; 0 of an exhaustive search, which draws nothing.
    """

    network: str
    network_sha256: str
    dataset: str
    dataset_sha256: str
    images: int
    confirm_images: int
    margin: float
    objectives: tuple[str, ...]
    method: str
    tensors: tuple[str, ...]
    seed: int


@dataclass(frozen=True)
class SearchBegun:
    """``search.json``: how a search was begun."""

    version: int
    started: str
    command: str
    asked: SearchAsked
    versions: Versions
    host: HostIdentity


class SearchFolder:
    """Where a search keeps its files.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begun = path / "search.json"
        self.evaluations = path / "evaluations.jsonl"
        self.device = path / "device.jsonl"
        self.result = path / "result.json"
        self.table = path / "candidates.csv"
        self.page = path / "search.html"
        self.winner = path / "winner.blm"
        self.study = path / "study.log"

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

    def begin(self, begun: SearchBegun) -> SearchBegun:
        """Begin a search here, or see that the one begun here was asked the same.

        Returns:
            What is in ``search.json``: as given, or as it was begun earlier.

        Raises:
            UsageError: another search was begun here, or the folder cannot be written.
            DataError: ``search.json`` is damaged.
        """
        if not self.begun.exists():
            if self.evaluations.exists():
                raise UsageError(
                    f"{self.evaluations} is there, but no {self.begun.name} that says of what; name another --out"
                )
            text = json.dumps(plain(dataclasses.asdict(begun)), indent=2, ensure_ascii=False, allow_nan=False)
            write_file(self.begun, f"{text}\n".encode())
            return begun
        earlier = self._read_begun()
        differs = [
            f"{field.name} was {_words(getattr(earlier.asked, field.name))}, now it is "
            f"{_words(getattr(begun.asked, field.name))}"
            for field in dataclasses.fields(SearchAsked)
            if getattr(earlier.asked, field.name) != getattr(begun.asked, field.name)
        ]
        if differs:
            raise UsageError(
                f"{self.path} holds another search: {'; '.join(differs)}; give the same command to go on with it, or "
                "name another --out"
            )
        if earlier.versions != begun.versions:
            _LOGGER.warning("the search in %s was begun with other versions: %s", self.path, earlier.versions)
        return earlier

    def read_evaluations(self, library: Library, reference: int, images: int) -> dict[Assignment, Evaluation]:
        """Read what was evaluated; a last line that was cut off is left out.

        Args:
            library: of the search.
            reference: images that the network in binary32 labels right.
            images: of the search split.

        Raises:
            DataError: a line is damaged, of another search, or there twice.
        """
        found: dict[Assignment, Evaluation] = {}
        for number, line in enumerate(read_lines(self.evaluations), start=1):
            where = f"{self.evaluations}, line {number}"
            evaluation = read_evaluation(line, where, library=library, reference=reference, images=images)
            assignment = library.choices.assignment(evaluation.specs)
            if assignment in found:
                raise DataError(f"{where}: the assignment is there twice; delete one of its lines")
            found[assignment] = evaluation
        return found

    def _read_begun(self) -> SearchBegun:
        try:
            text = self.begun.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(f"{self.begun} cannot be read: {error}; is this the folder of a search?") from error
        begun = from_line(SearchBegun, text, self.begun.name)
        if begun.version != SEARCH_VERSION:
            raise DataError(f"{self.begun} is of version {begun.version}, this bitloop reads {SEARCH_VERSION}")
        return begun


def _words(value: object) -> str:
    return " ".join(value) if isinstance(value, tuple) else str(value)
