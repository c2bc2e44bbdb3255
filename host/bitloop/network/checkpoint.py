"""Where a training stands after an epoch, in a file: the same training goes on from it as if it had never ended."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError, UsageError
from bitloop.files import write_atomically
from bitloop.network.npz import DAMAGE, pop_text, read_members

F32 = npt.NDArray[np.float32]

CHECKPOINT_FORMAT = "bitloop-checkpoint-1"
_NOW, _BEST, _OPTIMIZER = "now.", "best.", "optimizer."
_NUMBERS = ("generator", "epoch", "best_epoch", "best_accuracy", "start_accuracy")
_ABSENT = object()


@dataclass
class TrainingState:
    """Where a training stands between two epochs.

    Attributes:
        parameters: As they are now, by tensor; float32.
        best: As they were after the best epoch.
        optimizer: The optimizer's variables but for its counter of steps, in its own order; float32.
        generator: State of the generator of orders and augmentation, as numpy gives it.
        epoch: Epochs done.
        best_epoch: The best one; 0 is the start.
        best_accuracy: On the search split after the best epoch; -1 before any was judged.
        start_accuracy: On the search split before the first epoch; None without a start.
    """

    parameters: Mapping[str, F32]
    best: Mapping[str, F32]
    optimizer: list[F32]
    generator: dict[str, Any]
    epoch: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    start_accuracy: float | None = None


def write_checkpoint(path: Path, training: Mapping[str, Any], state: TrainingState) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: Its file.
        training: What training it is of, as flat JSON: all that its result depends on.
        state: Where it stands.

    Raises:
        NetworkError: It cannot be written.
    """
    numbers = {name: getattr(state, name) for name in _NUMBERS}
    arrays: dict[str, Any] = {
        "format": np.array(CHECKPOINT_FORMAT),
        "training": np.array(json.dumps(dict(training))),
        "state": np.array(json.dumps(numbers)),
        **{f"{_NOW}{name}": array for name, array in state.parameters.items()},
        **{f"{_BEST}{name}": array for name, array in state.best.items()},
        **{f"{_OPTIMIZER}{index}": array for index, array in enumerate(state.optimizer)},
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    except OSError as error:
        raise NetworkError(f"cannot write the checkpoint to {path}: {error}") from error


def read_checkpoint(path: Path, training: Mapping[str, Any], blank: TrainingState) -> TrainingState:
    """Read the checkpoint of a training.

    Args:
        path: Its file.
        training: What training is to go on, as it was given to :func:`write_checkpoint`.
        blank: The state before the first epoch: which arrays there are, and of which shapes.

    Raises:
        NetworkError: The file is missing or damaged, or is no checkpoint.
        UsageError: It is of another training; the message names what differs.
    """
    try:
        members = read_members(path)
        found = pop_text(members, "format")
        if found != CHECKPOINT_FORMAT:
            raise NetworkError(f"the file's format is {found!r}, but this version reads {CHECKPOINT_FORMAT!r}")
        begun = json.loads(pop_text(members, "training"))
        if not isinstance(begun, dict):
            raise NetworkError("the file does not say what training it is of")
        _check_same(path, begun, training)
        return _state(members, blank)
    except NetworkError as error:
        raise type(error)(f"cannot go on from {path}: {error}; delete it to begin anew") from error
    except DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise NetworkError(f"cannot go on from {path}: {reason}; delete it to begin anew") from error


def _check_same(path: Path, begun: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    differing = [
        f"{name} is {_shown(begun.get(name, _ABSENT))} there and {_shown(training.get(name, _ABSENT))} here"
        for name in dict.fromkeys((*training, *begun))
        if begun.get(name, _ABSENT) != training.get(name, _ABSENT)
    ]
    if differing:
        raise UsageError(
            f"{path} is a checkpoint of another training: {'; '.join(differing)}. Give the command that began it, or "
            "name another file"
        )


def _shown(value: object) -> str:
    return "not said" if value is _ABSENT else json.dumps(value)


def _state(members: dict[str, npt.NDArray[Any]], blank: TrainingState) -> TrainingState:
    numbers = json.loads(pop_text(members, "state"))
    if not isinstance(numbers, dict) or set(numbers) != set(_NUMBERS):
        raise NetworkError("the file does not say where the training stands")
    epoch, best_epoch = numbers["epoch"], numbers["best_epoch"]
    if not (isinstance(epoch, int) and isinstance(best_epoch, int) and 0 <= best_epoch <= epoch and epoch >= 1):
        raise NetworkError(f"the file stands at epoch {epoch!r}, its best being {best_epoch!r}")
    for name in ("best_accuracy", "start_accuracy"):
        value = numbers[name]
        if not (isinstance(value, float) and 0 <= value <= 1) and not (value is None and name == "start_accuracy"):
            raise NetworkError(f"the file's {name} is {value!r}")
    _check_generator(numbers["generator"])
    state = TrainingState(
        parameters={name: _take(members, f"{_NOW}{name}", like) for name, like in blank.parameters.items()},
        best={name: _take(members, f"{_BEST}{name}", like) for name, like in blank.best.items()},
        optimizer=[_take(members, f"{_OPTIMIZER}{index}", like) for index, like in enumerate(blank.optimizer)],
        **numbers,
    )
    if members:
        raise NetworkError(f"the file holds {', '.join(sorted(members))}, which this training does not use")
    return state


def _take(members: dict[str, npt.NDArray[Any]], key: str, like: F32) -> F32:
    array = members.pop(key, None)
    if array is None or array.dtype != np.float32 or array.shape != like.shape:
        found = "not there" if array is None else f"{array.dtype} {array.shape}"
        raise NetworkError(f"{key!r} is {found}, expected float32 {like.shape}")
    if not np.isfinite(array).all():
        raise NetworkError(f"{key!r} is not finite")
    return array


def _check_generator(state: Any) -> None:
    try:
        np.random.PCG64().state = state
    except (*DAMAGE, TypeError, OverflowError) as error:
        raise NetworkError(f"the file holds no state of numpy's PCG64: {error}") from error
