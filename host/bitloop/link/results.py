"""What a run is asked to do, and what it gives: the layout of result records, results, and their iterator."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.errors import ProtocolError, UsageError
from bitloop.link.image_shape import ImageShape
from bitloop.spec import RunMode, RunOutput


@dataclass(frozen=True, eq=False)
class Result:
    """What the device computed for one image.

    Attributes:
        index: Position of the image in the run.
        label: The class that the device chose.
        ticks: Duration, in the unit of :attr:`bitloop.hello.DeviceInfo.timer_unit`.
        logits: float32 ``[classes]`` if asked for, bit for bit as they travelled.
        layer_ticks: uint32 ``[layers]`` if asked for.
    """

    index: int
    label: int
    ticks: int
    logits: npt.NDArray[np.float32] | None
    layer_ticks: npt.NDArray[np.uint32] | None


@dataclass(frozen=True)
class RunPlan:
    """What a run is asked to do."""

    mode: RunMode
    outputs: RunOutput
    stop_layer: int
    images: int
    shape: ImageShape

    @property
    def batch(self) -> int:
        """Images that the device computes one beside another."""
        return 1 if self.stop_layer != spec.NO_LAYER else self.shape.slots

    def record(self) -> np.dtype[np.void]:
        """Give the layout of a result record."""
        stops = self.stop_layer != spec.NO_LAYER
        logits = self.shape.logits if self.outputs & RunOutput.LOGITS and not stops else 0
        computed = self.stop_layer + 1 if stops else self.shape.layers
        layers = computed if self.outputs & RunOutput.LAYER_TICKS else 0
        return np.dtype(
            [("label", "<u2"), ("reserved", "<u2"), ("ticks", "<u8"), ("logits", "<f4", (logits,)),
             ("layer_ticks", "<u4", (layers,))]
        )  # fmt: skip


def unpack(records: npt.NDArray[np.void], first: int, classes: int) -> list[Result]:
    """Give the results in records, of images from ``first`` on.

    Raises:
        ProtocolError: A label is none of the ``classes``.
    """
    labels = records["label"].tolist()
    if max(labels) >= max(classes, 1):
        raise ProtocolError(
            f"the device sent label {max(labels)} for a network of {classes} classes; its firmware is faulty"
        )
    logits = records["logits"].astype(np.float32) if records["logits"].shape[1] else None
    layer_ticks = records["layer_ticks"].astype(np.uint32) if records["layer_ticks"].shape[1] else None
    return [
        Result(
            first + i,
            label,
            ticks,
            None if logits is None else logits[i],
            None if layer_ticks is None else layer_ticks[i],
        )
        for i, (label, ticks) in enumerate(zip(labels, records["ticks"].tolist(), strict=True))
    ]


class ImageRun(Iterator[Result]):
    """Results of a run, in order; also a context manager. Made by :meth:`bitloop.link.session.Session.run`."""

    def __init__(self, results: Generator[Result, None, None]) -> None:
        self._results = results
        self._finished = False
        self._abandoned = False

    def __iter__(self) -> ImageRun:
        return self

    def __next__(self) -> Result:
        if self._abandoned:
            raise UsageError("this run was ended because its session was used for something else; begin another")
        try:
            return next(self._results)
        except BaseException:
            self._finished = True
            raise

    def __enter__(self) -> ImageRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the run on the device, if it has not ended yet."""
        self._finished = True
        self._results.close()

    def abandon(self) -> None:
        """Close because the session is wanted for something else; asking for more results is an error from then on."""
        self._abandoned = not self._finished
        self.close()
