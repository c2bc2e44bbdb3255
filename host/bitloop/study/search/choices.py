"""What a search may choose from: for each tensor of a network, some specs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import FormatError, UsageError
from bitloop.network.network import Network
from bitloop.numeric.formats import close_matches
from bitloop.quantize.recipe import BIASES_SUFFIX, Recipe
from bitloop.quantize.spec import TensorSpec, parse_tensor_spec

__all__ = [
    "BIASES",
    "EXHAUSTIVE_LAYERS",
    "FEW_WEIGHTS",
    "WEIGHTS",
    "Assignment",
    "Choices",
    "choices_of",
    "default_weights",
]

EXHAUSTIVE_LAYERS = 4
"""Layers with parameters up to which a whole grid is evaluated."""
WEIGHTS = (
    "ternary:channel",
    "int2:channel:mse",
    "int3:channel:mse",
    "int4:channel:mse",
    "int5:mse",
    "int5:channel:mse",
    "int6:channel:mse",
    "int8:channel",
)
"""Specs of weights unless said otherwise: what one scale a channel and its least squared error make of few bits."""
FEW_WEIGHTS = (
    "ternary:channel",
    "int3:channel:mse",
    "int4:channel:mse",
    "int5:channel:mse",
    "int6:channel:mse",
    "int8:channel",
)
"""The same for a network of four layers, whose whole grid would be too large otherwise."""
BIASES = ("int4:mse", "e4m3", "fp16")
"""Specs of biases unless said otherwise."""

Assignment = tuple[int, ...]
"""The number of the chosen spec, tensor by tensor in the order of the network."""


@dataclass(frozen=True)
class Choices:
    """Specs to choose from, by tensor.

    Attributes:
        tensors: names, in the order of the network.
        specs: canonical texts of each tensor's specs, none twice, at least one.
    """

    tensors: tuple[str, ...]
    specs: tuple[tuple[str, ...], ...]

    @property
    def count(self) -> int:
        """How many assignments there are."""
        return math.prod(len(specs) for specs in self.specs)

    @property
    def layers(self) -> int:
        """How many layers the tensors are of."""
        return len({tensor.rpartition(".")[0] for tensor in self.tensors})

    def texts(self, assignment: Assignment) -> tuple[str, ...]:
        """Return the specs of an assignment, tensor by tensor."""
        return tuple(specs[number] for specs, number in zip(self.specs, assignment, strict=True))

    def assignment(self, texts: Sequence[str]) -> Assignment:
        """Return the assignment that has these specs.

        Raises:
            ValueError: a spec is none of its tensor's, or there are too few or too many.
        """
        return tuple(specs.index(text) for specs, text in zip(self.specs, texts, strict=True))

    def words(self, assignment: Assignment) -> str:
        """Return an assignment as ``--set`` takes it: ``dense1.weights=int4 dense1.biases=e4m3 …``."""
        return " ".join(f"{tensor}={text}" for tensor, text in zip(self.tensors, self.texts(assignment), strict=True))

    def recipe(self, assignment: Assignment) -> Recipe:
        """Return the recipe of an assignment."""
        plain = parse_tensor_spec("fp32")
        specs = map(parse_tensor_spec, self.texts(assignment))
        return Recipe(plain, plain, dict(zip(self.tensors, specs, strict=True)))


def default_weights(network: Network) -> tuple[str, ...]:
    """Return the specs of weights that a search of a network takes unless told otherwise."""
    layers = {name.rpartition(".")[0] for name in network.parameters}
    return FEW_WEIGHTS if len(layers) == EXHAUSTIVE_LAYERS else WEIGHTS


def choices_of(
    network: Network,
    *,
    weights: Sequence[str] | None = None,
    biases: Sequence[str] | None = None,
    pinned: Sequence[str] = (),
) -> Choices:
    """Return what a search of a network chooses from.

    Args:
        network: whose tensors.
        weights: specs of all weights; None is :func:`default_weights`.
        biases: specs of all biases; None is :data:`BIASES`.
        pinned: texts such as ``dense1.weights=int4:channel``, or with several specs joined by commas: a tensor that
            has its own.

    Raises:
        FormatError: a spec cannot be read, does not go with its tensor, or takes calibration images; or the network
            has no such tensor.
        UsageError: the network has no tensors, or there is nothing to choose from.
    """
    if not network.parameters:
        raise UsageError(f"network {network.name!r} has no weights to search formats for")
    own: dict[str, tuple[str, ...]] = {}
    for text in pinned:
        name, equals, specs = (part.strip() for part in text.partition("="))
        if not (name and equals and specs):
            raise FormatError(f"cannot read {text!r}; expected TENSOR=SPEC as in dense1.weights=int4")
        if name not in network.parameters:
            raise FormatError(
                f"the network has no tensor {name!r}{close_matches(name, tuple(network.parameters))} "
                f"(it has {', '.join(network.parameters)})"
            )
        if name in own:
            raise FormatError(f"tensor {name!r} is set twice; leave one out")
        own[name] = tuple(specs.split(","))
    for_weights = default_weights(network) if weights is None else tuple(weights)
    for_biases = BIASES if biases is None else tuple(biases)
    lists = []
    for name in network.parameters:
        texts = own.get(name, for_biases if name.endswith(BIASES_SUFFIX) else for_weights)
        lists.append(tuple(dict.fromkeys(str(_spec(name, text)) for text in texts)))
        if not lists[-1]:
            raise UsageError(f"tensor {name!r} has no spec to choose from: name one at least")
    return Choices(tuple(network.parameters), tuple(lists))


def _spec(tensor: str, text: str) -> TensorSpec:
    spec = parse_tensor_spec(text)
    if spec.calibrated:
        raise FormatError(
            f"tensor {tensor!r} cannot be searched with {text!r}: what takes calibration images depends on the layers "
            "before, so that tensors could not be chosen apart from one another; take ':mse' instead, and refine the "
            "winner with bitloop quantize"
        )
    plain = parse_tensor_spec("fp32")
    Recipe(plain, plain, {tensor: spec})  # what does not go with biases, or with weights, is told here
    return spec
