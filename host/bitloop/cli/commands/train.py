"""``bitloop train``: a network from the zoo's architectures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitloop.cli import console, options, sources
from bitloop.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from bitloop.network.train import TrainingProgress
    from bitloop.network.zoo import ZooEntry
    from bitloop.quantize.recipe import Recipe

NO_QAT = "none"


@console.handled
def train(
    name: Annotated[str, typer.Argument(metavar="NAME|LAYERS", help="Of the zoo, or layers: conv3x8-max2-dense10.")],
    *,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE.npz", help="Default: NAME.npz.")] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--dataset", "--data", metavar="NAME|DIR", help="mnist, digits or a directory.", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.", show_default=False)] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most.", show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images a step.", show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's, at the start.", show_default=False)] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Epochs without progress on the search split.", show_default=False)
    ] = None,
    loss: Annotated[str | None, typer.Option(help="cross-entropy or squared-error.", show_default=False)] = None,
    augment: Annotated[
        int | None, typer.Option(min=0, help="Shift images by up to so many pixels.", show_default=False)
    ] = None,
    rotate: Annotated[
        float | None,
        typer.Option(min=0, metavar="DEGREES", help="Turn images by up to so much either way.", show_default=False),
    ] = None,
    zoom: Annotated[
        float | None,
        typer.Option(min=0, metavar="PERCENT", help="Scale images by up to so much either way.", show_default=False),
    ] = None,
    label_smoothing: Annotated[
        float | None,
        typer.Option(min=0, metavar="SHARE", help="Of each label, spread over all classes.", show_default=False),
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the learning rate: cosine (falls to zero) or constant.", show_default=False)
    ] = None,
    qat: Annotated[
        str | None,
        typer.Option(
            "--qat",
            metavar="SPEC|none",
            help="Train for weights quantized so, e.g. int4:channel or ternary; none: in binary32 "
            "(for a network whose own training quantizes).",
            show_default=False,
        ),
    ] = None,
    qat_biases: Annotated[
        str | None,
        typer.Option(metavar="SPEC", help="With --qat: the biases. Default: the weights' if a float, else fp32."),
    ] = None,
    overrides: options.Overrides = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="NETWORK|scratch",
            help="With --qat: what training starts from. Default: the zoo's own parameters where there are some.",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE.npz",
            help="Keep where the training stands after each epoch; the same command goes on from there.",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Train a network on Keras; options that are left out are what the zoo's own network was trained with."""
    from dataclasses import replace  # noqa: PLC0415 - beside the rest

    from bitloop.network.settings import SCRATCH  # noqa: PLC0415 - beside the rest
    from bitloop.network.train import train as train_network  # noqa: PLC0415 - numpy
    from bitloop.qat import find_start, train_quantized  # noqa: PLC0415 - numpy

    entry = _entry(name)
    target = out or Path(f"{name.replace('/', '_')}.npz")
    if target.suffix.lower() != ".npz":
        raise UsageError(f"{target} does not end with .npz, as a network's file does")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; name another file with --out, or say --force to replace it")
    given: dict[str, Any] = {
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "patience": patience,
        "loss": None if loss is None else loss.replace("-", "_"),
        "augment": augment,
        "rotate": rotate,
        "zoom": zoom,
        "label_smoothing": label_smoothing,
        "schedule": schedule,
    }
    settings = replace(entry.settings, **{name: value for name, value in given.items() if value is not None})
    recipe, start = recipe_of(entry, qat, qat_biases, overrides or (), start)
    if checkpoint is not None:
        _check_checkpoint(checkpoint, target)
    start_name, start_network = (SCRATCH, None) if recipe is None else find_start(name, start)
    dataset = sources.load_dataset(data, entry.dataset)
    with console.progress() as step:

        def show(state: TrainingProgress) -> None:
            step(f"epoch {state.epoch}", state.step, state.steps)
            if state.search_accuracy is not None:
                console.say(
                    f"epoch {state.epoch} of at most {state.epochs}: loss {state.loss:.4f}, "
                    f"search accuracy {100 * state.search_accuracy:.2f} %"
                )

        if recipe is not None:
            network = train_quantized(
                entry.architecture,
                dataset,
                recipe,
                start=start_network,
                start_name=start_name,
                settings=settings,
                progress=show,
                checkpoint=checkpoint,
            )
        else:
            network = train_network(entry.architecture, dataset, settings, progress=show, checkpoint=checkpoint)
    network.save_npz(target)
    metadata = dict(network.metadata)
    if as_json:
        console.print_json({"path": str(target), **metadata})
        return
    rows = [
        ("network", f"{name}, {sum(array.size for array in network.parameters.values()):,} parameters"),
        ("data", f"{dataset.name} ({dataset.origin})"),
        ("best epoch", f"{metadata['best_epoch']} of {metadata['epochs_run']}"),
        ("search accuracy", f"{100 * float(metadata['search_accuracy']):.2f} %"),
        ("confirm accuracy", f"{100 * float(metadata['confirm_accuracy']):.2f} %"),
        *([] if recipe is None else _qat_rows(metadata)),
        ("again with", str(metadata["command"])),
    ]
    console.print_table(f"{target}", ("", ""), rows)


def _entry(name: str) -> ZooEntry:
    """Return a network of the zoo, or one of layers, which is trained with the default settings.

    Raises:
        NetworkError: It is neither.
    """
    from bitloop.network.generate import generate  # noqa: PLC0415 - numpy
    from bitloop.network.settings import TrainingSettings  # noqa: PLC0415 - beside the rest
    from bitloop.network.zoo import ZOO, ZooEntry  # noqa: PLC0415 - numpy

    if name in ZOO:
        return ZOO[name]
    try:
        return ZooEntry(generate(name), "mnist", name, TrainingSettings(), committed=False)
    except NetworkError as error:
        raise NetworkError(
            f"no network {name!r} in the zoo, which has {', '.join(ZOO)}; nor layers: {error}"
        ) from error


def recipe_of(
    entry: ZooEntry, qat: str | None, biases: str | None, overrides: Sequence[str], start: str | None
) -> tuple[Recipe | None, str | None]:
    """Return what to train for, and what to start from; with no --qat, what the zoo's own training does.

    Raises:
        UsageError: Something was said that goes with --qat.
        FormatError: A spec cannot be read.
    """
    from bitloop.network.settings import SCRATCH  # noqa: PLC0415 - beside the rest
    from bitloop.quantize.recipe import parse_recipe  # noqa: PLC0415 - numpy

    texts = entry.recipe if qat is None else None
    if qat in (None, NO_QAT):
        others = {"--qat-biases": biases, "--set": overrides, "--from": None if texts is not None else start}
        if any(others.values()):
            said = " and ".join(name for name, value in others.items() if value)
            raise UsageError(f"{said} go with --qat; name the weights' format with --qat SPEC")
    if texts is not None:
        return parse_recipe(texts.weights, texts.biases, texts.overrides), start or SCRATCH
    return None if qat in (None, NO_QAT) else parse_recipe(str(qat), biases, overrides), start


def _check_checkpoint(checkpoint: Path, target: Path) -> None:
    """Say whether training goes on, before it does.

    Raises:
        UsageError: The file's name cannot be a checkpoint's.
    """
    if checkpoint.suffix.lower() != ".npz" or checkpoint.absolute() == target.absolute():
        raise UsageError(f"{checkpoint} must end with .npz and be another file than the network's, {target}")
    if checkpoint.exists():
        console.say(f"going on from {checkpoint}")


def _qat_rows(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the table's rows on quantization-aware training."""
    recipe = metadata["qat"]
    specs = {"weights": recipe["weights"], "biases": recipe["biases"], **recipe["overrides"]}
    rows = [("quantized, as above", ", ".join(f"{name} {spec}" for name, spec in specs.items()))]
    if "start_search_accuracy" in metadata:
        before = f"{100 * float(metadata['start_search_accuracy']):.2f} % on search"
        rows.append(("before training", f"{metadata['start']['network']} quantized likewise: {before}"))
    return rows
