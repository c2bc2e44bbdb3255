"""What the file of a study says (docs/experiments.md)."""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitloop.data.dataset import DATASETS
from bitloop.errors import UsageError
from bitloop.study.experiment.reading import read
from bitloop.study.grid import OF, Grid, parse_range
from bitloop.study.search.options import METHODS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "CONFIRM",
    "Comparison",
    "Device",
    "Entry",
    "NetworkEntry",
    "Opening",
    "Qat",
    "SearchEntry",
    "StudyFile",
    "SweepEntry",
    "Training",
    "read_study",
]

CONFIRM = ("candidates", "all", "none")
"""Which cells of a sweep are measured on the confirm split too."""
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")


@dataclass(frozen=True)
class Training:
    """Settings of a training, as ``bitloop train`` has them; None is the zoo's own, or the default."""

    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    patience: int | None = None
    loss: str | None = None
    augment: int | None = None
    rotate: float | None = None
    zoom: float | None = None
    label_smoothing: float | None = None
    schedule: str | None = None


@dataclass(frozen=True)
class Qat:
    """What a network is trained for: see ``bitloop train --qat``."""

    weights: str
    biases: str | None = None
    set: tuple[str, ...] = ()
    from_: str | None = None


@dataclass(frozen=True)
class NetworkEntry:
    """A network of the study.

    Attributes:
        name: in the study.
        source: a network that is there: of the zoo, or a file beside the study's. Or:
        architecture: one that is trained: a name of the zoo, or a text such as ``conv3x8-max2-dense10``.
        seeds: of its trainings.
        train: how.
        qat: for which formats; None is what the zoo says.
    """

    name: str
    source: str | None = None
    architecture: str | None = None
    seeds: tuple[int, ...] = (1,)
    train: Training = field(default_factory=Training)
    qat: Qat | None = None


@dataclass(frozen=True)
class SweepEntry:
    """A sweep over networks: see ``bitloop sweep``.

    Attributes:
        name: in the study.
        networks: names of the networks.
        of: some of weights, biases, both.
        exponents: range of the float grid, such as "1-8"; None with ``mantissas`` None is no float grid.
        mantissas: the same.
        ints: range of integer widths.
        formats: specs besides.
        scales: what stands behind formats that name no scale.
        roundings: the same.
        prune: thresholds below which weights are zeroed, each with every spec; 0 is none.
        others: spec of what is not swept.
        per_layer: whether each layer is changed alone.
        confirm: "candidates" (the smallest admissible ones), "all", or "none".
        candidates: how many at most.
    """

    name: str
    networks: tuple[str, ...]
    of: tuple[str, ...] = ("weights",)
    exponents: str | None = None
    mantissas: str | None = None
    ints: str | None = None
    formats: tuple[str, ...] = ()
    scales: tuple[str, ...] = ("",)
    roundings: tuple[str, ...] = ("",)
    prune: tuple[float, ...] = (0.0,)
    others: str = "fp32"
    per_layer: bool = False
    confirm: str = "candidates"
    candidates: int = 10

    def grid(self, of: str) -> Grid:
        """Return the grid, for one of ``of``."""
        floats = self.exponents is not None or self.mantissas is not None
        return Grid(
            exponents=parse_range(self.exponents or "1-8", "exponents") if floats else None,
            mantissas=parse_range(self.mantissas or "0-10", "mantissas"),
            ints=None if self.ints is None else parse_range(self.ints, "ints"),
            formats=self.formats,
            scales=self.scales,
            roundings=self.roundings,
            prunes=self.prune,
            of=(of,),
            per_layer=self.per_layer,
            others=self.others,
        )


@dataclass(frozen=True)
class SearchEntry:
    """A search of the smallest assignment for each network: see ``bitloop search``.

    Attributes:
        name: in the study.
        networks: names of the networks.
        weights: specs to choose from; None is that command's default.
        biases: the same.
        set: ``TENSOR=SPEC[,SPEC...]`` each.
        method: "auto", "exhaustive" or "sampled".
        trials: proposals of Optuna that a sampled search evaluates.
        seed: of the sampler.
        candidates: how many of the best are measured on the confirm split.
    """

    name: str
    networks: tuple[str, ...]
    weights: tuple[str, ...] | None = None
    biases: tuple[str, ...] | None = None
    set: tuple[str, ...] = ()
    method: str = "auto"
    trials: int = 100
    seed: int = 0
    candidates: int = 10


@dataclass(frozen=True)
class Entry:
    """One side of a comparison: a network with a format.

    Attributes:
        network: its name in the study.
        weights: spec; None is what the network was trained for, or fp32.
        biases: spec; None likewise.
        set: ``TENSOR=SPEC`` each.
    """

    network: str
    weights: str | None = None
    biases: str | None = None
    set: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Networks side by side, each with its formats; the first is what the others are held against."""

    name: str
    entries: tuple[Entry, ...]
    question: str = ""


@dataclass(frozen=True)
class Opening:
    """What the test set is opened for, registered before: see :mod:`bitloop.study.experiment.opening`.

    Attributes:
        reason: in the log.
        sections: names of sweeps, searches and comparisons whose choice is measured; fp32 always is.
    """

    reason: str
    sections: tuple[str, ...]


@dataclass(frozen=True)
class Device:
    """A device on which what was chosen is run.

    Attributes:
        url: a port or any pyserial URL.
        images: how many, from the front of the split.
        split: "search", "confirm", or "test" if the study opens it.
        sections: names of those whose choice is run; none is all.
        first_seed: whether only the first seed's network is run.
    """

    url: str
    images: int = 100
    split: str = "confirm"
    sections: tuple[str, ...] = ()
    first_seed: bool = True


@dataclass(frozen=True)
class StudyFile:
    """A study.

    Attributes:
        title: of its page.
        question: what it shall answer.
        dataset: name of the data set.
        margins: losses of accuracy that are put up with, in points.
        limit: images of each split, from the front; None is all.
        network: networks.
        sweep: sweeps.
        search: searches.
        comparison: comparisons.
        test: what the test set is opened for; None leaves it sealed.
        device: devices.
        path: of the file.
        sha256: of its bytes.
    """

    title: str
    network: tuple[NetworkEntry, ...]
    question: str = ""
    dataset: str = "mnist"
    margins: tuple[float, ...] = (0.3,)
    limit: int | None = None
    sweep: tuple[SweepEntry, ...] = ()
    search: tuple[SearchEntry, ...] = ()
    comparison: tuple[Comparison, ...] = ()
    test: Opening | None = None
    device: tuple[Device, ...] = ()
    path: str = ""
    sha256: str = ""


def read_study(path: Path) -> StudyFile:
    """Read the file of a study.

    Raises:
        UsageError: it cannot be read, is no TOML, or says what makes no sense; the place is named.
    """
    try:
        data = path.read_bytes()
        document = tomllib.loads(data.decode("utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    document.update(path=str(path), sha256=hashlib.sha256(data).hexdigest())
    study: StudyFile = read(StudyFile, document, path.name)
    _check(study)
    return study


def _check(study: StudyFile) -> None:
    if study.dataset not in DATASETS:
        raise UsageError(f"unknown data set {study.dataset!r}; there are {', '.join(DATASETS)}")
    if not study.margins or not all(0 < margin < 100 for margin in study.margins):
        raise UsageError(f"margins are points of accuracy between 0 and 100, one at least, not {list(study.margins)}")
    networks = _unique("network", [entry.name for entry in study.network])
    names = [[each.name for each in study.sweep], [each.name for each in study.search]]
    sections = _unique("section", [*names[0], *names[1], *(each.name for each in study.comparison)])
    for entry in study.network:
        if (entry.source is None) == (entry.architecture is None):
            raise UsageError(f"network {entry.name!r} needs either a 'source' that is there or an 'architecture'")
        if entry.source is not None and (entry.qat is not None or entry.train != Training() or entry.seeds != (1,)):
            raise UsageError(f"network {entry.name!r} is there already: 'seeds', 'train' and 'qat' are for trainings")
        if not entry.seeds or len(set(entry.seeds)) != len(entry.seeds):
            raise UsageError(f"network {entry.name!r} needs seeds, each once, not {list(entry.seeds)}")
    for search in study.search:
        _known(f"{search.name!r}", search.networks, networks)
        _known(f"'method' in {search.name!r}", (search.method,), METHODS)
        _at_least_one(f"'candidates' in {search.name!r}", search.candidates)
        _at_least_one(f"'trials' in {search.name!r}", search.trials)
    for sweep in study.sweep:
        _known(f"{sweep.name!r}", sweep.networks, networks)
        _known(f"'of' in {sweep.name!r}", sweep.of, OF)
        _known(f"'confirm' in {sweep.name!r}", (sweep.confirm,), CONFIRM)
        _at_least_one(f"'candidates' in {sweep.name!r}", sweep.candidates)
        for of in sweep.of:
            sweep.grid(of).specs()
    for comparison in study.comparison:
        _known(f"{comparison.name!r}", [entry.network for entry in comparison.entries], networks)
    chosen = [] if study.test is None else [("test", study.test.sections)]
    for where, some in [*chosen, *((device.url, device.sections) for device in study.device)]:
        _known(f"'sections' of {where}", some or tuple(sections), sections)
    for device in study.device:
        splits = ("search", "confirm") if study.test is None else ("search", "confirm", "test")
        _known(f"'split' of {device.url}", (device.split,), splits)
        if device.split == "test" and study.test is not None:
            _known(f"'sections' of {device.url} on test", device.sections or tuple(sections), study.test.sections)


def _unique(what: str, names: Sequence[str]) -> list[str]:
    for name in names:
        if not _NAME.fullmatch(name):
            raise UsageError(f"{what} {name!r}: a name is 1 to 64 letters, digits, '_', '.', '-'; folders bear it")
        if names.count(name) > 1:
            raise UsageError(f"{what} {name!r} is there twice; give each a name of its own")
    return list(names)


def _at_least_one(what: str, number: int) -> None:
    if number < 1:
        raise UsageError(f"{what} is {number}; it is at least 1")


def _known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        found = repr(unknown[0]) if unknown else "nothing"
        raise UsageError(f"{what} names {found}; there are {', '.join(known)}")
