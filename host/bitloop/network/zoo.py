"""Networks that come with bitloop: their architectures, and where their trained parameters lie.

Each committed file was made by ``bitloop train``; docs/networks.md has the commands and the accuracies.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.errors import NetworkError
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax
from bitloop.network.settings import RecipeTexts, TrainingSettings, train_command

INPUT_SHAPE = (28, 28, 1)
CLASSES = 10


@dataclass(frozen=True)
class ZooEntry:
    """A network of the zoo.

    Attributes:
        architecture: Its layers.
        dataset: Name of the data set it is trained on.
        summary: One line for a table.
        settings: How it is trained; what ``bitloop train NAME`` does unless told otherwise.
        committed: Whether parameters come with the package.
        recipe: Where its weights and biases are quantized while it is trained, from scratch: the formats.
    """

    architecture: Architecture
    dataset: str
    summary: str
    settings: TrainingSettings
    committed: bool = True
    recipe: RecipeTexts | None = None

    @property
    def name(self) -> str:
        """Name in the zoo."""
        return self.architecture.name

    @property
    def weights_path(self) -> Path:
        """Where the committed parameters lie, whether or not they do."""
        return Path(__file__).parent / "weights" / f"{self.name}.npz"

    @property
    def train_command(self) -> str:
        """The command that reproduces the parameters."""
        return train_command(self.name, self.dataset, self.settings, self.recipe)


def _mlp(name: str) -> Architecture:
    return Architecture(
        name,
        INPUT_SHAPE,
        (
            Flatten("flatten"),
            Dense("dense1", 32),
            ReLU("relu1"),
            Dense("dense2", 16),
            ReLU("relu2"),
            Dense("dense3", CLASSES),
            Softmax("softmax"),
        ),
    )


def _mlp8k(name: str) -> Architecture:
    return Architecture(
        name,
        INPUT_SHAPE,
        (
            AveragePool2D("pool1"),
            Flatten("flatten"),
            Dense("dense1", 20),
            ReLU("relu1"),
            Dense("dense2", CLASSES),
            Softmax("softmax"),
        ),
    )


def _cnn(name: str) -> Architecture:
    return Architecture(
        name,
        INPUT_SHAPE,
        (
            Conv2D("conv1", 8, (3, 3)),
            ReLU("relu1"),
            MaxPool2D("pool1"),
            Conv2D("conv2", 16, (3, 3)),
            ReLU("relu2"),
            MaxPool2D("pool2"),
            Flatten("flatten"),
            Dense("dense1", CLASSES),
            Softmax("softmax"),
        ),
    )


def _cnn2k() -> Architecture:
    """Most accuracy in 2 KB: 9,500 parameters, nearly all of them of three values."""
    return Architecture(
        "cnn2k",
        INPUT_SHAPE,
        (
            Conv2D("conv1", 8, (3, 3)),
            ReLU("relu1"),
            MaxPool2D("pool1"),
            Conv2D("conv2", 18, (3, 3)),
            ReLU("relu2"),
            MaxPool2D("pool2"),
            Conv2D("conv3", 32, (3, 3)),
            ReLU("relu3"),
            Flatten("flatten"),
            Dense("dense1", CLASSES),
            Softmax("softmax"),
        ),
    )


def _cnn6k() -> Architecture:
    """Most accuracy in 6 KB: 23,258 parameters, nearly all of them of three values."""
    return Architecture(
        "cnn6k",
        INPUT_SHAPE,
        (
            Conv2D("conv1", 16, (5, 5), strides=(2, 2)),
            ReLU("relu1"),
            Conv2D("conv2", 32, (3, 3)),
            ReLU("relu2"),
            MaxPool2D("pool1"),
            Conv2D("conv3", 48, (3, 3)),
            ReLU("relu3"),
            Flatten("flatten"),
            Dense("dense1", CLASSES),
            Softmax("softmax"),
        ),
    )


def _bitopt2018() -> Architecture:
    """The network of the 2018 study at Hallym University (jeonggunlee/BitOptimizer4ML): 1,379,333 parameters."""
    return Architecture(
        "bitopt2018",
        INPUT_SHAPE,
        (
            Conv2D("conv1", 32, (3, 3), padding="same", use_bias=False),
            ReLU("relu1"),
            MaxPool2D("pool1", padding="same"),
            Conv2D("conv2", 64, (3, 3), padding="same", use_bias=False),
            ReLU("relu2"),
            MaxPool2D("pool2", padding="same"),
            Conv2D("conv3", 128, (3, 3), padding="same", use_bias=False),
            ReLU("relu3"),
            MaxPool2D("pool3", padding="same"),
            Flatten("flatten"),
            Dense("dense1", 625),
            ReLU("relu4"),
            Dense("dense2", CLASSES),
            Softmax("softmax"),
        ),
    )


_MLP = TrainingSettings(epochs=50, batch_size=128, learning_rate=0.004, patience=15, augment=1)
_CNN = TrainingSettings(epochs=30, batch_size=128, learning_rate=0.004, patience=12, augment=1)
_CNN2K = TrainingSettings(epochs=60, batch_size=64, learning_rate=0.003, patience=60, augment=1, rotate=10, zoom=10)
CNN2K_RECIPE = RecipeTexts("ternary", "e4m3", ("conv1.weights=int4",))
_CNN6K = TrainingSettings(epochs=20, batch_size=128, learning_rate=0.004, patience=100, augment=1, rotate=10, zoom=10)
CNN6K_RECIPE = RecipeTexts("ternary:channel", "e4m3", ("conv1.weights=int4:channel",))
_DIGITS = TrainingSettings(epochs=60, batch_size=32, learning_rate=0.003, patience=25, augment=1)
_BITOPT = TrainingSettings(epochs=15, batch_size=100, learning_rate=0.001, patience=15)

ZOO: dict[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        ZooEntry(_mlp("mlp"), "mnist", "784-32-16-10", _MLP),
        ZooEntry(_mlp8k("mlp8k"), "mnist", "average pool 2x2, 196-20-10, for 8 KB chips", _MLP),
        ZooEntry(_cnn("cnn"), "mnist", "conv 3x3x8, pool, conv 3x3x16, pool, dense 10", _CNN),
        ZooEntry(
            _cnn2k(),
            "mnist",
            "conv 3x3x8, pool, conv 3x3x18, pool, conv 3x3x32, dense 10; ternary, for 2 KB of weights",
            _CNN2K,
            recipe=CNN2K_RECIPE,
        ),
        ZooEntry(
            _cnn6k(),
            "mnist",
            "conv 5x5x16, 3x3x32, pool, conv 3x3x48, dense 10; ternary, for 6 KB of weights",
            _CNN6K,
            recipe=CNN6K_RECIPE,
        ),
        ZooEntry(_bitopt2018(), "mnist", "the 2018 study's network", _BITOPT, committed=False),
        ZooEntry(_mlp("mlp-digits"), "digits", "mlp on scikit-learn's digits", _DIGITS),
        ZooEntry(_mlp8k("mlp8k-digits"), "digits", "mlp8k on scikit-learn's digits", _DIGITS),
        ZooEntry(_cnn("cnn-digits"), "digits", "cnn on scikit-learn's digits", _DIGITS),
    )
}


def zoo_names() -> tuple[str, ...]:
    """Return the names of the zoo in the order of its table."""
    return tuple(ZOO)


def zoo_entry(name: str) -> ZooEntry:
    """Return a network of the zoo.

    Raises:
        NetworkError: There is none of that name.
    """
    try:
        return ZOO[name]
    except KeyError:
        raise NetworkError(f"no network {name!r} in the zoo; it has {', '.join(ZOO)}") from None


def zoo_architecture(name: str) -> Architecture:
    """Return the architecture of a network of the zoo.

    Raises:
        NetworkError: There is none of that name.
    """
    return zoo_entry(name).architecture
