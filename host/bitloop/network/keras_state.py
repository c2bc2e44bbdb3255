"""What a training changes in a Keras model: taken out of it as numbers, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.network.architecture import Architecture, Conv2D, Dense
from bitloop.network.checkpoint import TrainingState

F32 = npt.NDArray[np.float32]


def capture(
    architecture: Architecture, model: Any, generator: np.random.Generator, *, after: TrainingState | None = None
) -> TrainingState:
    """Return where a training stands, in arrays of its own.

    Args:
        architecture: Of the model.
        model: Compiled, its optimizer built.
        generator: Of orders and augmentation.
        after: The state an epoch ago; None before the first epoch.
    """
    parameters = {name: _numbers(variable) for name, variable in _variables(architecture, model).items()}
    optimizer = [_numbers(variable) for variable in _slots(model.optimizer)]
    kept = dict(generator.bit_generator.state)
    if after is None:
        return TrainingState(parameters, parameters, optimizer, kept)
    return replace(after, parameters=parameters, optimizer=optimizer, generator=kept, epoch=after.epoch + 1)


def restore(
    state: TrainingState, architecture: Architecture, model: Any, generator: np.random.Generator, *, steps: int
) -> None:
    """Put model, optimizer and generator where a training stood.

    Args:
        state: Where it stood.
        architecture: Of the model.
        model: Compiled as it was then, its optimizer built.
        generator: Of orders and augmentation.
        steps: Steps of an epoch.
    """
    assign(architecture, model, state.parameters)
    for variable, array in zip(_slots(model.optimizer), state.optimizer, strict=True):
        variable.assign(array)
    model.optimizer.iterations.assign(state.epoch * steps)
    generator.bit_generator.state = state.generator


def assign(architecture: Architecture, model: Any, parameters: Mapping[str, F32]) -> None:
    """Give a model its weights and biases, by the names of their tensors."""
    for name, variable in _variables(architecture, model).items():
        variable.assign(parameters[name])


def _variables(architecture: Architecture, model: Any) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for layer in architecture.layers:
        if isinstance(layer, Dense | Conv2D):
            keys = ("weights", "biases") if layer.use_bias else ("weights",)
            for key, variable in zip(keys, model.get_layer(layer.name).trainable_variables, strict=True):
                variables[f"{layer.name}.{key}"] = variable
    return variables


def _slots(optimizer: Any) -> list[Any]:
    """Return an optimizer's variables but for its counter of steps."""
    return [variable for variable in optimizer.variables if variable is not optimizer.iterations]


def _numbers(variable: Any) -> F32:
    return np.array(variable.numpy(), np.float32)
