"""How a network is trained: the numbers that a command line names and a file's metadata records."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from bitloop.errors import UsageError

Loss: TypeAlias = Literal["cross_entropy", "squared_error"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "squared_error")
Schedule: TypeAlias = Literal["cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "constant")
MAX_AUGMENT = 8
MAX_ROTATE = 180.0
MAX_ZOOM = 50.0
SCRATCH = "scratch"
"""In place of a network to start from: begin with random parameters."""

_ALWAYS_SAID = frozenset({"seed", "epochs", "batch_size", "learning_rate", "patience", "loss", "augment"})


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training.

    Attributes:
        seed: Seed of the first weights, the order of images and what is done to them; 0 to 2^32 - 1.
        epochs: How often each image is seen at most.
        batch_size: Images a step.
        learning_rate: Adam's at the start.
        patience: Epochs without a better accuracy on the search split after which training stops.
        loss: Cross-entropy, or the squared error between probabilities and one-hot labels.
        augment: Each image is shifted by up to this many pixels in each direction; 0 leaves it.
        rotate: Each image is turned by up to this many degrees either way, 0 to 180.
        zoom: Each image is made larger or smaller by up to this many percent, 0 to 50.
        label_smoothing: The share of each label that is spread evenly over all classes, 0 to below 1.
        schedule: The learning rate falls to zero along half a cosine over all epochs, or is constant.

    Raises:
        UsageError: A value that makes no sense.
    """

    seed: int = 1
    epochs: int = 20
    batch_size: int = 128
    learning_rate: float = 0.002
    patience: int = 6
    loss: Loss = "cross_entropy"
    augment: int = 0
    rotate: float = 0.0
    zoom: float = 0.0
    label_smoothing: float = 0.0
    schedule: Schedule = "cosine"

    def __post_init__(self) -> None:
        for name, least, most in (
            ("seed", 0, 2**32 - 1),
            ("epochs", 1, 10_000),
            ("batch_size", 1, 65_536),
            ("patience", 1, 10_000),
            ("augment", 0, MAX_AUGMENT),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
                raise UsageError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise UsageError(f"learning_rate must be finite and above 0, not {self.learning_rate!r}")
        for name, unit, bound in (("rotate", "degrees", MAX_ROTATE), ("zoom", "percent", MAX_ZOOM)):
            if not 0 <= getattr(self, name) <= bound:
                raise UsageError(f"{name} must be from 0 to {bound:g} {unit}, not {getattr(self, name)!r}")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing must be from 0 to below 1, not {self.label_smoothing!r}")
        if self.loss not in LOSSES:
            raise UsageError(f"unknown loss {self.loss!r}; known are {', '.join(LOSSES)}")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"unknown schedule {self.schedule!r}; known are {', '.join(SCHEDULES)}")

    def arguments(self) -> str:
        """Return the settings as options of ``bitloop train``: seven always, others unless they are the default."""
        said = (field for field in fields(self) if field.name in _ALWAYS_SAID or self._differs(field.name))
        pairs = ((field.name.replace("_", "-"), getattr(self, field.name)) for field in said)
        return " ".join(f"--{name} {str(value).removesuffix('.0').replace('_', '-')}" for name, value in pairs)

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != getattr(type(self), name))


@dataclass(frozen=True)
class RecipeTexts:
    """Which tensor gets which spec, as the command line names it; what the texts mean is ``quantize``'s to say.

    Attributes:
        weights: Spec of the weights.
        biases: Spec of the biases.
        overrides: Texts such as ``conv1.weights=int4:channel``.
    """

    weights: str
    biases: str
    overrides: tuple[str, ...] = ()

    def train_arguments(self) -> str:
        """Return the recipe as options of ``bitloop train``."""
        return f"--qat {self.weights} --qat-biases {self.biases}{self._overrides()}"

    def quantize_arguments(self) -> str:
        """Return the recipe as options of ``bitloop quantize``."""
        return f"--weights {self.weights} --biases {self.biases}{self._overrides()}"

    def _overrides(self) -> str:
        return "".join(f" --set {text}" for text in self.overrides)


def train_command(
    name: str, dataset: str, settings: TrainingSettings, recipe: RecipeTexts | None = None, start: str = SCRATCH
) -> str:
    """Return the command line that trains so.

    Args:
        name: Of the architecture.
        dataset: Its name.
        settings: Of the training.
        recipe: Of quantization-aware training; None for training in binary32.
        start: With a recipe: the network that training starts from, or :data:`SCRATCH`.
    """
    command = f"bitloop train {name} --dataset {dataset} {settings.arguments()}"
    return command if recipe is None else f"{command} {recipe.train_arguments()} --from {start}"
