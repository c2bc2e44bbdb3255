"""Reads a ``.tflite`` file by its flatbuffer schema into plain records; LiteRT's interpreter is not involved.

The schema's classes come from ``ai_edge_litert``, or from the ``tflite`` package; both are generated from the same
schema (tensorflow/compiler/mlir/lite/schema/schema.fbs). They check no bounds, so everything is caught here.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError, UsageError
from bitloop.spec import MAX_MODEL_BYTES

F32 = npt.NDArray[np.float32]

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
MAX_OPERATORS = 4096
MAX_TENSORS = 16384
MAX_RANK = 8
SCHEMA_MODULES = ("ai_edge_litert.schema_py_generated", "tflite")

_DAMAGE = (
    struct.error,
    IndexError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    OverflowError,
    AssertionError,
    MemoryError,
    RecursionError,
)
"""What reading a damaged flatbuffer raises."""


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor of a file.

    Attributes:
        name: As in the file.
        shape: With the batch, which is 1 where it is dynamic.
        dtype: Name of its type, e.g. "FLOAT32".
        data: Its bytes as uint8 where it is constant, else None.
        quantized: Whether it has scales.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[np.uint8] | None
    quantized: bool

    def constant(self) -> F32 | None:
        """Return the values of a constant float32 tensor in its shape, or None if it is no such tensor.

        Raises:
            NetworkError: The file holds another number of bytes than the shape needs.
        """
        if self.data is None or self.dtype != "FLOAT32":
            return None
        self._check_size(4)
        return np.frombuffer(self.data.tobytes(), "<f4").astype(np.float32).reshape(self.shape)

    def integers(self) -> tuple[int, ...] | None:
        """Return the values of a constant int32 tensor, or None if it is no such tensor."""
        if self.data is None or self.dtype != "INT32":
            return None
        self._check_size(4)
        return tuple(int(value) for value in np.frombuffer(self.data.tobytes(), "<i4"))

    def _check_size(self, element_bytes: int) -> None:
        needed = math.prod(self.shape) * element_bytes
        if self.data is not None and len(self.data) != needed:
            raise NetworkError(
                f"tensor {self.name!r} {self.shape} needs {needed} bytes, but the file has {len(self.data)}"
            )


@dataclass(frozen=True)
class TfliteOperator:
    """One operator of a file.

    Attributes:
        name: E.g. "FULLY_CONNECTED"; a custom one is "CUSTOM (its name)".
        inputs: Indices of tensors; -1 for one left out.
        outputs: Indices of tensors.
        options: The options that bitloop reads, by their names in the schema.
    """

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class TfliteGraph:
    """The only subgraph of a file."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOperator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "WeightsFormat", "KeepNumDims")),
    "CONV_2D": (
        "Conv2DOptions",
        ("FusedActivationFunction", "Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor"),
    ),
    "MAX_POOL_2D": (
        "Pool2DOptions",
        ("FusedActivationFunction", "Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth"),
    ),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "DIV": ("DivOptions", ("FusedActivationFunction",)),
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
}
_OPTIONS["AVERAGE_POOL_2D"] = _OPTIONS["MAX_POOL_2D"]


def import_schema() -> Any:
    """Import the schema's classes.

    Raises:
        UsageError: Neither package is installed.
    """
    for module in SCHEMA_MODULES:
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            return importlib.import_module(module)
    raise UsageError("reading a .tflite file needs its schema: pip install 'bitloop[litert]', or the package 'tflite'")


def read_tflite(data: bytes) -> TfliteGraph:
    """Read the bytes of a ``.tflite`` file; nothing in them is trusted.

    Raises:
        UsageError: No package with the schema is installed.
        NetworkError: It is no such file, is damaged, or has several subgraphs.
    """
    schema = import_schema()
    if data[4:8] != FILE_IDENTIFIER:
        raise NetworkError(f"it does not have the identifier {FILE_IDENTIFIER.decode()} of a .tflite file")
    if len(data) > MAX_MODEL_BYTES:
        raise NetworkError(f"it has {len(data)} bytes, more than {MAX_MODEL_BYTES}")
    try:
        return _Reader(schema, data).read()
    except _DAMAGE as error:
        raise NetworkError(f"the file is damaged: {type(error).__name__}: {error}") from error


class _Reader:
    def __init__(self, schema: Any, data: bytes) -> None:
        self._schema = schema
        self._data = data
        self._model = schema.Model.GetRootAs(data, 0)
        self._operator_names = _names(schema.BuiltinOperator)
        self._type_names = _names(schema.TensorType)
        self._activation_names = _names(schema.ActivationFunctionType)
        self._padding_names = _names(schema.Padding)

    def read(self) -> TfliteGraph:
        if self._model.Version() != SCHEMA_VERSION:
            raise NetworkError(f"its schema has version {self._model.Version()}, expected {SCHEMA_VERSION}")
        if self._model.SubgraphsLength() != 1:
            raise NetworkError(f"it has {self._model.SubgraphsLength()} subgraphs, expected one")
        graph = self._model.Subgraphs(0)
        tensors, operators = graph.TensorsLength(), graph.OperatorsLength()
        if tensors > MAX_TENSORS or operators > MAX_OPERATORS:
            raise NetworkError(
                f"it has {tensors} tensors and {operators} operators, at most {MAX_TENSORS} and {MAX_OPERATORS}"
            )
        return TfliteGraph(
            tensors=tuple(self._tensor(graph.Tensors(index)) for index in range(tensors)),
            operators=tuple(self._operator(graph.Operators(index), tensors) for index in range(operators)),
            inputs=_indices(graph, "Inputs", tensors),
            outputs=_indices(graph, "Outputs", tensors),
        )

    def _tensor(self, tensor: Any) -> TfliteTensor:
        rank = tensor.ShapeLength()
        if rank > MAX_RANK:
            raise NetworkError(f"a tensor has {rank} dimensions, at most {MAX_RANK}")
        quantization = tensor.Quantization()
        return TfliteTensor(
            name=(tensor.Name() or b"").decode("utf-8", "replace"),
            shape=tuple(int(tensor.Shape(axis)) for axis in range(rank)),
            dtype=self._type_names[tensor.Type()],
            data=self._buffer(tensor.Buffer()),
            quantized=quantization is not None and quantization.ScaleLength() > 0,
        )

    def _buffer(self, index: int) -> npt.NDArray[np.uint8] | None:
        if not 0 <= index < self._model.BuffersLength():
            raise NetworkError(f"a tensor names buffer {index} of {self._model.BuffersLength()}")
        buffer = self._model.Buffers(index)
        if index == 0 or (buffer.DataLength() == 0 and not _outside(buffer)):
            return None
        if _outside(buffer):
            raise NetworkError("its weights lie outside of the flatbuffer, which is not supported")
        array = np.asarray(buffer.DataAsNumpy())
        if array.dtype != np.uint8 or array.ndim != 1:
            raise NetworkError(f"buffer {index} is damaged")
        return array

    def _operator(self, operator: Any, tensors: int) -> TfliteOperator:
        index = operator.OpcodeIndex()
        if not 0 <= index < self._model.OperatorCodesLength():
            raise NetworkError(f"an operator has code {index} of {self._model.OperatorCodesLength()}")
        code = self._model.OperatorCodes(index)
        name = self._operator_names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
        if name == "CUSTOM":
            name = f"CUSTOM ({(code.CustomCode() or b'').decode('utf-8', 'replace')})"
        return TfliteOperator(
            name=name,
            inputs=_indices(operator, "Inputs", tensors, least=-1),
            outputs=_indices(operator, "Outputs", tensors),
            options=self._options(name, operator),
        )

    def _options(self, name: str, operator: Any) -> dict[str, Any]:
        if name not in _OPTIONS:
            return {}
        cls_name, fields = _OPTIONS[name]
        table = operator.BuiltinOptions()
        if table is None:
            raise NetworkError(f"operator {name} has no options")
        if operator.BuiltinOptionsType() != getattr(self._schema.BuiltinOptions, cls_name):
            raise NetworkError(f"operator {name} has options of another operator")
        options = getattr(self._schema, cls_name)()
        options.Init(table.Bytes, table.Pos)
        values = {field: getattr(options, field)() for field in fields}
        if "FusedActivationFunction" in values:
            values["FusedActivationFunction"] = self._activation_names[values["FusedActivationFunction"]]
        if "Padding" in values:
            values["Padding"] = self._padding_names[values["Padding"]].lower()
        return values


def _names(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if isinstance(value, int)}


def _outside(buffer: Any) -> bool:
    return hasattr(buffer, "Offset") and (buffer.Offset() > 1 or buffer.Size() > 1)


def _indices(table: Any, what: str, tensors: int, *, least: int = 0) -> tuple[int, ...]:
    count = getattr(table, f"{what}Length")()
    if count > MAX_TENSORS:
        raise NetworkError(f"a list of {count} tensors is too long")
    indices = tuple(int(getattr(table, what)(position)) for position in range(count))
    for index in indices:
        if not least <= index < tensors:
            raise NetworkError(f"tensor {index} is named, but the file has {tensors}")
    return indices
