"""The scale with the least divergence of the network's probabilities (docs/quantization.md, "Scales by the loss")."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from bitloop.network.architecture import Conv2D, Dense, Layer
from bitloop.network.network import Network
from bitloop.quantize import activations
from bitloop.quantize.activations import F32, F64
from bitloop.quantize.apply import encode_tensor
from bitloop.quantize.model import QuantizedTensor
from bitloop.quantize.mse import MAX_ELEMENT, MIN_SCALE
from bitloop.quantize.output_error import OutputError
from bitloop.quantize.output_scale import by_rule, least_output_error, plain_spec
from bitloop.quantize.spec import ScaleRule, TensorSpec
from bitloop.spec import ScaleKind

__all__ = ["Loss", "divergence", "forward", "least_divergence", "log_probabilities"]

Loss = Callable[[QuantizedTensor], float]
"""From a layer's quantized weights to the divergence in nats, the layers before it quantized, those behind it not."""

_COARSE = tuple(step / 8 for step in range(-8, 9) if step)
_FINE = tuple(step / 32 for step in range(-3, 4) if step)
_POWERS = (-2.0, -1.0, 1.0, 2.0)
_DECIMALS = 9
"""Of a divergence in nats: what exp and log of two machines differ by lies far below."""


def forward(network: Network, layers: Sequence[Layer], x: F32) -> F32:
    """Return what layers give in binary32's parameters, float32 [N, outputs] behind the last."""
    for layer in layers:
        if isinstance(layer, Dense | Conv2D):
            weights = network.parameters[f"{layer.name}.weights"].astype(np.float64)
            biases = network.parameters[f"{layer.name}.biases"].astype(np.float64) if layer.use_bias else None
            x = activations.linear(layer, x, weights, biases)
        else:
            x = activations.other(layer, x)
    return x


def log_probabilities(logits: F32) -> F64:
    """Return the logarithm of the softmax of each row, float64 [N, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    found: F64 = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return found


def divergence(reference: F64, other: F64) -> float:
    """Return the mean Kullback-Leibler divergence of probabilities from a reference, in nats, to nine decimals.

    Args:
        reference: logarithms of probabilities, float64 [N, classes].
        other: the same, of what stands for it.
    """
    return round(float((np.exp(reference) * (reference - other)).sum(axis=1).mean()), _DECIMALS)


def least_divergence(
    name: str, values: F32, exact: F64, spec: TensorSpec, *, error: OutputError, loss: Loss
) -> QuantizedTensor:
    """Quantize a tensor to nearest, with the scale that lets the network's probabilities diverge least.

    Tried are the scales with the least output error, with the least squared error, and the default one; then the best
    of these times 2^(-1) to 2^1 in eighths of an octave, all channels together, and the best of those in steps of a
    thirty-second around it (powers of two: two up, two down). Of equals the first stays. Affine tensors take the best
    of the first three.

    Args:
        name: of the tensor.
        values: of the weights in binary32.
        exact: the same, pruned.
        spec: what is asked for; it has a scale.
        error: of the layer's output.
        loss: of the network's output.
    """
    best = least_output_error(name, values, exact, spec, error)
    least = loss(best)

    def offer(candidate: QuantizedTensor) -> None:
        nonlocal best, least
        found = loss(candidate)
        if found < least or math.isnan(least):
            best, least = candidate, found

    for rule in (ScaleRule.MSE, ScaleRule.COVER):
        offer(by_rule(name, values, spec, rule))
    if spec.affine or spec.format.max_finite > MAX_ELEMENT:
        return best
    for octaves in (_POWERS,) if spec.scale is ScaleKind.POW2 else (_COARSE, _FINE):
        assert best.scales is not None
        around = best.scales.astype(np.float64)
        for octave in octaves:
            scales = np.clip(around * 2.0**octave, MIN_SCALE, 2.0**127).astype(np.float32)
            offer(encode_tensor(name, exact, plain_spec(spec), scales, None))
    return best
