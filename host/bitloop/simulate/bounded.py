"""Logits by matrix products of binary32, with a proved bound of how far the device's lie from them.

A BLAS sums in an order of its own, and may fuse. So its logits are not a device's. But both are near to the exact sums,
and how near is known (N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002, section 3.1): a sum of
n products in binary32, in any order, fused or not, is off by at most ``gamma_n * sum |x| |w|``, where
``gamma_n = n u / (1 - n u)`` and ``u = 2^-24``. Where the greatest logit leads by more than both bounds together, the
device answers that label: it is proved, not likely. The rest must be computed exactly.

What is carried from layer to layer is, for each image and place, a bound of the Euclidean norm over the channels of
(device - here). With ``x`` and ``e`` what enters an output here and its bound, ``w`` the weights of one output, Cauchy
and Schwarz give for the sums of both

    |difference| <= |w| (|e| + gamma_n (2 |x| + |e|))            (Euclidean norms over what the output sees)

of which the part of ``e`` is, over all outputs together, at most the spectral norm of the weights times ``|e|``. Each
rounding that follows (scale, bias) adds at most ``u`` of its result, here and there. ReLU does not enlarge a
difference, and a maximum is off by no more than what is off most in its window. Bounds are computed in binary64 and
enlarged by :data:`SLACK`, which is far more than their own rounding. Underflow adds at most 2^-149 an operation. Where
a sum could overflow, there is no bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from bitloop.errors import UnsupportedLayerError, UsageError
from bitloop.network.architecture import AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Softmax
from bitloop.quantize.model import Model
from bitloop.simulate.kernels import F32, PIXEL_TABLE
from bitloop.simulate.reference import parameters_of
from bitloop.simulate.windows import Window

__all__ = ["Bounded", "BoundedPrefix", "bounded_logits", "bounded_logits_from", "bounded_prefix_of", "most_terms"]

F64 = npt.NDArray[np.float64]

SLACK = 1.0 + 2.0**-10
"""Factor on each layer's bound, for the rounding of the bounds themselves."""
BATCH = 40
"""Images multiplied together: the unfolded windows of a usual layer stay within tens of MiB."""
_U = 2.0**-24
_TINY = 2.0**-149
_OVERFLOW = 2.0**126
_MOST_TERMS = 1 << 20


@dataclass(frozen=True, eq=False)
class Bounded:
    """Logits, and how far those of a device may be from them.

    Attributes:
        logits: float32 ``[N, classes]``.
        bounds: float64 ``[N, classes]``, 0 or more; infinite where nothing can be said.
    """

    logits: F32
    bounds: F64

    @property
    def decided(self) -> npt.NDArray[np.bool_]:
        """For each image, whether the device's label must be that of the greatest logit here, bool ``[N]``."""
        wide, rows = self.logits.astype(np.float64), np.arange(len(self.logits))
        best = self.logits.argmax(axis=1)
        with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, which decides nothing
            least, highest = wide[rows, best] - self.bounds[rows, best], wide + self.bounds
        highest[rows, best] = -np.inf
        return np.asarray(np.isfinite(self.bounds).all(axis=1) & (least > highest.max(axis=1)))


@dataclass(frozen=True, eq=False)
class _State:
    """What a layer takes.

    Attributes:
        values: float32 ``[N, H, W, C]`` or ``[N, n]``.
        error: float64 ``[N, H, W]`` or ``[N]``: bound of the norm over the channels; in the values' shape after the
            last layer.
    """

    values: F32
    error: F64


Step: TypeAlias = Callable[[_State], _State]


@dataclass(frozen=True, eq=False)
class BoundedPrefix:
    """What enters a layer, with its bounds: computed once for many MODELs that are the same before that layer.

    Attributes:
        layer: its name.
    """

    layer: str
    _blocks: tuple[_State, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that it takes."""
        return sum(block.values.nbytes + block.error.nbytes for block in self._blocks)


def bounded_logits(model: Model, pixels: npt.NDArray[np.uint8]) -> Bounded:
    """Return logits of a MODEL and their bounds.

    Args:
        model: what is run; a final Softmax is left out.
        pixels: uint8 ``[N, H, W, C]``, N at least 1.

    Raises:
        ModelError: a weight, bias or scale is not finite.
    """
    steps = _steps(model, None)
    return _joined(_run(steps, state) for state in _inputs(pixels))


def bounded_prefix_of(model: Model, pixels: npt.NDArray[np.uint8], layer: str) -> BoundedPrefix:
    """Return what enters the layer named ``layer``; see :func:`bounded_logits`.

    Raises:
        UsageError: the network computes no such layer.
    """
    steps = _steps(model, None, layer)
    return BoundedPrefix(layer, tuple(_run(steps, state) for state in _inputs(pixels)))


def bounded_logits_from(model: Model, prefix: BoundedPrefix) -> Bounded:
    """Return what :func:`bounded_logits` does, computing only the layers from the prefix's on.

    Args:
        model: the same as the one the prefix was computed with in all layers before; the caller sees to that.
        prefix: of :func:`bounded_prefix_of`.
    """
    steps = _steps(model, prefix.layer)
    return _joined(_run(steps, state) for state in prefix._blocks)


def _inputs(pixels: npt.NDArray[np.uint8]) -> Iterator[_State]:
    for start in range(0, len(pixels), BATCH):
        values = PIXEL_TABLE[pixels[start : start + BATCH]]
        yield _State(values, np.zeros(values.shape[:3]))


def _joined(states: Iterator[_State]) -> Bounded:
    blocks = list(states)
    logits, bounds = (
        np.concatenate([array.reshape(len(array), -1) for array in arrays])
        for arrays in ([block.values for block in blocks], [block.error for block in blocks])
    )
    return Bounded(logits, bounds)


def _run(steps: list[Step], state: _State) -> _State:
    with np.errstate(all="ignore"):  # what overflows has an infinite bound, and decides nothing
        for step in steps:
            state = step(state)
    return state


def _steps(model: Model, start: str | None, end: str | None = None) -> list[Step]:
    """Return what the layers from ``start`` (None: the first) to before ``end`` (None: after the last) do."""
    layers = [layer for layer in model.architecture.layers if not isinstance(layer, Softmax)]
    names = [layer.name for layer in layers]
    for name in (start, end):
        if name is not None and name not in names:
            raise UsageError(f"the network computes no layer {name!r}; its layers are {', '.join(names)}")
    chosen = layers[0 if start is None else names.index(start) : None if end is None else names.index(end)]
    steps = [_step(model, layer, last=layer is layers[-1]) for layer in chosen]
    return steps if end is not None else [*steps, _each_logit]


def _step(model: Model, layer: Layer, *, last: bool) -> Step:
    if isinstance(layer, Dense):
        affine = _Affine(model, layer, last=last)
        return lambda state: _dense(affine, _flat(state))
    if isinstance(layer, Conv2D):
        affine = _Affine(model, layer, last=last)
        return lambda state: _conv2d(affine, layer, state)
    if isinstance(layer, MaxPool2D | AveragePool2D):
        return lambda state: _pool(layer, state)
    if isinstance(layer, ReLU):
        return lambda state: _State(np.maximum(state.values, np.float32(0)), state.error)
    if isinstance(layer, Flatten):
        return _flat
    raise UnsupportedLayerError(f"layer {layer.name!r} is a {layer.kind}, which has no bound here")


def _each_logit(state: _State) -> _State:
    """Give each logit a bound of its own: that of the norm over the channels bounds each of them."""
    if state.error.shape == state.values.shape:
        return state
    return _State(state.values, np.broadcast_to(state.error[..., np.newaxis], state.values.shape))


def _dense(affine: _Affine, state: _State) -> _State:
    return affine(state.values, _norm(state.values), state.error)


def _conv2d(affine: _Affine, layer: Conv2D, state: _State) -> _State:
    window = Window.of(state.values.shape[1:], layer.kernel_size, layer.strides, layer.padding)
    norm = np.sqrt(window.total(np.square(_norm(state.values))))
    error = np.sqrt(window.total(np.square(state.error)))
    return affine(window.unfolded(state.values), norm, error)


def _norm(values: F32) -> F64:
    """Return the Euclidean norm over the last axis."""
    return np.asarray(np.sqrt(np.einsum("...c,...c->...", values, values, dtype=np.float64)))


def _flat(state: _State) -> _State:
    if state.values.ndim == 2:
        return state
    if state.error.shape == state.values.shape:  # after the last layer
        return _State(state.values.reshape(len(state.values), -1), state.error.reshape(len(state.values), -1))
    error = np.sqrt(np.square(state.error).sum(axis=(1, 2))) * SLACK
    return _State(state.values.reshape(len(state.values), -1), error)


class _Affine:
    """The product, scale and biases of a layer.

    Args:
        model: holds the parameters.
        layer: whose they are.
        last: whether a bound for each output is asked for, instead of one for their norm.
    """

    def __init__(self, model: Model, layer: Dense | Conv2D, *, last: bool) -> None:
        weights, self._scale, self._bias = parameters_of(model, layer.name, layer.use_bias)
        self._matrix = np.ascontiguousarray(weights.reshape(-1, weights.shape[-1]))
        terms, outputs = most_terms(self._matrix), self._matrix.shape[1]
        self._gamma = _gamma(terms)
        self._last = last
        wide = self._matrix.astype(np.float64)
        lengths = np.linalg.norm(wide, axis=0)
        scales = np.ones(outputs)
        if self._scale is not None:
            scales = np.broadcast_to(np.abs(self._scale.astype(np.float64)), (outputs,))
        offset = np.zeros(outputs) if self._bias is None else np.abs(self._bias.astype(np.float64))
        self._reach = scales * lengths
        self._constant = 4.0 * _U * offset + (2.0 * terms * scales + 4.0) * _TINY
        self._gain = 0.0 if last else _gain(wide * scales)
        self._greatest = max(lengths.max(), self._reach.max())
        self._offset = offset.max()

    def __call__(self, x: F32, norm: F64, error: F64) -> _State:
        """Return outputs and bounds.

        Args:
            x: float32 ``[..., n]``: what each output sees.
            norm: ``[...]``: its Euclidean norm.
            error: ``[...]``: bound of the norm of what the device's differs by.
        """
        values = (x.reshape(-1, len(self._matrix)) @ self._matrix).reshape(*x.shape[:-1], -1)
        if self._scale is not None:
            values *= self._scale
        if self._bias is not None:
            values += self._bias
        seen = norm + error
        # What both sums are off by, then two roundings (scale, bias) of at most seen * reach + |bias|, on both sides.
        fresh = (self._gamma * (seen + norm) + 8.0 * _U * seen) * (1.0 + self._gamma)
        finite = np.where(seen * self._greatest + self._offset < _OVERFLOW, SLACK, np.inf)
        if self._last:
            bound = (error + fresh)[..., np.newaxis] * self._reach + self._constant
            return _State(values, bound * finite[..., np.newaxis])
        bound = error * self._gain + fresh * np.linalg.norm(self._reach) + np.linalg.norm(self._constant)
        return _State(values, bound * finite)


def most_terms(matrix: F32) -> int:
    """Return how many terms the longest sum of a layer has: a weight of zero adds exactly nothing, here and there.

    Args:
        matrix: float32 ``[n, outputs]``.
    """
    return int(np.count_nonzero(matrix, axis=0).max(initial=0))


def _gain(matrix: F64) -> float:
    """Return the spectral norm of a matrix: how much longer a vector can be made by it."""
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    return math.sqrt(max(float(np.linalg.eigvalsh(gram)[-1]), 0.0))


def _pool(layer: MaxPool2D | AveragePool2D, state: _State) -> _State:
    values, error = state.values, state.error
    window = Window.of(values.shape[1:], layer.pool_size, layer.strides, layer.padding)
    if isinstance(layer, MaxPool2D):
        # In each channel the maxima of two windows differ by no more than what differs most in them.
        return _State(window.greatest(values), np.sqrt(window.total(np.square(error))) * SLACK)
    counts = window.total(np.ones((1, *values.shape[1:3]), np.float32))
    terms = layer.pool_size[0] * layer.pool_size[1] + 1
    size = window.greatest(_norm(values) + error)
    tiny = math.sqrt(values.shape[-1]) * 2.0 * terms * _TINY
    bound = (window.greatest(error) + 4.0 * _gamma(terms) * size + tiny) * SLACK
    bound = np.where(terms * size < _OVERFLOW, bound, np.inf)
    return _State(window.total(values) / counts[..., np.newaxis], bound)


def _gamma(terms: int) -> float:
    return terms * _U / (1.0 - terms * _U) if terms < _MOST_TERMS else math.inf
