"""Searches of a study: the smallest assignment for the first seed, held against all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
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
        choices: the winner's formats with every seed; empty where nothing was confirmed.
        search_measures: what each is worth on the search split.
        confirm_measures: the same on the confirm split.
        losses: against binary32 on the confirm split, one a seed.
    """

    margin: float
    search: Search
    instances: tuple[Instance, ...]
    choices: tuple[Choice, ...]
    search_measures: tuple[Measure, ...]
    confirm_measures: tuple[Measure, ...]
    losses: tuple[Comparison, ...]


def run_searches(entry: SearchEntry, instances: Sequence[Instance], context: Context) -> list[Found]:
    """Search for one network, once a margin, and measure what was found with all its seeds.

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
            processes=context.processes,
            command=context.command,
        )
        out = context.folder / "searches" / entry.name / f"{first.label}-{margin:g}"
        result = run_search(first.network, context.search, context.confirm, options, out, progress=say)
        found.append(_held(entry.name, margin, result, instances, context))
    return found


def _held(name: str, margin: float, result: Search, instances: Sequence[Instance], context: Context) -> Found:
    if result.winner is None:
        return Found(margin, result, tuple(instances), (), (), (), ())
    recipe, plain = result.winner.recipe, parse_recipe("fp32")
    choices, here, there, losses = [], [], [], []
    for instance in instances:
        model = quantize(instance.network, recipe)
        choices.append(Choice(name, margin, instance, recipe, words_of(recipe), model))
        here.append(context.measures.of(model, context.search))
        there.append(context.measures.of(model, context.confirm))
        floating = context.measures.of(quantize(instance.network, plain), context.confirm)
        losses.append(compare(floating.right, there[-1].right))
    return Found(margin, result, tuple(instances), tuple(choices), tuple(here), tuple(there), tuple(losses))


def search_table(name: str, found: Sequence[Found]) -> Table:
    """Return a line a network, margin and seed."""
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    for one in found:
        if not one.choices:
            label = one.instances[0].label
            rows.append((label, f"{one.margin:g}", "none was confirmed", *[""] * 7))
            raw.append((label, one.margin, *[None] * 12))
            continue
        for choice, here, there, loss in zip(
            one.choices, one.search_measures, one.confirm_measures, one.losses, strict=True
        ):
            sizes = choice.model.sizes
            holds = loss.bound <= one.margin / 100
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
                    "yes" if holds else "no",
                )
            )
            raw.append(
                (
                    *(choice.instance.label, one.margin, choice.words, sizes.weights, sizes.biases, sizes.scales),
                    *(sizes.total, there.coded_bytes, here.accuracy.value, there.accuracy.value, loss.loss, loss.bound),
                    *(loss.p, int(holds)),
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
        title=f"{name}: the smallest assignment of formats, found with the first seed",
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
                "holds",
            ),
        ),
        rows=tuple(rows),
        raw_columns=(
            *("network", "margin", "formats", "weights_bytes", "biases_bytes", "scales_bytes", "bytes", "coded_bytes"),
            *("search", "confirm", "confirm_loss", "confirm_bound", "mcnemar_p", "holds"),
        ),
        raw=tuple(raw),
        notes=("Loss and its upper 95 % bound: points less than fp32 of the same seed, on the confirm split.", *curses),
    )
