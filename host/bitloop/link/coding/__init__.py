"""Coded data (docs/protocol.md): what a sender needs of it, and the choice of a coding for a whole stream."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bitloop.hello import DeviceInfo
from bitloop.spec import Coding

HEAD_BYTES = 3
"""What a coded frame has more than a plain one: the count, u16, and the coding, u8."""


class Piece(NamedTuple):
    """Coded bytes of one frame, and how many bytes they decode to."""

    count: int  # type: ignore[assignment]
    coding: int
    data: bytes


class Coder(Protocol):
    """Codes one stream of bytes, from anywhere in it; ``size_bytes`` is what all of it comes to, table included."""

    coding: Coding
    table: bytes | None
    size_bytes: int

    def piece(self, offset: int, most_count: int, room_bytes: int) -> Piece | None:
        """Code bytes from ``offset`` on: as many as fit, at most ``most_count``; None if plain bytes are no longer."""


def choose_weights(data: bytes, info: DeviceInfo) -> Coder | None:  # noqa: ARG001
    """Give no coder: bytes travel as they are."""
    return None


def choose_pixels(pixels: npt.NDArray[np.uint8] | bytes, info: DeviceInfo) -> Coder | None:  # noqa: ARG001
    """Give no coder: bytes travel as they are."""
    return None
