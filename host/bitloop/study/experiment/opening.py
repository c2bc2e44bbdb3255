"""The one opening of the test set: what is measured is registered before, and nothing can be added after.

``registered.json`` is written before the vault is opened: the MODELs' hashes, all that the study's file names, and the
networks in binary32. Each result is kept as it is measured, so that an interrupted opening goes on; the vault logs that
too. Once it was opened, another registration is refused: it would be chosen by somebody who saw the test set.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitloop.bench.files import write_file
from bitloop.data.dataset import Dataset, Images
from bitloop.data.vault import Opening as VaultOpening
from bitloop.data.vault import Vault
from bitloop.errors import DataError, UsageError
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.context import Progress
from bitloop.study.experiment.file import Opening
from bitloop.study.experiment.measures import Measure, Measures
from bitloop.study.experiment.tables import Table, Value, mean_sd, p_value, percent, points
from bitloop.study.folder import Lines, read_lines
from bitloop.study.results import from_line
from bitloop.study.statistics import compare

__all__ = ["Registered", "SealedTest", "Tested", "test_table"]


@dataclass(frozen=True)
class Registered:
    """One MODEL that is measured on the test set; ``section`` is "fp32" of a network in binary32."""

    section: str
    margin: float | None
    network: str
    formats: str
    model_sha256: str


@dataclass(frozen=True, eq=False)
class Tested:
    """What a MODEL is worth on the test set."""

    registered: Registered
    choice: Choice | None
    measure: Measure


class SealedTest:
    """The test set of a study.

    Args:
        opening: what the study's file says of it.
        choices: of all sections.
        dataset: whose test set.
        folder: of the study.
        limit: images at most.

    Raises:
        UsageError: the test set was opened for other MODELs, or nothing was chosen that it could be opened for.
        DataError: a file is damaged.
    """

    def __init__(
        self, opening: Opening, choices: Sequence[Choice], dataset: Dataset, folder: Path, limit: int | None
    ) -> None:
        self._reason, self._dataset, self._limit = opening.reason, dataset, limit
        self._log = folder / "openings.jsonl"
        self._measures = Measures(folder / "test.jsonl")
        self._images: Images | None = None
        chosen = [choice for choice in choices if choice.section in opening.sections]
        if not chosen:
            raise UsageError("nothing was chosen that the test set could be opened for; it stays sealed")
        self.subjects = _subjects(chosen)
        self._register(folder / "registered.json")

    def logged(self) -> tuple[VaultOpening, ...]:
        """Return the openings of this study: each time that the vault was opened."""
        return tuple(
            from_line(VaultOpening, line, f"{self._log}, line {number}")
            for number, line in enumerate(read_lines(self._log), start=1)
        )

    def images(self) -> Images:
        """Open the vault, once a process, log it, and return the images.

        Raises:
            DataError: the opening cannot be logged.
        """
        if self._images is None:
            vault = Vault(self._dataset)
            images = vault.open(self._reason)
            with Lines(self._log) as lines:
                for opening in vault.openings:
                    lines.append(opening)
            self._images = images if self._limit is None else images.first(self._limit)
        return self._images

    def measure(self, progress: Progress | None = None) -> list[Tested]:
        """Measure all that is registered; the vault stays shut if that was done before.

        Raises:
            BitloopError: a MODEL cannot be run.
        """
        found = []
        for number, (registered, choice, model) in enumerate(self.subjects, start=1):
            measure = self._measures.recall(model, self._dataset.sha256, "test")
            found.append(Tested(registered, choice, measure or self._measures.of(model, self.images())))
            if progress is not None:
                progress("test set", number, len(self.subjects))
        return found

    def _register(self, path: Path) -> None:
        document = {
            "reason": self._reason,
            "dataset": self._dataset.name,
            "dataset_sha256": self._dataset.sha256,
            "images": self._limit,
            "models": [asdict(registered) for registered, _, _ in self.subjects],
        }
        if self._log.exists():
            try:
                before = _identity(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, AttributeError, TypeError) as error:
                raise DataError(f"the test set was opened, but {path} cannot be read: {error}") from error
            if before != _identity(document):
                raise UsageError(
                    f"the test set was opened for what {path} registers, and now other MODELs are chosen: whoever saw "
                    "its figures cannot choose anew. Go back to the study's file of then, or begin another --out and "
                    "say in its reason that the test set was opened before"
                )
            return
        write_file(path, (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _identity(document: dict[str, Any]) -> object:
    """Return what a registration says but for the words in which formats are told; the hashes say which MODELs."""
    models = document.get("models", [])
    return {**document, "models": [{**model, "formats": None} for model in models]}


def _subjects(choices: Sequence[Choice]) -> list[tuple[Registered, Choice | None, Model]]:
    """Return each network in binary32, then what was chosen, each MODEL once."""
    found: dict[str, tuple[Registered, Choice | None, Model]] = {}
    for choice in choices:
        if choice.instance.recipe is None:  # one that was trained for formats is not meant to run in binary32
            model = quantize(choice.instance.network, parse_recipe("fp32"))
            registered = Registered("fp32", None, choice.instance.label, "fp32", model.sha256)
            found.setdefault(model.sha256, (registered, None, model))
    for choice in choices:
        registered = Registered(choice.section, choice.margin, choice.instance.label, choice.words, choice.model.sha256)
        found.setdefault(choice.model.sha256, (registered, choice, choice.model))
    return list(found.values())


def test_table(tested: Sequence[Tested], openings: Sequence[VaultOpening]) -> Table:
    """Return a line a MODEL, and one over the seeds of each choice."""
    floating = {one.registered.network: one.measure for one in tested if one.registered.section == "fp32"}
    rows: list[tuple[str, ...]] = []
    raw: list[tuple[Value, ...]] = []
    groups: dict[tuple[str, float | None, str, str], list[Tested]] = {}
    for one in tested:
        registered, measure = one.registered, one.measure
        name = registered.network if one.choice is None else one.choice.instance.name
        section = registered.section if one.choice is not None else f"fp32 of {registered.network}"
        groups.setdefault((section, registered.margin, name, registered.formats), []).append(one)
        base = floating.get(registered.network)
        loss = None if base is None or one.choice is None else compare(base.right, measure.right)
        accuracy = measure.accuracy
        rows.append(
            (
                *_head(registered),
                registered.network,
                registered.formats,
                f"{measure.measured.total_bytes:,}",
                f"{measure.coded_bytes:,}",
                percent(accuracy.value),
                f"{100 * accuracy.low:.2f}–{100 * accuracy.high:.2f}",
                "" if loss is None else points(loss.loss),
                "" if loss is None else points(loss.bound),
                "" if loss is None else p_value(loss.p),
            )
        )
        raw.append(
            (
                *(registered.section, registered.margin, registered.network, registered.formats),
                *(measure.measured.weights_bytes, measure.measured.biases_bytes, measure.measured.scales_bytes),
                *(measure.coded_bytes, measure.images, measure.measured.correct, accuracy.low, accuracy.high),
                *((None,) * 3 if loss is None else (loss.loss, loss.bound, loss.p)),
                registered.model_sha256,
            )
        )
    for (_, _, name, formats), members in groups.items():
        if len(members) < 2:
            continue
        head = _head(members[0].registered)
        bytes_ = f"{members[0].measure.measured.total_bytes:,}"
        accuracies = [member.measure.accuracy.value for member in members]
        rows.append((*head, f"{name}, mean", formats, bytes_, "", mean_sd(accuracies), *[""] * 4))
    count = tested[0].measure.images
    told = "; ".join(f"number {opening.count} of this data set here, {opening.time[:16]}Z" for opening in openings)
    return Table(
        name="test",
        title=f"The test set, {count:,} images, opened for what was registered before",
        columns=(
            *("section", "margin", "network", "formats", "bytes", "entropy coded", "accuracy", "95 %", "loss"),
            *("at most", "p"),
        ),
        rows=tuple(rows),
        raw_columns=(
            *("section", "margin", "network", "formats", "weights_bytes", "biases_bytes", "scales_bytes"),
            *("coded_bytes", "images", "correct", "low", "high", "loss", "loss_bound", "mcnemar_p", "model_sha256"),
        ),
        raw=tuple(raw),
        notes=(
            "95 %: Wilson interval. Loss and its upper one-sided 95 % bound (Tango): points less than its seed's fp32.",
            f"Openings of the vault: {told}.",
        ),
    )


def _head(registered: Registered) -> tuple[str, str]:
    return registered.section, "" if registered.margin is None else f"{registered.margin:g}"
