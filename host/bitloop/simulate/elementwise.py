"""The bounds of :mod:`bitloop.simulate.bounded`, each element's for itself: nearer by far, at twice the products.

With ``e`` the bounds of what enters an output, ``x`` its values and ``w`` the weights, the sums here and on a device
differ by at most

    sum (e + gamma_n (2 |x| + e)) |w|

which is one more product, by the magnitudes of the weights. Each rounding that follows adds at most ``u`` of its
result, here and there. ReLU does not enlarge a bound, and a maximum has the greatest of its window. Bounds are computed
in binary32, from sums of what is not negative, whose own rounding :data:`SLACK` covers up to :data:`MOST_TERMS` terms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bitloop.errors import UnsupportedLayerError
from bitloop.network.architecture import AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Softmax
from bitloop.quantize.model import Model
from bitloop.simulate.bounded import Bounded, most_terms
from bitloop.simulate.kernels import F32, PIXEL_TABLE
from bitloop.simulate.reference import parameters_of
from bitloop.simulate.windows import Window

__all__ = ["elementwise_logits"]

MOST_TERMS = 1 << 12
"""Of a sum: with more, its bound is infinite."""
SLACK = np.float32(1.0 + 2.0**-9)
"""Factor on each layer's bounds: for n = 2^12 terms of binary32 they are off by less than n · 2^-24 = 2^-12 of it."""
BATCH = 40
_U = 2.0**-24
_TINY = 2.0**-149
_OVERFLOW = np.float32(2.0**125)


@dataclass(frozen=True, eq=False)
class _State:
    """What a layer takes: values and their bounds, float32 ``[N, H, W, C]`` or ``[N, n]``."""

    values: F32
    error: F32


_Step: TypeAlias = Callable[[_State], _State]


def elementwise_logits(model: Model, pixels: npt.NDArray[np.uint8]) -> Bounded:
    """Return logits of a MODEL and their bounds.

    Args:
        model: what is run; a final Softmax is left out.
        pixels: uint8 ``[N, H, W, C]``, N at least 1.

    Raises:
        ModelError: a weight, bias or scale is not finite.
        UnsupportedLayerError: a layer that has no bound here.
    """
    steps = [_step(model, layer) for layer in model.architecture.layers if not isinstance(layer, Softmax)]
    states = []
    with np.errstate(all="ignore"):  # what overflows has an infinite bound, and decides nothing
        for start in range(0, len(pixels), BATCH):
            values = PIXEL_TABLE[pixels[start : start + BATCH]]
            state = _State(values, np.zeros_like(values))
            for step in steps:
                state = step(state)
            states.append(_flat(state))
    bounds = np.concatenate([state.error for state in states]).astype(np.float64)
    return Bounded(np.concatenate([state.values for state in states]), bounds)


def _step(model: Model, layer: Layer) -> _Step:
    if isinstance(layer, Dense):
        affine = _Affine(model, layer)
        return lambda state: affine(_flat(state))
    if isinstance(layer, Conv2D):
        affine = _Affine(model, layer)
        return lambda state: affine(_unfolded(layer, state))
    if isinstance(layer, MaxPool2D | AveragePool2D):
        return lambda state: _pool(layer, state)
    if isinstance(layer, ReLU):
        return lambda state: _State(np.maximum(state.values, np.float32(0)), state.error)
    if isinstance(layer, Flatten):
        return _flat
    raise UnsupportedLayerError(f"layer {layer.name!r} is a {layer.kind}, which has no bound here")


def _flat(state: _State) -> _State:
    return _State(state.values.reshape(len(state.values), -1), state.error.reshape(len(state.values), -1))


def _unfolded(layer: Conv2D, state: _State) -> _State:
    window = Window.of(state.values.shape[1:], layer.kernel_size, layer.strides, layer.padding)
    return _State(window.unfolded(state.values), window.unfolded(state.error))


class _Affine:
    """The product, scale and biases of a layer.

    Args:
        model: holds the parameters.
        layer: whose they are.
    """

    def __init__(self, model: Model, layer: Dense | Conv2D) -> None:
        weights, self._scale, self._bias = parameters_of(model, layer.name, layer.use_bias)
        self._matrix = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
        self._magnitudes = np.abs(self._matrix)
        terms = most_terms(self._matrix)
        self._gamma = np.float32(terms * _U / (1.0 - terms * _U)) if terms <= MOST_TERMS else np.float32(np.inf)
        self._scales = np.float32(1) if self._scale is None else np.abs(self._scale)
        self._tiny = np.float32((2.0 * terms * float(np.max(self._scales)) + 4.0) * _TINY)

    def __call__(self, state: _State) -> _State:
        """Return outputs and bounds of what each output sees, ``[..., n]``."""
        shape = (*state.values.shape[:-1], self._matrix.shape[1])
        x = state.values.reshape(-1, len(self._matrix))
        error = state.error.reshape(-1, len(self._matrix))
        values = x @ self._matrix
        bound = (error + self._gamma * (2 * np.abs(x) + error)) @ self._magnitudes
        # 2 gamma of all magnitudes is in the bound: what neither side's partial sums can exceed is had from it.
        safe = bound * np.maximum(self._scales, np.float32(1)) < _OVERFLOW * self._gamma
        rounding = np.float32(2.0 * _U)
        if self._scale is not None:
            values *= self._scale
            bound = bound * self._scales + rounding * np.abs(values)
        if self._bias is not None:
            values += self._bias
            bound = bound + rounding * np.abs(values)
        bound = np.where(safe, bound * SLACK + self._tiny, np.float32(np.inf))
        return _State(values.reshape(shape), bound.reshape(shape))


def _pool(layer: MaxPool2D | AveragePool2D, state: _State) -> _State:
    window = Window.of(state.values.shape[1:], layer.pool_size, layer.strides, layer.padding)
    if isinstance(layer, MaxPool2D):
        return _State(window.greatest(state.values), window.greatest(state.error))
    counts = window.total(np.ones((1, *state.values.shape[1:3]), np.float32))[..., np.newaxis]
    terms = layer.pool_size[0] * layer.pool_size[1] + 1
    gamma = np.float32(terms * _U / (1.0 - terms * _U))
    total = window.total(state.error + gamma * (4 * np.abs(state.values) + state.error))
    bound = np.where(total < _OVERFLOW * gamma, total / counts * SLACK + np.float32(2 * terms * _TINY), np.inf)
    return _State(window.total(state.values) / counts, bound.astype(np.float32))
