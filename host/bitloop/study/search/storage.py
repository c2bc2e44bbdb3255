"""A study of Optuna in a storage that several processes write into at once.

A server (MySQL, PostgreSQL) gives each process its turn. SQLite does not always: two processes may make its tables
together, find it locked, or be given the same enqueued trial. What fails for that reason succeeds a moment later.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bitloop.bench.journal import whole_bytes
from bitloop.errors import UsageError

__all__ = ["again", "import_optuna", "open_study"]

_WAITS_S = (0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds before each further try, times a number drawn from 0.5 to 1.5, so that processes part."""

T = TypeVar("T")


def import_optuna() -> Any:
    """Return the module ``optuna``, with its own messages silenced.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import optuna  # noqa: PLC0415 - optional, and slow to load
    except ImportError as error:
        raise UsageError(
            "the grid is too large to be evaluated whole, and Optuna, which proposes what to evaluate, is not "
            "installed: pip install 'bitloop[search]', or narrow the choices and take --method exhaustive"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def open_study(storage: str | Path, name: str, directions: Sequence[str]) -> Any:
    """Open a study, or make it.

    Args:
        storage: a URL of Optuna's, whose trials several processes may share; or a file of this process's own: each
            step appends a line, and what of the last was cut off is removed.
        name: of the study.
        directions: of its objectives.

    Raises:
        UsageError: Optuna is not installed, or the storage cannot be reached.
    """
    optuna = import_optuna()

    def make() -> Any:
        backend = storage
        if isinstance(storage, Path):
            if storage.exists():
                os.truncate(storage, whole_bytes(storage))
            backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(storage)))
        return optuna.create_study(storage=backend, study_name=name, load_if_exists=True, directions=directions)

    try:
        return again(make)
    except Exception as error:  # drivers that are missing, URLs that cannot be read, hosts that are not there
        raise UsageError(f"the study {name!r} cannot be opened at {storage}: {error}") from error


def again(call: Callable[[], T], *, also: tuple[type[Exception], ...] = ()) -> T:
    """Return what a call to the storage returns; where another process is in its way, try a few times.

    Args:
        call: what is tried.
        also: what it raises besides where another process was faster.

    Raises:
        UsageError: it fails still.
    """
    hindered = (*_hindrances(), *also)
    for wait in _WAITS_S:
        try:
            return call()
        except hindered:  # noqa: PERF203 - each try is one call to a database
            time.sleep(wait * random.uniform(0.5, 1.5))
    try:
        return call()
    except hindered as error:
        raise UsageError(
            f"the storage of the study does not answer as it should: {error}. What was evaluated is kept in the folder "
            "of the search; the same command goes on once it does"
        ) from error


def _hindrances() -> tuple[type[Exception], ...]:
    """Return what Optuna and SQLAlchemy raise where the file is locked, or a row was made by another process."""
    found = (import_optuna().exceptions.StorageInternalError,)
    try:
        from sqlalchemy import exc  # noqa: PLC0415 - comes with Optuna, and is slow to load
    except ImportError:
        return found
    return (*found, exc.SQLAlchemyError)
