"""Post-training quantization with calibration images, layer by layer (docs/quantization.md).

Each layer is quantized knowing what the layers before give once they are quantized, and is measured against what the
network gives in binary32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitloop.errors import UsageError
from bitloop.network.architecture import Conv2D, Dense, Layer
from bitloop.network.network import Network
from bitloop.quantize import activations
from bitloop.quantize.activations import F32, F64, Linear
from bitloop.quantize.apply import pruned, quantize_tensor
from bitloop.quantize.loss_scale import Loss, divergence, forward, least_divergence, log_probabilities
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.quantize.options import PtqOptions
from bitloop.quantize.output_error import OutputError
from bitloop.quantize.output_scale import by_rule, least_output_error
from bitloop.quantize.recipe import Recipe
from bitloop.quantize.rounding_search import search
from bitloop.quantize.spec import RoundingSearch, ScaleRule, TensorSpec

U8 = npt.NDArray[np.uint8]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Gain:
    """What one step did to one tensor.

    Attributes:
        tensor: its name.
        step: ``prune``, ``scale``, ``rounding`` or ``bias``.
        measure: of what the two figures are.
        before: without the step.
        after: with it.
    """

    tensor: str
    step: str
    measure: str
    before: float
    after: float


@dataclass(frozen=True)
class Quantized:
    """A MODEL, and what each step of its quantization gained, in the order of the tensors."""

    model: Model
    gains: tuple[Gain, ...]


def quantize(
    network: Network,
    recipe: Recipe,
    *,
    calibration: U8 | None = None,
    options: PtqOptions | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantize a network; what the recipe says by values alone is done as :func:`bitloop.quantize.apply.quantize` does.

    Args:
        network: with finite binary32 parameters.
        recipe: what becomes of each tensor.
        calibration: uint8 [N, H, W, C], of the train split and no other; needed where a spec is calibrated.
        options: steps that are added to the recipe's specs.
        progress: called with "layers", layers done, and layers in all.

    Returns:
        The MODEL, and the gains. The same network, recipe and images give the same bytes on every machine.

    Raises:
        UsageError: a spec takes calibration images and there are none, or they do not fit the network.
        NetworkError, FormatError: as :func:`bitloop.quantize.apply.quantize`.
    """
    if options is not None:
        recipe = options.applied_to(recipe)
    recipe.check_names(network.parameters)
    walk = _Walk(network, recipe)
    needing = [name for name in network.parameters if recipe.spec_for(name).calibrated]
    if needing:
        walk.go(_checked(network, calibration, recipe.spec_for(needing[0])), needing, progress)
    tensors: dict[str, QuantizedTensor] = {}
    gains: list[Gain] = []
    for name, values in network.parameters.items():
        spec = recipe.spec_for(name)
        tensors[name] = walk.tensors[name] if name in walk.tensors else quantize_tensor(name, values, spec)
        gains += _own_gains(values, spec, tensors[name])
        gains += [gain for gain in walk.gains if gain.tensor == name]
    model = Model(
        name=network.name,
        dataset=network.dataset,
        architecture=network.architecture,
        recipe=recipe.to_dict(),
        tensors=tensors,
    )
    return Quantized(model, tuple(gains))


class _Walk:
    """The layers up to the last that takes calibration images, with activations in binary32 and quantized side by side.

    Attributes:
        tensors: of the layers that were passed.
        gains: of what was done to them.
    """

    def __init__(self, network: Network, recipe: Recipe) -> None:
        self._network = network
        self._recipe = recipe
        self._probabilities: F64 | None = None  # logarithms of them, in binary32; where a scale goes by them
        self.tensors: dict[str, QuantizedTensor] = {}
        self.gains: list[Gain] = []

    def go(self, pixels: U8, needing: list[str], progress: Progress | None) -> None:
        """Quantize layer by layer."""
        layers = self._network.architecture.layers
        owners = {name.rpartition(".")[0] for name in needing}
        end = 1 + max(number for number, layer in enumerate(layers) if layer.name in owners)
        reference = quantized = activations.from_pixels(pixels)
        if any(self._recipe.spec_for(name).rule is ScaleRule.LOSS for name in needing):
            self._probabilities = log_probabilities(forward(self._network, layers, reference))
        for number, layer in enumerate(layers[:end]):
            if progress is not None:
                progress("layers", number, end)
            if isinstance(layer, Dense | Conv2D):
                reference, quantized = self._layer(
                    layer, reference, quantized, last=number == end - 1, behind=layers[number + 1 :]
                )
            else:
                same = quantized is reference
                reference = activations.other(layer, reference)
                quantized = reference if same else activations.other(layer, quantized)
        if progress is not None:
            progress("layers", end, end)

    def _layer(
        self, layer: Linear, reference: F32, quantized: F32, *, last: bool, behind: Sequence[Layer]
    ) -> tuple[F32, F32]:
        """Quantize a layer; return its output in binary32 and quantized, unless nothing needs them."""
        parameters = self._network.parameters
        weights_name, biases_name = f"{layer.name}.weights", f"{layer.name}.biases"
        spec = self._recipe.spec_for(weights_name)
        corrected = layer.use_bias and self._recipe.spec_for(biases_name).corrected
        weights = parameters[weights_name].astype(np.float64)
        error = None
        if corrected or spec.calibrated:
            error = OutputError.of(layer, weights, (reference, quantized), centred=corrected)
        biases = parameters[biases_name].astype(np.float64) if layer.use_bias else None

        def shift(values: F64) -> F64 | None:
            return error.mean_shift(values.reshape(-1, values.shape[-1])) if corrected and error is not None else None

        def loss(tensor: QuantizedTensor) -> float:
            values = tensor.values().astype(np.float64)
            shifted = biases if biases is None or (by := shift(values)) is None else biases + by
            given = activations.linear(layer, quantized, values, shifted)
            assert self._probabilities is not None
            return divergence(self._probabilities, log_probabilities(forward(self._network, behind, given)))

        tensor = self._weights(weights_name, parameters[weights_name], spec, error, loss)
        self.tensors[weights_name] = tensor
        values = tensor.values().astype(np.float64)
        stands_for = None
        if layer.use_bias:
            self.tensors[biases_name] = self._biases(biases_name, parameters[biases_name], shift(values))
            stands_for = self.tensors[biases_name].values().astype(np.float64)
        if last:
            return reference, quantized
        return (
            activations.linear(layer, reference, weights, biases),
            activations.linear(layer, quantized, values, stands_for),
        )

    def _weights(
        self, name: str, values: F32, spec: TensorSpec, error: OutputError | None, loss: Loss
    ) -> QuantizedTensor:
        """Quantize a layer's weights."""
        if not spec.calibrated or error is None:
            return quantize_tensor(name, values, spec)
        exact = pruned(values.astype(np.float64), spec.prune)
        tensor = before = by_rule(name, values, spec, ScaleRule.MSE if spec.rule is ScaleRule.MSE else ScaleRule.COVER)
        if spec.rule is ScaleRule.OUTPUT:
            tensor = least_output_error(name, values, exact, spec, error)
            self._note("scale", error, before, tensor)
        if spec.rule is ScaleRule.LOSS:
            tensor = least_divergence(name, values, exact, spec, error=error, loss=loss)
            self.gains.append(Gain(name, "scale", "divergence", loss(before), loss(tensor)))
        if spec.search is not RoundingSearch.NONE:
            frozen = np.abs(values.astype(np.float64)) < spec.prune
            before, tensor = tensor, replace(tensor, codes=search(tensor, exact, frozen, error, spec.search))
            self._note("rounding", error, before, tensor)
        return tensor

    def _note(self, step: str, error: OutputError, before: QuantizedTensor, after: QuantizedTensor) -> None:
        figures = [error.relative(t.values().reshape(-1, t.shape[-1]).astype(np.float64)) for t in (before, after)]
        self.gains.append(Gain(before.name, step, "output error", figures[0], figures[1]))

    def _biases(self, name: str, values: F32, shift: F64 | None) -> QuantizedTensor:
        """Quantize a layer's biases, after the mean shift of its output is taken off, if there is one."""
        spec = replace(self._recipe.spec_for(name), corrected=False)
        plain = quantize_tensor(name, values, spec)
        if shift is None:
            return plain
        wanted = values.astype(np.float64) + shift
        corrected = quantize_tensor(name, wanted.astype(np.float32), spec)
        before, after = (_rms(tensor.values().astype(np.float64) - wanted) for tensor in (plain, corrected))
        self.gains.append(Gain(name, "bias", "mean shift", before, after))
        return corrected


def _own_gains(values: F32, spec: TensorSpec, tensor: QuantizedTensor) -> list[Gain]:
    """Return what pruning and scales by squared error did, for which no images are needed."""
    gains = []
    exact = values.astype(np.float64)
    if spec.prune:
        before, after = (np.count_nonzero(a == 0) / exact.size for a in (exact, pruned(exact, spec.prune)))
        gains.append(Gain(tensor.name, "prune", "share of zeros", before, after))
    if spec.rule is ScaleRule.MSE and not spec.corrected:
        figures = [
            _relative_error(pruned(exact, spec.prune), by_rule(tensor.name, values, spec, rule))
            for rule in (ScaleRule.COVER, ScaleRule.MSE)
        ]
        gains.append(Gain(tensor.name, "scale", "squared error", figures[0], figures[1]))
    return gains


def _relative_error(exact: F64, tensor: QuantizedTensor) -> float:
    """Return the squared error of a tensor as a share of its sum of squares."""
    power = math.fsum((exact * exact).ravel().tolist())
    difference = tensor.values().astype(np.float64) - exact
    return math.fsum((difference * difference).ravel().tolist()) / power if power > 0 else 0.0


def _rms(values: F64) -> float:
    return math.sqrt(math.fsum((values * values).tolist()) / values.size)


def _checked(network: Network, pixels: U8 | None, spec: TensorSpec) -> U8:
    shape = network.architecture.input_shape
    if pixels is None or not len(pixels):
        raise UsageError(f"{spec} takes calibration images: give some of the train split (--calibration N)")
    if pixels.dtype != np.uint8 or pixels.shape[1:] != tuple(shape):
        raise UsageError(
            f"calibration images are {pixels.dtype} {list(pixels.shape)}, but the network takes uint8 "
            f"[N, {', '.join(map(str, shape))}]"
        )
    return pixels
