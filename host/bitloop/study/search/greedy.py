"""Where to look in a grid that is too large to evaluate: what each tensor costs alone, added up.

Each tensor is narrowed alone, the others staying as wide as they may be; the rise of the cross-entropy is its loss. The
sum of such losses stands in for the loss of an assignment (the *additive proxy*). It is wrong where layers make up for
one another, or spoil one another's work, so that it only ranks what is worth evaluating.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bitloop.study.search.choices import Assignment
from bitloop.study.search.crew import Examiner
from bitloop.study.search.evaluations import Evaluation, Judge
from bitloop.study.search.library import Library

__all__ = ["Proxy", "explore", "greedy_path", "proxy_front"]

Proxy = tuple[tuple[float, ...], ...]
"""The loss in nats of each choice of each tensor alone, 0 of the widest."""

_HOPELESS = 1e3
"""The loss in nats of what has no cross-entropy."""
_LEAST_LOSS = 1e-6
"""Nats below which losses do not differ: what saves bytes and costs nothing is taken by its bytes."""
_FRONT_POINTS = 2_048
_SEEDS = 16
"""Assignments that the proxy proposes, and nobody has evaluated."""
_ROUNDS = 12
"""The most steps of the descent behind the greedy path."""


def explore(library: Library, examiner: Examiner, judge: Judge) -> list[Assignment]:
    """Evaluate what a search of a large grid begins with, and return assignments that are worth a try.

    Each tensor alone; the greedy path, by bisection between its widest and its narrowest end; from the smallest
    admissible of these a descent, evaluated step by step.

    Args:
        library: of the choices.
        examiner: evaluates, and keeps.
        judge: of the search.

    Returns:
        What the additive proxy deems smaller than the smallest admissible one so far, and least lossy; not evaluated.
    """
    widest = library.widest()
    alone = [
        (tensor, choice)
        for tensor, specs in enumerate(library.choices.specs)
        for choice in range(len(specs))
        if choice != widest[tensor]
    ]
    base, *found = examiner.evaluate([widest, *(_replaced(widest, *one) for one in alone)])
    proxy = _proxy(widest, base, dict(zip(alone, found, strict=True)), library)
    path = greedy_path(library, proxy)
    best = _bisect(path, examiner, judge)
    if best is not None:
        best = _descend(best, library, proxy, examiner, judge)
    limit = _bytes(library, best or widest)
    front = [(size, chosen) for size, _, chosen in proxy_front(library, proxy) if size < limit]
    smaller = [chosen for _, chosen in sorted(front, reverse=True) if chosen not in examiner.known]
    return smaller[:_SEEDS]


def greedy_path(library: Library, proxy: Proxy) -> list[Assignment]:
    """Return assignments from the widest to the narrowest, each with one tensor narrowed.

    Narrowed is the tensor, to the choice, that saves most bytes for the loss that it adds.
    """
    path = [library.widest()]
    while True:
        current = path[-1]
        moves = list(_moves(current, library, proxy))
        if not moves:
            return path
        _, tensor, choice = max(moves)
        path.append(_replaced(current, tensor, choice))


def proxy_front(library: Library, proxy: Proxy) -> list[tuple[int, float, Assignment]]:
    """Return bytes, added loss and assignment of those that none as small and of less loss beats, the smallest first.

    It is built tensor by tensor; of a front of more than 2,048 points every n-th is kept.
    """
    front: list[tuple[int, float, Assignment]] = [(0, 0.0, ())]
    for tensor, losses in enumerate(proxy):
        grown = sorted(
            (size + library.tensor_bytes(tensor, choice), loss + more, (*chosen, choice))
            for size, loss, chosen in front
            for choice, more in enumerate(losses)
        )
        front = []
        for point in grown:
            if not front or point[1] < front[-1][1]:
                front.append(point)
        front = front[:: -(-len(front) // _FRONT_POINTS)]
    return front


def _proxy(widest: Assignment, base: Evaluation, alone: dict[tuple[int, int], Evaluation], library: Library) -> Proxy:
    def loss(tensor: int, choice: int) -> float:
        if choice == widest[tensor]:
            return 0.0
        entropy = alone[tensor, choice].cross_entropy
        if entropy is None or base.cross_entropy is None:
            return _HOPELESS
        return entropy - base.cross_entropy

    return tuple(
        tuple(loss(tensor, choice) for choice in range(len(specs)))
        for tensor, specs in enumerate(library.choices.specs)
    )


def _moves(current: Assignment, library: Library, proxy: Proxy) -> Iterator[tuple[float, int, int]]:
    """Yield bytes saved per nat added, tensor and choice of each way to narrow one tensor."""
    for tensor, losses in enumerate(proxy):
        here = current[tensor]
        for choice in range(len(losses)):
            saved = library.tensor_bytes(tensor, here) - library.tensor_bytes(tensor, choice)
            if saved > 0:
                yield saved / max(losses[choice] - losses[here], _LEAST_LOSS), tensor, choice


def _bisect(path: Sequence[Assignment], examiner: Examiner, judge: Judge) -> Assignment | None:
    """Return the last admissible assignment of a path, as if none behind an inadmissible one were; None if none is."""
    low, high = -1, len(path)
    while high - low > 1:
        middle = (low + high) // 2
        (found,) = examiner.evaluate([path[middle]])
        if judge.is_admissible(found):
            low = middle
        else:
            high = middle
    return path[low] if low >= 0 else None


def _descend(start: Assignment, library: Library, proxy: Proxy, examiner: Examiner, judge: Judge) -> Assignment:
    """Narrow one tensor at a time as long as that is admissible: the one that saves most bytes for what it costs."""
    current = start
    for _ in range(_ROUNDS):
        (here,) = examiner.evaluate([current])
        nearest: dict[int, tuple[float, int, int]] = {}
        for move in _moves(current, library, proxy):
            nearest[move[1]] = max(move, nearest.get(move[1], move))
        steps = [_replaced(current, tensor, choice) for _, tensor, choice in nearest.values()]
        good = [found for found in examiner.evaluate(steps) if judge.is_admissible(found)]
        if not good:
            break
        best = max(good, key=lambda found: (_gain(here, found), -found.total_bytes, found.key))
        current = library.choices.assignment(best.specs)
    return current


def _gain(here: Evaluation, found: Evaluation) -> float:
    before, after = (_HOPELESS if one.cross_entropy is None else one.cross_entropy for one in (here, found))
    return (here.total_bytes - found.total_bytes) / max(after - before, _LEAST_LOSS)


def _replaced(assignment: Assignment, tensor: int, choice: int) -> Assignment:
    return (*assignment[:tensor], choice, *assignment[tensor + 1 :])


def _bytes(library: Library, assignment: Assignment) -> int:
    return sum(library.tensor_bytes(tensor, choice) for tensor, choice in enumerate(assignment))
