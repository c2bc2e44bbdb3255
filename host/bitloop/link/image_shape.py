"""What the link must know of an image: how its results are cut up, and what weights it leaves out."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Protocol

from bitloop import spec
from bitloop.errors import UsageError


@dataclass(frozen=True)
class ImageShape:
    """What the link must know of an image to cut its results up, and to stream its weights.

    Attributes:
        input_shape: Height, width, channels.
        layers: Number of layer records.
        logits: Number of logits.
        slots: Images the device holds; a batch, if weights are streamed.
        streamed_bytes: Bytes of weights that travel with each batch, 0 if all are in the image.
    """

    input_shape: tuple[int, int, int]
    layers: int
    logits: int
    slots: int = 1
    streamed_bytes: int = 0

    @classmethod
    def of(cls, image: bytes) -> ImageShape | None:
        """Read the image's header; None when it is too short to have one (the device will refuse it)."""
        if len(image) < spec.IMAGE_HEADER_BYTES:
            return None
        (layers,) = struct.unpack_from("<H", image, 12)
        height, width, channels = struct.unpack_from("<HHH", image, 20)
        (slots,) = struct.unpack_from("<H", image, 36)
        logits, streamed_bytes = struct.unpack_from("<II", image, 48)
        return cls((height, width, channels), layers, logits, slots, streamed_bytes)

    @property
    def pixels(self) -> int:
        """Bytes of one input."""
        height, width, channels = self.input_shape
        return height * width * channels


class Weights(Protocol):
    """Weights that are not in the image, as :class:`bitloop.plan.StreamedWeights` has them."""

    @property
    def data(self) -> bytes:
        """What one batch needs, in the order it is needed."""

    @property
    def ends(self) -> tuple[int, ...]:
        """For each layer, the offset behind its weights, or behind those before it."""


def check_weights(shape: ImageShape | None, weights: Weights | None) -> None:
    """See that an image comes with the weights that it leaves out.

    Raises:
        UsageError: They are missing, or others.
    """
    expected = 0 if shape is None else shape.streamed_bytes
    if weights is None:
        if expected:
            raise UsageError(
                f"the image leaves out {expected} bytes of weights, which travel with each batch; upload it with them"
            )
        return
    if shape is None or not expected or len(weights.data) != expected:
        raise UsageError(f"{len(weights.data)} bytes of weights to stream, the image leaves out {expected}")
    ends = (0, *weights.ends)
    if len(weights.ends) != shape.layers or list(ends) != sorted(ends) or ends[-1] != expected:
        raise UsageError(
            f"the weights to stream end at {list(weights.ends)}, the image has {shape.layers} layers and leaves out "
            f"{expected} bytes"
        )
