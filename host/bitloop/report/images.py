"""Small grey pictures as PNG (ISO/IEC 15948), written with the standard library alone."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["data_uri", "png"]


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a grey PNG.

    Args:
        pixels: uint8 ``[H, W]`` or ``[H, W, C]``; of several channels the mean is shown. 0 is black.
    """
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2).round().astype(np.uint8)
    height, width = grey.shape
    rows = b"".join(b"\0" + grey[y].tobytes() for y in range(height))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
            _chunk(b"IDAT", zlib.compress(rows, 9)),
            _chunk(b"IEND", b""),
        )
    )


def data_uri(pixels: npt.NDArray[np.uint8]) -> str:
    """Return a PNG as a ``data:`` URI, to stand inside of a page."""
    return "data:image/png;base64," + base64.b64encode(png(pixels)).decode("ascii")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
