"""Processes that measure cells: spawned, one BLAS thread each, each knowing the network and the images once.

They are this module's own and not a ``ProcessPoolExecutor``: where one crashes, the cell that it was at is named, and
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
from typing import Any

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

__all__ = ["Job", "Measurer", "measure_all"]

_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_STOP_S = 5.0


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

    def raised(self, cell: Cell) -> BitloopError:
        """Return the error, with the cell named."""
        kind = getattr(errors, self.kind, None)
        message = f"cell {cell.key}: {self.message}"
        if isinstance(kind, type) and issubclass(kind, BitloopError) and kind.__init__ is BitloopError.__init__:
            return kind(message)
        return WorkerError(message)


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    cell: Cell | None = None


def measure_all(job: Job, cells: Sequence[Cell], *, processes: int) -> Iterator[Outcome]:
    """Measure cells in several processes; give each as soon as it is done, so that the caller can keep it.

    The next cell is not handed out before the caller has taken the one that is done. Leaving the loop early, by an
    error or an interrupt, ends all processes.

    Args:
        job: what the cells share.
        cells: which ones; those of one layer best together, for each process keeps what enters one layer.
        processes: how many, at least 1.

    Raises:
        WorkerError: a process crashed, or met with an error nobody expected; the cell is named.
        BitloopError: a cell could not be measured; it is named.
    """
    waiting = list(reversed(cells))
    workers: list[_Worker] = []
    try:
        for _ in range(min(processes, len(cells))):
            workers.append(_start(job))  # noqa: PERF401 - those that were started must be ended if one cannot be
        for worker in workers:
            _hand_out(worker, waiting)
        while busy := [worker for worker in workers if worker.cell is not None]:
            ready = wait([worker.connection for worker in busy])
            for worker in busy:
                if worker.connection in ready:
                    outcome = _take(worker)
                    _hand_out(worker, waiting)
                    yield outcome
    finally:
        _stop(workers)


def _start(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, job), name="bitloop-study", daemon=True)
    with _one_blas_thread(), _deaf_to_interrupts():
        process.start()
    there.close()  # so that the end of the process is seen here
    return _Worker(process, here)


def _hand_out(worker: _Worker, waiting: list[Cell]) -> None:
    worker.cell = waiting.pop() if waiting else None
    if worker.cell is not None:
        try:
            worker.connection.send(worker.cell)
        except OSError as error:
            raise _crashed(worker) from error


def _take(worker: _Worker) -> Outcome:
    assert worker.cell is not None
    try:
        answer = worker.connection.recv()
    except (EOFError, OSError) as error:
        raise _crashed(worker) from error
    if isinstance(answer, _Failure):
        raise answer.raised(worker.cell)
    assert isinstance(answer, Outcome)
    return answer


def _crashed(worker: _Worker) -> WorkerError:
    worker.process.join(_STOP_S)
    code = worker.process.exitcode
    how = "ended" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    key = "none" if worker.cell is None else worker.cell.key
    return WorkerError(
        f"the process that measured cell {key} {how}; the cells done before are kept. If memory ran out, take fewer "
        "processes (--jobs), then give the same command again"
    )


def _stop(workers: Sequence[_Worker]) -> None:
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


def _serve(connection: Connection, job: Job) -> None:
    """Measure the cells that come, until the parent closes the connection or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What saturates where is what a sweep is about; a warning a tensor and cell would bury everything else.
    logging.getLogger("bitloop").setLevel(logging.ERROR)
    measurer: Measurer | None = None
    while True:
        try:
            cell = connection.recv()
        except (EOFError, OSError):
            return
        answer: Outcome | _Failure
        try:
            measurer = measurer or Measurer(job)
            answer = measurer.measure(cell)
        except BitloopError as error:
            answer = _Failure(type(error).__name__, str(error))
        except Exception:  # noqa: BLE001 - handed over to the parent, which raises it
            answer = _Failure("WorkerError", f"an error that bitloop did not expect:\n{traceback.format_exc()}")
        try:
            connection.send(answer)
        except OSError:
            return
