"""A data set: images and labels in four splits, one of them sealed.

``load`` finds MNIST on this machine or downloads it, or brings scikit-learn's digits to the same form.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bitloop.data.splits import I64, Split
from bitloop.errors import DataError, SealedSplitError

U8 = npt.NDArray[np.uint8]

IMAGE_SHAPE = (28, 28, 1)
CLASSES = 10
DATASETS = ("mnist", "digits")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called during a download with the file's name, bytes so far, and bytes in all (0 when unknown)."""


@dataclass(frozen=True, eq=False)
class Images:
    """Images of one split, with what is needed to name each of them.

    Attributes:
        pixels: uint8 [N, 28, 28, 1], 0 is background.
        labels: uint8 [N], 0 to 9.
        index: int64 [N], each image's index in the data set's own file, ascending.
        split: Which split they are of.
        dataset: The data set's name.
        sha256: SHA-256 of the whole data set, in hex.
    """

    pixels: U8
    labels: U8
    index: I64
    split: Split
    dataset: str
    sha256: str

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Images:
        """Return the first ``count`` images, or all where there are fewer.

        Raises:
            DataError: ``count`` is less than 1.
        """
        if count < 1:
            raise DataError(f"{count} images were asked for; ask for 1 to {len(self)}")
        part = slice(0, count)
        return Images(self.pixels[part], self.labels[part], self.index[part], self.split, self.dataset, self.sha256)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set with its splits; arrays are read-only.

    Attributes:
        name: "mnist" or "digits".
        sha256: SHA-256 of its contents, in hex: what identifies it in a run's record.
        origin: Where it was found, for people.
    """

    name: str
    sha256: str
    origin: str
    _splits: Mapping[Split, Images] = field(repr=False)

    @classmethod
    def build(cls, name: str, sha256: str, origin: str, parts: Mapping[Split, tuple[U8, U8, I64]]) -> Dataset:
        """Build a data set from pixels uint8 [N, 28, 28, 1], labels uint8 [N] and indices int64 [N] of each split.

        Raises:
            DataError: A split is missing, or an array has another shape or type.
        """
        splits: dict[Split, Images] = {}
        for split in Split:
            if split not in parts:
                raise DataError(f"data set {name!r} has no split {split.value!r}")
            pixels, labels, index = parts[split]
            count = len(labels)
            if pixels.shape != (count, *IMAGE_SHAPE) or pixels.dtype != np.uint8 or index.shape != (count,):
                raise DataError(
                    f"split {split.value!r} of {name!r}: pixels are {pixels.dtype} {pixels.shape}, "
                    f"expected uint8 {(count, *IMAGE_SHAPE)} for {count} labels and {len(index)} indices"
                )
            if labels.shape != (count,) or labels.dtype != np.uint8 or (count and labels.max() >= CLASSES):
                raise DataError(f"split {split.value!r} of {name!r}: labels must be uint8 from 0 to {CLASSES - 1}")
            for array in (pixels, labels, index):
                array.setflags(write=False)
            splits[split] = Images(pixels, labels, index, split, name, sha256)
        return cls(name, sha256, origin, MappingProxyType(splits))

    def split(self, split: Split) -> Images:
        """Return the images of an open split.

        Raises:
            SealedSplitError: The test split was asked for; only :class:`bitloop.data.vault.Vault` opens it.
        """
        if split is Split.TEST:
            raise SealedSplitError(
                f"the test split of {self.name!r} is sealed, so that nothing is chosen by looking at it; use 'search' "
                "or 'confirm', or open it once for final results with Vault(dataset).open(reason), which is logged"
            )
        return self._splits[split]

    def counts(self) -> dict[Split, int]:
        """Return the number of images in each split, the sealed one included."""
        return {split: len(images) for split, images in self._splits.items()}


def sealed_images(dataset: Dataset) -> Images:
    """Return the test split. For the vault alone, which logs it first; a test enforces that nothing else calls this."""
    return dataset._splits[Split.TEST]


def load(
    name: str = "mnist",
    directory: Path | str | None = None,
    *,
    download: bool = True,
    progress: Progress | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: "mnist" or "digits".
        directory: Where MNIST's files must lie; None looks in $BITLOOP_DATA, ``data/mnist``, the user's cache and
            Keras's cache, and then downloads. A directory that is named, here or in $BITLOOP_DATA, must hold the data:
            nothing else is tried then.
        download: Whether to download MNIST where it is not found.
        progress: Called while files are downloaded.

    Raises:
        DataError: The name is unknown, or the data is missing or damaged and cannot be downloaded.
    """
    if name == "mnist":
        from bitloop.data.mnist import load_mnist  # noqa: PLC0415 - it builds on this module

        return load_mnist(None if directory is None else Path(directory), download=download, progress=progress)
    if name == "digits":
        if directory is not None:
            raise DataError("'digits' comes with scikit-learn and is read from no directory; leave the directory out")
        from bitloop.data.digits import load_digits  # noqa: PLC0415 - it builds on this module

        return load_digits()
    raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
