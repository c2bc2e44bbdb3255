"""Evaluating assignments in several processes, each once, each kept as it is done."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bitloop.bench.interrupt import InterruptGuard
from bitloop.network.architecture import Architecture
from bitloop.network.network import Network
from bitloop.study.evaluate import Evaluator, Score
from bitloop.study.folder import Lines
from bitloop.study.search.choices import Assignment, Choices
from bitloop.study.search.evaluations import Evaluation
from bitloop.study.search.library import Library
from bitloop.study.search.tree import Tree
from bitloop.study.workers import Crew

__all__ = ["Examiner", "Part", "SearchJob", "parts_of"]

PART_ASSIGNMENTS = 1_024
"""The most that one process evaluates at a time."""


@dataclass(frozen=True)
class Part:
    """Assignments that one process evaluates at a time.

    Attributes:
        key: what it is named by where it fails.
        assignments: which ones.
    """

    key: str
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, eq=False)
class SearchJob:
    """What all evaluations of a search share, in a form that travels to another process.

    Attributes:
        architecture: of the network, as a dict.
        parameters: of the network.
        dataset: the network's.
        choices: the specs.
        pixels: uint8 ``[N, H, W, C]``.
        labels: uint8 ``[N]``.
        reference: bool ``[N]``, which images the network in binary32 labels right.
        whole_grid: whether assignments come by the hundred that differ in their last layers, or a few at a time.
    """

    noun: ClassVar[str] = "part"

    architecture: dict[str, Any]
    parameters: Mapping[str, npt.NDArray[np.float32]]
    dataset: str
    choices: Choices
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.bool_]
    whole_grid: bool

    def measurer(self) -> _Measurer:
        """Return what evaluates parts."""
        return _Measurer(self)


class _Measurer:
    """Evaluates parts, one after another, in this process.

    A few assignments at a time are scored by the fastest of the exact ways to a MODEL, a whole grid by the tree, which
    computes each prefix once.
    """

    def __init__(self, job: SearchJob) -> None:
        network = Network(Architecture.from_dict(job.architecture), job.parameters, job.dataset)
        self._library = Library(network, job.choices)
        self._job = job
        self._tree = Tree(self._library, job.pixels, job.labels) if job.whole_grid else None
        self._evaluator = Evaluator(self._library.model(self._library.widest()), job.pixels, uses=4)

    def measure(self, part: Part) -> list[Evaluation]:
        """Return what assignments are worth, in their order.

        Raises:
            BitloopError: whatever keeps the network from being evaluated.
        """
        scores: Iterable[Score]
        if self._tree is not None:
            scores = self._tree.scores(part.assignments)
        else:
            labels = self._job.labels
            scores = (self._evaluator.score(self._library.model(chosen), labels) for chosen in part.assignments)
        return [
            _evaluation(self._library, chosen, score, self._job.reference)
            for chosen, score in zip(part.assignments, scores, strict=True)
        ]


class Examiner:
    """Evaluates assignments of a search that were not evaluated before; used as a context manager.

    Args:
        job: what they share.
        known: what was evaluated before, by assignment; new evaluations are added.
        lines: where they are kept.
        processes: how many evaluate.
        progress: called with how many were evaluated, each time there are more.
    """

    def __init__(
        self,
        job: SearchJob,
        known: dict[Assignment, Evaluation],
        lines: Lines,
        *,
        processes: int,
        progress: Callable[[int], None],
    ) -> None:
        self.known = known
        self._job = job
        self._lines = lines
        self._processes = processes
        self._progress = progress
        self._crew: Crew[Part, list[Evaluation]] = Crew(job, processes)
        self._guard = InterruptGuard()

    def __enter__(self) -> Examiner:
        self._guard.__enter__()
        self._crew.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._crew.__exit__(kind, error, traceback)
        self._guard.__exit__(kind, error, traceback)

    def evaluate(self, assignments: Sequence[Assignment]) -> list[Evaluation]:
        """Return evaluations of assignments, in their order; those that are not known yet are computed and kept.

        Raises:
            WorkerError: a process crashed.
            BitloopError: an assignment cannot be evaluated.
            KeyboardInterrupt: Ctrl-C; what was evaluated is kept.
        """
        left = sorted({chosen for chosen in assignments if chosen not in self.known})
        parts = list(parts_of(left, self._job.choices) if self._job.whole_grid else _singles(left))
        for found in self._crew.measure(parts):
            self.keep(found)
            self._progress(len(self.known))
        return [self.known[chosen] for chosen in assignments]

    def keep(self, evaluations: Sequence[Evaluation]) -> None:
        """Add evaluations, here or from elsewhere, to what is known and to the file."""
        with self._guard.held():
            self._lines.extend(evaluations)
            for evaluation in evaluations:
                self.known[self._job.choices.assignment(evaluation.specs)] = evaluation


def parts_of(assignments: Sequence[Assignment], choices: Choices) -> Iterator[Part]:
    """Divide sorted assignments into parts that have what is chosen for the first layer in common.

    Args:
        assignments: sorted.
        choices: the specs they are of.
    """
    first = choices.tensors[0].rpartition(".")[0]
    width = sum(tensor.rpartition(".")[0] == first for tensor in choices.tensors)
    for prefix, group in itertools.groupby(assignments, key=lambda chosen: chosen[:width]):
        every = tuple(group)
        name = " ".join(
            f"{tensor}={specs[number]}"
            for tensor, specs, number in zip(choices.tensors, choices.specs, prefix, strict=False)
        )
        for start in range(0, len(every), PART_ASSIGNMENTS):
            yield Part(f"{name} from {start:,} on", every[start : start + PART_ASSIGNMENTS])


def _singles(assignments: Sequence[Assignment]) -> Iterator[Part]:
    for chosen in assignments:
        yield Part("-".join(map(str, chosen)), (chosen,))


def _evaluation(library: Library, chosen: Assignment, score: Score, reference: npt.NDArray[np.bool_]) -> Evaluation:
    sizes = library.sizes(chosen)
    return Evaluation(
        specs=library.choices.texts(chosen),
        weights_bytes=sizes.weights,
        biases_bytes=sizes.biases,
        scales_bytes=sizes.scales,
        correct=score.correct,
        only_fp32=int((reference & ~score.right).sum()),
        only_this=int((score.right & ~reference).sum()),
        cross_entropy=score.cross_entropy,
    )
