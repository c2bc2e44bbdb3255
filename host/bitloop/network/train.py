"""Training of an architecture on Keras 3, stopped and judged on the search split; the test split is never touched."""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

import bitloop
from bitloop.data.dataset import CLASSES, Dataset, Images
from bitloop.data.splits import Split
from bitloop.errors import NetworkError
from bitloop.network.architecture import Architecture, Softmax
from bitloop.network.augment import augment
from bitloop.network.checkpoint import read_checkpoint, write_checkpoint
from bitloop.network.export import build_keras, to_keras
from bitloop.network.keras_runtime import import_keras_package, import_tensorflow
from bitloop.network.keras_state import assign, capture, restore
from bitloop.network.network import Network
from bitloop.network.settings import Loss, TrainingSettings, train_command

F32 = npt.NDArray[np.float32]

logger = logging.getLogger(__name__)

EVALUATION_BATCH = 500


@dataclass(frozen=True)
class TrainingProgress:
    """How far a training is; given after each step.

    Attributes:
        epoch: Which epoch, from 1.
        epochs: How many at most.
        step: Steps done in this epoch.
        steps: Steps of an epoch.
        loss: Mean loss of this epoch so far.
        search_accuracy: Share of the search split that was right after this epoch; None before its last step.
        best_accuracy: The best so far; None during the first epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    search_accuracy: float | None
    best_accuracy: float | None


ProgressCallback: TypeAlias = Callable[[TrainingProgress], None]


class ModelWrapper(Protocol):
    """What stands between the trainer and the Keras model: how quantization-aware training comes in."""

    def wrap(self, keras: Any, model: Any) -> Any:
        """Return the model to train in place of ``model``, with layers and trainable parameters of the same names."""

    def describe(self) -> dict[str, Any]:
        """Return what it does to the training, as flat JSON with keys of its own."""

    def refresh(self) -> None:
        """Prepare the model's next step or evaluation, after its parameters changed."""


def train(
    architecture: Architecture,
    dataset: Dataset,
    settings: TrainingSettings | None = None,
    *,
    progress: ProgressCallback | None = None,
    start: Network | None = None,
    wrapper: ModelWrapper | None = None,
    checkpoint: Path | None = None,
) -> Network:
    """Train a network with Adam and return it as it was after its best epoch on the search split.

    The same arguments, versions and machine give the same network.

    Args:
        architecture: What to train; it must give 10 logits.
        dataset: Trained on its train split, judged on search, measured once at the end on confirm. What is left over
            at an epoch's end, less than a batch, is left out of it.
        settings: How; None for the defaults.
        progress: Called after each step.
        start: Parameters of the same architecture to begin with. They count as epoch 0 when the best one is chosen.
        wrapper: Wraps the Keras model.
        checkpoint: File that keeps where the training stands after each epoch. If it is there, the training goes on
            from it, and gives the network that it would have given without an interruption, bit for bit.

    Returns:
        The network, with command, settings, versions and accuracies in its metadata.

    Raises:
        UsageError: Keras is not installed, or the checkpoint is of another training.
        NetworkError: The architecture does not fit the data set or the start, training diverged, or the checkpoint is
            damaged or cannot be written.
    """
    settings = settings or TrainingSettings()
    images, search = dataset.split(Split.TRAIN), dataset.split(Split.SEARCH)
    _check_fit(architecture, images)
    if start is not None:
        _check_start(architecture, start)
    keras = import_keras_package()
    _fix_randomness(keras, settings.seed)
    model = build_keras(architecture, softmax=False) if start is None else to_keras(start, softmax=False)
    if wrapper is not None:
        model = wrapper.wrap(keras, model)
    steps = max(len(images) // settings.batch_size, 1)
    optimizer = keras.optimizers.Adam(_learning_rate(keras, settings, steps))
    model.compile(optimizer=optimizer, loss=_loss(keras, architecture, settings.loss))
    optimizer.build(model.trainable_variables)

    training = _description(architecture, dataset, settings, start=start, wrapper=wrapper, keras=keras)
    generator = np.random.default_rng(settings.seed)
    state = capture(architecture, model, generator)
    if checkpoint is not None and checkpoint.exists():
        state = read_checkpoint(checkpoint, training, state)
        restore(state, architecture, model, generator, steps=steps)
        if wrapper is not None:
            wrapper.refresh()
        logger.info("going on after epoch %d of %s", state.epoch, checkpoint)
    elif start is not None:
        state.best_accuracy = state.start_accuracy = _accuracy(model, search)
    while state.epoch < settings.epochs and state.epoch - state.best_epoch < settings.patience:
        epoch = state.epoch + 1
        total = 0.0
        for step, (pixels, targets) in enumerate(_batches(images, settings, generator), start=1):
            total += float(model.train_on_batch(pixels, targets))
            _check_finite(total, epoch, settings)
            if wrapper is not None:
                wrapper.refresh()
            if progress is not None and step < steps:
                best = state.best_accuracy if state.best_epoch else None
                progress(TrainingProgress(epoch, settings.epochs, step, steps, total / step, None, best))
        accuracy, loss = _accuracy(model, search), total / steps
        state = capture(architecture, model, generator, after=state)
        if accuracy > state.best_accuracy:
            state.best_accuracy, state.best_epoch, state.best = accuracy, epoch, state.parameters
        if checkpoint is not None:
            write_checkpoint(checkpoint, training, state)
        logger.info("epoch %d: loss %.4f, search accuracy %.4f", epoch, loss, accuracy)
        if progress is not None:
            progress(TrainingProgress(epoch, settings.epochs, steps, steps, loss, accuracy, state.best_accuracy))
    assign(architecture, model, state.best)
    if wrapper is not None:
        wrapper.refresh()
    started = {} if start is None else {"start_search_accuracy": state.start_accuracy}
    metadata = {
        "command": train_command(architecture.name, dataset.name, settings),
        "settings": asdict(settings),
        "epochs_run": state.epoch,
        "best_epoch": state.best_epoch,
        **started,
        "search_accuracy": state.best_accuracy,
        "confirm_accuracy": _accuracy(model, dataset.split(Split.CONFIRM)),
        "dataset_sha256": dataset.sha256,
        "versions": _versions(keras),
    }
    return Network(architecture, state.best, dataset.name, metadata)


def _check_fit(architecture: Architecture, images: Images) -> None:
    if architecture.input_shape != images.pixels.shape[1:]:
        raise NetworkError(
            f"{architecture.name!r} takes images of {architecture.input_shape}, but {images.dataset!r} has "
            f"{images.pixels.shape[1:]}"
        )
    if architecture.output_shapes()[-1] != (CLASSES,):
        raise NetworkError(
            f"{architecture.name!r} gives {architecture.output_shapes()[-1]}, but {images.dataset!r} has {CLASSES} "
            f"classes; end with a dense layer of {CLASSES} units"
        )


def _check_start(architecture: Architecture, start: Network) -> None:
    begun = start.architecture
    if (begun.input_shape, begun.layers) != (architecture.input_shape, architecture.layers):
        raise NetworkError(
            f"training of {architecture.name!r} cannot start from {begun.name!r}, whose layers are others; name a "
            "network of the same architecture"
        )


def _fix_randomness(keras: Any, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    if keras.backend.backend() == "tensorflow":
        import_tensorflow().config.experimental.enable_op_determinism()


def _learning_rate(keras: Any, settings: TrainingSettings, steps: int) -> Any:
    if settings.schedule == "constant":
        return settings.learning_rate
    return keras.optimizers.schedules.CosineDecay(settings.learning_rate, settings.epochs * steps)


def _loss(keras: Any, architecture: Architecture, loss: Loss) -> Any:
    """Return a loss over logits and one-hot labels."""
    if loss == "cross_entropy":
        return keras.losses.CategoricalCrossentropy(from_logits=True)
    softmax = isinstance(architecture.layers[-1], Softmax)

    def squared_error(targets: Any, logits: Any) -> Any:
        outputs = keras.ops.softmax(logits) if softmax else logits
        return keras.ops.mean(keras.ops.square(outputs - targets), axis=-1)

    return squared_error


def _batches(images: Images, settings: TrainingSettings, generator: np.random.Generator) -> Iterator[tuple[F32, F32]]:
    """Yield pixels float32 [B, H, W, C] from 0 to 1 and targets float32 [B, 10], in a new order."""
    spread = settings.label_smoothing
    one_hot = (np.eye(CLASSES) * (1 - spread) + spread / CLASSES).astype(np.float32)
    order = generator.permutation(len(images))
    size = min(settings.batch_size, len(images))
    for start in range(0, len(images) - size + 1, size):
        chosen = order[start : start + size]
        pixels = augment(images.pixels[chosen], settings, generator)
        yield pixels.astype(np.float32) / np.float32(255), one_hot[images.labels[chosen]]


def _accuracy(model: Any, images: Images) -> float:
    right = 0
    for start in range(0, len(images), EVALUATION_BATCH):
        part = slice(start, start + EVALUATION_BATCH)
        logits = model.predict_on_batch(images.pixels[part].astype(np.float32) / np.float32(255))
        right += int((np.asarray(logits).argmax(axis=-1) == images.labels[part]).sum())
    return right / len(images)


def _check_finite(total: float, epoch: int, settings: TrainingSettings) -> None:
    if not np.isfinite(total):
        raise NetworkError(
            f"training diverged in epoch {epoch}: the loss is {total}; use a smaller learning rate than "
            f"{settings.learning_rate:g}"
        )


def _description(
    architecture: Architecture,
    dataset: Dataset,
    settings: TrainingSettings,
    *,
    start: Network | None,
    wrapper: ModelWrapper | None,
    keras: Any,
) -> dict[str, Any]:
    """Return all that the result of a training depends on, as flat JSON."""
    layers = architecture.to_dict()
    return {
        "network": architecture.name,
        "layers": [layers["input_shape"], layers["layers"]],
        "dataset": dataset.name,
        "dataset_sha256": dataset.sha256,
        **asdict(settings),
        "start_sha256": None if start is None else start.sha256,
        **({} if wrapper is None else wrapper.describe()),
        **{f"version of {name}": version for name, version in _versions(keras).items()},
    }


def _versions(keras: Any) -> dict[str, str]:
    versions = {
        "bitloop": bitloop.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "keras": str(keras.__version__),
        "backend": str(keras.backend.backend()),
    }
    if versions["backend"] == "tensorflow":
        versions["tensorflow"] = str(import_tensorflow().__version__)
    return versions
