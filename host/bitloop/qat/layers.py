"""Keras layers that compute with quantized weights and biases, and train the binary32 ones behind them.

Quantized values are computed in numpy before each step and held in variables that are not trained. A quantizer inside
the graph could not be exact: Keras computes in binary32, but scales are chosen and values divided in binary64. So what
a step sees is what ``bitloop quantize`` would make of the weights at that very step, for formats of any width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError, NetworkError
from bitloop.qat.fake_quantize import check_trainable, fake_quantize
from bitloop.quantize.recipe import Recipe

F32 = npt.NDArray[np.float32]


def straight_through(keras: Any, latent: Any, values: Any, inside: Any) -> Any:
    """Return ``values``, bit for bit, with the gradient ``inside`` towards ``latent``.

    Args:
        keras: The package.
        latent: Finite tensor that is trained.
        values: Tensor of its shape: what the forward pass shall see.
        inside: Tensor of its shape: 1 where the gradient passes, 0 where not.
    """
    passed = latent * inside
    # stop(p) - p is +0, and v - (+0) is v for every v, -0 included; v + (p - stop(p)) would turn -0 into +0.
    return keras.ops.stop_gradient(values) - (keras.ops.stop_gradient(passed) - passed)


class FakeQuantizer:
    """Turns the dense layers and convolutions of a Keras model into ones that compute with quantized parameters.

    Args:
        recipe: Which tensor gets which spec.

    Raises:
        FormatError: A spec cannot be trained with.
    """

    def __init__(self, recipe: Recipe) -> None:
        check_trainable("weights", recipe.weights)
        check_trainable("biases", recipe.biases)
        for name, spec in recipe.overrides.items():
            check_trainable(name, spec)
        self._recipe = recipe
        self._keras: Any = None
        self._layers: list[Any] = []
        self._inside: dict[str, F32] = {}

    def describe(self) -> dict[str, Any]:
        """Return what training is for: weights, biases and overrides of the recipe."""
        return {f"qat {part}": spec for part, spec in self._recipe.to_dict().items()}

    def wrap(self, keras: Any, model: Any) -> Any:
        """Return a copy of a model of ``build_keras`` that computes with quantized parameters, the same latent ones.

        Raises:
            FormatError: The recipe names a tensor that the model lacks.
        """
        kinds = {base: _layer_class(keras, base) for base in (keras.layers.Dense, keras.layers.Conv2D)}

        def clone(layer: Any) -> Any:
            return kinds.get(type(layer), type(layer)).from_config(layer.get_config())

        wrapped = keras.models.clone_model(model, clone_function=clone)
        for layer in wrapped.layers:
            if type(layer) in kinds.values():
                for variable, source in zip(
                    layer.trainable_variables, model.get_layer(layer.name).trainable_variables, strict=True
                ):
                    variable.assign(source)
                self._layers.append(layer)
                for key, (latent, _, _) in layer.fake.items():
                    self._inside[f"{layer.name}.{key}"] = np.ones(latent.shape, np.float32)
        self._keras = keras
        self._recipe.check_names(f"{layer.name}.{key}" for layer in self._layers for key in layer.fake)
        self.refresh()
        return wrapped

    def refresh(self) -> None:
        """Quantize the parameters as they are now; to be called before each step and each evaluation.

        Raises:
            NetworkError: One is NaN or infinite: training diverged.
            FormatError: One overflows, or no scale serves.
        """
        for layer in self._layers:
            for key, (latent, values, inside) in layer.fake.items():
                name = f"{layer.name}.{key}"
                array = np.asarray(self._keras.ops.convert_to_numpy(latent), np.float32)
                if not np.isfinite(array).all():
                    raise NetworkError(f"training diverged: {name} is not finite; use a smaller learning rate")
                try:
                    fake = fake_quantize(array, self._recipe.spec_for(name))
                except FormatError as error:
                    raise FormatError(f"tensor {name!r}: {error}") from error
                values.assign(fake.values)
                # It seldom changes (where a scale clips nothing, never), and assigning costs more than quantizing.
                if not np.array_equal(fake.inside, self._inside[name]):
                    inside.assign(fake.inside)
                    self._inside[name] = fake.inside


def _layer_class(keras: Any, base: Any) -> Any:
    """Return a subclass of Keras's ``Dense`` or ``Conv2D``: linear, channels last, as ``build_keras`` makes them."""
    ops = keras.ops

    def build(self: Any, input_shape: Any) -> None:
        base.build(self, input_shape)
        self.fake = {"weights": _state(self, "weights", self.kernel)}
        if self.use_bias:
            self.fake["biases"] = _state(self, "biases", self.bias)

    def call(self: Any, inputs: Any) -> Any:
        kernel = straight_through(keras, *self.fake["weights"])
        outputs = ops.matmul(inputs, kernel) if base is keras.layers.Dense else self.convolution_op(inputs, kernel)
        if self.use_bias:
            outputs = outputs + straight_through(keras, *self.fake["biases"])
        return outputs

    return type(f"FakeQuantized{base.__name__}", (base,), {"build": build, "call": call})


def _state(layer: Any, key: str, latent: Any) -> tuple[Any, Any, Any]:
    values = layer.add_weight(name=f"{key}_values", shape=latent.shape, initializer="zeros", trainable=False)
    inside = layer.add_weight(name=f"{key}_inside", shape=latent.shape, initializer="ones", trainable=False)
    return latent, values, inside
