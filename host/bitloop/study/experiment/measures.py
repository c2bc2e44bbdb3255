"""What MODELs are worth on a split, exactly, each measured once and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitloop.bench.metrics import Proportion, wilson
from bitloop.data.dataset import Images
from bitloop.quantize.entropy import model_entropy
from bitloop.quantize.model import Model
from bitloop.study.evaluate import Evaluator
from bitloop.study.folder import Lines, read_lines
from bitloop.study.measure import measure_model
from bitloop.study.results import Measured, from_line

__all__ = ["CHECKED_IMAGES", "Measure", "Measures"]

CHECKED_IMAGES = 1_000
"""Images of each MODEL on which core, reference and what is judged are held together."""


@dataclass(frozen=True)
class Measure:
    """A line of the file: a MODEL on a split.

    Attributes:
        model_sha256: of the MODEL.
        dataset_sha256: of the data set.
        split: of the images.
        images: how many, from the front.
        coded_bytes: of the MODEL with its codes entropy coded where that is shorter, scales included.
        measured: the figures.
    """

    model_sha256: str
    dataset_sha256: str
    split: str
    images: int
    coded_bytes: int
    measured: Measured

    @property
    def accuracy(self) -> Proportion:
        """With its 95 % Wilson interval."""
        return wilson(self.measured.correct, self.images)

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which images are labelled right, bool ``[images]``."""
        return self.measured.right_images(self.images)


class Measures:
    """Measures MODELs, and keeps what came of it in a file of lines.

    Args:
        path: the file; what is in it is not measured again.

    Raises:
        DataError: the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[tuple[str, str, str, int], Measure] = {}
        for number, line in enumerate(read_lines(path), start=1):
            measure = from_line(Measure, line, f"{path}, line {number}")
            measure.measured.right_images(measure.images)
            self._found[_key(measure)] = measure

    def of(self, model: Model, images: Images) -> Measure:
        """Return what a MODEL is worth on images.

        Raises:
            DisagreementError: core, reference and what is judged do not agree.
            BitloopError: the MODEL cannot be run.
        """
        key = (model.sha256, images.sha256, images.split.value, len(images))
        if key not in self._found:
            measure = _measure(model, images)
            with Lines(self._path) as lines:
                lines.append(measure)
            self._found[key] = measure
        return self._found[key]

    def recall(self, model: Model, dataset_sha256: str, split: str) -> Measure | None:
        """Return what was measured of a MODEL on a split before, without its images; None if nothing was."""
        return next(
            (
                measure
                for measure in self._found.values()
                if (measure.model_sha256, measure.dataset_sha256, measure.split)
                == (model.sha256, dataset_sha256, split)
            ),
            None,
        )


def _key(measure: Measure) -> tuple[str, str, str, int]:
    return measure.model_sha256, measure.dataset_sha256, measure.split, measure.images


def _measure(model: Model, images: Images) -> Measure:
    evaluator = Evaluator(model, images.pixels)
    measured = measure_model(evaluator, model, images.labels, CHECKED_IMAGES)
    coded = model_entropy(model).coded_bytes
    return Measure(model.sha256, images.sha256, images.split.value, len(images), coded, measured)
