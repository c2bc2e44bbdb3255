"""What an atlas writes: how it was asked for, one line a point, and one a point on a device; fields are the keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bitloop.bench.record import HostIdentity, Versions
from bitloop.errors import DataError
from bitloop.quantize.model import Model
from bitloop.study.bit_positions import BitPosition, positions_of
from bitloop.study.device import DeviceCell
from bitloop.study.folder import StudyFolder, read_lines
from bitloop.study.results import Measured, from_line

__all__ = [
    "ATLAS_VERSION",
    "BASE_KEY",
    "AtlasAsked",
    "AtlasBegun",
    "AtlasFolder",
    "DevicePoint",
    "Point",
    "PointOutcome",
    "points_of",
]

ATLAS_VERSION = 1
BASE_KEY = "base"
"""Key of the MODEL without a flip, which everything is held against."""


@dataclass(frozen=True)
class Point:
    """A bit position of a tensor's codes."""

    tensor: str
    position: BitPosition

    @property
    def key(self) -> str:
        """A text that no other point of an atlas has: tensor, and number of the bit."""
        return f"{self.tensor}[{self.position.bit}]"


def points_of(model: Model) -> list[Point]:
    """Return the points of a MODEL: of each tensor each bit, the most significant one first."""
    return [Point(name, place) for name, tensor in model.tensors.items() for place in positions_of(tensor.format)]


@dataclass(frozen=True)
class AtlasAsked:
    """What decides every figure of an atlas: two that were asked the same have the same points.

    Attributes:
        model: its name.
        model_sha256: of the MODEL without a flip.
        dataset: name of the data set.
        dataset_sha256: of all of it.
        split: "search" or "confirm".
        images: how many, from the front of the split.
        checked: images of each point that are computed again in other ways.
        share: of a tensor's codes that are struck, in (0, 1].
        seed: by which they are chosen; 0 where all are.
        formats: of each tensor, in the order of the network.
        points: keys of all points, in their order; the first is the MODEL without a flip.
    """

    model: str
    model_sha256: str
    dataset: str
    dataset_sha256: str
    split: str
    images: int
    checked: int
    share: float
    seed: int
    formats: tuple[str, ...]
    points: tuple[str, ...]


@dataclass(frozen=True)
class AtlasBegun:
    """``atlas.json``: how an atlas was begun."""

    version: int
    started: str
    command: str
    asked: AtlasAsked
    versions: Versions
    host: HostIdentity


@dataclass(frozen=True)
class PointOutcome:
    """A line of ``points.jsonl``: a point, and what came of it. The same point gives the same line each time.

    Attributes:
        point: its key.
        changed: codes that were flipped.
        left: codes that were to be, and stayed: see :class:`bitloop.study.bit_positions.Flip`.
        mean_change: as there.
        measured: what the MODEL with the flip is worth.
    """

    point: str
    changed: int
    left: int
    mean_change: float | None
    measured: Measured


@dataclass(frozen=True)
class DevicePoint(DeviceCell):
    """A line of ``device.jsonl``: a point (``cell`` is its key) on a device, bit-identical to the host, or refused.

    Attributes:
        correct: images that the device labels right; None where it was refused.
    """

    correct: int | None = None


class AtlasFolder(StudyFolder[AtlasBegun]):
    """Where an atlas keeps its files."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, noun="atlas", parts="points", kind=AtlasBegun, version=ATLAS_VERSION)

    def read_points(self, asked: AtlasAsked, sizes: Mapping[str, int]) -> dict[str, PointOutcome]:
        """Read the points that were measured, by their key; a last line that was cut off is left out.

        Args:
            asked: what the atlas was asked.
            sizes: by a point's key, how many codes were struck.

        Raises:
            DataError: a line is damaged, or of another atlas.
        """
        found: dict[str, PointOutcome] = {}
        for number, line in enumerate(read_lines(self.lines), start=1):
            where = f"{self.lines}, line {number}"
            outcome = from_line(PointOutcome, line, where)
            if outcome.point in found or sizes.get(outcome.point) != outcome.changed + outcome.left:
                raise DataError(
                    f"{where}: point {outcome.point!r} is there twice, not of this atlas, or counts other codes than "
                    "were struck; begin a new one"
                )
            outcome.measured.right_images(asked.images)
            found[outcome.point] = outcome
        return found
