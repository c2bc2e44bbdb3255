"""The vault: the only way to the test images, and a log of every time it was opened.

The log is one JSON object a line, only ever appended to. An opening is written down before the images are handed out.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import platformdirs

from bitloop.data.dataset import Dataset, Images, sealed_images
from bitloop.errors import DataError

try:
    import fcntl
except ImportError:  # not a POSIX system: appending is still whole, but two openings at once may get one number
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

LOG_NAME = "vault.jsonl"
MAX_REASON_LENGTH = 1000


@dataclass(frozen=True)
class Opening:
    """One opening of a test split.

    Attributes:
        dataset: Name of the data set.
        sha256: SHA-256 of the data set, in hex.
        reason: Why it was opened, in the opener's words.
        count: Which opening of this data set it is in this log, from 1.
        time: When, ISO 8601 in UTC.
    """

    dataset: str
    sha256: str
    reason: str
    count: int
    time: str


def default_log_path() -> Path:
    """Return where openings are logged unless told otherwise: the user's state directory."""
    return Path(platformdirs.user_state_dir("bitloop", appauthor=False)) / LOG_NAME


class Vault:
    """Opens a data set's test split and logs it.

    Args:
        dataset: Whose test split.
        log_path: Where openings are logged; None is :func:`default_log_path`.
    """

    def __init__(self, dataset: Dataset, log_path: Path | str | None = None) -> None:
        self._dataset = dataset
        self._log_path = default_log_path() if log_path is None else Path(log_path)
        self._openings: list[Opening] = []

    @property
    def log_path(self) -> Path:
        """Where openings are logged."""
        return self._log_path

    @property
    def openings(self) -> tuple[Opening, ...]:
        """What this object opened, in order: for the record of a run."""
        return tuple(self._openings)

    def open(self, reason: str) -> Images:
        """Log an opening, then return the test images.

        Args:
            reason: Why, in one line; it stays in the log and in the run's record.

        Raises:
            DataError: The reason is empty or too long, or the log cannot be written: then nothing is opened.
        """
        text = " ".join(reason.split())
        if not 0 < len(text) <= MAX_REASON_LENGTH:
            raise DataError(f"opening the test set needs a reason of 1 to {MAX_REASON_LENGTH} characters")
        try:
            opening = self._append(text)
        except OSError as error:
            raise DataError(
                f"the test set stays shut: its opening cannot be logged in {self._log_path}: {error}"
            ) from error
        self._openings.append(opening)
        logger.info("opened the test split of %s, number %d: %s", opening.dataset, opening.count, text)
        return sealed_images(self._dataset)

    def _append(self, reason: str) -> Opening:
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self._log_path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        with os.fdopen(handle, "rb+", buffering=0) as log, _locked(handle):
            before = log.read()
            opening = Opening(
                self._dataset.name,
                self._dataset.sha256,
                reason,
                _count(before, self._dataset.name) + 1,
                datetime.now(timezone.utc).isoformat(timespec="microseconds"),
            )
            line = json.dumps(asdict(opening), sort_keys=True) + "\n"
            cut = "\n" if before and not before.endswith(b"\n") else ""
            data = (cut + line).encode("utf-8")
            if log.write(data) != len(data):
                raise OSError("the line was not written whole")
            os.fsync(handle)
        return opening


def read_log(path: Path | str) -> tuple[Opening, ...]:
    """Return the openings in a log, oldest first; lines that are none (cut short by a crash) are passed over, loudly.

    Raises:
        DataError: The log cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"the vault's log cannot be read: {error}") from error
    return tuple(_parse(data))


def _parse(data: bytes) -> Iterator[Opening]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            opening = Opening(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            logger.warning("line %d of the vault's log is damaged", number)
            continue
        yield opening


def _count(data: bytes, dataset: str) -> int:
    return sum(opening.dataset == dataset for opening in _parse(data))


@contextmanager
def _locked(handle: int) -> Iterator[None]:
    """Hold the file for this process, so that the number read and the line written belong together."""
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX)
    yield  # closing the file gives the lock back
