"""A training that is interrupted goes on as if it had not been; a checkpoint of another one is refused."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.data import Dataset
from bitloop.errors import NetworkError, UsageError
from bitloop.network import Network, zoo_architecture
from bitloop.network.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from bitloop.network.settings import TrainingSettings
from bitloop.network.train import TrainingProgress, train
from bitloop.qat import find_start, train_quantized
from bitloop.quantize.recipe import parse_recipe

needs_keras = pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    or any(importlib.util.find_spec(name) is None for name in ("keras", "tensorflow", "sklearn")),
    reason="Keras 3 on TensorFlow, or scikit-learn, is not installed (extras 'tensorflow' and 'digits')",
)

SETTINGS = TrainingSettings(seed=3, epochs=3, batch_size=64, learning_rate=0.01, rotate=5.0, augment=1)
NAME = "mlp8k-digits"
Training = Callable[..., Network]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    from bitloop.data.digits import load_digits

    return load_digits()


def plain(digits: Dataset, settings: TrainingSettings = SETTINGS, **more: Any) -> Network:
    return train(zoo_architecture(NAME), digits, settings, **more)


def quantized(
    digits: Dataset, settings: TrainingSettings = SETTINGS, recipe: str = "int3:fp32:mse", **more: Any
) -> Network:
    """Its scales clip, so that which gradients pass differs from step to step."""
    start = find_start(NAME, None)[1]
    return train_quantized(zoo_architecture(NAME), digits, parse_recipe(recipe), start=start, settings=settings, **more)


class Killed(BaseException):
    pass


def killed_in(epoch: int) -> Callable[[TrainingProgress], None]:
    """End a training in the middle of an epoch, as a process that is killed ends."""

    def look(state: TrainingProgress) -> None:
        if (state.epoch, state.step) == (epoch, 5):
            raise Killed

    return look


def same(one: Network, other: Network) -> bool:
    return one.sha256 == other.sha256 and one.metadata == other.metadata


@needs_keras
@pytest.mark.parametrize("training", [plain, quantized])
def test_a_killed_training_goes_on_bit_for_bit(training: Training, digits: Dataset, tmp_path: Path) -> None:
    whole = training(digits)
    file = tmp_path / "kept" / "checkpoint.npz"
    with pytest.raises(Killed):
        training(digits, checkpoint=file, progress=killed_in(2))
    assert [path.name for path in file.parent.iterdir()] == ["checkpoint.npz"]
    seen: list[TrainingProgress] = []
    assert same(training(digits, checkpoint=file, progress=seen.append), whole)
    assert {state.epoch for state in seen} == {2, 3}


@needs_keras
def test_patience_counts_over_an_interruption(digits: Dataset, tmp_path: Path) -> None:
    """With a learning rate too small to change a parameter, no epoch after the first is better."""
    settings = replace(SETTINGS, epochs=9, patience=3, learning_rate=1e-30)
    file = tmp_path / "checkpoint.npz"
    with pytest.raises(Killed):
        plain(digits, settings, checkpoint=file, progress=killed_in(3))
    network = plain(digits, settings, checkpoint=file)
    assert (network.metadata["best_epoch"], network.metadata["epochs_run"]) == (1, 4)


@needs_keras
def test_a_checkpoint_of_another_training_is_refused(digits: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.npz"
    settings = replace(SETTINGS, epochs=1)
    quantized(digits, settings, checkpoint=file)
    kept = file.read_bytes()

    def refused(message: str, training: Training, *arguments: Any, **more: Any) -> None:
        with pytest.raises(UsageError, match=f"is a checkpoint of another training: .*{message}.*name another file"):
            training(*arguments, checkpoint=file, **more)
        assert file.read_bytes() == kept

    refused(
        "seed is 3 there and 4 here; epochs is 1 there and 2 here",
        quantized,
        digits,
        replace(settings, seed=4, epochs=2),
    )
    refused('"int3:mse" there and "int4" here', quantized, digits, settings, recipe="int4")
    refused(
        "start_sha256 is .* there and null here; qat weights is .* there and not said here", plain, digits, settings
    )
    other = replace(digits, sha256="00" * 32)
    refused(f'dataset_sha256 is "{digits.sha256}" there and "{other.sha256}" here', quantized, other, settings)
    with pytest.raises(UsageError, match='network is "mlp8k-digits" there and "mlp-digits" here; layers is'):
        train(zoo_architecture("mlp-digits"), digits, settings, checkpoint=file)


def state_of(generator: np.random.Generator) -> TrainingState:
    def some(*shape: int) -> Any:
        return generator.standard_normal(shape).astype(np.float32)

    return TrainingState(
        parameters={"a.weights": some(3, 2), "a.biases": some(2)},
        best={"a.weights": some(3, 2), "a.biases": some(2)},
        optimizer=[some(3, 2), some(2), some()],
        generator=dict(np.random.default_rng(8).bit_generator.state),
        epoch=7,
        best_epoch=4,
        best_accuracy=0.75,
    )


STATE = state_of(np.random.default_rng(1))
BLANK = replace(state_of(np.random.default_rng(2)), epoch=0, best_epoch=0, best_accuracy=-1.0)


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.npz"
    write_checkpoint(file, {"seed": 1}, STATE)
    found = read_checkpoint(file, {"seed": 1}, BLANK)
    for name in ("generator", "epoch", "best_epoch", "best_accuracy", "start_accuracy"):
        assert getattr(found, name) == getattr(STATE, name)
    for name in ("parameters", "best"):
        assert {key: array.tobytes() for key, array in getattr(found, name).items()} == {
            key: array.tobytes() for key, array in getattr(STATE, name).items()
        }
    assert [array.tobytes() for array in found.optimizer] == [array.tobytes() for array in STATE.optimizer]
    restored = np.random.default_rng(0)
    restored.bit_generator.state = found.generator
    assert restored.integers(1 << 60) == np.random.default_rng(8).integers(1 << 60)


def rewritten(file: Path, **arrays: Any) -> None:
    """Replace or, with None, remove arrays of a file."""
    with np.load(file) as found:
        members = {**found, **arrays}
    np.savez(file, **{key: value for key, value in members.items() if value is not None})


def numbers(**changes: Any) -> Any:
    names = ("generator", "epoch", "best_epoch", "best_accuracy", "start_accuracy")
    return np.array(json.dumps({**{name: getattr(STATE, name) for name in names}, **changes}))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"format": np.array("bitloop-network-1")}, "format is 'bitloop-network-1'"),
        ({"format": None}, "no text 'format'"),
        ({"training": np.array("[]")}, "does not say what training"),
        ({"state": np.array('{"epoch": 3}')}, "does not say where"),
        ({"state": numbers(epoch=3)}, "at epoch 3, its best being 4"),
        ({"state": numbers(epoch=7.0)}, "at epoch 7.0"),
        ({"state": numbers(best_accuracy=None)}, "best_accuracy is None"),
        ({"state": numbers(start_accuracy=2.0)}, "start_accuracy is 2.0"),
        ({"state": numbers(generator={"bit_generator": "MT19937"})}, "no state of numpy's PCG64"),
        ({"state": numbers(generator={"bit_generator": "PCG64", "state": {"state": -1, "inc": 1}})}, "PCG64"),
        ({"state": numbers(generator=[])}, "PCG64"),
        ({"now.a.biases": None}, "'now.a.biases' is not there, expected float32"),
        ({"best.a.weights": np.zeros((2, 3), np.float32)}, r"'best.a.weights' is float32 \(2, 3\)"),
        ({"optimizer.1": np.zeros(2)}, "'optimizer.1' is float64"),
        ({"now.a.biases": np.array([1, np.nan], np.float32)}, "'now.a.biases' is not finite"),
        ({"optimizer.3": np.zeros(1, np.float32)}, "holds optimizer.3, which this training does not use"),
        ({"optimizer.1": np.array([object(), 1])}, "optimizer.1"),
    ],
)
def test_a_damaged_file_is_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.npz"
    write_checkpoint(file, {"seed": 1}, STATE)
    rewritten(file, **arrays)
    with pytest.raises(NetworkError, match=f"cannot go on from .*{message}.*; delete it to begin anew"):
        read_checkpoint(file, {"seed": 1}, BLANK)


def test_no_cut_or_changed_byte_is_believed(tmp_path: Path) -> None:
    """What is still read after a byte has changed is what was written: a zip's names and dates carry no checksum."""
    file = tmp_path / "checkpoint.npz"
    write_checkpoint(file, {"seed": 1}, STATE)
    good = file.read_bytes()
    generator = np.random.default_rng(3)
    damaged = [good[:size] for size in generator.integers(0, len(good), 60)]
    for place in generator.integers(0, len(good), 300):
        changed = bytearray(good)
        changed[place] ^= int(generator.integers(1, 256))
        damaged.append(bytes(changed))
    refused = 0
    for data in damaged:
        file.write_bytes(data)
        try:
            found = read_checkpoint(file, {"seed": 1}, BLANK)
        except NetworkError:
            refused += 1
            continue
        assert found.generator == STATE.generator
        assert found.parameters["a.weights"].tobytes() == STATE.parameters["a.weights"].tobytes()
    assert refused > 200


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NetworkError, match="cannot write the checkpoint to"):
        write_checkpoint(tmp_path / "file" / "checkpoint.npz", {}, STATE)


@needs_keras
def test_the_command_goes_on(tmp_path: Path) -> None:
    """A whole training's checkpoint gives the same file again; the file cannot be the network's own."""
    file, out = tmp_path / "checkpoint.npz", tmp_path / "a.npz"
    command = ["train", NAME, "--epochs", "1", "--out", str(out), "--checkpoint", str(file)]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.stderr
    assert "going on" not in first.stderr
    written = out.read_bytes()
    again = CliRunner().invoke(app, [*command, "--force"])
    assert f"going on from {file}" in again.stderr.replace("\n", "")
    assert out.read_bytes() == written
    other = CliRunner().invoke(app, [*command, "--force", "--seed", "9"])
    assert other.exit_code == 2
    assert "seed is 1 there and 9 here" in other.stderr.replace("\n", "")
    own = CliRunner().invoke(app, ["train", NAME, "--out", str(out), "--checkpoint", str(out), "--force"])
    assert own.exit_code == 2
    assert "another file than the network's" in own.stderr.replace("\n", "")
    assert out.read_bytes() == written
