"""What a sweep writes: how it was asked for, and one line a cell. Fields are the keys of the files."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitloop.bench.record import HostIdentity, Versions
from bitloop.bench.strict import build, plain
from bitloop.errors import DataError
from bitloop.study.grid import Cell

__all__ = ["SWEEP_VERSION", "Asked", "Begun", "Measured", "Outcome", "from_line", "pack_right", "to_line"]

SWEEP_VERSION = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """What decides every figure of a sweep: two sweeps that were asked the same have the same cells.

    Attributes:
        network: its name.
        network_sha256: of its MODEL in binary32.
        dataset: name of the data set.
        dataset_sha256: of all of it.
        split: "search" or "confirm".
        images: how many, from the front of the split.
        checked: images of each cell that are computed again in other ways.
        others: spec of the tensors that are not swept.
        cells: keys of all cells, in their order.
    """

    network: str
    network_sha256: str
    dataset: str
    dataset_sha256: str
    split: str
    images: int
    checked: int
    others: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Begun:
    """``sweep.json``: how a sweep was begun."""

    version: int
    started: str
    command: str
    asked: Asked
    versions: Versions
    host: HostIdentity


@dataclass(frozen=True)
class Measured:
    """What a cell is worth on the images of the sweep.

    Attributes:
        model_sha256: of the MODEL, which can be made again from network and recipe.
        correct: images that are labelled right.
        cross_entropy: in nats; None where a logit is infinite or NaN.
        weights_bytes: packed.
        biases_bytes: packed.
        scales_bytes: scales and zero points.
        checked: images on which core, reference and this figure's logits had the same bits.
        right: which images are labelled right: :func:`pack_right`.
    """

    model_sha256: str
    correct: int
    cross_entropy: float | None
    weights_bytes: int
    biases_bytes: int
    scales_bytes: int
    checked: int
    right: str

    @property
    def total_bytes(self) -> int:
        """Weights, biases and scales."""
        return self.weights_bytes + self.biases_bytes + self.scales_bytes

    def right_images(self, count: int) -> npt.NDArray[np.bool_]:
        """Return, for each of ``count`` images, whether it is labelled right.

        Raises:
            DataError: the text does not hold so many, or not as many right ones as ``correct``.
        """
        try:
            data = np.frombuffer(base64.b64decode(self.right, validate=True), np.uint8)
        except ValueError as error:
            raise DataError(f"the images that a cell labels right are damaged: {error}") from error
        bits = np.unpackbits(data)
        if len(data) != -(-count // 8) or bits[count:].any() or int(bits.sum()) != self.correct:
            raise DataError(
                f"a cell says that it labels {self.correct:,} of {count:,} images right, but lists others; its line "
                "was changed: delete it, and the sweep will measure the cell again"
            )
        return bits[:count].astype(np.bool_)


@dataclass(frozen=True)
class Outcome:
    """A line of ``cells.jsonl``: a cell, and what came of it. The same cell gives the same line each time.

    Attributes:
        cell: its key.
        of: see :class:`bitloop.study.grid.Cell`.
        layer: the same.
        spec: the same.
        refused: why the spec cannot be had for these tensors, as a sentence; None if it can.
        measured: the figures; None where it was refused.
    """

    cell: str
    of: str
    layer: str | None
    spec: str
    refused: str | None
    measured: Measured | None

    @classmethod
    def of_cell(cls, cell: Cell, *, refused: str | None = None, measured: Measured | None = None) -> Outcome:
        """Return the outcome of a cell."""
        return cls(cell.key, cell.of, cell.layer, cell.spec, refused, measured)


def pack_right(right: npt.NDArray[np.bool_]) -> str:
    """Return booleans, eight to a byte, the first in the highest bit, in base64."""
    return base64.b64encode(np.packbits(right).tobytes()).decode("ascii")


def to_line(value: object) -> str:
    """Return a dataclass as one line of JSON, without its end."""
    assert dataclasses.is_dataclass(value)
    assert not isinstance(value, type)
    return json.dumps(plain(dataclasses.asdict(value)), allow_nan=False)


def from_line(kind: type[T], text: str, where: str) -> T:
    """Return the dataclass that :func:`to_line` wrote.

    Raises:
        DataError: the text is none; ``where`` is named.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON: {error}") from error
    read = build(kind, document, where)
    assert isinstance(read, kind)
    return read


def outcomes_of(lines: Sequence[str], where: str) -> list[Outcome]:
    """Read the lines of ``cells.jsonl``.

    Raises:
        DataError: one of them is no outcome.
    """
    return [from_line(Outcome, line, f"{where}, line {number}") for number, line in enumerate(lines, start=1)]
