"""Optimism of choosing and reporting on the same images: against what is known of the best of many coins."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import integrate, stats

from bitloop.study.experiment.optimism import optimism_of


def test_one_cell_has_no_optimism() -> None:
    generator = np.random.default_rng(1)
    right = generator.random((1, 4000)) < 0.9
    found = optimism_of(right, right[0])
    assert abs(found.mean) < 4 * found.error
    assert found.base == pytest.approx(found.mean, abs=1e-7)  # the same cell, on the same partings
    assert (found.images, found.cells) == (2000, 1)


def test_the_best_of_equal_coins_flatters_by_its_expected_maximum() -> None:
    """Cells that are right by independent coins of one probability differ by chance alone.

    Here all cells have one share over the whole pool. On a half it is about normal, with the variance of drawing n of N
    without replacement; the other half mirrors it. So the best of K cells is better by twice the expected maximum of K
    such normals on the half that chose it, and that maximum is had by numerical integration.
    """
    cells, count, p = 40, 20_000, 0.5
    right = np.random.default_rng(2).random((cells, count)) < p
    # Equal shares over the whole pool, so that nothing but the parting decides.
    for row in right:
        odd = int(row.sum()) - count // 2
        row[np.flatnonzero(row == (odd > 0))[: abs(odd)]] ^= True
    grid = np.linspace(-6, 8, 20_001)
    density = cells * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** (cells - 1)
    expected_maximum = integrate.trapezoid(grid * density, grid)
    # A half's share given the pool: variance p(1-p)/n · (N-n)/(N-1), n = N/2; the other half's is its mirror image.
    sd = math.sqrt(p * (1 - p) / (count / 2) * (count / 2) / (count - 1))
    found = optimism_of(right, right[0], partings=1000)
    assert found.mean == pytest.approx(2 * sd * expected_maximum, rel=0.06)


def test_all_partings_of_a_few_images_by_hand() -> None:
    """Four images, two cells: all six partings are enumerated, and many drawn ones must come to their mean."""
    right = np.array([[1, 1, 0, 0], [0, 1, 1, 0]], bool)
    total = 0.0
    for half in itertools.combinations(range(4), 2):
        other = [image for image in range(4) if image not in half]
        counts = [int(row[list(half)].sum()) for row in right]
        chosen = right[counts.index(max(counts))]
        total += (chosen[list(half)].sum() - chosen[other].sum()) / 2
    found = optimism_of(right, right[0], partings=8000)
    assert found.mean == pytest.approx(total / 6, abs=5 * found.error)
    assert found.error < 0.01


def test_a_cell_that_is_better_throughout_flatters_no_one() -> None:
    generator = np.random.default_rng(3)
    poor = generator.random((5, 2000)) < 0.5
    right = np.concatenate([poor, np.ones((1, 2000), bool)])
    found = optimism_of(right, right[-1])
    assert found.mean == 0.0
    assert found.base == 0.0


def test_the_same_seed_gives_the_same() -> None:
    right = np.random.default_rng(4).random((7, 301)) < 0.8
    assert optimism_of(right, right[0], partings=100) == optimism_of(right, right[0], partings=100)
    assert optimism_of(right, right[0], partings=100) != optimism_of(right, right[0], partings=100, seed=1)
