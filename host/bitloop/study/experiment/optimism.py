"""How much a figure flatters what was chosen by it: select and report on the same images, or on others.

The 2018 study chose bits and threshold by the accuracy on the test set, and reported that accuracy. How optimistic that
is can be told without the test set. The images of search and confirm are parted at random into two halves, many times;
the cell that labels most images of the first half right is chosen, and its accuracy there, less that on the second
half, is the optimism of that parting. Both halves are from one pool, so that what is left on average is due to the
choice. For the network in binary32, which nobody chose, the same figure must be 0 within its error, which shows that
the halves are fair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.study.experiment.sweeps import SweepGroup
from bitloop.study.experiment.tables import Table, Value, percent, points
from bitloop.study.grid import BASE
from bitloop.study.statistics import spread
from bitloop.study.sweep import Sweep

__all__ = ["PARTINGS", "Optimism", "optimism_of", "optimism_table"]

PARTINGS = 2_000
_SEED = 2018
_BLOCK = 250


@dataclass(frozen=True)
class Optimism:
    """The optimism of choosing among cells, as shares of accuracy.

    Attributes:
        mean: over the partings: accuracy where it was chosen less accuracy elsewhere.
        sd: over the partings.
        error: standard error of the mean, over the partings alone: how well it is known for these images.
        base: the same of the network in binary32.
        images: of a half.
        cells: chosen from.
    """

    mean: float
    sd: float
    error: float
    base: float
    images: int
    cells: int


def optimism_of(
    right: npt.NDArray[np.bool_], base: npt.NDArray[np.bool_], *, partings: int = PARTINGS, seed: int = _SEED
) -> Optimism:
    """Return the optimism of choosing the cell that labels most images right.

    Args:
        right: bool ``[cells, N]``: which images each cell labels right, N at least 2. Of equally good cells the first
            is chosen.
        base: bool ``[N]``: the same of the network in binary32.
        partings: how often the images are parted, 2 or more.
        seed: of the partings.
    """
    cells, count = right.shape
    half = count // 2
    generator = np.random.default_rng(seed)
    wide, all_right = right.astype(np.float32), right.sum(axis=1)
    found, floating = [], []
    for start in range(0, partings, _BLOCK):
        block = min(_BLOCK, partings - start)
        first = np.zeros((count, block), np.float32)
        for column in range(block):
            first[generator.permutation(count)[:half], column] = 1.0
        here = np.rint(wide @ first).astype(np.int64)  # counts below 2^24: exact
        chosen = here.argmax(axis=0)
        columns = np.arange(block)
        there = all_right[chosen] - here[chosen, columns]
        found += (here[chosen, columns] / half - there / (count - half)).tolist()
        base_here = np.rint(base.astype(np.float32) @ first)
        floating += (base_here / half - (base.sum() - base_here) / (count - half)).tolist()
    total = spread(found)
    assert total.sd is not None
    return Optimism(total.mean, total.sd, total.sd / math.sqrt(partings), spread(floating).mean, half, cells)


def optimism_table(group: SweepGroup) -> Table:
    """Return a line a seed: chosen on search, and what it is worth on confirm; and the optimism by partings.

    Args:
        group: with all cells on both splits.
    """
    assert group.confirm is not None
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    for instance, search, confirm in zip(group.instances, group.search, group.confirm, strict=True):
        keys = [row.cell for row in search.rows if row.cell != BASE.key]
        right = np.concatenate([_right(search, keys), _right(confirm, keys)], axis=1)
        base = np.concatenate([_right(search, [BASE.key]), _right(confirm, [BASE.key])], axis=1)[0]
        found = optimism_of(right, base)
        best = max((row for row in search.rows if row.cell in keys), key=lambda row: row.accuracy.correct)
        there = next(row for row in confirm.rows if row.cell == best.cell)
        differences = (
            best.accuracy.value - search.rows[0].accuracy.value,
            there.accuracy.value - confirm.rows[0].accuracy.value,
        )
        rows.append(
            (
                instance.label,
                best.spec,
                percent(best.accuracy.value),
                points(differences[0]),
                percent(there.accuracy.value),
                points(differences[1]),
                f"{100 * found.mean:+.3f} ± {100 * found.error:.3f}",
                f"{100 * found.base:+.3f}",
            )
        )
        raw.append(
            (
                *(instance.label, best.cell, best.accuracy.value, differences[0], there.accuracy.value, differences[1]),
                *(found.mean, found.sd, found.error, found.base, found.images, found.cells, PARTINGS),
            )
        )
    return Table(
        name=f"{group.section}-{group.network}-{group.of}-optimism",
        title=f"{group.network}, {group.of}: the best of {len(keys):,} cells on the images that chose it and on others",
        columns=("network", "chosen", "search", "less fp32", "confirm", "less fp32", "optimism", "of fp32"),
        rows=tuple(rows),
        raw_columns=(
            *("network", "chosen", "search", "search_less_fp32", "confirm", "confirm_less_fp32", "optimism"),
            *("optimism_sd", "optimism_error", "optimism_of_fp32", "images_of_a_half", "cells", "partings"),
        ),
        raw=tuple(raw),
        notes=(
            "Optimism: points that the best cell is better by on the half that chose it than on the other; mean of "
            f"{PARTINGS:,} random partings of search and confirm together, ± its standard error over the partings.",
        ),
    )


def _right(sweep: Sweep, keys: list[str]) -> npt.NDArray[np.bool_]:
    """Return which images of a sweep each cell labels right, ``[cells, N]``."""
    images = sweep.begun.asked.images
    found = []
    for key in keys:
        measured = sweep.outcomes[key].measured
        assert measured is not None
        found.append(measured.right_images(images))
    return np.array(found)
