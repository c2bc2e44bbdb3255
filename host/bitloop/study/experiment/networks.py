"""The networks of a study: those that are there, and those that it trains, each in a process of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import ClassVar

from bitloop.bench.select import find_dataset
from bitloop.errors import UsageError
from bitloop.network.architecture import Architecture
from bitloop.network.generate import generate
from bitloop.network.network import Network, load_network
from bitloop.network.settings import SCRATCH, RecipeTexts, TrainingSettings
from bitloop.network.train import train
from bitloop.network.zoo import ZOO
from bitloop.qat.train import find_start, train_quantized
from bitloop.quantize.recipe import Recipe, parse_recipe
from bitloop.study.experiment.context import made
from bitloop.study.experiment.file import NetworkEntry, StudyFile
from bitloop.study.workers import measure_all

__all__ = ["Instance", "Plan", "plans_of", "provide"]

_LOGGER = logging.getLogger(__name__)
_TENSORFLOW_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")

NetworkProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Instance:
    """A network of a study, with one seed.

    Attributes:
        name: of the network in the study.
        label: of this instance: the name, with the seed where it was trained.
        seed: of its training; None where it was there.
        network: in binary32.
        recipe: what it was trained for; None of one that was trained in binary32.
    """

    name: str
    label: str
    seed: int | None
    network: Network
    recipe: Recipe | None


@dataclass(frozen=True)
class Plan:
    """How one instance is to be had.

    Attributes:
        name: of the network in the study.
        label: of the instance.
        source: what is loaded; None is trained:
        architecture: as the study's file names it.
        settings: of the training, with the seed.
        recipe: what it is trained for.
        start: what such a training starts from.
        dataset: name or folder of the data set.
    """

    name: str
    label: str
    source: str | None = None
    architecture: str = ""
    settings: TrainingSettings | None = None
    recipe: RecipeTexts | None = None
    start: str = SCRATCH
    dataset: str = ""

    @property
    def key(self) -> str:
        """What it is named by where it fails."""
        return self.label

    @property
    def parsed_recipe(self) -> Recipe | None:
        """What the network is trained for, read."""
        if self.recipe is None:
            return None
        return parse_recipe(self.recipe.weights, self.recipe.biases, self.recipe.overrides)


def plans_of(study: StudyFile, dataset: str) -> list[Plan]:
    """Return how each instance of a study is to be had.

    Args:
        study: the file.
        dataset: name or folder of the data set.

    Raises:
        UsageError, NetworkError, FormatError: what the file says of a network makes no sense.
    """
    plans = []
    for entry in study.network:
        if entry.source is not None:
            plans.append(Plan(entry.name, entry.name, source=_source(entry.source, Path(study.path))))
            continue
        for seed in entry.seeds:
            plan = _training_plan(entry, seed, dataset)
            _ = plan.parsed_recipe  # what it cannot be trained for is told before anything is trained
            architecture_of(plan.architecture)
            plans.append(plan)
    return plans


def architecture_of(text: str) -> Architecture:
    """Return an architecture of the zoo, or the one that a text describes.

    Raises:
        NetworkError: it is neither.
    """
    return ZOO[text].architecture if text in ZOO else generate(text)


def provide(
    plans: Sequence[Plan], folder: Path, *, processes: int | None = None, progress: NetworkProgress | None = None
) -> list[Instance]:
    """Load the instances of a study, and train those that are not in its folder yet.

    Args:
        plans: of :func:`plans_of`.
        folder: where trained networks are kept, and checkpoints of those that are not ready.
        processes: how many train at a time; None is one a processor.
        progress: called with a stage, how many are ready, and how many there are.

    Raises:
        UsageError: a network in the folder was trained otherwise.
        NetworkError: a network cannot be read, or a training diverged.
        WorkerError: a process that trained crashed.
    """
    missing = [plan for plan in plans if plan.source is None and not _path(folder, plan).exists()]
    if missing:
        made(folder)
        done = len(plans) - len(missing)
        if progress is not None:
            progress("networks", done, len(plans))
        at_once = min(len(missing), max(1, processes or os.cpu_count() or 1))
        for label in measure_all(_Training(str(folder), at_once == 1), missing, processes=at_once):
            done += 1
            _LOGGER.info("trained %s", label)
            if progress is not None:
                progress("networks", done, len(plans))
    return [_instance(plan, folder) for plan in plans]


def _source(source: str, study: Path) -> str:
    """Return a zoo's name as it is, and a file beside the study's."""
    beside = study.parent / source
    return source if source in ZOO or not beside.exists() else str(beside)


def _training_plan(entry: NetworkEntry, seed: int, dataset: str) -> Plan:
    assert entry.architecture is not None
    zoo = ZOO.get(entry.architecture)
    settings = zoo.settings if zoo is not None else TrainingSettings()
    said = {name: value for name, value in asdict(entry.train).items() if value is not None}
    if "loss" in said:
        said["loss"] = str(said["loss"]).replace("-", "_")
    settings = replace(settings, seed=seed, **said)
    recipe = zoo.recipe if zoo is not None else None
    if entry.qat is not None:
        texts = parse_recipe(entry.qat.weights, entry.qat.biases, entry.qat.set).to_dict()
        overrides = tuple(f"{name}={spec}" for name, spec in texts["overrides"].items())
        recipe = RecipeTexts(texts["weights"], texts["biases"], overrides)
    return Plan(
        name=entry.name,
        label=f"{entry.name}-seed{seed}",
        architecture=entry.architecture,
        settings=settings,
        recipe=recipe,
        start=SCRATCH if entry.qat is None else entry.qat.from_ or SCRATCH,
        dataset=dataset,
    )


def _path(folder: Path, plan: Plan) -> Path:
    return folder / f"{plan.label}.npz"


def _instance(plan: Plan, folder: Path) -> Instance:
    if plan.source is not None:
        return Instance(plan.name, plan.label, None, load_network(plan.source), None)
    path = _path(folder, plan)
    network = load_network(path)
    _check_trained(plan, network, path)
    assert plan.settings is not None
    return Instance(plan.name, plan.label, plan.settings.seed, network, plan.parsed_recipe)


def _check_trained(plan: Plan, network: Network, path: Path) -> None:
    """See that a network in the folder is what the study's file asks for."""
    assert plan.settings is not None
    recipe = plan.parsed_recipe
    # A setting that the file does not know yet was what its default leaves as it is.
    was = {**asdict(TrainingSettings()), **network.metadata.get("settings", {})}
    differs = [
        f"{field.name} was {was.get(field.name)!r}, now it is {value!r}"
        for field in fields(plan.settings)
        if was.get(field.name) != (value := getattr(plan.settings, field.name))
    ]
    if network.metadata.get("qat") != (None if recipe is None else recipe.to_dict()):
        differs.append("it was trained for other formats")
    if network.architecture.layers != architecture_of(plan.architecture).layers:
        differs.append("its layers are others")
    if differs:
        raise UsageError(
            f"{path} was trained otherwise than the study says: {'; '.join(differs)}. Remove it to train it anew, or "
            "name another --out"
        )


@dataclass(frozen=True)
class _Training:
    """What all trainings of a study share.

    Attributes:
        folder: where networks are kept.
        alone: whether one process trains alone, with all threads.
    """

    noun: ClassVar[str] = "network"

    folder: str
    alone: bool

    def measurer(self) -> _Trainer:
        """Return what trains, in the process it is called in."""
        if not self.alone:
            os.environ.update(dict.fromkeys(_TENSORFLOW_THREADS, "1"))
        return _Trainer(Path(self.folder))


class _Trainer:
    """Trains networks, one after another, and keeps each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def measure(self, plan: Plan) -> str:
        """Train a network, from its checkpoint if there is one; return its label."""
        assert plan.settings is not None
        dataset = find_dataset(plan.dataset)
        architecture = architecture_of(plan.architecture)
        checkpoint = self._folder / f"{plan.label}.checkpoint.npz"
        recipe = plan.parsed_recipe
        if recipe is None:
            network = train(architecture, dataset, plan.settings, checkpoint=checkpoint)
        else:
            name, start = find_start(plan.architecture, plan.start)
            network = train_quantized(
                architecture,
                dataset,
                recipe,
                start=start,
                start_name=name,
                settings=plan.settings,
                checkpoint=checkpoint,
            )
        network.save_npz(_path(self._folder, plan))
        checkpoint.unlink(missing_ok=True)
        return plan.label
