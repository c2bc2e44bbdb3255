"""Every tensor of a network in every spec that it may get, each quantized once."""

from __future__ import annotations

from collections.abc import Mapping

from bitloop.errors import FormatError
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize_tensor
from bitloop.quantize.model import Model, QuantizedTensor, Sizes
from bitloop.quantize.recipe import BIASES_SUFFIX
from bitloop.quantize.spec import parse_tensor_spec
from bitloop.study.search.choices import Assignment, Choices

__all__ = ["Library"]


class Library:
    """Gives MODELs and sizes of assignments without quantizing anything twice.

    Args:
        network: what is quantized.
        choices: the specs.

    Raises:
        FormatError: a tensor cannot have a spec (e1m0 with a scale); leave that one out.
        NetworkError: a weight or bias is not finite.
    """

    def __init__(self, network: Network, choices: Choices) -> None:
        self.network = network
        self.choices = choices
        self.tensors: Mapping[str, tuple[QuantizedTensor, ...]] = {
            name: tuple(_quantized(name, network, text) for text in texts)
            for name, texts in zip(choices.tensors, choices.specs, strict=True)
        }

    def model(self, assignment: Assignment) -> Model:
        """Return the MODEL of an assignment: the one that ``quantize(network, recipe)`` gives."""
        return Model(
            name=self.network.name,
            dataset=self.network.dataset,
            architecture=self.network.architecture,
            recipe=self.choices.recipe(assignment).to_dict(),
            tensors={
                name: self.tensors[name][number] for name, number in zip(self.choices.tensors, assignment, strict=True)
            },
        )

    def sizes(self, assignment: Assignment) -> Sizes:
        """Return the bytes of an assignment's MODEL."""
        weights = biases = scales = 0
        for name, number in zip(self.choices.tensors, assignment, strict=True):
            tensor = self.tensors[name][number]
            scales += tensor.scales_bytes
            if name.endswith(BIASES_SUFFIX):
                biases += tensor.codes_bytes
            else:
                weights += tensor.codes_bytes
        return Sizes(weights, biases, scales)

    def tensor_bytes(self, tensor: int, choice: int) -> int:
        """Return the bytes of codes and scales of a tensor, both by number."""
        found = self.tensors[self.choices.tensors[tensor]][choice]
        return found.codes_bytes + found.scales_bytes

    def widest(self) -> Assignment:
        """Return the assignment with the most bytes for each tensor; of equally wide specs the last."""
        return tuple(
            max(range(len(specs)), key=lambda choice: (self.tensor_bytes(tensor, choice), choice))
            for tensor, specs in enumerate(self.choices.specs)
        )


def _quantized(name: str, network: Network, text: str) -> QuantizedTensor:
    try:
        return quantize_tensor(name, network.parameters[name], parse_tensor_spec(text))
    except FormatError as error:
        raise FormatError(f"{error}; leave {text!r} out for {name!r} (--set {name}=SPEC,… gives it its own)") from error
