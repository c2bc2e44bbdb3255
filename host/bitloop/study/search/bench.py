"""What assignments take on a device: measured once each, in one session, kept as they are measured."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType

from bitloop.data.dataset import Images
from bitloop.study.device import DeviceBench, DeviceCell, DeviceOptions, open_bench, read_device
from bitloop.study.folder import Lines
from bitloop.study.search.evaluations import Evaluation
from bitloop.study.search.folder import SearchFolder
from bitloop.study.search.library import Library

__all__ = ["OBJECTIVES", "Bench", "non_dominated", "objective_values"]

OBJECTIVES = ("bytes", "latency", "ram")
"""What may be made small; all but the first take a device."""


class Bench:
    """Measures assignments on a device; used as a context manager. The device is opened when there is something to do.

    Args:
        library: of the search.
        images: that each assignment runs.
        options: which device, and how.
        folder: where lines are kept.
        evaluations: all that the lines there may be of.
    """

    def __init__(
        self,
        library: Library,
        images: Images,
        options: DeviceOptions,
        folder: SearchFolder,
        evaluations: Iterable[Evaluation],
    ) -> None:
        self._library = library
        self._images = images.first(options.images)
        self._options = options
        self._stack = contextlib.ExitStack()
        self._bench: DeviceBench | None = None
        self._lines: Lines | None = None
        self._path = folder.device
        keys = [found.key for found in evaluations]
        self.cells = read_device(folder.device, keys, len(self._images), DeviceCell, study="search")

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)

    def cell(self, evaluation: Evaluation) -> DeviceCell:
        """Return what an assignment takes on the device; its logits were those of the host, bit for bit.

        Raises:
            DisagreementError: they were not.
            LinkError, DeviceError: the device could not be reached, or was lost.
        """
        key = evaluation.key
        if key not in self.cells:
            if self._bench is None or self._lines is None:
                self._lines = self._stack.enter_context(Lines(self._path))
                bench = open_bench(self._images, self._options, earlier=dict(self.cells), noun="assignment")
                self._bench = self._stack.enter_context(bench)
            assignment = self._library.choices.assignment(evaluation.specs)
            label = self._library.choices.words(assignment)
            found, _ = self._bench.measure(key, self._library.model(assignment), label=label)
            self._lines.append(found)
            self.cells[key] = found
        return self.cells[key]

    def measure(self, evaluations: Sequence[Evaluation], progress: Callable[[int, int], None]) -> None:
        """Measure assignments; see :meth:`cell`."""
        for number, evaluation in enumerate(evaluations, start=1):
            self.cell(evaluation)
            progress(number, len(evaluations))


def objective_values(
    evaluation: Evaluation, cell: DeviceCell | None, objectives: Sequence[str]
) -> tuple[float, ...] | None:
    """Return the objectives of an assignment, in their order; None where it lacks one: it does not fit the device."""
    found: list[float | None] = []
    for objective in objectives:
        if objective == "bytes":
            found.append(evaluation.total_bytes)
        elif cell is None:
            found.append(None)
        elif objective == "latency":
            found.append(cell.latency_median)
        else:
            found.append(cell.ram_bytes)
    values = tuple(value for value in found if value is not None)
    return values if len(values) == len(objectives) else None


def non_dominated(points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the places of points that none dominates: none is at most as great in all, and less in one."""
    return [
        place
        for place, point in enumerate(points)
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    ]
