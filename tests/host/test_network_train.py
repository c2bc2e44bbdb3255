"""Training: its settings, and a small one that learns, repeats itself, and never sees the test split."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitloop.data import Dataset, Split
from bitloop.errors import NetworkError, UsageError
from bitloop.network import ZOO, Architecture, Dense, Flatten, Network, Softmax
from bitloop.network.settings import RecipeTexts, TrainingSettings, train_command
from bitloop.network.train import TrainingProgress, train

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None or importlib.util.find_spec(os.environ["KERAS_BACKEND"]) is None,
    reason="Keras 3 with a backend is not installed (extra 'tensorflow')",
)

SMALL = Architecture("small", (28, 28, 1), (Flatten("flatten"), Dense("out", 10), Softmax("softmax")))


def blobs(count: int = 400, light: int = 120) -> Dataset:
    """Ten classes: class k lights two rows of its own, over noise. Test images would spoil what is learnt."""
    generator = np.random.default_rng(11)
    parts: dict[Split, Any] = {}
    for split in Split:
        number = count if split is Split.TRAIN else 100
        labels = (np.arange(number) % 10).astype(np.uint8)
        pixels = generator.integers(0, 60, (number, 28, 28, 1), dtype=np.uint8)
        for position, label in enumerate(labels):
            row = 2 * int(label) if split is not Split.TEST else 27 - 2 * int(label)
            pixels[position, row : row + 2] += light
        parts[split] = (pixels, labels, np.arange(number))
    return Dataset.build("blobs", "cd" * 32, "here", parts)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seed": -1}, "seed must be a whole number from 0 to 4294967295, not -1"),
        ({"seed": 2**32}, "seed"),
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"patience": True}, "patience"),
        ({"augment": 9}, "augment .* from 0 to 8"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"rotate": -1.0}, "rotate must be from 0 to 180 degrees, not -1.0"),
        ({"rotate": float("nan")}, "rotate"),
        ({"zoom": 51}, "zoom must be from 0 to 50 percent, not 51"),
        ({"label_smoothing": 1.0}, "label_smoothing must be from 0 to below 1, not 1.0"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; known are cosine, constant"),
        ({"loss": "hinge"}, "unknown loss 'hinge'; known are cross_entropy, squared_error"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TrainingSettings(**values)


def test_the_command_names_every_setting() -> None:
    settings = TrainingSettings(3, 5, 64, 0.01, 2, "squared_error", 1)
    assert train_command("small", "digits", settings) == (
        "bitloop train small --dataset digits --seed 3 --epochs 5 --batch-size 64 --learning-rate 0.01 --patience 2 "
        "--loss squared-error --augment 1"
    )
    more = replace(settings, rotate=10.0, zoom=2.5, label_smoothing=0.1, schedule="constant")
    recipe = RecipeTexts("ternary", "e4m3", ("a.weights=int4", "a.biases=fp32"))
    assert train_command("small", "digits", more, recipe, "mlp") == (
        train_command("small", "digits", settings)
        + " --rotate 10 --zoom 2.5 --label-smoothing 0.1 --schedule constant"
        + " --qat ternary --qat-biases e4m3 --set a.weights=int4 --set a.biases=fp32 --from mlp"
    )
    assert recipe.quantize_arguments() == "--weights ternary --biases e4m3 --set a.weights=int4 --set a.biases=fp32"


def test_a_missing_keras_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UsageError, match=r"needs Keras 3 .*bitloop\[tensorflow\]"):
        train(SMALL, blobs())


def test_an_architecture_that_does_not_fit_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"gives \(9,\), but 'blobs' has 10 classes"):
        train(Architecture("nine", (28, 28, 1), (Dense("out", 9),)), blobs())
    with pytest.raises(NetworkError, match=r"takes images of \(14, 14, 1\)"):
        train(Architecture("half", (14, 14, 1), (Dense("out", 10),)), blobs())


@needs_keras
@pytest.mark.parametrize(("loss", "epochs"), [("cross_entropy", 8), ("squared_error", 15)])
def test_a_training_learns_and_repeats_itself(loss: Any, epochs: int) -> None:
    steps: list[TrainingProgress] = []
    settings = TrainingSettings(
        seed=4, epochs=epochs, batch_size=40, learning_rate=0.005, patience=epochs, loss=loss, rotate=3.0
    )
    network = train(SMALL, blobs(), settings, progress=steps.append)
    assert network.metadata["search_accuracy"] > 0.9
    assert network.metadata["confirm_accuracy"] > 0.9
    assert network.metadata["command"].startswith(f"bitloop train small --dataset blobs --seed 4 --epochs {epochs}")
    assert network.metadata["dataset_sha256"] == "cd" * 32
    assert network.dataset == "blobs"
    assert set(network.metadata["versions"]) >= {"bitloop", "keras", "numpy"}
    finished = [state for state in steps if state.search_accuracy is not None]
    assert [state.epoch for state in finished] == list(range(1, network.metadata["epochs_run"] + 1))
    assert all((state.steps, state.epochs) == (10, epochs) for state in steps)
    assert len(steps) == 10 * len(finished)
    assert steps[-1].best_accuracy == max(s.search_accuracy for s in finished) == network.metadata["search_accuracy"]
    again = train(SMALL, blobs(), settings)
    for key, array in network.parameters.items():
        assert again.parameters[key].tobytes() == array.tobytes()
    other = train(SMALL, blobs(), replace(settings, seed=5))
    assert other.parameters["out.weights"].tobytes() != network.parameters["out.weights"].tobytes()


@needs_keras
def test_the_best_epoch_is_kept_and_patience_ends_it() -> None:
    seen: list[float] = []
    network = train(
        SMALL,
        blobs(light=8),  # hard enough for the accuracy to go up and down
        TrainingSettings(seed=4, epochs=60, batch_size=40, learning_rate=0.05, patience=3),
        progress=lambda state: seen.append(state.search_accuracy) if state.search_accuracy is not None else None,
    )
    best = int(np.argmax(seen)) + 1
    assert network.metadata["best_epoch"] == best
    assert network.metadata["epochs_run"] == len(seen) == best + 3 < 60
    assert seen[-1] < max(seen)
    images = blobs(light=8).split(Split.SEARCH)
    x = images.pixels.reshape(len(images), -1).astype(np.float64) / 255
    logits = x @ network.parameters["out.weights"] + network.parameters["out.biases"]
    assert np.mean(logits.argmax(axis=1) == images.labels) == pytest.approx(max(seen))


def of_one_class(shares: dict[int, int]) -> tuple[Dataset, Network]:
    """Blank images with so many of each label, and a network that answers all of them with the same logits."""
    labels = np.repeat(list(shares), list(shares.values())).astype(np.uint8)
    pixels = np.zeros((len(labels), 28, 28, 1), np.uint8)
    dataset = Dataset.build("blank", "ef" * 32, "here", dict.fromkeys(Split, (pixels, labels, np.arange(len(labels)))))
    biases = np.linspace(-1, 1, 10, dtype=np.float32)
    return dataset, Network(SMALL, {"out.weights": np.zeros((784, 10), np.float32), "out.biases": biases})


@needs_keras
@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_the_loss_is_the_mean_of_the_epoch_with_smoothed_labels(loss: Any, spread: float) -> None:
    """Parameters stay as they are, so each epoch's loss follows from the labels by hand."""
    dataset, start = of_one_class({3: 30, 9: 10})
    seen: list[TrainingProgress] = []
    settings = TrainingSettings(epochs=2, batch_size=4, learning_rate=1e-30, loss=loss, label_smoothing=spread)
    train(SMALL, dataset, settings, start=start, progress=seen.append)
    exponentials = np.exp(np.linspace(-1, 1, 10))
    outputs = exponentials / exponentials.sum()
    losses = {}
    for label in (3, 9):
        target = np.array([spread / 10 + (1 - spread) * (position == label) for position in range(10)])
        errors = -target * np.log(outputs) * 10 if loss == "cross_entropy" else (outputs - target) ** 2
        losses[label] = errors.mean()
    for state in seen:
        if state.step == state.steps:
            assert state.loss == pytest.approx(0.75 * losses[3] + 0.25 * losses[9], rel=1e-5)


@needs_keras
@pytest.mark.parametrize(("schedule", "rates"), [("cosine", [1.0, 0.75, 0.25]), ("constant", [1.0, 1.0, 1.0])])
def test_the_learning_rate_falls_unless_it_is_constant(schedule: Any, rates: list[float], tmp_path: Path) -> None:
    """Adam moves a parameter whose gradient stays as it is by the learning rate a step; here an epoch is one step."""
    dataset, start = of_one_class({3: 40})
    file, seen = tmp_path / "checkpoint.npz", [start.parameters["out.biases"]]

    def look(_: TrainingProgress) -> None:
        with np.load(file) as arrays:
            seen.append(arrays["now.out.biases"])

    settings = TrainingSettings(epochs=3, batch_size=40, learning_rate=1e-3, patience=9, schedule=schedule)
    train(SMALL, dataset, settings, start=start, checkpoint=file, progress=look)
    signs = np.where(np.arange(10) == 3, 1e-3, -1e-3)
    np.testing.assert_allclose(np.diff(seen, axis=0), np.outer(rates, signs), rtol=0.01)


@needs_keras
def test_a_training_that_diverges_says_so() -> None:
    settings = TrainingSettings(epochs=1, batch_size=40, learning_rate=1e38, loss="squared_error")
    with pytest.raises(NetworkError, match=r"diverged in epoch 1.*smaller learning rate"):
        train(SMALL, blobs(), settings)


def test_the_zoo_settings_are_valid() -> None:
    for entry in ZOO.values():
        assert entry.train_command == train_command(entry.name, entry.dataset, entry.settings, entry.recipe)
