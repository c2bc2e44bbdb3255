"""The networks of a study: those that are there, and those that it trains, each in a process of its own."""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from bitloop import errors
from bitloop.bench.select import find_dataset
from bitloop.errors import BitloopError, NetworkError, UsageError, WorkerError
from bitloop.network.architecture import Architecture
from bitloop.network.generate import generate
from bitloop.network.network import Network, load_network
from bitloop.network.settings import SCRATCH, RecipeTexts, TrainingSettings
from bitloop.network.train import train
from bitloop.network.zoo import ZOO
from bitloop.qat.train import find_start, train_quantized
from bitloop.quantize.recipe import Recipe, parse_recipe
from bitloop.study.experiment.file import NetworkEntry, StudyFile

__all__ = ["Instance", "Plan", "plans_of", "provide"]

_LOGGER = logging.getLogger(__name__)
_ONE_THREAD = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")

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
        folder.mkdir(parents=True, exist_ok=True)
        done = len(plans) - len(missing)
        for label in _train_all(missing, folder, max(1, processes or os.cpu_count() or 1)):
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


def _train_all(plans: Sequence[Plan], folder: Path, processes: int) -> Iterator[str]:
    """Train, several at a time, and yield the label of each that is ready; leaving early ends the processes."""
    context = multiprocessing.get_context("spawn")
    waiting = list(reversed(plans))
    running: dict[Connection, tuple[Plan, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                plan = waiting.pop()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_train, args=(there, plan, str(folder)), name=f"train {plan.label}")
                with _one_thread(processes):
                    process.start()
                there.close()
                running[here] = plan, process
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                plan, process = running[connection]
                _raise_failure(connection, plan)
                process.join()
                del running[connection]
                yield plan.label
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


def _raise_failure(connection: Connection, plan: Plan) -> None:
    try:
        answer = connection.recv()
    except EOFError as error:
        raise WorkerError(
            f"the process that trained {plan.label} ended without a word; give the same command again, with fewer "
            "--jobs if memory ran out"
        ) from error
    if answer is not None:
        kind, text = answer
        found = getattr(errors, kind, WorkerError)
        plain = isinstance(found, type) and issubclass(found, BitloopError) and found.__init__ is BitloopError.__init__
        raise (found if plain else WorkerError)(f"network {plan.label}: {text}")


def _train(connection: Connection, plan: Plan, folder: str) -> None:
    """Train a network in this process and keep it; say by the connection how it went: None, or kind and text."""
    try:
        _train_to(plan, Path(folder))
        connection.send(None)
    except BitloopError as error:
        connection.send((type(error).__name__, str(error)))
    except Exception:  # noqa: BLE001 - handed over to the parent, which raises it
        connection.send(("WorkerError", f"an error that bitloop did not expect:\n{traceback.format_exc()}"))


def _train_to(plan: Plan, folder: Path) -> None:
    assert plan.settings is not None
    dataset = find_dataset(plan.dataset)
    architecture = architecture_of(plan.architecture)
    checkpoint = folder / f"{plan.label}.checkpoint.npz"
    recipe = plan.parsed_recipe
    if recipe is None:
        network = train(architecture, dataset, plan.settings, checkpoint=checkpoint)
    else:
        name, start = find_start(plan.architecture, plan.start)
        if start is not None and start.architecture.layers != architecture.layers:
            raise NetworkError(f"training of {plan.label} cannot start from {name!r}, whose layers are others")
        network = train_quantized(
            architecture,
            dataset,
            recipe,
            start=start,
            start_name=name,
            settings=plan.settings,
            checkpoint=checkpoint,
        )
    network.save_npz(_path(folder, plan))
    checkpoint.unlink(missing_ok=True)


@contextmanager
def _one_thread(processes: int) -> Iterator[None]:
    """Let a process that is started here compute with one thread, where several are at work."""
    if processes == 1:
        yield
        return
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
