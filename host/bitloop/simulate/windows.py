"""Windows of convolutions and pools over maps with images first: ``[N, H, W, C]``, or ``[N, H, W]``."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitloop.simulate.kernels import F32
from bitloop.simulate.reference import window_of

__all__ = ["Window"]

T = TypeVar("T", np.float32, np.float64)


@dataclass(frozen=True)
class Window:
    """Windows over height and width, padded as TensorFlow pads.

    Attributes:
        size: height and width of a window.
        strides: from one to the next.
        before: rows of padding above, columns at the left.
        output: how many windows there are, up and across.
    """

    size: tuple[int, int]
    strides: tuple[int, int]
    before: tuple[int, int]
    output: tuple[int, int]

    @classmethod
    def of(cls, shape: tuple[int, ...], size: tuple[int, int], strides: tuple[int, int], padding: str) -> Window:
        """Return the windows over maps of a shape, (height, width, …)."""
        return cls(size, strides, *window_of(shape, size, strides, padding))

    def parts(self, values: npt.NDArray[T], fill: float) -> Iterator[npt.NDArray[T]]:
        """Yield, for each place in the window, what all windows have there: ``[N, output height, output width, …]``."""
        height, width = values.shape[1:3]
        padding = [(0, 0)] * values.ndim
        for axis, (extent, axis_size) in enumerate(zip((height, width), self.size, strict=True)):
            needed = (self.output[axis] - 1) * self.strides[axis] + axis_size
            padding[axis + 1] = (self.before[axis], max(0, needed - extent - self.before[axis]))
        padded = np.pad(values, padding, constant_values=fill) if any(map(any, padding)) else values
        for y in range(self.size[0]):
            for x in range(self.size[1]):
                yield padded[
                    :,
                    y : y + (self.output[0] - 1) * self.strides[0] + 1 : self.strides[0],
                    x : x + (self.output[1] - 1) * self.strides[1] + 1 : self.strides[1],
                ]

    def unfolded(self, values: F32) -> F32:
        """Return ``[N, output height, output width, n]``: what each output of a convolution sees."""
        return np.concatenate(list(self.parts(values, 0.0)), axis=-1)

    def total(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return the sum of each window."""
        return functools.reduce(np.add, self.parts(values, 0.0))

    def greatest(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return the maximum of each window."""
        return functools.reduce(np.maximum, self.parts(values, -np.inf))
