"""Searches of a study: the smallest assignments for the first seed, and the first of them that holds for all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import Recipe, parse_recipe
from bitloop.study.evaluate import Evaluator
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.comparisons import words_of
from bitloop.study.experiment.context import Context
from bitloop.study.experiment.file import SearchEntry
from bitloop.study.experiment.measures import Measure
from bitloop.study.experiment.networks import Instance
from bitloop.study.experiment.tables import Table, Value, percent, points
from bitloop.study.search.choices import choices_of
from bitloop.study.search.search import Search, SearchOptions, run_search
from bitloop.study.statistics import Comparison, compare

__all__ = ["Found", "run_searches", "search_table"]


@dataclass(frozen=True, eq=False)
class Found:
    """What a search found for one network and margin.

    Attributes:
        margin: in points.
        search: with the first seed.
        tried: candidates of the search that were looked at on the confirm split, the one chosen included.
        choices: the formats chosen, with every seed; empty where no candidate holds with all of them.
        search_measures: what each is worth on the search split.
        confirm_measures: the same on the confirm split.
        losses: against binary32 on the confirm split, one a seed.
    """

    margin: float
    search: Search
    instances: tuple[Instance, ...]
    tried: int
    choices: tuple[Choice, ...]
    search_measures: tuple[Measure, ...]
    confirm_measures: tuple[Measure, ...]
    losses: tuple[Comparison, ...]


def run_searches(entry: SearchEntry, instances: Sequence[Instance], context: Context) -> list[Found]:
    """Search for one network, once a margin, with its first seed, and choose what holds with all.

    The candidates of the search are looked at in its order, the smallest first; chosen is the first whose loss on the
    confirm split is at most the margin with every seed.

    Args:
        entry: of the study's file.
        instances: the seeds of one network; the first is searched with.
        context: what the sections share.

    Raises:
        As :func:`bitloop.study.search.search.run_search`.
    """
    first = instances[0]
    choices = choices_of(first.network, weights=entry.weights, biases=entry.biases, pinned=entry.set)
    found = []
    for margin in context.margins:

        def say(stage: str, done: int, total: int, margin: float = margin) -> None:
            context.step(f"{entry.name}: {first.label}, {margin:g} points, {stage}", done, total)

        options = SearchOptions(
            choices=choices,
            margin=margin / 100,
            method=entry.method,
            trials=entry.trials,
            seed=entry.seed,
            best=entry.candidates,
            processes=context.processes,
            command=context.command,
        )
        out = context.folder / "searches" / entry.name / f"{first.label}-{margin:g}"
        result = run_search(first.network, context.search, context.confirm, options, out, progress=say)
        found.append(_chosen(entry, margin, result, instances, context))
    return found


def _chosen(
    entry: SearchEntry, margin: float, search: Search, instances: Sequence[Instance], context: Context
) -> Found:
    none = Found(margin, search, tuple(instances), len(search.candidates), (), (), (), ())
    if not search.candidates:
        return none
    others = [_OnConfirm(one, context, len(search.candidates)) for one in instances[1:]]
    for tried, candidate in enumerate(search.candidates, start=1):
        context.step(f"{entry.name}: {margin:g} points, with every seed", tried, len(search.candidates))
        if candidate.is_confirmed and all(one.loss(candidate.recipe).is_non_inferior(margin / 100) for one in others):
            return _measured(entry.name, replace(none, tried=tried), candidate.recipe, context)
    return none


class _OnConfirm:
    """A network's losses on the confirm split: labels alone, which are exact; what is chosen is measured in full."""

    def __init__(self, instance: Instance, context: Context, uses: int) -> None:
        self._network, self._images = instance.network, context.confirm
        base = quantize(instance.network, parse_recipe("fp32"))
        self._evaluator = Evaluator(base, self._images.pixels, uses=uses)
        self._floating = self._evaluator.score(base, self._images.labels).right

    def loss(self, recipe: Recipe) -> Comparison:
        """Return what formats lose against binary32."""
        found = self._evaluator.score(quantize(self._network, recipe), self._images.labels)
        return compare(self._floating, found.right)


def _measured(name: str, found: Found, recipe: Recipe, context: Context) -> Found:
    """Return what was found with a recipe chosen, and measured in full with every seed."""
    choices, here, there, losses = [], [], [], []
    for one in found.instances:
        words = words_of(recipe, tuple(one.network.parameters))
        choices.append(Choice(name, found.margin, one, recipe, words, quantize(one.network, recipe)))
        floating = context.measures.of(quantize(one.network, parse_recipe("fp32")), context.confirm)
        here.append(context.measures.of(choices[-1].model, context.search))
        there.append(context.measures.of(choices[-1].model, context.confirm))
        losses.append(compare(floating.right, there[-1].right))
    return replace(
        found,
        choices=tuple(choices),
        search_measures=tuple(here),
        confirm_measures=tuple(there),
        losses=tuple(losses),
    )


def search_table(name: str, found: Sequence[Found]) -> Table:
    """Return a line a network, margin and seed, with what was chosen."""
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    for one in found:
        if not one.choices:
            label = one.instances[0].label
            rows.append((label, f"{one.margin:g}", "none holds with every seed", *[""] * 6, _looked_at(one)))
            raw.append((label, one.margin, *[None] * 11, one.tried))
            continue
        for choice, here, there, loss in zip(
            one.choices, one.search_measures, one.confirm_measures, one.losses, strict=True
        ):
            sizes = choice.model.sizes
            rows.append(
                (
                    choice.instance.label,
                    f"{one.margin:g}",
                    choice.words,
                    f"{sizes.total:,}",
                    f"{there.coded_bytes:,}",
                    percent(here.accuracy.value),
                    percent(there.accuracy.value),
                    points(loss.loss),
                    points(loss.bound),
                    _looked_at(one),
                )
            )
            raw.append(
                (
                    *(choice.instance.label, one.margin, choice.words, sizes.weights, sizes.biases, sizes.scales),
                    *(sizes.total, there.coded_bytes, here.accuracy.value, there.accuracy.value, loss.loss, loss.bound),
                    *(loss.p, one.tried),
                )
            )
    curses = [
        f"{one.instances[0].label}, {one.margin:g} points: {one.search.begun.asked.method}, "
        f"{len(one.search.evaluations):,} assignments evaluated; the search flattered its {one.search.curse.count} "
        f"best by {one.search.curse.mean:+.3f} points on average."
        for one in found
        if one.search.curse is not None
    ]
    return Table(
        name=f"{name}-found",
        title=f"{name}: the smallest assignment of formats that is not inferior with any seed",
        columns=(
            *(
                "network",
                "margin",
                "formats",
                "bytes",
                "entropy coded",
                "search",
                "confirm",
                "loss",
                "at most",
                "confirmed",
            ),
        ),
        rows=tuple(rows),
        raw_columns=(
            *("network", "margin", "formats", "weights_bytes", "biases_bytes", "scales_bytes", "bytes", "coded_bytes"),
            *("search", "confirm", "confirm_loss", "confirm_bound", "mcnemar_p", "tried"),
        ),
        raw=tuple(raw),
        notes=(
            "Loss and its upper 95 % bound: points less than fp32 of the same seed, on the confirm split. Confirmed: "
            "how many candidates of the search, the smallest first, were looked at there, of how many.",
            *curses,
        ),
    )


def _looked_at(found: Found) -> str:
    return f"{'yes' if found.choices else 'no'} ({found.tried} of {len(found.search.candidates)})"
