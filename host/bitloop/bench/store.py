"""The directory of a run while the run is written into it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bitloop.bench.begun import Begun, read_begun
from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.journal import Journal, Sample, read_samples, whole_bytes
from bitloop.bench.parts import Keeper, Part, read_parts, write_parts
from bitloop.bench.record import read_record
from bitloop.errors import BitloopError, ModelError, UsageError
from bitloop.quantize import blm
from bitloop.quantize.model import Model

__all__ = ["Past", "RunStore", "begun_store", "read_past", "resumed_store"]


class RunStore:
    """Takes samples and figures as they come; made by :func:`begun_store` and :func:`resumed_store`.

    Args:
        journal: where samples go.
        keeper: who brings journal and figures to the disk.
    """

    def __init__(self, journal: Journal, keeper: Keeper) -> None:
        self._journal = journal
        self._keeper = keeper
        self._last: Callable[[], Part] | None = None

    def append(self, sample: Sample) -> None:
        """Hand a sample to the operating system.

        Raises:
            UsageError: it cannot be written.
        """
        self._journal.append([sample])

    def offer(self, part: Part) -> None:
        """Give the newest figures of the part under way.

        Raises:
            UsageError: earlier ones could not be written.
        """
        self._keeper.offer(part)

    def ends_with(self, last: Callable[[], Part]) -> None:
        """Name what gives the figures that are written at the end."""
        self._last = last

    def close(self) -> None:
        """Write the last figures."""
        self._keeper.close(None if self._last is None else self._last())


@contextlib.contextmanager
def begun_store(directory: RunDirectory, begun: Begun, model: Model, part: Part, *, force: bool) -> Iterator[RunStore]:
    """Begin a run: from now on its directory holds all that is needed to go on with it.

    Raises:
        UsageError: the directory holds a run, another process writes there, or it cannot be written.
    """
    with directory.locked(), contextlib.ExitStack() as stack:
        directory.create(force=force)
        try:
            journal = stack.enter_context(Journal(directory.samples))
            write_file(directory.model, blm.to_bytes(model))
            store = stack.enter_context(_opened(journal, directory, ()))
            write_parts(directory.parts, (part,))
            begun.write(directory.begun)  # the last: with it the run is one that can go on
        except BitloopError:
            directory.clear()
            raise
        directory.sync()
        yield store


@contextlib.contextmanager
def resumed_store(directory: RunDirectory, past: Past, part: Part) -> Iterator[RunStore]:
    """Go on with a run whose directory is locked; a line that was cut off is removed first, and the part begun.

    Raises:
        UsageError: it cannot be written.
    """
    with (
        Journal(directory.samples, keep_bytes=past.whole_bytes) as journal,
        _opened(journal, directory, past.parts) as store,
    ):
        write_parts(directory.parts, (*past.parts, part))
        yield store


@contextlib.contextmanager
def _opened(journal: Journal, directory: RunDirectory, past: tuple[Part, ...]) -> Iterator[RunStore]:
    store = RunStore(journal, Keeper(journal, directory.parts, past))
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class Past:
    """What the directory of a run that has not come to its end holds."""

    begun: Begun
    model: Model
    parts: tuple[Part, ...]
    samples: tuple[Sample, ...]
    whole_bytes: int


def read_past(directory: RunDirectory) -> Past:
    """Read a run to go on with; the directory must be locked.

    Raises:
        UsageError: there is none, or it is complete.
        ModelError: ``model.blm`` is missing or damaged, or not the run's; both hashes are named.
        DataError: another of its files is damaged.
    """
    begun = read_begun(directory)
    if directory.record.exists() and read_record(directory.record).status == "complete":
        raise UsageError(
            f"the run in {directory.path} is complete, there is nothing to go on with; bitloop report {directory.path} "
            "shows it"
        )
    model = blm.load(directory.model)
    if model.sha256 != begun.model_sha256:
        raise ModelError(
            f"{directory.model} has SHA-256 {model.sha256}, the run was begun with {begun.model_sha256}; put that "
            "MODEL back, or begin a new run"
        )
    kept = whole_bytes(directory.samples)
    samples = tuple(read_samples(directory.samples)) if kept else ()
    return Past(begun, model, read_parts(directory.parts), samples, kept)
