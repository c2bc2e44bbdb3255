"""The steps of a search: evaluate a whole grid, or what is worth it; take the best, by the device's figures too.

A whole grid is proof: every assignment is evaluated, none is left out for any reason, so that the best admissible one
of the grid, and the best ten, are what they are said to be. What makes that cheap is the tree (:mod:`.tree`), not an
argument about what cannot win: accuracy is not monotone in the bits of a tensor, so that no smaller assignment could be
ruled out by another's loss.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from bitloop.data.dataset import Images
from bitloop.quantize.recipe import BIASES_SUFFIX
from bitloop.study.device import DeviceCell, DeviceOptions
from bitloop.study.evaluate import Score
from bitloop.study.folder import Lines
from bitloop.study.search.bench import Bench, non_dominated, objective_values
from bitloop.study.search.choices import Assignment
from bitloop.study.search.crew import Examiner, SearchJob
from bitloop.study.search.evaluations import Evaluation, Judge, rank, read_evaluation
from bitloop.study.search.folder import SearchAsked, SearchFolder
from bitloop.study.search.greedy import explore
from bitloop.study.search.library import Library
from bitloop.study.search.options import SearchOptions
from bitloop.study.search.proposals import Proposals

__all__ = ["Selected", "Work", "evaluate_all", "sample", "select"]


@dataclass(frozen=True, eq=False)
class Work:
    """What the steps of a search share.

    Attributes:
        library: of the network and its choices.
        images: of the search split.
        reference: what the network in binary32 is worth on them.
        judge: who is admissible.
        folder: where everything is kept.
        processes: how many evaluate.
        objectives: what is made small.
        device: where it is measured, if anywhere.
        progress: called with a stage, how much of it is done, and how much there is.
    """

    library: Library
    images: Images
    reference: Score
    judge: Judge
    folder: SearchFolder
    processes: int
    objectives: tuple[str, ...]
    device: DeviceOptions | None
    progress: Callable[[str, int, int], None] | None

    def stage(self, name: str) -> Callable[[int, int], None]:
        """Return what takes the progress of one stage."""

        def step(done: int, total: int) -> None:
            if self.progress is not None:
                self.progress(name, done, total)

        return step

    def job(self, *, whole_grid: bool) -> SearchJob:
        """Return what the processes need."""
        network = self.library.network
        return SearchJob(
            architecture=network.architecture.to_dict(),
            parameters=dict(network.parameters),
            dataset=network.dataset,
            choices=self.library.choices,
            pixels=self.images.pixels,
            labels=self.images.labels,
            reference=self.reference.right,
            whole_grid=whole_grid,
        )

    def bench(self, evaluations: Sequence[Evaluation]) -> Bench | None:
        """Return what measures on the device, if there is one."""
        if self.device is None:
            return None
        return Bench(self.library, self.images, self.device, self.folder, evaluations)


@dataclass(frozen=True, eq=False)
class Selected:
    """The best of a search, on the search split and on the device.

    Attributes:
        best: admissible, best first.
        front: keys of what nothing measured beats in all objectives; none of one objective.
        device: what was measured, by the key of the evaluation.
    """

    best: list[Evaluation]
    front: list[str]
    device: dict[str, DeviceCell]


def evaluate_all(work: Work, known: dict[Assignment, Evaluation]) -> None:
    """Evaluate every assignment that is not known yet, and keep each."""
    choices = work.library.choices
    if len(known) == choices.count:
        return
    step, total = work.stage("evaluate"), choices.count
    step(len(known), total)
    with (
        Lines(work.folder.evaluations) as lines,
        Examiner(
            work.job(whole_grid=True),
            known,
            lines,
            processes=work.processes,
            progress=lambda done: step(done, total),
        ) as examiner,
    ):
        examiner.evaluate(list(itertools.product(*(range(len(specs)) for specs in choices.specs))))


def sample(work: Work, known: dict[Assignment, Evaluation], asked: SearchAsked, options: SearchOptions) -> None:
    """Evaluate what the additive proxy and Optuna propose, until Optuna's trials are done; keep each.

    Args:
        work: what the steps share.
        known: evaluations by assignment; new ones are added, those of other processes that share the study too.
        asked: what the search was asked; all processes that share a study must have been asked it, but for the seed.
        options: of the search: trials, seed, storage, name of the study.
    """
    folder, choices = work.folder, work.library.choices
    judge, objectives = work.judge, work.objectives

    def read(text: str, where: str) -> Evaluation:
        return read_evaluation(
            text, where, library=work.library, reference=work.reference.correct, images=len(work.images)
        )

    with contextlib.ExitStack() as stack:
        measured = work.bench(list(known.values())) if set(objectives) != {"bytes"} else None
        bench = None if measured is None else stack.enter_context(measured)

        def values(evaluation: Evaluation) -> tuple[float, ...] | None:
            cell = None if bench is None else bench.cell(evaluation)
            return objective_values(evaluation, cell, objectives)

        proposals = Proposals(
            choices,
            judge,
            objectives,
            values,
            asked={name: value for name, value in asdict(asked).items() if name != "seed"},
            read=read,
            storage=options.storage or folder.study,
            name=options.study_name or work.library.network.name,
            seed=options.seed,
        )
        lines = stack.enter_context(Lines(folder.evaluations))
        step = work.stage("explore")
        examiner = stack.enter_context(
            Examiner(
                work.job(whole_grid=False),
                known,
                lines,
                processes=work.processes,
                progress=lambda done: step(done, 0),
            )
        )
        _take_over(proposals, examiner)
        seeds = explore(work.library, examiner, judge)
        proposals.add(known.values())
        proposals.enqueue(seeds)
        proposals.run(options.trials, examiner.evaluate, at_once=work.processes, progress=work.stage("trials"))
        _take_over(proposals, examiner)


def select(work: Work, evaluations: list[Evaluation], count: int, more: int) -> Selected:
    """Return the best admissible evaluations; with objectives that take a device, by what was measured there.

    By bytes alone the best are ranked by :func:`rank`. Else there are measured: as many of these; up to ``more``
    others, the smallest of each combination of formats for the weights (biases hardly change a latency); and all that
    a sampled search has measured. What does not fit the device is out. The first objective ranks them.

    Args:
        work: what the steps share.
        evaluations: all there are.
        count: how many are wanted.
        more: others that are measured at most.
    """
    good = work.judge.best(evaluations, len(evaluations))
    best = good[:count]
    bench = work.bench(evaluations)
    if bench is None:
        return Selected(best, [], {})
    by_bytes = work.objectives == ("bytes",)
    with bench:
        pool = best if by_bytes else _pool(work, good, count, more, set(bench.cells))
        bench.measure(pool, work.stage("device"))
        cells = {found.key: bench.cells[found.key] for found in pool}
    if by_bytes:
        return Selected(best, [], cells)
    points = [(found, objective_values(found, cells[found.key], work.objectives)) for found in pool]
    fitting = [(values, found) for found, values in points if values is not None]
    fitting.sort(key=lambda point: (point[0][0], rank(point[1])))
    front = [fitting[place][1].key for place in non_dominated([values for values, _ in fitting])]
    return Selected([found for _, found in fitting[:count]], front if len(work.objectives) > 1 else [], cells)


def _pool(work: Work, good: Sequence[Evaluation], count: int, more: int, measured: set[str]) -> list[Evaluation]:
    """Return the admissible evaluations that are measured, the smallest first; ``good`` is sorted so."""
    weights = [not name.endswith(BIASES_SUFFIX) for name in work.library.choices.tensors]
    smallest: dict[tuple[str, ...], Evaluation] = {}
    for found in good:
        smallest.setdefault(tuple(itertools.compress(found.specs, weights)), found)
    chosen = {found.key for found in [*good[:count], *list(smallest.values())[:more]]} | measured
    return [found for found in good if found.key in chosen]


def _take_over(proposals: Proposals, examiner: Examiner) -> None:
    """Keep here what other processes that share the study have evaluated."""
    new = [found for chosen, found in proposals.finished().items() if chosen not in examiner.known]
    if new:
        examiner.keep(new)
