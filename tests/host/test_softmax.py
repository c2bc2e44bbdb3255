"""Labels and softmax, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bitloop.simulate import labels, softmax

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("logits", "label"),
    [
        ([1, 3, 2], 1),
        ([2, 3, 3], 1),
        ([-0.0, 0.0], 0),
        ([0.0, -0.0], 0),
        ([-INF, -INF], 0),
        ([1, INF, INF], 1),
        ([NAN, 5], 0),
        ([1, NAN, 2], 2),
        ([3, NAN, 2], 0),
        ([NAN, NAN], 0),
        ([7], 0),
    ],
)
def test_the_lowest_index_of_the_greatest_wins_and_nan_is_never_greater(logits, label):
    found = labels(np.array([logits, logits], np.float32))
    assert found.tolist() == [label, label]


def test_labels_leave_the_logits_alone():
    logits = np.array([[1, 3, 2]], np.float32)
    labels(logits)
    assert logits.tolist() == [[1, 3, 2]]


def test_softmax_of_log_numbers_gives_their_shares():
    logits = np.log(np.array([[1, 2, 5], [1, 1, 2]], np.float64)).astype(np.float32)
    assert softmax(logits) == pytest.approx(np.array([[1 / 8, 2 / 8, 5 / 8], [1 / 4, 1 / 4, 1 / 2]]), rel=1e-6)


def test_softmax_is_stable_and_wide():
    found = softmax(np.array([[3e38, 3e38], [-3e38, 3e38], [1000, 1001]], np.float32))
    assert found.dtype == np.float64
    assert found == pytest.approx(np.array([[0.5, 0.5], [0, 1], [1 / (1 + math.e), math.e / (1 + math.e)]]))


def test_softmax_of_infinities_and_nan():
    found = softmax(np.array([[INF, 1, INF], [-INF, 0, 0], [NAN, 0, 0], [-INF, -INF, -INF]], np.float32))
    assert found[:2].tolist() == [[0.5, 0, 0.5], [0, 0.5, 0.5]]
    assert np.isnan(found[2:]).all()
