"""Quantization-aware training of a network, warm-started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bitloop.data.dataset import Dataset
from bitloop.data.splits import Split
from bitloop.network.architecture import Architecture
from bitloop.network.network import Network, load_network
from bitloop.network.settings import SCRATCH, RecipeTexts, TrainingSettings, train_command
from bitloop.network.train import ProgressCallback, train
from bitloop.network.zoo import ZOO
from bitloop.qat.layers import FakeQuantizer
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import Recipe
from bitloop.simulate.reference import labels, simulate


def find_start(name: str, source: str | None) -> tuple[str, Network | None]:
    """Return what training starts from, as text and as a network.

    Args:
        name: Of the architecture in the zoo.
        source: A zoo name or a file; :data:`SCRATCH`; None for the zoo's own parameters, or scratch where it has none.

    Raises:
        NetworkError: There is no such network.
    """
    if source is None:
        source = name if name in ZOO and ZOO[name].committed else SCRATCH
    return source, None if source == SCRATCH else load_network(source)


def train_quantized(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    start: Network | None = None,
    start_name: str = SCRATCH,
    settings: TrainingSettings | None = None,
    progress: ProgressCallback | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Train a network so that it is good once it is quantized by ``recipe``.

    Each epoch is judged on the search split with quantized parameters, the start before the first step too: what is
    kept is on that split no worse than the start quantized without training. The two accuracies in the metadata are of
    the quantized network in the exact simulation: what ``bitloop quantize`` and ``bitloop simulate`` give.

    Args:
        architecture: What to train; it must give 10 logits.
        dataset: As for :func:`bitloop.network.train.train`; the test split is not touched.
        recipe: What becomes of each tensor; not with stochastic rounding.
        start: Parameters to begin with; None for random ones.
        start_name: What the metadata calls them.
        settings: Of the training.
        progress: Called after each step.
        checkpoint: File that keeps where the training stands, as for :func:`bitloop.network.train.train`.

    Returns:
        The network in binary32, to be quantized by ``recipe``.

    Raises:
        UsageError: Keras is not installed, or the checkpoint is of another training.
        NetworkError: Architecture, data set and start do not fit, or training diverged.
        FormatError: The recipe cannot be trained with, or names a tensor the network lacks.
    """
    settings = settings or TrainingSettings()
    trained = train(
        architecture,
        dataset,
        settings,
        progress=progress,
        start=start,
        checkpoint=checkpoint,
        wrapper=FakeQuantizer(recipe),
    )
    model = quantize(trained, recipe)
    metadata = {
        **trained.metadata,
        "command": train_command(architecture.name, dataset.name, settings, _texts(recipe), start_name),
        "qat": recipe.to_dict(),
        "start": {"network": start_name, "sha256": None if start is None else start.sha256},
        "search_accuracy": _exact_accuracy(model, dataset, Split.SEARCH),
        "confirm_accuracy": _exact_accuracy(model, dataset, Split.CONFIRM),
    }
    return Network(architecture, trained.parameters, dataset.name, metadata)


def _texts(recipe: Recipe) -> RecipeTexts:
    texts: dict[str, Any] = recipe.to_dict()
    overrides = tuple(f"{name}={spec}" for name, spec in texts["overrides"].items())
    return RecipeTexts(texts["weights"], texts["biases"], overrides)


def _exact_accuracy(model: Model, dataset: Dataset, split: Split) -> float:
    images = dataset.split(split)
    return float(np.mean(labels(simulate(model, images.pixels)) == images.labels))
