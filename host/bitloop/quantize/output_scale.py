"""The scale with the least error of a layer's output (docs/quantization.md, "Scales by output error")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from bitloop.quantize.activations import F64
from bitloop.quantize.apply import encode_tensor, quantize_tensor
from bitloop.quantize.model import QuantizedTensor
from bitloop.quantize.mse import MAX_ELEMENT, MIN_SCALE
from bitloop.quantize.output_error import OutputError, product
from bitloop.quantize.spec import RoundingSearch, ScaleRule, TensorSpec
from bitloop.spec import FormatKind, Granularity, ScaleKind

F32 = npt.NDArray[np.float32]

STEPS_PER_OCTAVE = 8
OCTAVES = 2
ROUNDS = 4
_LEAST_SQUARES = (FormatKind.TERNARY, FormatKind.BINARY)


def by_rule(name: str, values: F32, spec: TensorSpec, rule: ScaleRule) -> QuantizedTensor:
    """Quantize a tensor to nearest, with its scale by a rule that takes no images."""
    return quantize_tensor(name, values, replace(spec, rule=rule, search=RoundingSearch.NONE, corrected=False))


def plain_spec(spec: TensorSpec) -> TensorSpec:
    """Return a spec as elements are encoded to once the scale is there: to nearest, each for itself."""
    return replace(spec, rule=ScaleRule.COVER, search=RoundingSearch.NONE)


def least_output_error(name: str, values: F32, exact: F64, spec: TensorSpec, error: OutputError) -> QuantizedTensor:
    """Quantize a tensor to nearest, with the scale (of each channel) that lets the layer's output err least.

    Tried are: the default scale and, down from it, two octaves in steps of an eighth (powers of two: each); the scale
    with the least squared error of the tensor; and, from the best of these, the best scale for its elements and the
    nearest elements for that scale, in turn. Affine tensors take the better of ``cover`` and ``mse``.

    Args:
        name: of the tensor.
        values: of the weights in binary32.
        exact: the same, pruned.
        spec: what is asked for; it has a scale.
        error: of the layer's output.
    """
    best = by_rule(name, values, spec, ScaleRule.COVER)
    cover = best.scales
    assert cover is not None
    best_errors = _errors(best, error)
    plain = plain_spec(spec)

    def offer(candidate: QuantizedTensor) -> None:
        nonlocal best, best_errors
        errors = _errors(candidate, error)
        better = errors < best_errors
        if better.any():
            best = _merged(candidate, best, better)
            best_errors = np.where(better, errors, best_errors)

    offer(by_rule(name, values, spec, ScaleRule.MSE))
    if spec.affine:
        return best
    for scales in _grid(cover, spec):
        offer(encode_tensor(name, exact, plain, scales, None))
    if spec.scale is ScaleKind.FP32 and spec.format.max_finite <= MAX_ELEMENT:
        for _ in range(ROUNDS):
            offer(encode_tensor(name, exact, plain, _best_scales(best, error), None))
    return best


def _grid(cover: F32, spec: TensorSpec) -> Iterator[F32]:
    """Yield scales below the default ones, for ternary and binary (which clip) above them too."""
    steps = 1 if spec.scale is ScaleKind.POW2 else STEPS_PER_OCTAVE
    first = -steps if spec.format.kind in _LEAST_SQUARES else 1
    last = 0 if spec.format.max_finite > MAX_ELEMENT else (2 if steps == 1 else 1) * OCTAVES * steps
    for number in range(first, last + 1):
        octaves, part = divmod(number, steps)
        scales = np.ldexp(cover.astype(np.float64) * 0.5 ** (part / steps), -octaves)
        yield np.clip(scales, MIN_SCALE, 2.0**127).astype(np.float32)


def _best_scales(tensor: QuantizedTensor, error: OutputError) -> F32:
    """Return the scales with the least output error for the elements that a tensor has: a parabola's bottom."""
    elements = tensor.elements().reshape(-1, tensor.shape[-1]).astype(np.float64)
    a = (elements * error.target).sum(axis=0)
    b = (elements * product(error.h, elements)).sum(axis=0)
    if tensor.granularity is Granularity.TENSOR:
        a, b = np.array([np.cumsum(a)[-1]]), np.array([np.cumsum(b)[-1]])
    assert tensor.scales is not None
    good = (a > 0) & (b > 0)
    scales = np.where(good, a / np.where(good, b, 1.0), tensor.scales.astype(np.float64))
    return np.clip(scales, MIN_SCALE, 2.0**127).astype(np.float32)


def _errors(tensor: QuantizedTensor, error: OutputError) -> F64:
    """Return the error of each group."""
    errors = error.errors(tensor.values().reshape(-1, tensor.shape[-1]).astype(np.float64))
    return errors if tensor.granularity is Granularity.CHANNEL else np.array([np.cumsum(errors)[-1]])


def _merged(one: QuantizedTensor, two: QuantizedTensor, which: npt.NDArray[np.bool_]) -> QuantizedTensor:
    """Return groups of ``one`` where ``which``, else of ``two``."""
    assert one.scales is not None
    assert two.scales is not None
    zeros = one.zero_points
    if zeros is not None and two.zero_points is not None:
        zeros = np.where(which, zeros, two.zero_points)
    scales = np.where(which, one.scales, two.scales)
    return replace(two, codes=np.where(which, one.codes, two.codes), scales=scales, zero_points=zeros)
