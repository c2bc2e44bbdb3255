"""The best of a search on images that it never saw.

The best of many looks better than it is, because it was chosen by the very figures that it is then praised for: the
winner's curse. So the candidates are evaluated again on the confirm split, each with the bound of its loss there, and
with the p of the test of "the loss is the margin or more", adjusted for the number of candidates by Holm's method
(S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979, 65-70).
What the search flattered them by is told too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitloop.bench.metrics import Proportion, wilson
from bitloop.data.dataset import Images
from bitloop.errors import DisagreementError
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import Recipe
from bitloop.study.evaluate import Evaluator, Score, score
from bitloop.study.grid import UNQUANTIZED, base_recipe
from bitloop.study.search.evaluations import Evaluation
from bitloop.study.search.library import Library
from bitloop.study.statistics import Comparison, compare, loss_p

__all__ = ["VERIFIED_IMAGES", "Candidate", "Curse", "Floating", "confirm", "curse_of", "floating_on", "holm", "verify"]

VERIFIED_IMAGES = 1_000
"""Images on which core and reference are compared for the winner and for the network in binary32."""


@dataclass(frozen=True, eq=False)
class Floating:
    """The network in binary32 on one split.

    Attributes:
        accuracy: with its 95 % Wilson interval.
        score: which images are right, and the cross-entropy.
    """

    accuracy: Proportion
    score: Score


@dataclass(frozen=True, eq=False)
class Candidate:
    """One of the best of a search.

    Attributes:
        evaluation: on the search split.
        recipe: what quantizes the network so.
        model_sha256: of the MODEL.
        search_accuracy: on the search split, with its 95 % Wilson interval.
        search: compared with binary32, on the search split.
        confirm_accuracy: the same on the confirm split.
        confirm: compared with binary32, on the confirm split.
        confirm_cross_entropy: in nats; None where a logit is infinite or NaN.
        p: of the test that the loss on the confirm split is the margin or more.
        p_holm: the same, adjusted for the number of candidates.
        is_confirmed: whether the bound of the loss on the confirm split is at most the margin.
    """

    evaluation: Evaluation
    recipe: Recipe
    model_sha256: str
    search_accuracy: Proportion
    search: Comparison
    confirm_accuracy: Proportion
    confirm: Comparison
    confirm_cross_entropy: float | None
    p: float
    p_holm: float
    is_confirmed: bool

    @property
    def total_bytes(self) -> int:
        """Weights, biases and scales."""
        return self.evaluation.total_bytes

    @property
    def flattered(self) -> float:
        """The loss on the confirm split less that on the search split, as a share."""
        return self.confirm.loss - self.search.loss


@dataclass(frozen=True)
class Curse:
    """By how much the search flattered what it chose: the loss on confirm less that on search, in points.

    Attributes:
        mean: over all candidates.
        winner: of the winner; None where there is none.
        count: of candidates.
    """

    mean: float
    winner: float | None
    count: int


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values adjusted by Holm's step-down method (1979), in the order they came in.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none is smaller than one before, or above 1.

    Raises:
        ValueError: one of them is not in [0, 1].
    """
    if any(not 0.0 <= value <= 1.0 for value in values):
        raise ValueError(f"p-values lie between 0 and 1: {list(values)}")
    adjusted = [0.0] * len(values)
    highest = 0.0
    for done, place in enumerate(sorted(range(len(values)), key=lambda place: values[place])):
        highest = max(highest, min(1.0, (len(values) - done) * values[place]))
        adjusted[place] = highest
    return adjusted


def floating_on(library: Library, images: Images) -> Floating:
    """Evaluate the network in binary32 on a split."""
    base = quantize(library.network, base_recipe(UNQUANTIZED))
    found = Evaluator(base, images.pixels, uses=1).score(base, images.labels)
    return Floating(wilson(found.correct, len(images)), found)


def confirm(
    chosen: Sequence[Evaluation],
    library: Library,
    search: tuple[Images, Floating],
    confirmation: tuple[Images, Floating],
    margin: float,
    *,
    progress: Callable[[int, int], None],
) -> list[Candidate]:
    """Evaluate the best of a search on the confirm split, and once more on the search split.

    Args:
        chosen: the best, best first.
        library: of the search.
        search: images that they were chosen on, and binary32 there.
        confirmation: images that nothing was chosen on, and binary32 there.
        margin: the loss of accuracy that is put up with, as a share.
        progress: called with how many are done, and how many there are.

    Raises:
        DisagreementError: on the search split one has other figures than before.
    """
    base = library.model(library.widest())
    before, new = (Evaluator(base, images.pixels, uses=len(chosen)) for images, _ in (search, confirmation))
    found: list[tuple[Evaluation, Score, Comparison]] = []
    for number, evaluation in enumerate(chosen, start=1):
        model = library.model(library.choices.assignment(evaluation.specs))
        again = before.score(model, search[0].labels)
        if compare(search[1].score.right, again.right) != evaluation.comparison(len(search[0])):
            raise DisagreementError(
                f"{evaluation.key}: evaluated again, other images are labelled right; its line was changed, or this "
                "machine computes wrongly: begin the search anew in another folder"
            )
        score = new.score(model, confirmation[0].labels)
        found.append((evaluation, score, compare(confirmation[1].score.right, score.right)))
        progress(number, len(chosen))
    values = [loss_p(c.only_reference, c.only_candidate, c.total, margin=margin) for _, _, c in found]
    return [
        Candidate(
            evaluation=evaluation,
            recipe=library.choices.recipe(library.choices.assignment(evaluation.specs)),
            model_sha256=library.model(library.choices.assignment(evaluation.specs)).sha256,
            search_accuracy=wilson(evaluation.correct, len(search[0])),
            search=evaluation.comparison(len(search[0])),
            confirm_accuracy=wilson(score.correct, len(confirmation[0])),
            confirm=comparison,
            confirm_cross_entropy=score.cross_entropy,
            p=p,
            p_holm=p_holm,
            is_confirmed=comparison.is_non_inferior(margin),
        )
        for (evaluation, score, comparison), p, p_holm in zip(found, values, holm(values), strict=True)
    ]


def curse_of(candidates: Sequence[Candidate], winner: Candidate | None) -> Curse | None:
    """Return by how much the search flattered its candidates; None where there are none."""
    if not candidates:
        return None
    mean = math.fsum(candidate.flattered for candidate in candidates) / len(candidates)
    return Curse(100 * mean, None if winner is None else 100 * winner.flattered, len(candidates))


def verify(library: Library, images: Images, winner: Candidate | None) -> dict[str, int]:
    """Hold core and reference together, bit for bit, for the network in binary32 and for the winner.

    Returns:
        How many images were compared, by "fp32" and "winner".

    Raises:
        DisagreementError: a logit differs.
    """
    part = images.first(VERIFIED_IMAGES)
    base = quantize(library.network, base_recipe(UNQUANTIZED))
    models = {"fp32": base}
    if winner is not None:
        models["winner"] = library.model(library.choices.assignment(winner.evaluation.specs))
    evaluator = Evaluator(base, part.pixels, uses=1)
    return {
        name: evaluator.check(model, score(evaluator.logits(model), part.labels), len(part))
        for name, model in models.items()
    }
