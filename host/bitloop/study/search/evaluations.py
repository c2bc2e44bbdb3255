"""What an assignment was found to be worth, and what that means for a search: admissible or not, better or worse."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from bitloop.errors import DataError
from bitloop.study.search.library import Library
from bitloop.study.statistics import Comparison, loss_bound, mcnemar_p

__all__ = ["Evaluation", "Judge", "accuracy_front", "rank", "read_evaluation"]

_INFINITY = float("inf")
_NUMBERS = ("weights_bytes", "biases_bytes", "scales_bytes", "correct", "only_fp32", "only_this")


@dataclass(frozen=True)
class Evaluation:
    """A line of ``evaluations.jsonl``: an assignment on the images of the search split.

    Attributes:
        specs: of the tensors, in the order of the network.
        weights_bytes: packed.
        biases_bytes: packed.
        scales_bytes: scales and zero points.
        correct: images that are labelled right.
        only_fp32: images that only the network in binary32 labels right.
        only_this: images that only this one labels right.
        cross_entropy: in nats; None where a logit is infinite or NaN.
    """

    specs: tuple[str, ...]
    weights_bytes: int
    biases_bytes: int
    scales_bytes: int
    correct: int
    only_fp32: int
    only_this: int
    cross_entropy: float | None

    @property
    def total_bytes(self) -> int:
        """Weights, biases and scales."""
        return self.weights_bytes + self.biases_bytes + self.scales_bytes

    @property
    def key(self) -> str:
        """A text that no other assignment of a search has."""
        return " ".join(self.specs)

    def comparison(self, images: int) -> Comparison:
        """Return how it compares with the network in binary32, on so many images."""
        only_fp32, only_this = self.only_fp32, self.only_this
        return Comparison(
            only_reference=only_fp32,
            only_candidate=only_this,
            total=images,
            loss=(only_fp32 - only_this) / images,
            bound=_bound(only_fp32, only_this, images),
            p=mcnemar_p(only_fp32, only_this),
        )


@dataclass(frozen=True)
class Judge:
    """Judges evaluations of one search.

    Attributes:
        images: of the search split.
        margin: the loss of accuracy that is put up with, as a share.
    """

    images: int
    margin: float

    def bound(self, evaluation: Evaluation) -> float:
        """Return the upper one-sided 95 % bound of the loss."""
        return _bound(evaluation.only_fp32, evaluation.only_this, self.images)

    def is_admissible(self, evaluation: Evaluation) -> bool:
        """Tell whether the bound of the loss is at most the margin."""
        # The bound is no less than the loss, so that most need no bound.
        if evaluation.only_fp32 - evaluation.only_this > self.margin * self.images:
            return False
        return self.bound(evaluation) <= self.margin

    def best(self, evaluations: Iterable[Evaluation], count: int) -> list[Evaluation]:
        """Return the best admissible ones: the fewest bytes, then the most correct, then the least cross-entropy."""
        return sorted((found for found in evaluations if self.is_admissible(found)), key=rank)[:count]


def rank(evaluation: Evaluation) -> tuple[int, int, float, str]:
    """Return what is less the better an admissible evaluation is; no two are equal."""
    entropy = _INFINITY if evaluation.cross_entropy is None else evaluation.cross_entropy
    return evaluation.total_bytes, -evaluation.correct, entropy, evaluation.key


def accuracy_front(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Return those that none of as many bytes or fewer equals in accuracy, the smallest first."""
    front: list[Evaluation] = []
    for evaluation in sorted(evaluations, key=rank):
        if not front or evaluation.correct > front[-1].correct:
            front.append(evaluation)
    return front


def read_evaluation(line: str, where: str, *, library: Library, reference: int, images: int) -> Evaluation:
    """Return the evaluation that a line of JSON holds, if it can be one of this search.

    Args:
        line: the text.
        where: the line's place, for messages.
        library: of the search.
        reference: images that the network in binary32 labels right.
        images: of the search split.

    Raises:
        DataError: it is no evaluation of this search, or its figures contradict one another.
    """
    try:
        document = json.loads(line)
        document["specs"] = tuple(document["specs"])
        evaluation = Evaluation(**document)
        assignment = library.choices.assignment(evaluation.specs)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{where} is no evaluation of this search; its line was changed: delete it") from error
    counts = [getattr(evaluation, name) for name in _NUMBERS]
    entropy = evaluation.cross_entropy
    sizes = library.sizes(assignment)
    whole = (
        all(type(count) is int and count >= 0 for count in counts)
        and (entropy is None or type(entropy) is float)
        and (sizes.weights, sizes.biases, sizes.scales) == tuple(counts[:3])
        and evaluation.correct == reference - evaluation.only_fp32 + evaluation.only_this
        and evaluation.correct <= images
        and evaluation.only_fp32 <= reference
        and evaluation.only_this <= images - reference
    )
    if not whole:
        raise DataError(
            f"{where} says what cannot be of {library.choices.words(assignment)}; it was changed: delete the line, and "
            "the search will evaluate it again"
        )
    return evaluation


@lru_cache(maxsize=1 << 16)
def _bound(only_fp32: int, only_this: int, images: int) -> float:
    return loss_bound(only_fp32, only_this, images)
