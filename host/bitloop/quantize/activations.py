"""What a network's layers give for calibration images, the same on every machine (docs/quantization.md).

A matrix product of a linear algebra library rounds in an order of the library's own, which differs between machines.
Here its factors are whole numbers on a grid, few enough in bits that every sum is exact in binary64 whatever the order:
activations of 16 bits below their largest, parameters in as many as are left (26 at 2,048 inputs).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import UnsupportedLayerError
from bitloop.network.architecture import AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU, Softmax
from bitloop.network.shapes import same_padding, window_outputs

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Linear = Dense | Conv2D

EXACT_BITS = 53  # of binary64's significand
GRID_BITS = 16
BLOCK_ELEMENTS = 1 << 23  # of the windows that lie in memory at once


def grid_bits(rows: int) -> int:
    """Return how many bits activations have, so that sums of so many products of two are exact in binary64."""
    return min(GRID_BITS, (EXACT_BITS - math.ceil(math.log2(max(rows, 1)))) // 2)


def from_pixels(pixels: npt.NDArray[np.uint8]) -> F32:
    """Return the network's input, float32 [N, H, W, C]: each pixel divided by 255."""
    return np.divide(pixels, np.float32(255.0), dtype=np.float32)


def step_of(x: F32, bits: int) -> float:
    """Return the step of the grid on which the largest magnitude is ``2 ** bits - 1``; 1 where all are zero."""
    largest = float(np.abs(x).max(initial=0.0))
    return largest / ((1 << bits) - 1) if largest > 0 else 1.0


def rows_of(layer: Linear, x: F32) -> int:
    """Return how many input vectors a layer multiplies with its weights: positions times images."""
    if isinstance(layer, Dense):
        return len(x)
    height, width = window_outputs((x.shape[1], x.shape[2]), layer.kernel_size, layer.strides, layer.padding)
    return len(x) * height * width


def inputs(layer: Linear, x: F32, step: float) -> Iterator[F64]:
    """Yield a layer's input vectors in whole steps, float64 [rows, inputs], block by block.

    Args:
        layer: dense or convolution.
        x: activations before it, float32 [N, H, W, C] or [N, n].
        step: of the grid.
    """
    if isinstance(layer, Dense):
        yield np.rint(x.reshape(len(x), -1).astype(np.float64) / step)
        return
    count = rows_of(layer, x) * math.prod(layer.kernel_size) * x.shape[3]
    images = max(1, len(x) * BLOCK_ELEMENTS // max(count, 1))
    for start in range(0, len(x), images):
        windows: F64 = _windows(np.rint(x[start : start + images].astype(np.float64) / step), layer, 0.0)
        yield windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, math.prod(layer.kernel_size) * x.shape[3])


def linear(layer: Linear, x: F32, weights: F64, biases: F64 | None) -> F32:
    """Return a layer's output before any activation function, float32 [N, H, W, C] or [N, n].

    Args:
        layer: dense or convolution.
        x: activations before it.
        weights: what its weights stand for, in their tensor's shape.
        biases: (out,), or None without any.
    """
    matrix = weights.reshape(-1, weights.shape[-1])
    bits = grid_bits(rows_of(layer, x))
    step = step_of(x, bits)
    spare = EXACT_BITS - bits - math.ceil(math.log2(len(matrix)))
    largest = float(np.abs(matrix).max(initial=0.0))
    weight_step = 2.0 ** (math.frexp(largest)[1] - spare) if largest > 0 else 1.0
    whole = np.rint(matrix / weight_step)
    unit = step * weight_step
    parts = []
    for block in inputs(layer, x, step):
        y = (block @ whole) * unit
        parts.append((y if biases is None else y + biases).astype(np.float32))
    out = np.concatenate(parts)
    if isinstance(layer, Dense):
        return out
    height, width = window_outputs((x.shape[1], x.shape[2]), layer.kernel_size, layer.strides, layer.padding)
    return out.reshape(len(x), height, width, -1)


def other(layer: Layer, x: F32) -> F32:
    """Return the output of a layer without parameters.

    Raises:
        UnsupportedLayerError: it is of a kind that is not known here.
    """
    match layer:
        case ReLU():
            return np.maximum(x, np.float32(0.0))
        case Flatten():
            return x.reshape(len(x), -1)
        case Softmax():
            return x  # the host computes it; nothing behind it is calibrated
        case MaxPool2D():
            return np.asarray(_windows(x, layer, -np.inf).max(axis=(-2, -1)))
        case AveragePool2D():
            count = _windows(np.ones((1, *x.shape[1:3], 1), np.float32), layer, 0.0).sum(axis=(-2, -1))
            return np.asarray(_windows(x, layer, 0.0).sum(axis=(-2, -1)) / count, dtype=np.float32)
        case _:
            raise UnsupportedLayerError(f"layer {layer.name!r} is a {type(layer).__name__}; it cannot be calibrated")


def _windows(x: npt.NDArray[Any], layer: Conv2D | MaxPool2D | AveragePool2D, padding: float) -> npt.NDArray[Any]:
    """Return a view [N, height, width, C, ky, kx] of the windows of a layer."""
    kernel = layer.kernel_size if isinstance(layer, Conv2D) else layer.pool_size
    if layer.padding == "same":
        around = [same_padding(x.shape[1 + axis], kernel[axis], layer.strides[axis]) for axis in (0, 1)]
        x = np.pad(x, ((0, 0), *around, (0, 0)), constant_values=padding)
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))
    return view[:, :: layer.strides[0], :: layer.strides[1]]
