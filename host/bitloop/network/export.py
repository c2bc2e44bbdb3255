"""A network as a Keras model or a LiteRT file: to train it, and to hold bitloop's arithmetic against theirs.

Both take pixels as float32 from 0 to 1 (``u8 / 255``), [N, H, W, C].
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Shape,
    Softmax,
)
from bitloop.network.keras_runtime import import_keras_package, import_tensorflow
from bitloop.network.network import Network


def build_keras(architecture: Architecture, *, softmax: bool = True) -> Any:
    """Build an untrained Keras model of an architecture.

    Args:
        architecture: Its layers; each keeps its name.
        softmax: Whether a final softmax is kept; without it the model gives logits.

    Returns:
        A ``keras.Model`` from float32 [N, H, W, C] to float32 [N, ...].

    Raises:
        UsageError: Keras or its backend is not installed.
    """
    keras = import_keras_package()
    inputs = keras.Input(architecture.input_shape, name="pixels")
    tensor = inputs
    for layer, shape in zip(architecture.layers, architecture.input_shapes(), strict=True):
        if isinstance(layer, Softmax) and not softmax:
            continue
        if isinstance(layer, Dense) and len(shape) > 1:
            tensor = keras.layers.Reshape((math.prod(shape),), name=f"{layer.name}_flatten")(tensor)
        tensor = _keras_layer(keras, layer, shape)(tensor)
    return keras.Model(inputs, tensor, name=architecture.name.replace("/", "_"))


def to_keras(network: Network, *, softmax: bool = True) -> Any:
    """Return a network as a Keras model with its parameters.

    Args:
        network: What to convert.
        softmax: Whether a final softmax is kept; without it the model gives logits.

    Returns:
        A ``keras.Model`` from float32 [N, H, W, C], pixels / 255, to float32 [N, ...].

    Raises:
        UsageError: Keras or its backend is not installed.
    """
    model = build_keras(network.architecture, softmax=softmax)
    for layer in network.architecture.layers:
        if isinstance(layer, Dense | Conv2D):
            keys = ("weights", "biases") if layer.use_bias else ("weights",)
            model.get_layer(layer.name).set_weights([network.parameters[f"{layer.name}.{key}"] for key in keys])
    return model


def to_tflite_bytes(network: Network, *, softmax: bool = True) -> bytes:
    """Return a network as a float32 LiteRT file.

    Args:
        network: What to convert.
        softmax: Whether a final softmax is kept.

    Raises:
        UsageError: TensorFlow is not installed, or Keras runs on another backend.
    """
    tensorflow = import_tensorflow()
    model = to_keras(network, softmax=softmax)
    with tempfile.TemporaryDirectory(prefix="bitloop-") as directory:
        path = str(Path(directory) / "model")
        model.export(path, verbose=False)
        converter = tensorflow.lite.TFLiteConverter.from_saved_model(path)
        return bytes(converter.convert())


def _keras_layer(keras: Any, layer: Layer, shape: Shape) -> Any:
    layers = keras.layers
    match layer:
        case Dense():
            return layers.Dense(layer.units, use_bias=layer.use_bias, name=layer.name)
        case Conv2D():
            return layers.Conv2D(
                layer.filters,
                layer.kernel_size,
                strides=layer.strides,
                padding=layer.padding,
                use_bias=layer.use_bias,
                data_format="channels_last",
                name=layer.name,
            )
        case MaxPool2D() | AveragePool2D():
            cls = layers.MaxPooling2D if isinstance(layer, MaxPool2D) else layers.AveragePooling2D
            return cls(
                layer.pool_size,
                strides=layer.strides,
                padding=layer.padding,
                data_format="channels_last",
                name=layer.name,
            )
        case ReLU():
            return layers.ReLU(name=layer.name)
        case Flatten():
            return layers.Reshape((math.prod(shape),), name=layer.name)
        case Softmax():
            return layers.Softmax(name=layer.name)
