"""Import of a ``.keras`` file: a chain of layers that bitloop knows, loaded by Keras itself.

A network of bitloop sees pixels from 0 to 1. A ``Rescaling(1/255)`` at the front says just that and is dropped; a model
without it must have been trained on such pixels, or be imported with ``pixel_range=255``. Dropout is dropped.
BatchNormalization right behind a dense layer or convolution is folded into it, in binary64, so that results differ from
Keras's by roundings.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import BitloopError, NetworkError, UnsupportedLayerError
from bitloop.network.chain import PIXEL_SCALE, SUPPORTED, ChainBuilder
from bitloop.network.keras_runtime import import_keras_package
from bitloop.network.network import Network

F32 = npt.NDArray[np.float32]
Handler = Callable[[ChainBuilder, Any], None]

CONFIG_NAME = "config.json"
MAX_CONFIG_BYTES = 1 << 24
MODEL_CLASSES = ("Sequential", "Functional")


def import_keras(path: Path | str, *, pixel_range: int = 1) -> Network:
    """Read a ``.keras`` file.

    Args:
        path: A file of ``model.save`` of Keras 3.
        pixel_range: What white is to the model, 1 or 255; of no meaning where it rescales by 1/255 itself.

    Returns:
        The network; its data set is unknown ("").

    Raises:
        UsageError: Keras is not installed.
        NetworkError: The file is missing or damaged, or the model is no chain.
        UnsupportedLayerError: A layer is not supported; the message names it.
    """
    source = Path(path)
    try:
        data = source.read_bytes()
    except OSError as error:
        raise NetworkError(f"cannot read {source}: {error}") from error
    _check_classes(source)
    keras = import_keras_package()
    try:
        model = keras.saving.load_model(source, compile=False, safe_mode=True)
    except Exception as error:  # Keras, h5py and zipfile raise anything on a damaged file
        reason = " ".join(str(error).split())[:300]
        raise NetworkError(f"Keras cannot load {source}: {type(error).__name__}: {reason}") from error
    try:
        builder = _walk(model)
        metadata = {"source": source.name, "source_sha256": hashlib.sha256(data).hexdigest()}
        return builder.build(source.stem, metadata, pixel_range=pixel_range)
    except BitloopError as error:
        raise type(error)(f"cannot import {source}: {error}") from error


def _check_classes(source: Path) -> None:
    """Refuse unknown classes by their names before Keras loads anything."""
    try:
        with zipfile.ZipFile(source) as archive:
            info = archive.getinfo(CONFIG_NAME)
            if info.file_size > MAX_CONFIG_BYTES:
                raise ValueError(f"{CONFIG_NAME} has {info.file_size} bytes")
            config = json.loads(archive.read(info))
        model_class, layers = config["class_name"], config["config"]["layers"]
        classes = [(str(layer["config"].get("name", "?")), str(layer["class_name"])) for layer in layers]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
        raise NetworkError(f"{source} is no .keras file of Keras 3, or damaged: {error!r}") from error
    except zipfile.BadZipFile as error:
        raise NetworkError(f"{source} is no .keras file, or damaged: {error}") from error
    if model_class not in MODEL_CLASSES:
        raise UnsupportedLayerError(f"{source} holds a {model_class}; supported are {', '.join(MODEL_CLASSES)}")
    for name, cls in classes:
        if cls != "InputLayer" and cls not in _HANDLERS:
            raise _unsupported(name, cls)


def _walk(model: Any) -> ChainBuilder:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise NetworkError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs, expected one each"
        )
    tensor = model.inputs[0]
    builder = ChainBuilder(tuple(tensor.shape[1:]))
    sequential = type(model).__name__ == "Sequential"  # a chain by its nature; its layers' tensors are of many builds
    for layer in model.layers:
        cls = type(layer).__name__
        if cls == "InputLayer":
            continue
        try:
            follows = sequential or layer.input is tensor
        except (AttributeError, ValueError):  # a layer with several inputs, or used several times
            follows = False
        if not follows:
            raise NetworkError(
                f"layer {layer.name!r} ({cls}) does not follow the one before; the model must be a chain"
            )
        if getattr(layer, "quantization_mode", None) or layer.compute_dtype != "float32":
            raise UnsupportedLayerError(
                f"layer {layer.name!r} ({cls}) computes in {layer.quantization_mode or layer.compute_dtype}; only "
                "float32 models are imported"
            )
        _HANDLERS[cls](builder, layer)
        tensor = layer.output
    if not sequential and model.outputs[0] is not tensor:
        raise NetworkError("the model's output is not its last layer's; the model must be a chain")
    return builder


def _unsupported(name: str, cls: str, why: str = "") -> UnsupportedLayerError:
    detail = f" with {why}" if why else ""
    return UnsupportedLayerError(f"layer {name!r} ({cls}){detail} is not supported; supported are {SUPPORTED}")


def _refuse_unless(layer: Any, **expected: Any) -> None:
    for attribute, value in expected.items():
        found = getattr(layer, attribute)
        if found != value:
            raise _unsupported(layer.name, type(layer).__name__, f"{attribute}={found!r}")


def _weights(layer: Any) -> tuple[F32, F32 | None]:
    arrays = [np.asarray(array, np.float32) for array in layer.get_weights()]
    return arrays[0], arrays[1] if layer.use_bias else None


def _activation(builder: ChainBuilder, layer: Any, name: str) -> None:
    function = getattr(layer.activation, "__name__", str(layer.activation))
    if function == "relu":
        builder.relu(name)
    elif function == "softmax":
        builder.softmax(name)
    elif function != "linear":
        raise _unsupported(layer.name, type(layer).__name__, f"activation={function!r}")


def _dense(builder: ChainBuilder, layer: Any) -> None:
    if len(builder.shape) != 1:
        raise _unsupported(layer.name, "Dense", f"an input of {builder.shape} (put a Flatten before it)")
    builder.dense(layer.name, *_weights(layer))
    _activation(builder, layer, f"{layer.name}_{layer.activation.__name__}")


def _convolution(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, data_format="channels_last", dilation_rate=(1, 1), groups=1)
    builder.convolution(layer.name, *_weights(layer), tuple(layer.strides), _padding(layer))
    _activation(builder, layer, f"{layer.name}_{layer.activation.__name__}")


def _max_pool(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, data_format="channels_last")
    builder.max_pool(layer.name, tuple(layer.pool_size), tuple(layer.strides), _padding(layer))


def _average_pool(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, data_format="channels_last")
    builder.average_pool(layer.name, tuple(layer.pool_size), tuple(layer.strides), _padding(layer))


def _global_average_pool(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, data_format="channels_last")
    builder.global_average_pool(layer.name, keep_axes=bool(layer.keepdims))


def _relu(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, max_value=None, negative_slope=0.0, threshold=0.0)
    builder.relu(layer.name)


def _softmax(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, axis=-1)
    builder.softmax(layer.name)


def _flatten(builder: ChainBuilder, layer: Any) -> None:
    _refuse_unless(layer, data_format="channels_last")
    _reshape(builder, layer)


def _reshape(builder: ChainBuilder, layer: Any) -> None:
    builder.reshape(layer.name, tuple(layer.output.shape[1:]))


def _rescaling(builder: ChainBuilder, layer: Any) -> None:
    scale, offset = np.asarray(layer.scale, np.float64), np.asarray(layer.offset, np.float64)
    if not builder.at_front or not np.allclose(scale, PIXEL_SCALE, rtol=1e-6, atol=0) or np.any(offset != 0):
        raise _unsupported(
            layer.name, "Rescaling", f"scale={layer.scale!r}, offset={layer.offset!r} (only 1/255 and 0, at the front)"
        )
    builder.note_rescaling()


def _dropout(builder: ChainBuilder, layer: Any) -> None:
    """A dropout does nothing in inference."""


def _batch_normalization(builder: ChainBuilder, layer: Any) -> None:
    if layer.axis not in (-1, len(builder.shape)):
        raise _unsupported(layer.name, "BatchNormalization", f"axis={layer.axis!r}")
    mean, variance = (np.asarray(array, np.float64) for array in (layer.moving_mean, layer.moving_variance))
    gamma = np.asarray(layer.gamma, np.float64) if layer.scale else np.ones_like(mean)
    beta = np.asarray(layer.beta, np.float64) if layer.center else np.zeros_like(mean)
    factor = gamma / np.sqrt(variance + layer.epsilon)
    builder.fold_affine(layer.name, factor, beta - mean * factor)


def _padding(layer: Any) -> Any:
    if layer.padding not in ("valid", "same"):
        raise _unsupported(layer.name, type(layer).__name__, f"padding={layer.padding!r}")
    return layer.padding


_HANDLERS: dict[str, Handler] = {
    "Activation": lambda builder, layer: _activation(builder, layer, layer.name),
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _batch_normalization,
    "Conv2D": _convolution,
    "Dense": _dense,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _global_average_pool,
    "MaxPooling2D": _max_pool,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "Softmax": _softmax,
}
