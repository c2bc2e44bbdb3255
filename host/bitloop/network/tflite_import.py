"""Import of a float32 ``.tflite`` file: a chain of operators that bitloop knows.

A network of bitloop sees pixels from 0 to 1. A multiplication by 1/255 or a division by 255 at the front says just that
and is dropped. A model without it must have been trained on such pixels, or be imported with ``pixel_range=255``:
LiteRT's converter folds a rescaling into the first weights, and nothing in the file tells of it but their size.
Flattening is in the order H, W, C in both.
Layers are named after their kind and counted (``conv1``, ``relu1``, …): a converter's names are no names for people.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import BitloopError, NetworkError, UnsupportedLayerError
from bitloop.network.chain import PIXEL_SCALE, SUPPORTED, ChainBuilder
from bitloop.network.network import Network
from bitloop.network.tflite_file import TfliteGraph, TfliteOperator, TfliteTensor, read_tflite

F32 = npt.NDArray[np.float32]

SHAPE_OPERATORS = frozenset({"SHAPE", "STRIDED_SLICE", "PACK"})
"""They compute the target of a RESHAPE from a dynamic batch."""


def import_tflite(path: Path | str, *, pixel_range: int = 1) -> Network:
    """Read a ``.tflite`` file.

    Args:
        path: A float32 model.
        pixel_range: What white is to the model, 1 or 255; of no meaning where it rescales by 1/255 itself.

    Returns:
        The network; its data set is unknown ("").

    Raises:
        UsageError: No package with the schema is installed.
        NetworkError: The file is missing or damaged, or the model is no chain.
        UnsupportedLayerError: An operator is not supported; the message names it.
    """
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise NetworkError(f"cannot read {source}: {error}") from error
    try:
        builder = _Importer(read_tflite(data)).run()
        metadata = {"source": source.name, "source_sha256": hashlib.sha256(data).hexdigest()}
        return builder.build(source.stem, metadata, pixel_range=pixel_range)
    except BitloopError as error:
        raise type(error)(f"cannot import {source}: {error}") from error


class _Importer:
    def __init__(self, graph: TfliteGraph) -> None:
        self._graph = graph
        if len(graph.inputs) != 1 or len(graph.outputs) != 1:
            raise NetworkError(
                f"the model has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs, expected one each"
            )
        self._current = graph.inputs[0]
        tensor = graph.tensors[self._current]
        self._check_float(tensor, "the input")
        if len(tensor.shape) < 2 or tensor.shape[0] not in (1, -1):
            raise NetworkError(f"the input has shape {tensor.shape}; expected a batch of 1 or any, then the image")
        self._builder = ChainBuilder(tensor.shape[1:])
        self._counts: Counter[str] = Counter()
        self._shapes: set[int] = set()

    def run(self) -> ChainBuilder:
        for operator in self._graph.operators:
            if operator.name in SHAPE_OPERATORS and self._computes_shape(operator):
                self._shapes.update(operator.outputs)
                continue
            handler = _HANDLERS.get(operator.name)
            if handler is None:
                raise _unsupported(operator.name)
            if not operator.inputs or operator.inputs[0] != self._current or len(operator.outputs) != 1:
                raise NetworkError(
                    f"operator {operator.name} does not follow the one before; the model must be a chain"
                )
            output = self._graph.tensors[operator.outputs[0]]
            self._check_float(output, f"the output of {operator.name}")
            handler(self, operator)
            self._activation(operator)
            self._current = operator.outputs[0]
        if self._graph.outputs[0] != self._current:
            raise NetworkError("the model's output is not its last operator's; the model must be a chain")
        return self._builder

    def dense(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=2, most=3)
        if operator.options["WeightsFormat"] != 0:
            raise _unsupported(operator.name, "shuffled weights")
        if operator.options["KeepNumDims"] and len(self._builder.shape) != 1:
            raise _unsupported(operator.name, f"an input of {self._builder.shape} that keeps its axes")
        weights = self._weights(operator, rank=2)
        self._builder.dense(self._name("dense"), _ordered(weights.T), self._biases(operator, weights.shape[0]))

    def convolution(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=2, most=3)
        options = operator.options
        if (options["DilationHFactor"], options["DilationWFactor"]) != (1, 1):
            raise _unsupported(operator.name, "a dilation")
        weights = self._weights(operator, rank=4)
        strides = (options["StrideH"], options["StrideW"])
        biases = self._biases(operator, weights.shape[0])
        self._builder.convolution(
            self._name("conv"), _ordered(weights.transpose(1, 2, 3, 0)), biases, strides, options["Padding"]
        )

    def pool(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=1, most=1)
        options = operator.options
        add = self._builder.max_pool if operator.name == "MAX_POOL_2D" else self._builder.average_pool
        size, strides = (options["FilterHeight"], options["FilterWidth"]), (options["StrideH"], options["StrideW"])
        add(self._name("pool"), size, strides, options["Padding"])

    def mean(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=2, most=2)
        axes = self._graph.tensors[operator.inputs[1]].integers()
        rank = len(self._builder.shape) + 1
        if axes is None or rank != 4 or sorted(axis % rank for axis in axes) != [1, 2]:
            raise _unsupported(operator.name, f"the axes {axes}")
        self._builder.global_average_pool(self._name("pool"), keep_axes=bool(operator.options["KeepDims"]))

    def relu(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=1, most=1)
        self._builder.relu(self._name("relu"))

    def softmax(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=1, most=1)
        if operator.options["Beta"] != 1.0:
            raise _unsupported(operator.name, f"beta {operator.options['Beta']}")
        self._builder.softmax("softmax")

    def reshape(self, operator: TfliteOperator) -> None:
        self._inputs(operator, least=1, most=2)
        output = self._graph.tensors[operator.outputs[0]]
        if len(output.shape) < 2 or output.shape[0] not in (1, -1):
            raise _unsupported(operator.name, f"the target {output.shape}")
        self._builder.reshape(self._name("flatten"), output.shape[1:])

    def rescale(self, operator: TfliteOperator) -> None:
        """Drop ``x * 1/255``, ``x / 255`` and ``x + 0`` at the front; refuse all others."""
        self._inputs(operator, least=2, most=2)
        values = self._graph.tensors[operator.inputs[1]].constant()
        neutral = {"MUL": PIXEL_SCALE, "DIV": 1 / PIXEL_SCALE, "ADD": 0.0}[operator.name]
        if not self._builder.at_front or values is None or not np.allclose(values, neutral, rtol=1e-6, atol=0):
            raise _unsupported(operator.name, "anything but a rescaling by 1/255 at the front")
        if operator.options["FusedActivationFunction"] != "NONE":
            raise _unsupported(operator.name, "a fused activation")
        if operator.name != "ADD":
            self._builder.note_rescaling()

    def _computes_shape(self, operator: TfliteOperator) -> bool:
        tensors = self._graph.tensors
        if any(tensors[index].dtype not in ("INT32", "INT64") for index in operator.outputs):
            return False
        known = self._shapes | ({self._current} if operator.name == "SHAPE" else set())
        return all(index in known or tensors[index].data is not None for index in operator.inputs if index >= 0)

    def _activation(self, operator: TfliteOperator) -> None:
        fused = operator.options.get("FusedActivationFunction", "NONE")
        if fused == "RELU":
            self._builder.relu(self._name("relu"))
        elif fused != "NONE":
            raise _unsupported(operator.name, f"the fused activation {fused}")

    def _weights(self, operator: TfliteOperator, *, rank: int) -> F32:
        tensor = self._graph.tensors[operator.inputs[1]]
        self._check_float(tensor, f"the weights of {operator.name}")
        values = tensor.constant() if len(tensor.shape) == rank else None
        if values is None or values.size == 0:
            raise _unsupported(operator.name, f"weights that are no constant of {rank} dimensions ({tensor.shape})")
        return values

    def _biases(self, operator: TfliteOperator, outputs: int) -> F32 | None:
        if len(operator.inputs) < 3 or operator.inputs[2] < 0:
            return None
        tensor = self._graph.tensors[operator.inputs[2]]
        self._check_float(tensor, f"the biases of {operator.name}")
        values = tensor.constant()
        if values is None or values.size != outputs:
            raise _unsupported(operator.name, f"biases that are no constant of {outputs} ({tensor.shape})")
        # A converter gives zeros to a layer without biases; as stored numbers they would only cost bytes.
        return values.reshape(outputs) if values.any() else None

    def _inputs(self, operator: TfliteOperator, *, least: int, most: int) -> None:
        if not least <= len(operator.inputs) <= most or any(index < 0 for index in operator.inputs[:least]):
            raise NetworkError(f"operator {operator.name} has the inputs {operator.inputs}, expected {least} to {most}")

    def _name(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"{kind}{self._counts[kind]}"

    @staticmethod
    def _check_float(tensor: TfliteTensor, what: str) -> None:
        if tensor.dtype != "FLOAT32" or tensor.quantized:
            kind = f"quantized {tensor.dtype}" if tensor.quantized else tensor.dtype
            raise UnsupportedLayerError(
                f"{what} ({tensor.name!r}) is {kind}; only float32 models are imported: convert without quantization, "
                "then quantize with bitloop"
            )


def _ordered(array: npt.NDArray[Any]) -> F32:
    return np.ascontiguousarray(array, dtype=np.float32)


def _unsupported(name: str, why: str = "") -> UnsupportedLayerError:
    detail = f" with {why}" if why else ""
    return UnsupportedLayerError(f"operator {name}{detail} is not supported; supported are {SUPPORTED}")


_HANDLERS: dict[str, Callable[[_Importer, TfliteOperator], None]] = {
    "ADD": _Importer.rescale,
    "AVERAGE_POOL_2D": _Importer.pool,
    "CONV_2D": _Importer.convolution,
    "DIV": _Importer.rescale,
    "FULLY_CONNECTED": _Importer.dense,
    "MAX_POOL_2D": _Importer.pool,
    "MEAN": _Importer.mean,
    "MUL": _Importer.rescale,
    "RELU": _Importer.relu,
    "RESHAPE": _Importer.reshape,
    "SOFTMAX": _Importer.softmax,
}
