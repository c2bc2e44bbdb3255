"""The journal of a run: ``samples.jsonl``, one line an image, appended and flushed as the results arrive."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import DataError, UsageError

__all__ = ["Journal", "Sample", "logits_from_hex", "logits_to_hex", "read_samples", "whole_bytes"]

_LOGGER = logging.getLogger(__name__)
_MAX_PIXEL_BYTES = 1 << 20
_TAIL_BYTES = 1 << 16
_KEYS = {"index", "label", "device", "host", "match", "ulp", "ticks", "logits"}
_OPTIONAL = {"host_logits", "layer_ticks", "pixels"}


def logits_to_hex(logits: npt.NDArray[np.float32]) -> tuple[str, ...]:
    """Return the bit patterns of binary32 numbers ``[classes]``, eight hex digits each."""
    return tuple(f"{int(pattern):08x}" for pattern in np.ascontiguousarray(logits, dtype=np.float32).view(np.uint32))


def logits_from_hex(patterns: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """Return the binary32 numbers ``[classes]`` of bit patterns, NaNs included."""
    return np.array([int(pattern, 16) for pattern in patterns], dtype=np.uint32).view(np.float32)


@dataclass(frozen=True)
class Sample:
    """One image of a run.

    Attributes:
        index: its place in the data set's split.
        label: the true label.
        device: the label the device answered.
        host: the label of the host simulation.
        match: whether all logits are the same bits.
        ulp: greatest distance of a logit in ULP; 0 if they match.
        ticks: the device's time for it, in the timer's unit.
        logits: the device's logits, binary32 bit patterns in hex.
        host_logits: the host's; kept where they differ.
        layer_ticks: ticks of each operation, if they were asked for.
        pixels: uint8, row-major, deflated in base64; kept where a label is wrong or logits differ, for the report.
    """

    index: int
    label: int
    device: int
    host: int
    match: bool
    ulp: int
    ticks: int
    logits: tuple[str, ...]
    host_logits: tuple[str, ...] | None = None
    layer_ticks: tuple[int, ...] | None = None
    pixels: str | None = None

    def to_json(self) -> str:
        """Return the line, without its end; keys that hold nothing are left out."""
        document: dict[str, Any] = {
            "index": self.index,
            "label": self.label,
            "device": self.device,
            "host": self.host,
            "match": self.match,
            "ulp": self.ulp,
            "ticks": self.ticks,
            "logits": list(self.logits),
        }
        if self.host_logits is not None:
            document["host_logits"] = list(self.host_logits)
        if self.layer_ticks is not None:
            document["layer_ticks"] = list(self.layer_ticks)
        if self.pixels is not None:
            document["pixels"] = self.pixels
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Sample:
        """Read a line.

        Raises:
            ValueError: if it is no sample.
        """
        document = json.loads(line)
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        keys = set(document)
        if not _KEYS <= keys <= _KEYS | _OPTIONAL:
            raise ValueError(f"keys are {sorted(keys)}, expected {sorted(_KEYS)}")
        for name in ("index", "label", "device", "host", "ulp", "ticks"):
            if type(document[name]) is not int:
                raise ValueError(f"{name} is {document[name]!r}, expected a whole number")
        if type(document["match"]) is not bool:
            raise ValueError(f"match is {document['match']!r}, expected true or false")
        layer_ticks = document.get("layer_ticks")
        if layer_ticks is not None and not all(type(ticks) is int for ticks in layer_ticks):
            raise ValueError("layer_ticks holds something that is no whole number")
        pixels = document.get("pixels")
        if pixels is not None and not isinstance(pixels, str):
            raise ValueError("pixels is no text")
        return cls(
            index=document["index"],
            label=document["label"],
            device=document["device"],
            host=document["host"],
            match=document["match"],
            ulp=document["ulp"],
            ticks=document["ticks"],
            logits=_patterns(document["logits"]),
            host_logits=_patterns(document["host_logits"]) if "host_logits" in document else None,
            layer_ticks=None if layer_ticks is None else tuple(layer_ticks),
            pixels=pixels,
        )


def _patterns(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("logits are no list")
    for item in value:
        if not isinstance(item, str) or len(item) != 8:
            raise ValueError(f"{item!r} is no binary32 bit pattern of eight hex digits")
        int(item, 16)
    return tuple(value)


def pack_pixels(pixels: npt.NDArray[np.uint8]) -> str:
    """Return an image's bytes, deflated, in base64."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(pixels).tobytes(), 9)).decode("ascii")


def unpack_pixels(text: str, shape: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """Return the image ``[H, W, C]`` that :func:`pack_pixels` packed.

    Raises:
        DataError: if the text is damaged or holds an image of another size.
    """
    try:
        inflater = zlib.decompressobj()
        data = inflater.decompress(base64.b64decode(text, validate=True), _MAX_PIXEL_BYTES)
        return np.frombuffer(data, dtype=np.uint8).reshape(shape)
    except (ValueError, zlib.error) as error:
        raise DataError(f"the pixels of a sample are damaged: {error}") from error


class Journal:
    """Appends samples to a file; each batch is with the operating system before the next is asked for.

    That is enough for a process that is killed; :meth:`sync` is for power that fails.

    Args:
        path: the file.
        keep_bytes: None makes a new file; else so much of the one that is there is kept, and the rest cut off.

    Raises:
        UsageError: a new file is there already, or the file cannot be made or written.
    """

    def __init__(self, path: Path, *, keep_bytes: int | None = None) -> None:
        try:
            self._file = path.open("xb" if keep_bytes is None else "ab", buffering=0)
            self._file.truncate(keep_bytes or 0)
        except OSError as error:
            raise UsageError(f"the journal {path} cannot be made: {error.strerror}") from error
        self._path = path
        self._end = keep_bytes or 0
        self._dirty = keep_bytes is not None

    def append(self, samples: list[Sample]) -> None:
        """Hand samples to the operating system, as whole lines.

        Raises:
            UsageError: they cannot be written, as on a full disk; what was written before stays, and nothing else.
        """
        data = memoryview("".join(sample.to_json() + "\n" for sample in samples).encode("ascii"))
        written = 0
        try:
            while written < len(data):
                written += self._file.write(data[written:]) or 0
        except OSError as error:
            with contextlib.suppress(OSError):  # a line cut off is told from a whole one by readers, too
                self._file.truncate(self._end)
            raise self._unwritable(error) from error
        self._end += written
        self._dirty = True

    def sync(self) -> None:
        """Bring what was appended to the disk; nothing to do if it is there. Another thread may do this.

        Raises:
            UsageError: it cannot be done.
        """
        if not self._dirty:
            return
        self._dirty = False
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file; twice does no harm."""
        with contextlib.suppress(OSError):  # what could not be written was told by append
            self._file.close()

    def _unwritable(self, error: OSError) -> UsageError:
        return UsageError(
            f"the journal {self._path} cannot be written: {error.strerror}; make room, then go on with "
            f"bitloop run --resume {self._path.parent}"
        )

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def read_samples(path: Path) -> Iterator[Sample]:
    """Read a journal line by line.

    A last line without its end was cut off by a crash in mid-write: it is left out, with a warning in the log.

    Raises:
        DataError: if the file is missing, or a line is no sample (it is named).
    """
    try:
        file = path.open(encoding="ascii", newline="\n")
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error
    with file:
        try:
            for number, line in enumerate(file, start=1):
                if not line.endswith("\n"):
                    _LOGGER.warning("%s: line %d was cut off and is left out", path, number)
                    return
                try:
                    yield Sample.from_json(line)
                except (ValueError, TypeError, RecursionError) as error:
                    raise DataError(f"{path}, line {number}, is no sample: {error}") from error
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is no journal: it holds bytes that are no ASCII") from error


def whole_bytes(path: Path) -> int:
    """Return how many bytes of a journal are whole lines: what is behind them was cut off. A missing file has none.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            while end:
                start = max(end - _TAIL_BYTES, 0)
                file.seek(start)
                found = file.read(end - start).rfind(b"\n")
                if found >= 0:
                    return start + found + 1
                end = start
            return 0
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise DataError(f"the journal {path} cannot be read: {error.strerror}") from error
