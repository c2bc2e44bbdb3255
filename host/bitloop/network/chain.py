"""Builds a network layer by layer while a foreign file is read: keeps names unique and the shape at hand."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError, UsageError
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    Padding,
    ReLU,
    Shape,
    Softmax,
    output_shape,
)
from bitloop.network.network import Network

F32 = npt.NDArray[np.float32]
Pair = tuple[int, int]

logger = logging.getLogger(__name__)

MAX_PIXEL = 255
PIXEL_SCALE = 1 / MAX_PIXEL
SMALL_WEIGHT = 0.02
"""A first layer whose weights are all smaller than this was most likely trained on, or converted for, bytes."""
SUPPORTED = (
    "Dense, Conv2D, MaxPool2D, AveragePool2D and global average pooling, ReLU, Flatten, a final Softmax, and a "
    "rescaling by 1/255 at the front"
)


def sanitize(name: str) -> str:
    """Return a name of the characters a-z, 0-9 and _ that is as near to ``name`` as can be."""
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "layer"


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Return height, width and channels of an input given without its batch.

    (H, W) gets one channel. A vector of N is taken as a square image where N is a square, else as one row of N.

    Raises:
        NetworkError: It is no image.
    """
    if any(not isinstance(size, int) or size < 1 for size in shape):
        raise NetworkError(f"the input has shape {shape}; all sides but the batch must be known")
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 1:
        side = math.isqrt(shape[0])
        return (side, side, 1) if side * side == shape[0] else (1, shape[0], 1)
    raise NetworkError(f"the input has shape {shape}; expected (H, W, C), (H, W) or (N,)")


class ChainBuilder:
    """Collects layers and parameters; shapes are checked as they come.

    Args:
        shape: Shape of the input without the batch, as the file has it.
    """

    def __init__(self, shape: Shape) -> None:
        self._input_shape = image_shape(shape)
        self._shape: Shape = shape
        self._layers: list[Layer] = []
        self._parameters: dict[str, F32] = {}
        self._rescaled = False

    @property
    def shape(self) -> Shape:
        """Shape of what the last layer gives, without the batch; an input keeps the shape that the file has."""
        return self._shape

    @property
    def at_front(self) -> bool:
        """Whether no layer has been added yet."""
        return not self._layers

    def unique(self, name: str) -> str:
        """Return a sanitized name that no layer has."""
        base = sanitize(name)
        taken = {layer.name for layer in self._layers}
        candidate, number = base, 2
        while candidate in taken:
            candidate, number = f"{base}_{number}", number + 1
        return candidate

    def note_rescaling(self) -> None:
        """Take note that the file itself divides bytes by 255 at the front, as bitloop does."""
        self._rescaled = True

    def dense(self, name: str, weights: F32, biases: F32 | None) -> None:
        """Add a dense layer; weights (in, out), biases (out,)."""
        layer = Dense(self.unique(name), int(weights.shape[1]), biases is not None)
        if weights.shape[0] != math.prod(self._shape):
            raise NetworkError(f"layer {name!r} has weights for {weights.shape[0]} inputs, but gets {self._shape}")
        self._add(layer, weights, biases)

    def convolution(self, name: str, weights: F32, biases: F32 | None, strides: Pair, padding: Padding) -> None:
        """Add a convolution; weights (ky, kx, in, out), biases (out,)."""
        kernel = (int(weights.shape[0]), int(weights.shape[1]))
        layer = Conv2D(self.unique(name), int(weights.shape[3]), kernel, strides, padding, biases is not None)
        self._to_map()
        if len(self._shape) != 3 or weights.shape[2] != self._shape[2]:
            raise NetworkError(
                f"layer {name!r} has weights for {weights.shape[2]} channels, but gets {self._shape}; grouped and "
                "depthwise convolutions are not supported"
            )
        self._add(layer, weights, biases)

    def max_pool(self, name: str, size: Pair, strides: Pair, padding: Padding) -> None:
        """Add a max-pooling."""
        self._to_map()
        self._add(MaxPool2D(self.unique(name), size, strides, padding))

    def average_pool(self, name: str, size: Pair, strides: Pair, padding: Padding) -> None:
        """Add an average pooling."""
        self._to_map()
        self._add(AveragePool2D(self.unique(name), size, strides, padding))

    def global_average_pool(self, name: str, *, keep_axes: bool) -> None:
        """Add an average over the whole map, as (1, 1, C) or as a vector."""
        self._to_map()
        if len(self._shape) != 3:
            raise NetworkError(f"layer {name!r} averages a map, but gets {self._shape}")
        size = (self._shape[0], self._shape[1])
        self._add(AveragePool2D(self.unique(name), size, size, "valid"))
        if not keep_axes:
            self._add(Flatten(self.unique(f"{name}_flatten")))

    def relu(self, name: str) -> None:
        """Add a ReLU."""
        self._add(ReLU(self.unique(name)))

    def softmax(self, name: str) -> None:
        """Add a softmax."""
        self._add(Softmax(self.unique(name)))

    def reshape(self, name: str, target: Shape) -> None:
        """Add a reshape where it is a flattening, changes nothing, or only names the axes of the input.

        Raises:
            NetworkError: It is another one.
        """
        if math.prod(target) != math.prod(self._shape):
            raise NetworkError(f"layer {name!r} reshapes {self._shape} to {target}, which has another size")
        if target == self._shape:
            return
        if self.at_front and (target == self._input_shape or (len(self._shape) < 3 and len(target) == 3)):
            # The input of a chain is read row-major whatever it is called, so that a new shape only renames it.
            self._input_shape = image_shape(target)
            self._shape = target
        elif len(target) == 1:
            self._add(Flatten(self.unique(name)))
        else:
            raise NetworkError(
                f"layer {name!r} reshapes {self._shape} to {target}; only flattening, and giving the input its "
                "channel axis, are supported"
            )

    def fold_affine(self, name: str, factor: npt.NDArray[np.float64], offset: npt.NDArray[np.float64]) -> None:
        """Fold ``y * factor + offset``, one of each a channel, into the dense layer or convolution before.

        Computed in binary64 and rounded once to binary32.

        Raises:
            NetworkError: The layer before is of another kind.
        """
        last = self._layers[-1] if self._layers else None
        if not isinstance(last, Dense | Conv2D):
            raise NetworkError(
                f"layer {name!r} (BatchNormalization) can only be folded into a dense layer or convolution right before"
            )
        weights = self._parameters[f"{last.name}.weights"].astype(np.float64) * factor
        biases = np.asarray(self._parameters.get(f"{last.name}.biases", np.float32(0)), np.float64)
        with np.errstate(over="ignore"):
            self._parameters[f"{last.name}.weights"] = weights.astype(np.float32)
            self._parameters[f"{last.name}.biases"] = (biases * factor + offset).astype(np.float32)
        if not last.use_bias:
            self._layers[-1] = (
                Dense(last.name, last.units)
                if isinstance(last, Dense)
                else Conv2D(last.name, last.filters, last.kernel_size, last.strides, last.padding)
            )

    def build(self, name: str, metadata: Mapping[str, Any], *, pixel_range: int) -> Network:
        """Return the network, as one on pixels from 0 to 1.

        Args:
            name: Its name, sanitized here.
            metadata: Its metadata.
            pixel_range: What white is to the file's model: 1, or 255 for one that takes bytes as they are. The first
                weights are then multiplied by 255, which all layers before them let through.

        Raises:
            NetworkError: There is no layer, or a parameter is not finite.
            UnsupportedLayerError: A softmax is not last.
        """
        if not self._rescaled:
            self._fit_pixels(pixel_range)
        architecture = Architecture(sanitize(name), self._input_shape, tuple(self._layers))
        return Network(architecture, self._parameters, "", metadata)

    def _fit_pixels(self, pixel_range: int) -> None:
        if pixel_range not in (1, MAX_PIXEL):
            raise UsageError(f"a model takes pixels up to 1 or up to {MAX_PIXEL}, not {pixel_range}")
        first = next((key for key in self._parameters if key.endswith(".weights")), None)
        if first is None:
            return
        weights = self._parameters[first]
        if pixel_range == MAX_PIXEL:
            with np.errstate(over="ignore"):
                self._parameters[first] = (weights.astype(np.float64) * MAX_PIXEL).astype(np.float32)
        elif np.abs(weights).max(initial=0) < SMALL_WEIGHT:
            logger.warning(
                "the weights %s are all below %g: a rescaling by 1/255 may have been folded into them, as LiteRT's "
                "converter does; if this model takes pixels from 0 to 255, import it with pixel_range=255 "
                "(bitloop quantize --pixel-range 255)",
                first,
                SMALL_WEIGHT,
            )

    def _add(self, layer: Layer, weights: F32 | None = None, biases: F32 | None = None) -> None:
        try:
            self._shape = output_shape(layer, self._shape)
        except NetworkError as error:
            raise type(error)(f"layer {layer.name!r}: {error}") from error
        self._layers.append(layer)
        if weights is not None:
            self._parameters[f"{layer.name}.weights"] = weights
        if biases is not None:
            self._parameters[f"{layer.name}.biases"] = biases

    def _to_map(self) -> None:
        """Take an input (H, W) as the map (H, W, 1)."""
        if self.at_front and len(self._shape) == 2:
            self._shape = self._input_shape
