"""Labels and cross-entropy of very many assignments of one network: exact, and each prefix computed once.

The assignments form a tree: they part at a layer's weights, then at its biases, then at the next layer's weights. It is
walked depth first for one block of images after another, so that what enters a layer is computed once for all
assignments that are the same before it, and only one block of it a layer is ever kept. What a layer's weights give
before its biases are added is shared by all biases.

The arithmetic is that of :mod:`bitloop.simulate.kernels`, operation by operation. All weights that a layer may get are
given to a kernel at once, as if they were more outputs of one layer: each output is accumulated for itself, so that
its bits are the same. A scale of 1 stands for none: ``fl(acc · 1)`` is ``acc``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.network.architecture import Conv2D, Dense, Softmax
from bitloop.quantize.model import QuantizedTensor
from bitloop.simulate import kernels
from bitloop.simulate.kernels import F32
from bitloop.simulate.reference import flatten, images_at_once, labels, plain_step, window_of
from bitloop.study.evaluate import Score
from bitloop.study.search.choices import Assignment
from bitloop.study.search.library import Library

__all__ = ["Tree"]

U8 = npt.NDArray[np.uint8]
F64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Step = Callable[[F32], F32]


@dataclass(frozen=True, eq=False)
class _Stage:
    """A layer with parameters, and those without that follow it.

    Attributes:
        linear: from what enters the layer, weights and their scales to its output without biases.
        weights: the choices of its weights.
        biases: the choices of its biases, none where it has no biases.
        after: the layers that follow.
    """

    linear: Callable[[F32, F32, F32], F32]
    weights: tuple[QuantizedTensor, ...]
    biases: tuple[F32, ...]
    after: tuple[Step, ...]


class Tree:
    """Scores assignments on the same images.

    Args:
        library: of the network and its choices.
        pixels: uint8 ``[N, H, W, C]``, N at least 1.
        true: labels, ``[N]``.

    Raises:
        UnsupportedLayerError: the network has a layer that docs/arithmetic.md does not define.
    """

    def __init__(self, library: Library, pixels: U8, true: U8) -> None:
        self._library = library
        self._pixels = pixels
        self._true = true
        self._before, self._stages = _stages(library)
        self._batch = images_at_once(library.network.architecture)
        self._stacks: dict[tuple[int, tuple[int, ...]], tuple[F32, F32]] = {}

    def scores(self, assignments: Sequence[Assignment]) -> list[Score]:
        """Return what assignments are worth, to the bit what ``score(simulate(model, pixels), true)`` says.

        Args:
            assignments: in any order, none twice; about 9 bytes an image are taken for each.
        """
        order = sorted(range(len(assignments)), key=lambda i: assignments[i])
        ordered = [assignments[i] for i in order]
        right = np.zeros((len(ordered), len(self._true)), np.bool_)
        losses = np.zeros(right.shape, np.float64)
        with np.errstate(all="ignore"):  # overflow, underflow and NaN are what the device would answer
            for start in range(0, len(self._true), self._batch):
                part = slice(start, start + self._batch)
                x: F32 = kernels.PIXEL_TABLE[np.ascontiguousarray(self._pixels[part].transpose(3, 1, 2, 0))]
                for step in self._before:
                    x = step(x)
                for rows, logits in self._walk(x, 0, 0, range(len(ordered)), ordered):
                    _judge(logits, self._true[part], right[rows, part], losses[rows, part])
        found: list[Score | None] = [None] * len(order)
        for place, row, loss in zip(order, right, losses, strict=True):
            entropy = math.fsum(loss.tolist()) / len(loss) if np.isfinite(loss).all() else None
            found[place] = Score(row, entropy)
        return [score for score in found if score is not None]

    def _walk(
        self, x: F32, number: int, column: int, rows: range, ordered: Sequence[Assignment]
    ) -> list[tuple[slice, F32]]:
        """Return the logits float32 ``[rows, classes, B]`` of assignments that agree before a layer, with their rows.

        Args:
            x: what enters the layer.
            number: of the layer.
            column: of its weights in an assignment.
            rows: which assignments.
            ordered: all of them.
        """
        stage = self._stages[number]
        by_weights = _parts(rows, column, ordered)
        last = number + 1 == len(self._stages)
        found: list[tuple[slice, F32]] = []
        leaves: list[F32] = []
        outputs = stage.linear(x, *self._stack(number, tuple(ordered[part.start][column] for part in by_weights)))
        for part, linear in zip(by_weights, np.split(outputs, len(by_weights)), strict=True):
            by_biases = _parts(part, column + 1, ordered) if stage.biases else [part]
            for inner in by_biases:
                y = linear
                if stage.biases:
                    bias = stage.biases[ordered[inner.start][column + 1]]
                    y = np.add(linear, bias.reshape(-1, *(1,) * (linear.ndim - 1)))
                for step in stage.after:
                    y = step(y)
                if last:
                    leaves.append(flatten(y))
                else:
                    found += self._walk(y, number + 1, column + (2 if stage.biases else 1), inner, ordered)
        return [(slice(rows.start, rows.stop), np.stack(leaves))] if last else found

    def _stack(self, number: int, chosen: tuple[int, ...]) -> tuple[F32, F32]:
        """Return the chosen weights of a layer side by side along the outputs, as one tensor, and their scales."""
        key = (number, chosen)
        if key not in self._stacks:
            tensors = [self._stages[number].weights[choice] for choice in chosen]
            weights = np.concatenate([tensor.elements() for tensor in tensors], axis=-1)
            one = np.ones(1, np.float32)
            scales = [
                np.broadcast_to(one if tensor.scales is None else tensor.scales, tensor.shape[-1:])
                for tensor in tensors
            ]
            self._stacks[key] = weights, np.concatenate(scales)
        return self._stacks[key]


def _parts(rows: range, column: int, ordered: Sequence[Assignment]) -> list[range]:
    """Return the runs of rows that have the same choice in a column."""
    ends = [row + 1 for row in rows[:-1] if ordered[row][column] != ordered[row + 1][column]]
    return [range(start, end) for start, end in itertools.pairwise([rows.start, *ends, rows.stop])]


def _judge(logits: F32, true: U8, right: Bools, losses: F64) -> None:
    """Write for each assignment and image whether the label is right, and its cross-entropy in nats (NaN: none).

    Args:
        logits: ``[rows, classes, B]``.
        true: ``[B]``.
        right: ``[rows, B]``, written.
        losses: ``[rows, B]``, written; the operations are those of :func:`bitloop.study.evaluate.cross_entropy`.
    """
    if np.isfinite(logits).all():
        np.equal(logits.argmax(axis=1), true, out=right)
    else:
        for row, one in zip(right, logits, strict=True):
            np.equal(labels(one.T), true, out=row)
    z = np.ascontiguousarray(logits.transpose(0, 2, 1), np.float64)
    finite = np.isfinite(z).all(axis=2)
    z -= z.max(axis=2, keepdims=True)
    np.subtract(np.log(np.exp(z).sum(axis=2)), z[:, np.arange(len(true)), true], out=losses)
    losses[~finite] = np.nan


def _stages(library: Library) -> tuple[list[Step], list[_Stage]]:
    """Return the layers before the first with parameters, and that one and all others with what follows each."""
    architecture = library.network.architecture
    before: list[Step] = []
    stages: list[_Stage] = []
    shape: tuple[int, ...] = architecture.input_shape
    for layer, output in zip(architecture.layers, architecture.output_shapes(), strict=True):
        if isinstance(layer, Dense | Conv2D):
            weights = library.tensors[f"{layer.name}.weights"]
            biases = library.tensors[f"{layer.name}.biases"] if layer.use_bias else ()
            stages.append(_Stage(_linear(layer, shape), weights, tuple(t.values() for t in biases), ()))
        elif not isinstance(layer, Softmax):
            step = plain_step(layer, shape)
            if stages:
                last = stages.pop()
                stages.append(_Stage(last.linear, last.weights, last.biases, (*last.after, step)))
            else:
                before.append(step)
        shape = output
    return before, stages


def _linear(layer: Dense | Conv2D, shape: tuple[int, ...]) -> Callable[[F32, F32, F32], F32]:
    if isinstance(layer, Dense):
        return lambda x, weights, scales: kernels.dense(flatten(x), weights, scales, None)
    strides = layer.strides
    before, output = window_of(shape, layer.kernel_size, strides, layer.padding)
    return lambda x, weights, scales: kernels.conv2d(
        x, weights, scales, None, strides=strides, before=before, output=output
    )
