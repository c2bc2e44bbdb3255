"""IDX, the file format of MNIST (Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits).

Two zero bytes, a type (8: unsigned byte), the number of dimensions, each dimension as a big-endian u32, the elements.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib

import numpy as np
import numpy.typing as npt

from bitloop.errors import DataError

U8 = npt.NDArray[np.uint8]

UNSIGNED_BYTE = 0x08
GZIP_MAGIC = b"\x1f\x8b"


def unwrap(data: bytes, *, most_bytes: int) -> bytes:
    """Return the contents of a file that may be gzip or raw.

    Args:
        data: The file.
        most_bytes: More than this many bytes of contents are refused.

    Raises:
        DataError: The gzip stream is damaged, or unpacks to too much.
    """
    if data.startswith(GZIP_MAGIC):
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
                data = stream.read(most_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"the gzip stream is damaged: {error}") from error
    if len(data) > most_bytes:
        raise DataError(f"it holds more than the {most_bytes} bytes that were expected")
    return data


def header(shape: tuple[int, ...]) -> bytes:
    """Return the bytes before the elements of an IDX file of unsigned bytes."""
    return bytes((0, 0, UNSIGNED_BYTE, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


def parse(data: bytes, shape: tuple[int, ...]) -> U8:
    """Return the array of an IDX file of unsigned bytes.

    Args:
        data: Contents of the file, not compressed.
        shape: What it must hold, e.g. (60000, 28, 28).

    Raises:
        DataError: Magic, dimensions or length are not what they must be.
    """
    expected = header(shape)
    if data[:4] != expected[:4]:
        raise DataError(f"it starts with {data[:4].hex(' ')}, but an IDX file of these with {expected[:4].hex(' ')}")
    if data[: len(expected)] != expected:
        count = (min(len(data), len(expected)) - 4) // 4
        found = struct.unpack(f">{count}I", data[4 : 4 + 4 * count])
        raise DataError(f"its dimensions are {found}, expected {shape}")
    size = len(data) - len(expected)
    if size != math.prod(shape):
        raise DataError(f"it holds {size} elements, but its dimensions {shape} need {math.prod(shape)}")
    return np.frombuffer(data, np.uint8, offset=len(expected)).reshape(shape)
