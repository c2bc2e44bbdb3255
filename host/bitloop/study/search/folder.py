"""The folder of a search, and its files; whatever ends the search, they are whole or can be gone on with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.bench.record import HostIdentity, Versions
from bitloop.errors import DataError
from bitloop.study.folder import StudyFolder, read_lines
from bitloop.study.search.choices import Assignment
from bitloop.study.search.evaluations import Evaluation, read_evaluation
from bitloop.study.search.library import Library

__all__ = ["SEARCH_VERSION", "SearchAsked", "SearchBegun", "SearchFolder"]

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


class SearchFolder(StudyFolder[SearchBegun]):
    """Where a search keeps its files.

    Attributes:
        evaluations: what was evaluated, line by line.
        winner: the winner as a MODEL.
        study: Optuna's study, unless it is elsewhere.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, noun="search", parts="evaluations", kind=SearchBegun, version=SEARCH_VERSION)
        self.evaluations = self.lines
        self.table = path / "candidates.csv"
        self.winner = path / "winner.blm"
        self.study = path / "study.log"

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
