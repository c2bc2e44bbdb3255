"""Which image belongs to which split: a rule on its index, never a generator of a library.

The test images of a data set that has its own (MNIST) are those; the rest is parted by the remainder of the index:

* ``mnist``: image ``i`` of the 60,000 with ``(i div 2) mod 12 == 10`` is in *search*, ``== 11`` in *confirm*, the
  others in *train*: 5,000 / 5,000 / 50,000. Neighbours stay together because images with even indices are
  harder than those with odd ones, as if the two collections that MNIST was mixed from took turns: the zoo's ``mlp8k``
  gets 95.1 % of the even ones and 97.5 % of the odd. A split that favours one of them says little about the test set.
* ``digits``: image ``i`` of the 1,797 with ``i mod 9 == 3`` is in *search*, ``== 4`` in *confirm*, ``== 5`` in *test*,
  the others in *train*: 200 / 200 / 200 / 1,197.

What is chosen (formats, widths, architectures, the epoch to stop at) is chosen on *search* and confirmed on *confirm*.
*Test* opens only through :class:`bitloop.data.vault.Vault`.
"""

from __future__ import annotations

import hashlib
from enum import Enum

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]

MNIST_TRAIN_COUNT = 60_000
MNIST_TEST_COUNT = 10_000
DIGITS_COUNT = 1_797


class Split(Enum):
    """A part of a data set."""

    TRAIN = "train"
    SEARCH = "search"
    CONFIRM = "confirm"
    TEST = "test"


INDEX_SHA256: dict[str, dict[Split, str]] = {
    "mnist": {
        Split.TRAIN: "5275eab9ce49b28ba23e8d3269be91fde3031b31b82843fbec8fe45809d7c077",
        Split.SEARCH: "a8997b0adcae1decc087275d5ae4cba2c0f569d150bacc2f14797452ab45b72e",
        Split.CONFIRM: "37446aa9df75ff6def8ff2e186737c9035491a06fd4cb57c223b89a63cd325d9",
        Split.TEST: "9e1c19b3fdc185411bd1a987deb6a9fda2531116aac060a84c4d878854d1c099",
    },
    "digits": {
        Split.TRAIN: "399d3d770c0aa6712e55503fdcbaa64d288c8c1ffc2c4fd3d2bddf0747e2a669",
        Split.SEARCH: "41d08a70dda90437fbd918fc917d835fc578673a5c8b11b4b489610a0bbda4b1",
        Split.CONFIRM: "ef2c09a0ff29ea0b78860d25c6043922b2eea5fa8ba9bdae373cda16fd41e893",
        Split.TEST: "1a8287c619ec98c0675df4e90ac6e599bd9826c945ea3089de61df364969a9c7",
    },
}
"""SHA-256 of each split's indices as little-endian 64-bit integers, in ascending order."""


def mnist_indices(split: Split) -> I64:
    """Return the indices of a split of MNIST, ascending: into the 60,000, and of *test* into the 10,000."""
    if split is Split.TEST:
        return np.arange(MNIST_TEST_COUNT, dtype=np.int64)
    index = np.arange(MNIST_TRAIN_COUNT, dtype=np.int64)
    return _part(index, index // 2 % 12, {Split.SEARCH: 10, Split.CONFIRM: 11}, split)


def digits_indices(split: Split) -> I64:
    """Return the indices of a split of the digits, ascending: into the 1,797."""
    index = np.arange(DIGITS_COUNT, dtype=np.int64)
    return _part(index, index % 9, {Split.SEARCH: 3, Split.CONFIRM: 4, Split.TEST: 5}, split)


def index_sha256(index: I64) -> str:
    """Return the SHA-256 of indices as little-endian 64-bit integers, in hex."""
    return hashlib.sha256(index.astype("<i8").tobytes()).hexdigest()


def _part(index: I64, remainder: I64, held_out: dict[Split, int], split: Split) -> I64:
    if split is Split.TRAIN:
        part: I64 = index[~np.isin(remainder, list(held_out.values()))]
    else:
        part = index[remainder == held_out[split]]
    return part
