"""scikit-learn's digits in the form of MNIST."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from bitloop.data import DataError, SealedSplitError, Split, digits, load


def test_enlarging_by_hand() -> None:
    image = np.zeros((1, 8, 8))
    image[0, 0, 0], image[0, 7, 7], image[0, 2, 3], image[0, 0, 1] = 16, 1, 8, 15
    large = digits.enlarge(image)
    assert large.shape == (1, 28, 28, 1)
    assert large.dtype == np.uint8
    expected = np.zeros((28, 28), np.uint8)
    expected[2:5, 2:5] = 255
    expected[23:26, 23:26] = 16  # 255 / 16 = 15.94
    expected[8:11, 11:14] = 128  # 127.5, half-way
    expected[2:5, 5:8] = 239  # 239.06
    assert np.array_equal(large[0, :, :, 0], expected)


def test_digits_load_in_four_splits() -> None:
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed (extra 'digits')")
    dataset = load("digits")
    assert dataset.counts() == {Split.TRAIN: 1197, Split.SEARCH: 200, Split.CONFIRM: 200, Split.TEST: 200}
    bunch = sklearn.load_digits()
    for split in (Split.TRAIN, Split.SEARCH, Split.CONFIRM):
        images = dataset.split(split)
        assert np.array_equal(images.labels, bunch.target[images.index])
        # The middle of each 3x3 block is the pixel it was made from.
        small = images.pixels[:, 3:26:3, 3:26:3, 0]
        assert np.array_equal(small, np.round(bunch.images[images.index] * 255 / 16).astype(np.uint8))
    with pytest.raises(SealedSplitError):
        dataset.split(Split.TEST)


def test_digits_need_no_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no directory"):
        load("digits", tmp_path)


def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"bitloop\[digits\]"):
        load("digits")


@pytest.mark.parametrize("shape", [(1797, 8, 8), (1796, 8, 8)])
def test_other_data_is_refused(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    bunch = types.SimpleNamespace(images=np.zeros(shape), target=np.zeros(shape[0], np.int64))
    module = types.SimpleNamespace(load_digits=lambda: bunch)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", module)
    with pytest.raises(DataError, match="another version of scikit-learn"):
        load("digits")
