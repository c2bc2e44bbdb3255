"""What a device must answer, bit for bit: a MODEL run in binary32 by numpy, as docs/arithmetic.md states.

This module knows nothing of the C core and imports nothing of it. It runs the network's layers one by one as the
MODEL lists them, so that each layer's activations can be had for finding where a device departs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.errors import DisagreementError, ModelError, UnsupportedLayerError, UsageError
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.quantize.model import Model
from bitloop.simulate import kernels
from bitloop.simulate.kernels import F32, Pair
from bitloop.spec import CANONICAL_NAN

Step = tuple[str, Callable[[F32], F32]]

MAX_BATCH = 1024
BLOCK_BYTES = 1 << 18
"""One channel of the largest map over a block of images: its sum and a product stay in a second-level cache."""


def simulate(model: Model, pixels: npt.NDArray[np.uint8], *, batch: int | None = None) -> F32:
    """Return the logits that a device must answer.

    Args:
        model: what is run; a final Softmax is left out.
        pixels: uint8 [N, H, W, C].
        batch: images computed together, or None for what suits the cache; it never changes a result.

    Returns:
        float32 [N, logits], row-major H, W, C where the last layer gives a map. Infinities and NaN are legal results;
        a NaN always is 0x7FC00000.

    Raises:
        UsageError: ``pixels`` is not what the network takes.
        ModelError: a weight, bias or scale is not finite.
        UnsupportedLayerError: a layer that docs/arithmetic.md does not define.
        DisagreementError: this process flushes subnormals to zero, so that nothing here would be exact.
    """
    steps = _steps(model)
    outputs = [_run(steps, block) for block in _blocks(model, pixels, batch)]
    if not outputs:
        return np.zeros((0, int(np.prod(_computed_shapes(model)[-1]))), np.float32)
    return np.concatenate([output.reshape(len(output), -1) for output in outputs])


def activations(model: Model, pixels: npt.NDArray[np.uint8], *, batch: int | None = None) -> dict[str, F32]:
    """Return what each layer of the network gives, by its name and in the network's order.

    Arguments and errors are those of :func:`simulate`.

    Returns:
        float32 [N, H, W, C] after layers that give maps, [N, n] after those that give vectors. A final Softmax, which
        no device computes, is left out. NaN as in :func:`simulate`.
    """
    steps = _steps(model)
    collected: dict[str, list[F32]] = {name: [] for name, _ in steps}
    for block in _blocks(model, pixels, batch):
        x = block
        with np.errstate(all="ignore"):
            for name, step in steps:
                x = step(x)
                collected[name].append(_outward(x))
    shapes = _computed_shapes(model)
    return {
        name: np.concatenate(parts) if parts else np.zeros((0, *shape), np.float32)
        for (name, parts), shape in zip(collected.items(), shapes, strict=True)
    }


def activations_upto(model: Model, pixels: npt.NDArray[np.uint8], layer: str, *, batch: int | None = None) -> F32:
    """Return what the layer named ``layer`` gives, computing no further; see :func:`activations`.

    Raises:
        UsageError: the network has no such layer, or it is the final Softmax.
    """
    steps = _steps(model)
    last = _index(steps, layer)
    outputs = [_run(steps[: last + 1], block) for block in _blocks(model, pixels, batch)]
    if not outputs:
        return np.zeros((0, *_computed_shapes(model)[last]), np.float32)
    return np.concatenate(outputs)


@dataclass(frozen=True, eq=False)
class Prefix:
    """What enters a layer, for a stack of images: computed once for many MODELs that are the same before that layer.

    Attributes:
        layer: its name.
        blocks: float32 [C, H, W, B] or [n, B], block after block of images.
    """

    layer: str
    blocks: tuple[F32, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes that the blocks take."""
        return sum(block.nbytes for block in self.blocks)


def prefix_of(model: Model, pixels: npt.NDArray[np.uint8], layer: str, *, batch: int | None = None) -> Prefix:
    """Return what enters the layer named ``layer``; see :func:`simulate` for the other arguments.

    Raises:
        UsageError: the network computes no such layer, or there are no images.
    """
    steps = _steps(model)
    index = _index(steps, layer)
    if not len(pixels):
        raise UsageError("there are no images to compute a prefix of")
    blocks: list[F32] = []
    for block in _blocks(model, pixels, batch):
        x = block
        with np.errstate(all="ignore"):
            for _, step in steps[:index]:
                x = step(x)
        blocks.append(x)
    return Prefix(layer, tuple(blocks))


def simulate_from(model: Model, prefix: Prefix) -> F32:
    """Return what :func:`simulate` does for the images of a prefix, computing only the layers from its layer on.

    Args:
        model: the same as the one the prefix was computed with in all layers before; the caller sees to that.
        prefix: of :func:`prefix_of`.

    Raises:
        UsageError: the network computes no such layer.
        ModelError: as :func:`simulate`.
    """
    steps = _steps(model)
    left = steps[_index(steps, prefix.layer) :]
    outputs = [_run(left, block) for block in prefix.blocks]
    return np.concatenate([output.reshape(len(output), -1) for output in outputs])


def labels(logits: F32) -> npt.NDArray[np.int64]:
    """Return the index of each row's greatest logit; the lowest index wins a tie.

    The first logit is replaced only by a greater one, and NaN is never greater nor less: a NaN that comes first stays.

    Args:
        logits: float32 [N, classes], at least one class.

    Returns:
        int64 [N].
    """
    best = logits[:, 0].copy()
    index = np.zeros(len(logits), np.int64)
    for candidate in range(1, logits.shape[1]):
        greater = logits[:, candidate] > best
        best[greater] = logits[greater, candidate]
        index[greater] = candidate
    return index


def softmax(logits: F32) -> npt.NDArray[np.float64]:
    """Return probabilities for display, computed in binary64 with the greatest logit subtracted first.

    Args:
        logits: float32 [N, classes].

    Returns:
        float64 [N, classes]. Infinite logits share the whole probability; a row with a NaN is NaN throughout, and so
        is one of nothing but −infinity.
    """
    wide = logits.astype(np.float64)
    top = wide.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", over="ignore"):
        weight = np.where(np.isposinf(top), np.isposinf(wide).astype(np.float64), np.exp(wide - top))
        return np.asarray(weight / weight.sum(axis=1, keepdims=True))


def _index(steps: list[Step], layer: str) -> int:
    names = [name for name, _ in steps]
    if layer not in names:
        raise UsageError(f"the network computes no layer {layer!r}; its layers are {', '.join(names)}")
    return names.index(layer)


def _run(steps: list[Step], block: F32) -> F32:
    """Run all steps on one block and return the last output, image first."""
    x = block
    with np.errstate(all="ignore"):  # overflow, underflow and NaN are what the device would answer
        for _, step in steps:
            x = step(x)
    return _outward(x)


def _outward(x: F32) -> F32:
    """Bring [C, H, W, B] or [n, B] to image first, channel last, and each NaN to the canonical one."""
    out = np.ascontiguousarray(x.transpose(3, 1, 2, 0) if x.ndim == 4 else x.T)
    nan = np.isnan(out)
    if nan.any():
        out = out.copy()
        out.view(np.uint32)[nan] = CANONICAL_NAN
    return out


def _blocks(model: Model, pixels: npt.NDArray[np.uint8], batch: int | None) -> Iterator[F32]:
    """Yield the network's input as float32 [C, H, W, B], block by block."""
    shape = model.architecture.input_shape
    if pixels.dtype != np.uint8 or pixels.shape[1:] != tuple(shape):
        raise UsageError(
            f"pixels are {pixels.dtype} {list(pixels.shape)}, but the network takes uint8 "
            f"[N, {', '.join(map(str, shape))}]"
        )
    if batch is not None and batch < 1:
        raise UsageError(f"a batch of {batch} images; at least 1 is needed")
    _refuse_flushed_subnormals()
    size = batch if batch is not None else images_at_once(model.architecture)
    for start in range(0, len(pixels), size):
        yield kernels.PIXEL_TABLE[np.ascontiguousarray(pixels[start : start + size].transpose(3, 1, 2, 0))]


def images_at_once(architecture: Architecture) -> int:
    """Return how many images a block holds, so that one channel of the largest map fits :data:`BLOCK_BYTES`."""
    maps = [shape[0] * shape[1] for shape in architecture.output_shapes() if len(shape) == 3]
    return max(1, min(MAX_BATCH, BLOCK_BYTES // (4 * max(maps, default=1))))


def _refuse_flushed_subnormals() -> None:
    """Libraries built with -ffast-math can switch a thread to flush-to-zero; then numpy is not IEEE 754 any more."""
    smallest = np.full(8, 2.0**-126, np.float32)
    halves = np.multiply(smallest, np.float32(0.5))
    if not (halves > 0).all() or not (np.add(halves, halves) == smallest).all():
        raise DisagreementError(
            "this process flushes subnormal numbers to zero, so the host simulation would not be exact; some library "
            "loaded here was built with -ffast-math: run bitloop in a process of its own"
        )


def _computed_layers(model: Model) -> tuple[Layer, ...]:
    layers = model.architecture.layers
    return layers[:-1] if layers and isinstance(layers[-1], Softmax) else layers


def _computed_shapes(model: Model) -> tuple[tuple[int, ...], ...]:
    return model.architecture.output_shapes()[: len(_computed_layers(model))]


def _steps(model: Model) -> list[Step]:
    """Return name and function of each layer that is computed."""
    steps: list[Step] = []
    shape: tuple[int, ...] = model.architecture.input_shape
    for layer, after in zip(_computed_layers(model), _computed_shapes(model), strict=True):
        steps.append((layer.name, _step(model, layer, shape)))
        shape = after
    if not steps:
        raise ModelError(f"model {model.name!r} has no layer to compute")
    return steps


def _step(model: Model, layer: Layer, shape: tuple[int, ...]) -> Callable[[F32], F32]:
    if isinstance(layer, Dense):
        weights, scale, bias = parameters_of(model, layer.name, layer.use_bias)
        return lambda x: kernels.dense(flatten(x), weights, scale, bias)
    if isinstance(layer, Conv2D):
        weights, scale, bias = parameters_of(model, layer.name, layer.use_bias)
        before, output = window_of(shape, layer.kernel_size, layer.strides, layer.padding)
        strides = layer.strides
        return lambda x: kernels.conv2d(x, weights, scale, bias, strides=strides, before=before, output=output)
    return plain_step(layer, shape)


def plain_step(layer: Layer, shape: tuple[int, ...]) -> Callable[[F32], F32]:
    """Return what a layer without parameters does.

    Args:
        layer: of the network; no final Softmax, which the host computes.
        shape: of what it takes, without the batch.

    Raises:
        UnsupportedLayerError: a layer that docs/arithmetic.md does not define there.
    """
    if isinstance(layer, MaxPool2D | AveragePool2D):
        pool = kernels.max_pool if isinstance(layer, MaxPool2D) else kernels.average_pool
        window, strides = layer.pool_size, layer.strides
        before, output = window_of(shape, window, strides, layer.padding)
        return lambda x: pool(x, window, strides, before, output)
    if isinstance(layer, ReLU):
        return kernels.relu
    if isinstance(layer, Flatten):
        return flatten
    raise UnsupportedLayerError(
        f"layer {layer.name!r} is a {type(layer).__name__}, which docs/arithmetic.md does not define there"
    )


def flatten(x: F32) -> F32:
    """Bring [C, H, W, B] to [H * W * C, B] in row-major order of H, W, C; a vector stays."""
    return x if x.ndim == 2 else x.transpose(1, 2, 0, 3).reshape(-1, x.shape[3])


def window_of(shape: tuple[int, ...], kernel: Pair, strides: Pair, padding: str) -> tuple[Pair, Pair]:
    """Return padding before and output size, each (y, x), by TensorFlow's rule."""
    before, output = [0, 0], [0, 0]
    for axis in (0, 1):
        size, width, stride = shape[axis], kernel[axis], strides[axis]
        if padding == "same":
            output[axis] = -(-size // stride)
            before[axis] = max((output[axis] - 1) * stride + width - size, 0) // 2
        else:
            output[axis] = (size - width) // stride + 1
    return (before[0], before[1]), (output[0], output[1])


def parameters_of(model: Model, layer: str, use_bias: bool) -> tuple[F32, F32 | None, F32 | None]:
    """Return decoded weights without their scale, that scale, and biases with theirs applied."""
    tensor = model.tensors[f"{layer}.weights"]
    weights = _finite(tensor.elements(), f"{layer}.weights")
    scale = None if tensor.scales is None else _finite(tensor.scales, f"the scale of {layer}.weights")
    if not use_bias:
        return weights, scale, None
    tensor = model.tensors[f"{layer}.biases"]
    bias = _finite(tensor.elements(), f"{layer}.biases")
    if tensor.scales is not None:
        with np.errstate(all="ignore"):
            bias = np.multiply(bias, _finite(tensor.scales, f"the scale of {layer}.biases"))
    return weights, scale, bias


def _finite(values: F32, what: str) -> F32:
    array = np.asarray(values, dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise ModelError(f"{what}: element {bad[0]} is {array.ravel()[bad[0]]}, but it must be finite")
    return array
