"""The layers of docs/arithmetic.md on arrays of binary32, image innermost.

Every product and every sum is rounded on its own: only numpy's elementwise multiply, add and divide are used, never
``dot``, ``sum`` or ``einsum`` (they reorder, fuse or widen). Terms are accumulated in the order of the page; what is
vectorised is what does not interact: images, outputs and positions.

Adding the term of an input that is ±0 is the same as omitting it. The weight is finite, so the term is ±0, and
``acc + ±0`` is ``acc`` unless ``acc`` is −0 and the term +0. ``acc`` never is −0: it starts as +0; a sum rounded to
nearest is −0 only if both operands are −0, because opposite numbers give +0 and a sum of binary32 numbers that is not
zero is at least 2^-149 and does not underflow. So padding with zeros is the same as omitting padding, too.

Arrays are ``[C, H, W, B]`` (maps) or ``[n, B]`` (vectors) of float32, where B is the number of images in a block.
Overflow to infinity and NaN are legal results; callers silence numpy with ``np.errstate(all="ignore")``.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

F32 = npt.NDArray[np.float32]
Pair = tuple[int, int]

TILE_BYTES = 1 << 17
"""Accumulator and product of one tile lie in a core's second-level cache together."""

PIXEL_TABLE: F32 = np.divide(np.arange(256, dtype=np.float32), np.float32(255.0))
"""``fl(p / 255)`` for each value of a pixel."""


def dense(x: F32, weights: F32, scale: F32 | None, bias: F32 | None) -> F32:
    """Return a dense layer's outputs.

    Args:
        x: inputs in ascending order, [in, B].
        weights: decoded elements without their scale, (in, out), finite.
        scale: None, or one (1,) or one an output (out,).
        bias: None, or (out,), its own scale applied.

    Returns:
        [out, B]. Infinities and NaN propagate as in IEEE 754.
    """
    outputs, images = weights.shape[1], x.shape[1]
    acc = np.zeros((outputs, images), np.float32)
    columns = np.ascontiguousarray(weights)[:, :, np.newaxis]
    used = np.flatnonzero(x.any(axis=1))  # an input that is ±0 in all images contributes no term; NaN counts as true
    tile = max(1, TILE_BYTES // (4 * images))
    product = np.empty((min(tile, outputs), images), np.float32)
    for start in range(0, outputs, tile):
        part = acc[start : start + tile]
        term = product[: len(part)]
        for i in used:
            np.multiply(x[i], columns[i, start : start + tile], out=term)
            np.add(part, term, out=part)
    return _finish(acc, scale, bias)


def conv2d(
    x: F32,
    weights: F32,
    scale: F32 | None,
    bias: F32 | None,
    *,
    strides: Pair,
    before: Pair,
    output: Pair,
) -> F32:
    """Return a convolution's outputs.

    Args:
        x: [C, H, W, B].
        weights: decoded elements without their scale, (ky, kx, C, out), finite.
        scale: None, or one (1,) or one an output (out,).
        bias: None, or (out,), its own scale applied.
        strides: y, x.
        before: rows of padding above, columns of padding at the left.
        output: height and width of the result.

    Returns:
        [out, height, width, B].
    """
    kernel_y, kernel_x, channels, outputs = weights.shape
    acc = np.zeros((outputs, *output, x.shape[3]), np.float32)
    padded = _pad(x, (kernel_y, kernel_x), strides, before, output)
    windows = [
        padded[c, ky : ky + strides[0] * output[0] : strides[0], kx : kx + strides[1] * output[1] : strides[1]]
        for ky in range(kernel_y)
        for kx in range(kernel_x)
        for c in range(channels)
    ]
    # One row an output, ky-kx-channel within it; each factor keeps an axis, so that it stays a float32 array.
    factors = np.ascontiguousarray(weights.reshape(-1, outputs).T)[:, :, np.newaxis]
    term = np.empty(acc.shape[1:], np.float32)
    for plane, row in zip(acc, factors, strict=True):
        for window, factor in zip(windows, row, strict=True):
            np.multiply(window, factor, out=term)
            np.add(plane, term, out=plane)
    return _finish(acc, scale, bias)


def relu(x: F32) -> F32:
    """Return ``x > 0 ? x : +0``: NaN and −0 become +0."""
    return np.where(x > 0, x, np.float32(0.0))


def max_pool(x: F32, window: Pair, strides: Pair, before: Pair, output: Pair) -> F32:
    """Return the greatest valid element of each window, [C, height, width, B].

    Row-major; the first is replaced only by a greater one, so a NaN that comes first stays, one that comes later is
    passed over, and of +0 and −0 the first stays.

    Args:
        x: [C, H, W, B].
        window: height, width.
        strides: y, x.
        before: rows of padding above, columns of padding at the left.
        output: height and width of the result.
    """
    best = np.zeros((x.shape[0], *output, x.shape[3]), np.float32)
    started = np.zeros((*output, 1), np.bool_)
    for target, source in _valid(x.shape[1:3], window, strides, before, output):
        candidate, current, begun = x[(slice(None), *source)], best[(slice(None), *target)], started[target]
        np.copyto(current, candidate, where=(candidate > current) | ~begun)
        begun[...] = True
    return best


def average_pool(x: F32, window: Pair, strides: Pair, before: Pair, output: Pair) -> F32:
    """Return each window's sum in row-major order over its valid elements, divided once by their count.

    Arguments and result are those of :func:`max_pool`.
    """
    acc = np.zeros((x.shape[0], *output, x.shape[3]), np.float32)
    count = np.zeros((*output, 1), np.float32)
    for target, source in _valid(x.shape[1:3], window, strides, before, output):
        part = acc[(slice(None), *target)]
        np.add(part, x[(slice(None), *source)], out=part)
        count[target] += np.float32(1.0)
    return np.divide(acc, count, out=acc)


def _finish(acc: F32, scale: F32 | None, bias: F32 | None) -> F32:
    """Apply scale, then bias, each rounded on its own; ``acc`` is [out, ...] and is overwritten."""
    trailing = (1,) * (acc.ndim - 1)
    if scale is not None:
        np.multiply(acc, scale.reshape(-1, *trailing), out=acc)
    if bias is not None:
        np.add(acc, bias.reshape(-1, *trailing), out=acc)
    return acc


def _pad(x: F32, window: Pair, strides: Pair, before: Pair, output: Pair) -> F32:
    """Return ``x`` with +0 around it where windows reach beyond its edges."""
    after = [
        max(0, (output[axis] - 1) * strides[axis] + window[axis] - before[axis] - x.shape[1 + axis]) for axis in (0, 1)
    ]
    if not any(before) and not any(after):
        return x
    channels, height, width, images = x.shape
    padded = np.zeros((channels, height + before[0] + after[0], width + before[1] + after[1], images), np.float32)
    padded[:, before[0] : before[0] + height, before[1] : before[1] + width] = x
    return padded


def _valid(
    size: tuple[int, ...], window: Pair, strides: Pair, before: Pair, output: Pair
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Yield, for each position in a window (row-major), the outputs for which it is valid and the inputs it means."""
    for ky in range(window[0]):
        rows = _valid_axis(size[0], ky - before[0], strides[0], output[0])
        for kx in range(window[1]):
            columns = _valid_axis(size[1], kx - before[1], strides[1], output[1])
            if rows is not None and columns is not None:
                yield (rows[0], columns[0]), (rows[1], columns[1])


def _valid_axis(size: int, shift: int, stride: int, outputs: int) -> tuple[slice, slice] | None:
    """Return the outputs ``o`` with ``0 <= o * stride + shift < size``, and those inputs; None if there are none."""
    first = max(0, -(shift // stride))
    last = min(outputs - 1, (size - 1 - shift) // stride)
    if first > last:
        return None
    return slice(first, last + 1), slice(first * stride + shift, last * stride + shift + 1, stride)
