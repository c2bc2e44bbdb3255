"""MNIST and scikit-learn's digits: loading, splits, and the vault of the test set."""

from bitloop.data.dataset import DATASETS, Dataset, Images, Progress, load
from bitloop.data.splits import Split
from bitloop.data.vault import Opening, Vault
from bitloop.errors import DataError, SealedSplitError

__all__ = [
    "DATASETS",
    "DataError",
    "Dataset",
    "Images",
    "Opening",
    "Progress",
    "SealedSplitError",
    "Split",
    "Vault",
    "load",
]
