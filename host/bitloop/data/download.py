"""Download of files from mirrors, with progress, a deadline and checksums (pooch does the fetching).

A machine without a network must learn so in seconds, whatever its resolver or firewall does with the attempt: fetching
happens in a thread, and what counts is when bytes last arrived.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitloop.data.dataset import Progress
from bitloop.errors import DataError

logger = logging.getLogger(__name__)

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
CONNECT_TIMEOUT_S = 4.0
READ_TIMEOUT_S = 10.0
STALL_TIMEOUT_S = 12.0
"""How long no byte may arrive, over all mirrors of a file together."""
POLL_INTERVAL_S = 0.05


class _Meter:
    """What pooch calls a progress bar: it notes when bytes arrived, and tells the caller."""

    def __init__(self, name: str, progress: Progress | None) -> None:
        self.total = 0
        self.last_byte_s = time.monotonic()
        self._name = name
        self._progress = progress
        self._done = 0

    def update(self, count: int) -> None:
        self.last_byte_s = time.monotonic()
        self._done = min(self._done + count, self.total) if self.total else self._done + count
        if self._progress is not None:
            self._progress(self._name, self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Nothing is held."""


class _Fetch(threading.Thread):
    """Fetches one file from the first mirror that has it; a daemon, so that a hanging one keeps nobody."""

    def __init__(self, name: str, md5: str, directory: Path, mirrors: Sequence[str], meter: _Meter) -> None:
        super().__init__(name=f"bitloop-download-{name}", daemon=True)
        self._file = name
        self._md5 = md5
        self._directory = directory
        self._mirrors = mirrors
        self._meter = meter
        self.current = mirrors[0]
        self.failures: list[str] = []
        self.done = False

    def run(self) -> None:
        pooch: Any = importlib.import_module("pooch")
        pooch.get_logger().setLevel("WARNING")
        for mirror in self._mirrors:
            self.current = mirror
            try:
                pooch.retrieve(
                    mirror + self._file,
                    known_hash=f"md5:{self._md5}",
                    fname=self._file,
                    path=self._directory,
                    downloader=pooch.HTTPDownloader(
                        progressbar=self._meter, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
                    ),
                )
            except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong hash is a ValueError
                logger.info("%s%s: %s", mirror, self._file, error)
                self.failures.append(f"{mirror}: {_short(error)}")
            else:
                self.done = True
                return


def download_files(
    md5s: Mapping[str, str],
    directory: Path,
    *,
    mirrors: Sequence[str] | None = None,
    progress: Progress | None = None,
    stall_timeout_s: float = STALL_TIMEOUT_S,
) -> None:
    """Bring files into a directory; those that are there with the right checksum stay.

    Args:
        md5s: MD5 of each file, by name.
        directory: Where to; it is made.
        mirrors: Addresses that the name is put behind, tried in order; None is :data:`MIRRORS`.
        progress: Called with the file's name, bytes so far and bytes in all, from another thread.
        stall_timeout_s: How long no byte may arrive.

    Raises:
        DataError: No mirror has the file with that checksum, or nothing arrives.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{directory} cannot be made: {error}") from error
    for name, md5 in md5s.items():
        meter = _Meter(name, progress)
        fetch = _Fetch(name, md5, directory, MIRRORS if mirrors is None else mirrors, meter)
        fetch.start()
        while fetch.is_alive():
            fetch.join(POLL_INTERVAL_S)
            if time.monotonic() - meter.last_byte_s > stall_timeout_s and fetch.is_alive():
                raise DataError(
                    f"nothing of {name} arrived for {stall_timeout_s:g} s (last tried: {fetch.current}; "
                    f"before: {'; '.join(fetch.failures) or 'none'}); is there a network?"
                )
        if not fetch.done:
            raise DataError(f"no mirror gave {name}: {'; '.join(fetch.failures) or 'the download ended early'}")


def _short(error: Exception) -> str:
    reason = getattr(error.args[0], "reason", None) if error.args else None  # urllib3's, inside of requests' error
    text = " ".join(str(reason or error).split())
    return text if len(text) <= 160 else f"{text[:157]}..."
