"""Which images a run is about: a data set by name or directory, a split, and the vault where it must be opened."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bitloop.data.dataset import DATASETS, Dataset, Images, Progress, load
from bitloop.data.pixels import quantize_pixels
from bitloop.data.splits import Split
from bitloop.data.vault import Opening, Vault
from bitloop.errors import UsageError

__all__ = ["Selection", "find_dataset", "select_images", "sent_images", "sent_sha256"]


@dataclass(frozen=True)
class Selection:
    """Images of a split, and the openings of the vault that they took."""

    images: Images
    openings: tuple[Opening, ...]


def find_dataset(data: str | Path, *, progress: Progress | None = None) -> Dataset:
    """Load a data set.

    Args:
        data: its name, or a directory that holds MNIST's files.
        progress: called during a download.

    Raises:
        DataError: it cannot be had.
    """
    if str(data) in DATASETS:
        return load(str(data), progress=progress)
    return load("mnist", Path(data), progress=progress)


def select_images(dataset: Dataset, split: str, *, limit: int | None, reason: str) -> Selection:
    """Take the images of a split; those of the test split come out of the vault, which logs it.

    Args:
        dataset: whose images.
        split: train, search, confirm or test.
        limit: only so many, from the front; None is all.
        reason: why the test split is opened.

    Raises:
        UsageError: there is no such split.
        DataError: the limit is below 1, or the vault cannot log the opening.
    """
    names = {each.value: each for each in Split}
    if split not in names:
        raise UsageError(f"unknown split {split!r}; there are {', '.join(names)}")
    openings: tuple[Opening, ...] = ()
    if names[split] is Split.TEST:
        vault = Vault(dataset)
        images = vault.open(reason)
        openings = vault.openings
    else:
        images = dataset.split(names[split])
    return Selection(images if limit is None else images.first(limit), openings)


def sent_images(images: Images, pixel_bits: int | None) -> Images:
    """Return images as device and host simulation get them: with pixels of so many bits, or as they are."""
    if pixel_bits is None:
        return images
    return replace(images, pixels=quantize_pixels(images.pixels, pixel_bits))


def sent_sha256(images: Images) -> str:
    """Return the SHA-256 of images as the device gets them, one behind the other."""
    return hashlib.sha256(np.ascontiguousarray(images.pixels).data).hexdigest()
