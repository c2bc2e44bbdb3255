"""Networks of a study side by side: each with its formats, over its seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import BIASES_SUFFIX, Recipe, parse_recipe
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.context import Context
from bitloop.study.experiment.file import Comparison, Entry
from bitloop.study.experiment.measures import Measure
from bitloop.study.experiment.networks import Instance
from bitloop.study.experiment.tables import Table, Value, mean_sd
from bitloop.study.statistics import difference_interval, spread

__all__ = ["Side", "compare_sides", "comparison_table"]

_DIFFERENCE = (
    "The last column: points on the confirm split, mean difference from the first line ± half of its 95 % interval "
    "over the seeds (Welch); of single seeds nothing is said."
)


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a comparison.

    Attributes:
        entry: of the study's file.
        choices: the network with its formats, one a seed.
        search: what each is worth on the search split.
        confirm: the same on the confirm split.
    """

    entry: Entry
    choices: tuple[Choice, ...]
    search: tuple[Measure, ...]
    confirm: tuple[Measure, ...]

    @property
    def confirm_accuracies(self) -> list[float]:
        """One a seed."""
        return [measure.accuracy.value for measure in self.confirm]


def compare_sides(comparison: Comparison, instances: Mapping[str, Sequence[Instance]], context: Context) -> list[Side]:
    """Measure the sides of a comparison.

    Args:
        comparison: of the study's file.
        instances: by name of the network.
        context: what the sections share.

    Raises:
        FormatError: a spec cannot be read, or names a tensor that is not there.
        BitloopError: a MODEL cannot be run.
    """
    total = sum(len(instances[entry.network]) for entry in comparison.entries)
    done = 0
    sides = []
    for entry in comparison.entries:
        choices, found = [], []
        for instance in instances[entry.network]:
            recipe = recipe_of_entry(entry, instance)
            model = quantize(instance.network, recipe)
            choices.append(
                Choice(
                    comparison.name, None, instance, recipe, words_of(recipe, tuple(instance.network.parameters)), model
                )
            )
            found.append((context.measures.of(model, context.search), context.measures.of(model, context.confirm)))
            done += 1
            context.step(comparison.name, done, total)
        sides.append(Side(entry, tuple(choices), tuple(pair[0] for pair in found), tuple(pair[1] for pair in found)))
    return sides


def recipe_of_entry(entry: Entry, instance: Instance) -> Recipe:
    """Return the formats of one side: what it says, else what the network was trained for, else fp32."""
    if entry.weights is None and entry.biases is None and not entry.set and instance.recipe is not None:
        return instance.recipe
    return parse_recipe(entry.weights or "fp32", entry.biases, entry.set)


def words_of(recipe: Recipe, tensors: Sequence[str]) -> str:
    """Return a recipe for people: what weights and biases have, then each tensor that has something else.

    Args:
        recipe: of formats.
        tensors: names of the network's, in their order; where the recipe names all weights, or all biases, what the
            others would have is left out.
    """
    parts = []
    for spec, noun, mine in (
        (recipe.weights, "", [name for name in tensors if not name.endswith(BIASES_SUFFIX)]),
        (recipe.biases, "biases ", [name for name in tensors if name.endswith(BIASES_SUFFIX)]),
    ):
        if not all(name in recipe.overrides for name in mine):
            parts.append(f"{noun}{spec}")
        parts += [f"{name} {recipe.overrides[name]}" for name in mine if name in recipe.overrides]
    return ", ".join(parts)


def comparison_table(comparison: Comparison, sides: Sequence[Side]) -> Table:
    """Return a line a side: bytes, accuracies over the seeds, and the difference from the first side."""
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    first = sides[0].confirm_accuracies
    for number, side in enumerate(sides):
        architecture = side.choices[0].instance.network.architecture
        model = side.choices[0].model
        coded = [measure.coded_bytes for measure in side.confirm]
        there = side.confirm_accuracies
        interval = None if number == 0 else difference_interval(there, first)
        shown = "" if interval is None else f"{100 * interval.difference:+.2f}"
        if interval is not None and interval.half_width is not None:
            shown += f" ± {100 * interval.half_width:.2f}"
        accuracies = [measure.accuracy.value for measure in side.search]
        rows.append(
            (
                side.entry.network,
                side.choices[0].words,
                f"{architecture.parameter_count():,}",
                f"{architecture.macs():,}",
                f"{model.sizes.total:,}",
                f"{round(math.fsum(coded) / len(coded)):,}",
                mean_sd(accuracies),
                mean_sd(there),
                shown,
            )
        )
        spreads = spread(accuracies), spread(there)
        raw.append(
            (
                *(side.entry.network, side.choices[0].words, architecture.parameter_count(), architecture.macs()),
                *(model.sizes.total, math.fsum(coded) / len(coded), len(there)),
                *(spreads[0].mean, spreads[0].sd, spreads[1].mean, spreads[1].sd),
                None if interval is None else interval.difference,
                None if interval is None else interval.half_width,
                " ".join(f"{value:.4f}" for value in there),
            )
        )
    return Table(
        name=comparison.name,
        title=comparison.question or comparison.name,
        columns=(
            *("network", "formats", "parameters", "MACs", "bytes", "entropy coded", "search", "confirm"),
            f"less {sides[0].entry.network}",
        ),
        rows=tuple(rows),
        raw_columns=(
            *("network", "formats", "parameters", "macs", "bytes", "coded_bytes", "seeds", "search_mean", "search_sd"),
            *("confirm_mean", "confirm_sd", "difference", "difference_half_width_95", "confirm_by_seed"),
        ),
        raw=tuple(raw),
        notes=(
            "Accuracies: mean ± sd over the seeds.",
            *([_DIFFERENCE] if len(sides) > 1 else []),
        ),
    )
