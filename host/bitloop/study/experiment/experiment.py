"""A study from its file to its folder: networks, sweeps, searches, comparisons, the test set, devices."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.identity import host_identity, versions
from bitloop.bench.select import find_dataset
from bitloop.bench.strict import plain
from bitloop.data.dataset import Dataset, Images
from bitloop.data.splits import Split
from bitloop.data.vault import Opening as VaultOpening
from bitloop.errors import Interrupted, UsageError
from bitloop.study.experiment import comparisons, devices, opening, optimism, searches, sweeps
from bitloop.study.experiment.choice import Choice
from bitloop.study.experiment.context import Context, Progress, made
from bitloop.study.experiment.file import StudyFile
from bitloop.study.experiment.measures import Measures
from bitloop.study.experiment.networks import Instance, plans_of, provide
from bitloop.study.experiment.tables import Table, to_csv, to_markdown

__all__ = ["STUDY_VERSION", "Study", "StudyOptions", "run_study"]

STUDY_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is done; none of it changes a figure.

    Attributes:
        data: name or folder of the data set; None is what the file names.
        processes: how many train and measure; None is one a processor.
        command: what started the study, for its record.
    """

    data: str | None = None
    processes: int | None = None
    command: str = ""


@dataclass(frozen=True, eq=False)
class Study:
    """A study that is complete.

    Attributes:
        file: what it was declared as.
        folder: where its files are.
        instances: its networks.
        groups: its sweeps.
        found: its searches, by section.
        sides: its comparisons, by section.
        tested: what the test set said; none where it stays sealed.
        on_devices: its runs.
        choices: what its sections chose.
        tables: all of it, in the order of the file.
    """

    file: StudyFile
    folder: Path
    instances: tuple[Instance, ...]
    groups: tuple[sweeps.SweepGroup, ...]
    found: dict[str, list[searches.Found]]
    sides: dict[str, list[comparisons.Side]]
    tested: tuple[opening.Tested, ...]
    on_devices: tuple[devices.OnDevice, ...]
    choices: tuple[Choice, ...]
    tables: tuple[Table, ...]

    def document(self) -> dict[str, object]:
        """Return what came of it, as ``study.json`` holds it."""
        return {
            "version": STUDY_VERSION,
            "finished": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "file": Path(self.file.path).name,
            "file_sha256": self.file.sha256,
            "title": self.file.title,
            "question": self.file.question,
            "margins": self.file.margins,
            "versions": dataclasses.asdict(versions()),
            "host": dataclasses.asdict(host_identity()),
            "networks": [
                {"label": one.label, "sha256": one.network.sha256, "metadata": dict(one.network.metadata)}
                for one in self.instances
            ],
            "choices": [
                {
                    "section": choice.section,
                    "margin": choice.margin,
                    "network": choice.instance.label,
                    "recipe": choice.recipe.to_dict(),
                    "model_sha256": choice.model.sha256,
                    "bytes": choice.model.sizes.total,
                }
                for choice in self.choices
            ],
            "tables": [
                {"name": table.name, "title": table.title, "columns": table.raw_columns, "rows": table.raw}
                for table in self.tables
            ],
        }


def run_study(
    file: StudyFile, out: Path, *, options: StudyOptions | None = None, progress: Progress | None = None
) -> Study:
    """Do what a file declares, or what of it is not in the folder yet, and write tables.

    Args:
        file: of :func:`bitloop.study.experiment.file.read_study`.
        out: the folder; what is there is kept, where it is what the file asks for.
        options: how it is done.
        progress: called with a stage, how much of it is done, and how much there is.

    Raises:
        UsageError: the file or the folder make no sense, or the test set was opened for other MODELs.
        DisagreementError: core and reference differ, or a device and the host.
        BitloopError: whatever keeps a part from being done; what was done before is kept.
        Interrupted: Ctrl-C; what was done is kept.
    """
    options = options or StudyOptions()
    place = options.data or file.dataset
    plans = plans_of(file, place)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; --out names a folder")
    dataset = find_dataset(place)
    with RunDirectory(out).locked(), _told_of_interrupts(out):
        instances = provide(plans, out / "networks", processes=options.processes, progress=progress)
        context = Context(
            folder=out,
            search=_images(dataset, Split.SEARCH, file.limit),
            confirm=_images(dataset, Split.CONFIRM, file.limit),
            measures=Measures(out / "measures.jsonl"),
            margins=file.margins,
            processes=options.processes,
            command=options.command,
            progress=progress,
        )
        study = _Work(file, dataset, instances, context).done()
        _write(study)
    return study


class _Work:
    """The parts of a study, one after another; each adds its tables and what it chose.

    Args:
        file: what is declared.
        dataset: whose images.
        instances: the networks.
        context: what the sections share.
    """

    def __init__(self, file: StudyFile, dataset: Dataset, instances: Sequence[Instance], context: Context) -> None:
        self._file = file
        self._dataset = dataset
        self._context = context
        self._tables: list[Table] = []
        self._choices: list[Choice] = []
        self._instances = tuple(instances)
        self._by_name: dict[str, list[Instance]] = {}
        for instance in instances:
            self._by_name.setdefault(instance.name, []).append(instance)

    def done(self) -> Study:
        """Do all parts."""
        groups = self._sweeps()
        found = self._searches()
        sides = self._comparisons()
        sealed = self._sealed()
        tested = [] if sealed is None else sealed.measure(self._context.progress)
        if sealed is not None:
            self._tables.append(opening.test_table(tested, sealed.logged()))
        on_devices = self._devices(sealed)
        return Study(
            file=self._file,
            folder=self._context.folder,
            instances=self._instances,
            groups=tuple(groups),
            found=found,
            sides=sides,
            tested=tuple(tested),
            on_devices=tuple(on_devices),
            choices=tuple(self._choices),
            tables=tuple(self._tables),
        )

    def _sweeps(self) -> list[sweeps.SweepGroup]:
        groups = []
        for entry in self._file.sweep:
            mine = []
            for name in entry.networks:
                for of in entry.of:
                    group = sweeps.run_group(entry, of, self._by_name[name], self._context)
                    mine.append(group)
                    self._tables.append(sweeps.group_table(group))
                    self._tables += sweeps.matrix_tables(group)
                    if entry.confirm == "all":
                        self._tables.append(optimism.optimism_table(group))
                    self._choices += sweeps.choices_of(group)
            if not entry.per_layer:
                self._tables.append(sweeps.winner_table(mine))
            groups += mine
        return groups

    def _searches(self) -> dict[str, list[searches.Found]]:
        found: dict[str, list[searches.Found]] = {}
        for entry in self._file.search:
            found[entry.name] = [
                one
                for name in entry.networks
                for one in searches.run_searches(entry, self._by_name[name], self._context)
            ]
            self._tables.append(searches.search_table(entry.name, found[entry.name]))
            self._choices += [choice for one in found[entry.name] for choice in one.choices]
        return found

    def _comparisons(self) -> dict[str, list[comparisons.Side]]:
        sides: dict[str, list[comparisons.Side]] = {}
        for comparison in self._file.comparison:
            found = comparisons.compare_sides(comparison, self._by_name, self._context)
            sides[comparison.name] = found
            self._tables.append(comparisons.comparison_table(comparison, found))
            self._choices += [choice for side in found for choice in side.choices]
        return sides

    def _sealed(self) -> opening.SealedTest | None:
        if self._file.test is None:
            return None
        return opening.SealedTest(self._file.test, self._choices, self._dataset, self._context.folder, self._file.limit)

    def _devices(self, sealed: opening.SealedTest | None) -> list[devices.OnDevice]:
        images = {Split.SEARCH.value: lambda: self._context.search, Split.CONFIRM.value: lambda: self._context.confirm}
        openings: Callable[[], tuple[VaultOpening, ...]]
        found = []
        for device in self._file.device:
            if sealed is not None and device.split == Split.TEST.value:
                get, openings = sealed.images, sealed.logged
            else:
                get, openings = images[device.split], tuple
            found += devices.run_on_device(device, self._choices, get, openings, self._context)
        if found:
            self._tables.append(devices.device_table(found))
        return found


def _images(dataset: Dataset, split: Split, limit: int | None) -> Images:
    images = dataset.split(split)
    return images if limit is None else images.first(limit)


@contextmanager
def _told_of_interrupts(out: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted; what was done is in {out}, and the same command goes on with the rest"
        ) from error


def _write(study: Study) -> None:
    """Write tables as Markdown and CSV, and all of it as JSON."""
    folder = made(study.folder / "tables")
    for table in study.tables:
        write_file(folder / f"{table.name}.csv", to_csv(table).encode())
    head = [f"# {study.file.title}", ""]
    if study.file.question:
        head += [study.file.question, ""]
    text = "\n".join(head) + "\n" + "\n".join(to_markdown(table) for table in study.tables)
    write_file(study.folder / "study.md", text.encode())
    document = json.dumps(plain(study.document()), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(study.folder / "study.json", f"{document}\n".encode())
