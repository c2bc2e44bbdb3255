"""What commands are given by name: data sets, networks, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitloop.cli import console
from bitloop.errors import UsageError

if TYPE_CHECKING:
    from bitloop.data.dataset import Dataset
    from bitloop.network.network import Network
    from bitloop.quantize.model import Model
    from bitloop.quantize.recipe import Recipe

__all__ = [
    "MODEL_SUFFIX",
    "has_network",
    "load_dataset",
    "load_model",
    "load_network",
    "names_of_model",
    "recipe_for",
]

MODEL_SUFFIX = ".blm"
FOREIGN_SUFFIXES = (".keras", ".tflite")


def load_dataset(data: str | None, default: str = "mnist") -> Dataset:
    """Load a data set, with a progress bar where it must be downloaded.

    Args:
        data: its name, or a directory that holds MNIST's files; None is ``default``.
        default: a data set's name.

    Raises:
        DataError: it cannot be had.
    """
    from bitloop.bench.select import find_dataset  # noqa: PLC0415 - numpy

    with console.progress() as step:
        return find_dataset(default if data is None else data, progress=step)


def load_model(
    source: str, *, weights: str | None, biases: str | None, overrides: Sequence[str], pixel_range: int = 1
) -> Model:
    """Read a MODEL, or quantize a network on the fly.

    Args:
        source: a ``.blm`` file or the name of a packed MODEL; or a network of the zoo, a ``.npz``, ``.keras`` or
            ``.tflite`` file. A name that is both is the MODEL, unless formats are given.
        weights: tensor spec for a network's weights; None is fp32.
        biases: the same for biases; None follows from the weights.
        overrides: texts such as ``dense1.weights=int4``.
        pixel_range: what white is to the network of a ``.keras`` or ``.tflite`` file: 1 or 255.

    Raises:
        UsageError: formats were given for a MODEL, which has its own.
        BitloopError: it cannot be read or quantized.
    """
    from bitloop.quantize import blm  # noqa: PLC0415 - numpy
    from bitloop.quantize.packed import PACKED_MODELS  # noqa: PLC0415 - numpy

    said = weights is not None or biases is not None or bool(overrides)
    packed = None if said and has_network(source) else PACKED_MODELS.get(source)
    if packed is not None or Path(source).suffix.lower() == MODEL_SUFFIX:
        if said:
            raise UsageError(
                f"{source} is quantized already: leave out --weights, --biases and --set, or name a network instead"
            )
        return blm.load(source if packed is None else packed.path)
    from bitloop.quantize.apply import quantize  # noqa: PLC0415 - numpy

    recipe = recipe_for(source, weights, biases, overrides)
    return quantize(load_network(source, pixel_range=pixel_range), recipe)


def has_network(source: str) -> bool:
    """Return whether a name is that of a network whose parameters come with bitloop, whatever MODEL it names too."""
    from bitloop.network.zoo import ZOO  # noqa: PLC0415 - numpy

    return source in ZOO and ZOO[source].committed


def recipe_for(source: str, weights: str | None, biases: str | None, overrides: Sequence[str]) -> Recipe:
    """Return the recipe that was asked for; where nothing was, that which a network of the zoo was trained for.

    Args:
        source: the network.
        weights: tensor spec; None is fp32.
        biases: tensor spec; None follows from the weights.
        overrides: texts such as ``dense1.weights=int4``.

    Raises:
        FormatError: a text cannot be read.
    """
    from bitloop.network.zoo import ZOO  # noqa: PLC0415 - numpy
    from bitloop.quantize.recipe import parse_recipe  # noqa: PLC0415 - numpy

    texts = ZOO[source].recipe if source in ZOO else None
    if texts is not None and weights is None and biases is None and not overrides:
        return parse_recipe(texts.weights, texts.biases, texts.overrides)
    return parse_recipe(weights or "fp32", biases, overrides)


def load_network(source: str, *, pixel_range: int = 1) -> Network:
    """Read a network: of the zoo, or a ``.npz``, ``.keras`` or ``.tflite`` file.

    Raises:
        UsageError: a pixel range was given for a network that has its own.
        BitloopError: it cannot be read.
    """
    if pixel_range != 1 and Path(source).suffix.lower() not in FOREIGN_SUFFIXES:
        raise UsageError(f"--pixel-range is for {' and '.join(FOREIGN_SUFFIXES)} files; {source} takes pixels up to 1")
    from bitloop.network.network import load_network as load  # noqa: PLC0415 - numpy

    return load(source, pixel_range=pixel_range)


def names_of_model(model: Model) -> tuple[str, str]:
    """Return a model's default data set, and a name for a directory: no separators, no blanks."""
    words = "".join(c if c.isalnum() or c in "-._" else "-" for c in model.name)
    return model.dataset or "mnist", words.strip(".-") or "model"
