"""scikit-learn's bundled digits (E. Alpaydin, C. Kaynak, UCI 1998) in the form of MNIST, for want of a network.

1,797 images of 8x8 with values 0 to 16. Each pixel becomes 3x3, two rows and columns of background go around it, and
``v`` becomes ``v * 255 / 16`` rounded to the nearest integer (8, half-way between two, becomes 128).
"""

from __future__ import annotations

import hashlib
import importlib
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.data.dataset import Dataset
from bitloop.data.splits import DIGITS_COUNT, Split, digits_indices
from bitloop.errors import DataError

U8 = npt.NDArray[np.uint8]

SIZE = 8
MAX_VALUE = 16
REPEAT = 3
BORDER = 2
DATASET_SHA256 = "e404f5d627ad72593de10c11b3be7ac87ee11d38e45cc649ec73beb6fca0521a"
"""SHA-256 of all pixels, 28x28, then all labels, as unsigned bytes."""


def enlarge(images: npt.NDArray[Any]) -> U8:
    """Bring images of 8x8 to 28x28.

    Args:
        images: [N, 8, 8], whole numbers from 0 to 16.

    Returns:
        uint8 [N, 28, 28, 1].
    """
    values = np.asarray(images).astype(np.int64)
    grey = ((values * 255 * 2 + MAX_VALUE) // (2 * MAX_VALUE)).astype(np.uint8)
    large = grey.repeat(REPEAT, axis=1).repeat(REPEAT, axis=2)
    around = ((0, 0), (BORDER, BORDER), (BORDER, BORDER))
    return np.pad(large, around)[..., np.newaxis]


def load_digits() -> Dataset:
    """Load the digits that scikit-learn brings along; :mod:`bitloop.data.splits` has their split.

    Raises:
        DataError: scikit-learn is not installed, or its data is not what was expected.
    """
    try:
        datasets = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise DataError(
            "the data set 'digits' needs scikit-learn, which is not installed; pip install 'bitloop[digits]'"
        ) from error
    bunch: Any = datasets.load_digits()
    images, labels = np.asarray(bunch.images), np.asarray(bunch.target)
    if images.shape != (DIGITS_COUNT, SIZE, SIZE) or labels.shape != (DIGITS_COUNT,):
        raise DataError(
            f"scikit-learn's digits are {images.shape}, expected {(DIGITS_COUNT, SIZE, SIZE)}; "
            "install another version of scikit-learn"
        )
    pixels, classes = enlarge(images), labels.astype(np.uint8)
    digest = hashlib.sha256(pixels.tobytes() + classes.tobytes()).hexdigest()
    if digest != DATASET_SHA256:
        raise DataError(
            f"the SHA-256 of scikit-learn's digits is {digest}, expected {DATASET_SHA256}; "
            "install another version of scikit-learn"
        )
    parts = {split: (pixels[index], classes[index], index) for split in Split for index in (digits_indices(split),)}
    return Dataset.build("digits", DATASET_SHA256, "scikit-learn", parts)
