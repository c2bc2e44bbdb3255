"""Processes that measure cells, or other tasks: spawned, one BLAS thread each, each knowing what they share once.

They are this module's own and not a ``ProcessPoolExecutor``: where one crashes, the task that it was at is named, and
Ctrl-C reaches the parent alone, which ends them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from bitloop import errors
from bitloop.errors import BitloopError, FormatError, WorkerError
from bitloop.network.architecture import Architecture
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.study.evaluate import Evaluator
from bitloop.study.grid import BASE, Cell, base_recipe, recipe_of
from bitloop.study.measure import measure_model
from bitloop.study.results import Outcome

__all__ = ["Crew", "Job", "Measurer", "Shared", "Task", "measure_all"]

_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_STOP_S = 5.0


class Task(Protocol):
    """What one process does at a time; it travels there."""

    @property
    def key(self) -> str:
        """What it is named by where it fails."""
        ...


T_contra = TypeVar("T_contra", bound=Task, contravariant=True)
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T", bound=Task)
R = TypeVar("R")


class Measures(Protocol[T_contra, R_co]):
    """Does tasks, one after another, in the process it is in."""

    def measure(self, task: T_contra, /) -> R_co:
        """Return what came of a task; it travels back."""
        ...


class Shared(Protocol[T_contra, R_co]):
    """What all tasks share; it travels to each process once."""

    @property
    def noun(self) -> str:
        """What a task is called where it fails."""
        ...

    def measurer(self) -> Measures[T_contra, R_co]:
        """Return what does the tasks; called in the process that will do them."""
        ...


@dataclass(frozen=True, eq=False)
class Job:
    """What all cells of a sweep share, in a form that travels to another process.

    Attributes:
        architecture: of the network, as a dict.
        parameters: of the network.
        dataset: the network's.
        pixels: uint8 ``[N, H, W, C]``.
        labels: uint8 ``[N]``.
        others: spec of the tensors that are not swept.
        checked: images of each cell that are computed again.
        uses: cells of one layer that one process measures, about.
    """

    noun: ClassVar[str] = "cell"

    architecture: dict[str, Any]
    parameters: Mapping[str, npt.NDArray[np.float32]]
    dataset: str
    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]
    others: str
    checked: int
    uses: int

    @property
    def network(self) -> Network:
        """The network."""
        return Network(Architecture.from_dict(self.architecture), self.parameters, self.dataset)

    def measurer(self) -> Measurer:
        """Return what measures the cells."""
        return Measurer(self)


class Measurer:
    """Measures cells, one after another, in this process.

    Args:
        job: what they share.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._network = job.network
        base = quantize(self._network, base_recipe(job.others))
        self._evaluator = Evaluator(base, job.pixels, uses=job.uses)

    def measure(self, cell: Cell) -> Outcome:
        """Return what a cell is worth, or why its spec cannot be had.

        Raises:
            DisagreementError: core and reference differ.
            BitloopError: whatever else keeps the network from being evaluated.
        """
        try:
            model = quantize(self._network, recipe_of(cell, self._job.others))
        except FormatError as error:
            # The network itself must be measurable: what is refused there is no cell's own fault.
            if cell == BASE:
                raise
            return Outcome.of_cell(cell, refused=str(error))
        measured = measure_model(self._evaluator, model, self._job.labels, self._job.checked)
        return Outcome.of_cell(cell, measured=measured)


@dataclass(frozen=True)
class _Failure:
    """An error in a form that travels: the class is named, for not every one of them can be pickled."""

    kind: str
    message: str

    def raised(self, task: str) -> BitloopError:
        """Return the error, with the task named."""
        kind = getattr(errors, self.kind, None)
        message = f"{task}: {self.message}"
        if isinstance(kind, type) and issubclass(kind, BitloopError) and kind.__init__ is BitloopError.__init__:
            return kind(message)
        return WorkerError(message)


@dataclass
class _Worker(Generic[T]):
    process: BaseProcess
    connection: Connection
    task: T | None = None


class Crew(Generic[T, R]):
    """Several processes that do tasks; used as a context manager, whose end ends them, whatever the reason.

    Args:
        shared: what the tasks share.
        processes: how many, at least 1; each is started once there is a task for it.
    """

    def __init__(self, shared: Shared[T, R], processes: int) -> None:
        self._shared = shared
        self._processes = processes
        self._workers: list[_Worker[T]] = []

    def __enter__(self) -> Crew[T, R]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _stop(self._workers)

    def measure(self, tasks: Sequence[T]) -> Iterator[R]:
        """Do tasks; give what came of each as soon as it is done, so that the caller can keep it.

        The next task is not handed out before the caller has taken the one that is done. A caller that leaves the loop
        early asks nothing more of this crew.

        Raises:
            WorkerError: a process crashed, or met with an error nobody expected; the task is named.
            BitloopError: a task could not be done; it is named.
        """
        waiting = list(reversed(tasks))
        while len(self._workers) < min(self._processes, len(tasks)):
            self._workers.append(_start(self._shared))
        for worker in self._workers:
            self._hand_out(worker, waiting)
        while busy := [worker for worker in self._workers if worker.task is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    result = self._take(worker)
                    self._hand_out(worker, waiting)
                    yield result

    def _hand_out(self, worker: _Worker[T], waiting: list[T]) -> None:
        worker.task = waiting.pop() if waiting else None
        if worker.task is not None:
            try:
                worker.connection.send(worker.task)
            except OSError as error:
                raise self._crashed(worker) from error

    def _take(self, worker: _Worker[T]) -> R:
        try:
            answer = worker.connection.recv()
        except (EOFError, OSError) as error:
            raise self._crashed(worker) from error
        if isinstance(answer, _Failure):
            raise answer.raised(self._name(worker))
        result: R = answer
        return result

    def _crashed(self, worker: _Worker[T]) -> WorkerError:
        worker.process.join(_STOP_S)
        code = worker.process.exitcode
        how = "ended" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
        return WorkerError(
            f"the process that measured {self._name(worker)} {how}; the {self._shared.noun}s done before are kept. If "
            "memory ran out, take fewer processes (--jobs), then give the same command again"
        )

    def _name(self, worker: _Worker[T]) -> str:
        return f"{self._shared.noun} {'none' if worker.task is None else worker.task.key}"


def measure_all(job: Shared[T, R], tasks: Sequence[T], *, processes: int) -> Iterator[R]:
    """Measure cells in several processes; give each as soon as it is done, so that the caller can keep it.

    Leaving the loop early, by an error or an interrupt, ends all processes.

    Args:
        job: what the cells share.
        tasks: which ones; those of one layer best together, for each process keeps what enters one layer.
        processes: how many, at least 1.

    Raises:
        WorkerError: a process crashed, or met with an error nobody expected; the cell is named.
        BitloopError: a cell could not be measured; it is named.
    """
    with Crew(job, processes) as crew:
        yield from crew.measure(tasks)


def _start(shared: Shared[T, R]) -> _Worker[T]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, shared), name="bitloop-study", daemon=True)
    with _one_blas_thread(), _deaf_to_interrupts():
        process.start()
    there.close()  # so that the end of the process is seen here
    return _Worker(process, here)


def _stop(workers: Sequence[_Worker[T]]) -> None:
    for worker in workers:
        worker.connection.close()
        worker.process.terminate()
    for worker in workers:
        worker.process.join(_STOP_S)
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _one_blas_thread() -> Iterator[None]:
    """Let a process that is started here begin with one BLAS thread."""
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


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let a process that is started here ignore Ctrl-C from its first moment: a terminal sends it to all processes."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread; _serve does the same, a little later
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _serve(connection: Connection, shared: Shared[T, R]) -> None:
    """Do the tasks that come, until the parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What saturates where is what a sweep is about; a warning a tensor and cell would bury everything else.
    logging.getLogger("bitloop").setLevel(logging.ERROR)
    measurer: Measures[T, R] | None = None
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        answer: R | _Failure
        try:
            measurer = measurer or shared.measurer()
            answer = measurer.measure(task)
        except BitloopError as error:
            answer = _Failure(type(error).__name__, str(error))
        except Exception:  # noqa: BLE001 - handed over to the parent, which raises it
            answer = _Failure("WorkerError", f"an error that bitloop did not expect:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:
            return
