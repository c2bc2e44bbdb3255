"""A fast exact evaluator: the device's own core, on this machine, over many images at once."""

from __future__ import annotations

import itertools
import os
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.errors import ModelError
from bitloop.native.core import library, validate_image


class Evaluator:
    """Runs one planned image. Exact: the same bits as on any device.

    Args:
        image: bytes as the planner makes them (docs/model.md), with all weights in them.

    Raises:
        ModelError: the core refuses the image, or some of its weights are streamed.
        ToolchainError: the core cannot be compiled.
    """

    def __init__(self, image: bytes) -> None:
        status, details = validate_image(image, 0xFFFFFFFF)
        if status is not spec.Status.OK:
            message = f"the core refuses the image: {spec.STATUS_TEXTS[status]} {details}; plan it again"
            raise ModelError(message)
        if struct.unpack_from("<I", image, 52)[0]:
            message = "weights of the image are streamed; plan it with placement 'resident' to evaluate it"
            raise ModelError(message)
        self._image = image
        self._layers: int = struct.unpack_from("<H", image, 12)[0]
        self.input_shape: tuple[int, int, int] = struct.unpack_from("<HHH", image, 20)
        self._arena_bytes: int = struct.unpack_from("<I", image, 28)[0]
        self.classes: int = struct.unpack_from("<I", image, 48)[0]

    def run(self, pixels: npt.NDArray[np.uint8], *, threads: int | None = None) -> npt.NDArray[np.float32]:
        """Compute the logits of a batch.

        Args:
            pixels: uint8 [N, H, W, C], or [N, H, W] for one channel.
            threads: how many to use; default: one a processor.

        Returns:
            float32 [N, classes]; a NaN is 0x7FC00000.

        Raises:
            ModelError: the pixels have another shape than the image's input.
        """
        data = self._input(pixels)
        logits = np.empty((len(data), self.classes), dtype=np.uint32)
        workers = max(1, min(threads or os.cpu_count() or 1, len(data)))
        bounds = [len(data) * i // workers for i in range(workers + 1)]
        if workers == 1:
            self._evaluate(data, logits)
        else:
            with ThreadPoolExecutor(workers) as pool:
                parts = [pool.submit(self._evaluate, data[a:b], logits[a:b]) for a, b in itertools.pairwise(bounds)]
            for part in parts:
                part.result()
        return logits.view(np.float32)

    def activations(self, pixels: npt.NDArray[np.uint8], layer: int) -> npt.NDArray[np.float32]:
        """Compute one device layer's output for one input.

        Args:
            pixels: uint8 [H, W, C] (or [1, H, W, C]).
            layer: number of the layer in the image.

        Returns:
            float32, one dimension, row-major H, W, C.

        Raises:
            ModelError: the pixels have another shape than the image's input, or there is no such layer.
        """
        if not 0 <= layer < self._layers:
            message = f"the image has layers 0 to {self._layers - 1}, not {layer}"
            raise ModelError(message)
        data = self._input(pixels.reshape(1, *self.input_shape) if pixels.size == np.prod(self.input_shape) else pixels)
        if len(data) != 1:
            message = f"one input is expected, found {len(data)}"
            raise ModelError(message)
        record = struct.unpack_from("<HHH", self._image, spec.IMAGE_HEADER_BYTES + layer * spec.LAYER_RECORD_BYTES + 14)
        values = np.empty(record[0] * record[1] * record[2], dtype=np.uint32)
        arena = self._arena()
        library().bl_native_activations(
            self._image, len(self._image), arena.ctypes.data, data.ctypes.data, layer, values.ctypes.data, values.size
        )
        return values.view(np.float32)

    def _input(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        if pixels.dtype != np.uint8:
            message = f"pixels must be uint8, found {pixels.dtype}"
            raise ModelError(message)
        shape = (*pixels.shape, 1) if pixels.ndim == 3 else pixels.shape
        if shape[1:] != self.input_shape:
            message = (
                f"the image takes pixels of shape (N, {', '.join(map(str, self.input_shape))}), found {pixels.shape}"
            )
            raise ModelError(message)
        return np.ascontiguousarray(pixels).reshape(-1, *self.input_shape)

    def _arena(self) -> npt.NDArray[np.uint32]:
        return np.zeros(-(-self._arena_bytes // 4), dtype=np.uint32)

    def _evaluate(self, pixels: npt.NDArray[np.uint8], logits: npt.NDArray[np.uint32]) -> None:
        arena = self._arena()
        library().bl_native_evaluate(
            self._image, len(self._image), arena.ctypes.data, pixels.ctypes.data, len(pixels), logits.ctypes.data
        )
