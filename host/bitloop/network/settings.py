"""How a network is trained: the numbers that a command line names and a file's metadata records."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from bitloop.errors import UsageError

Loss: TypeAlias = Literal["cross_entropy", "squared_error"]
LOSSES: tuple[Loss, ...] = ("cross_entropy", "squared_error")
MAX_AUGMENT = 8


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training.

    Attributes:
        seed: Seed of the first weights, the order of images and the shifts; 0 to 2^32 - 1.
        epochs: How often each image is seen at most.
        batch_size: Images a step.
        learning_rate: Adam's at the start; it falls to zero along half a cosine over all epochs.
        patience: Epochs without a better accuracy on the search split after which training stops.
        loss: Cross-entropy, or the squared error between probabilities and one-hot labels.
        augment: Each image is shifted by up to this many pixels in each direction; 0 leaves it.

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
        if self.loss not in LOSSES:
            raise UsageError(f"unknown loss {self.loss!r}; known are {', '.join(LOSSES)}")

    def arguments(self) -> str:
        """Return the settings as options of ``bitloop train``, all of them."""
        pairs = ((field.name.replace("_", "-"), getattr(self, field.name)) for field in fields(self))
        return " ".join(f"--{name} {str(value).replace('_', '-')}" for name, value in pairs)
