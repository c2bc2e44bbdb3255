"""The Python API: what the command line does, in as many lines.

::

    from bitloop import api

    network = api.load("mlp")
    model = api.quantize(network, weights="e4m3:pow2", biases="e5m2")
    api.save(model, "mlp.blm")
    logits = api.simulate(model, api.images("mnist", split="search", limit=100).pixels)
    record = api.run(model, "sim://native", split="confirm", limit=1000, out="runs/mlp-e4m3")
    print(record.headline)
    print(record.accuracy.device.value, record.latency.median, record.latency.unit, record.ram.measured)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitloop.bench.record import RunRecord
from bitloop.bench.resume import resume as resume_run
from bitloop.bench.run import RunOptions
from bitloop.bench.run import run as run_on_device
from bitloop.bench.select import find_dataset, select_images
from bitloop.data.dataset import DATASETS, Images
from bitloop.errors import UsageError
from bitloop.network.network import Network, load_network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize as quantize_network
from bitloop.quantize.model import Model
from bitloop.quantize.packed import PACKED_MODELS
from bitloop.quantize.recipe import parse_recipe
from bitloop.report.page import write_report
from bitloop.simulate.reference import simulate as simulate_model

__all__ = ["images", "load", "load_model", "quantize", "resume", "run", "save", "simulate"]


def load(source: str | Path) -> Network:
    """Load a network: a name of the zoo, or a ``.npz``, ``.keras`` or ``.tflite`` file.

    Raises:
        NetworkError: there is no such network, or it cannot be read.
    """
    return load_network(source)


def load_model(path: str | Path) -> Model:
    """Load a MODEL: a ``.blm`` file, or the name of one that comes with bitloop (``bitopt2018-e3m1``).

    Raises:
        ModelError: it is missing or damaged.
    """
    packed = PACKED_MODELS.get(str(path))
    return blm.load(path if packed is None else packed.path)


def save(model: Model, path: str | Path) -> None:
    """Write a MODEL (``.blm``), whole or not at all.

    Raises:
        ModelError: it cannot be written.
    """
    blm.save(model, path)


def quantize(
    network: Network, *, weights: str = "fp32", biases: str | None = None, overrides: Mapping[str, str] | None = None
) -> Model:
    """Quantize a network.

    Args:
        network: what is quantized.
        weights: format of the weights, such as ``e4m3:pow2`` or ``int4:channel``.
        biases: format of the biases; None is that of the weights if it is a float, else fp32.
        overrides: formats of single tensors, such as ``{"dense1.weights": "int4:channel"}``.

    Raises:
        FormatError: a format is unknown, or a tensor is not there.
    """
    texts = [f"{name}={spec}" for name, spec in (overrides or {}).items()]
    return quantize_network(network, parse_recipe(weights, biases, texts))


def images(data: str | Path = "mnist", *, split: str = "search", limit: int | None = None) -> Images:
    """Return images of an open split; the test split is opened by :func:`run` alone, which records it.

    Args:
        data: mnist, digits, or a directory that holds MNIST's files.
        split: train, search or confirm.
        limit: only so many, from the front.

    Raises:
        UsageError: there is no such split, or it is the sealed one.
        DataError: the data cannot be had.
    """
    if split == "test":
        raise UsageError("the test split is sealed; run(..., split='test', reason=...) opens it and records why")
    return select_images(find_dataset(data), split, limit=limit, reason="").images


def simulate(model: Model, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the logits float32 ``[N, classes]`` that a device must answer for pixels uint8 ``[N, H, W, C]``."""
    return simulate_model(model, pixels)


def run(
    model: Model,
    device: str = "sim://native",
    *,
    data: str | Path | None = None,
    split: str = "confirm",
    limit: int | None = None,
    out: str | Path | None = None,
    reason: str | None = None,
    options: RunOptions | None = None,
) -> RunRecord:
    """Run a MODEL on a device and compare with the host simulation; the record tells what came of it.

    Args:
        model: what is run.
        device: a port or any pyserial URL.
        data: mnist, digits, or a directory; None is what the model was trained on.
        split: train, search, confirm or test.
        limit: only so many images, from the front.
        out: directory for ``run.json``, ``samples.jsonl`` and ``report.html``; None writes nothing.
        reason: why the test split is opened; asked for with it alone.
        options: how the run is done.

    Returns:
        The record; ``record.verdict`` is "exact", or says what else.

    Raises:
        UsageError: the test split without a reason, or a directory that holds a run.
        BitloopError: whatever kept the run from beginning.
    """
    if split == "test" and not reason:
        raise UsageError("the test split is sealed; say in reason why it is opened")
    dataset = find_dataset(data if data is not None else model.dataset or "mnist")
    chosen = select_images(dataset, split, limit=limit, reason=reason or "")
    place = None if data is None else str(data if str(data) in DATASETS else Path(data).absolute())
    directory = None if out is None else Path(out)
    record = run_on_device(
        model,
        device,
        chosen.images,
        out_dir=directory,
        options=options or RunOptions(command="bitloop.api.run"),
        vault=chosen.openings,
        data=place,
    )
    if directory is not None:
        write_report(directory)
    return record


def resume(directory: str | Path, *, device: str | None = None, data: str | Path | None = None) -> RunRecord:
    """Go on with a run that :func:`run` or the command line began into a directory, whatever ended it.

    Args:
        directory: the run's.
        device: where the device is now; None is where it was.
        data: where the data is now; None is where it was.

    Returns:
        The record, as of a run that was not interrupted; ``record.interruptions`` tells of what happened.

    Raises:
        UsageError: there is no run that could go on, it is complete, or another process is at work on it.
        BitloopError: whatever kept it from going on: model, data or firmware are others.
    """
    record = resume_run(Path(directory), device_url=device, data=None if data is None else str(data))
    write_report(Path(directory))
    return record
