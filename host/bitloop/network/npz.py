"""``.npz`` files of numbers and texts: no pickle is written or opened, and nothing in a file is trusted."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError
from bitloop.spec import MAX_MODEL_BYTES

DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    SyntaxError,
    RecursionError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile, zlib, json and numpy's header reader raise on damaged files."""


def read_members(path: Path) -> dict[str, npt.NDArray[Any]]:
    """Return the arrays of a ``.npz`` file, read-only.

    Raises:
        NetworkError: It unpacks to more than a network may have, or an array is damaged or of another type than floats
            and texts.
        Exception: One of :data:`DAMAGE`.
    """
    members: dict[str, npt.NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        if sum(info.file_size for info in infos) > MAX_MODEL_BYTES:
            raise NetworkError(f"the file unpacks to more than {MAX_MODEL_BYTES} bytes")
        for info in infos:
            key = info.filename.removesuffix(".npy")
            if key in members:
                raise NetworkError(f"the file holds {key!r} twice")
            members[key] = _parse_npy(key, archive.read(info))
    return members


def pop_text(members: dict[str, npt.NDArray[Any]], key: str) -> str:
    """Take a text out of the arrays of a file.

    Raises:
        NetworkError: There is none of that name.
    """
    array = members.pop(key, None)
    if array is None or array.shape != () or array.dtype.kind != "U":
        raise NetworkError(f"the file has no text {key!r}, so bitloop did not write it")
    return str(array[()])


def _parse_npy(key: str, data: bytes) -> npt.NDArray[Any]:
    """Read an array of float32 or text, whose bytes must be exactly as many as its header says."""
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise NetworkError(f"array {key!r} has an unknown version")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fU" or fortran_order:
        raise NetworkError(f"array {key!r} is of type {dtype}, expected float32 in row-major order, or text")
    body = data[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise NetworkError(f"array {key!r} has {len(body)} bytes, but shape {shape} of {dtype}")
    if not body:
        return np.zeros(shape, dtype)
    return np.frombuffer(body, dtype).reshape(shape)
