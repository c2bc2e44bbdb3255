"""The compiled core through ctypes: strict types, nothing but thin calls."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.errors import ToolchainError
from bitloop.native.build import shared_library


class CFormat(ctypes.Structure):
    """``bl_format`` of device/core/bl_format.h: the first fields of a tensor record (docs/model.md)."""

    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("width", ctypes.c_uint8),
        ("exponent_bits", ctypes.c_uint8),
        ("mantissa_bits", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("top", ctypes.c_uint8),
        ("packing", ctypes.c_uint8),
        ("bias", ctypes.c_int16),
    )


_U32 = ctypes.c_uint32
_POINTER = ctypes.c_void_p
_FORMAT = ctypes.POINTER(CFormat)

_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "bl_native_init": (None, ()),
    "bl_native_evaluate": (None, (ctypes.c_char_p, _U32, _POINTER, _POINTER, _U32, _POINTER)),
    "bl_native_activations": (
        _U32,
        (ctypes.c_char_p, _U32, _POINTER, _POINTER, ctypes.c_uint16, _POINTER, _U32),
    ),
    "bl_native_decode": (None, (_FORMAT, _POINTER, _U32, ctypes.c_int32, _POINTER)),
    "bl_native_finite": (None, (_FORMAT, _POINTER, _U32, _POINTER)),
    "bl_native_read_row": (_U32, (_FORMAT, ctypes.c_char_p, _U32, _POINTER)),
    "bl_format_check": (ctypes.c_int, (_FORMAT, ctypes.POINTER(_U32))),
    "bl_image_validate": (ctypes.c_int, (ctypes.c_char_p, _U32, _U32, ctypes.POINTER(_U32))),
    "bl_probe_run": (None, (_POINTER,)),
}


@functools.cache
def library() -> ctypes.CDLL:
    """Return the compiled core, with the types of its functions set.

    Raises:
        ToolchainError: it could not be compiled or loaded.
    """
    path = shared_library()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        message = f"the compiled core {path} could not be loaded: {error}; delete it, and it will be compiled anew"
        raise ToolchainError(message) from error
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    loaded.bl_native_init()
    return loaded


def validate_image(image: bytes, arena_bytes: int) -> tuple[spec.Status, tuple[int, int]]:
    """Check an image as the device does.

    Args:
        image: the bytes that would be sent.
        arena_bytes: what the device has.

    Returns:
        The status and its two details (docs/protocol.md).
    """
    details = (_U32 * 2)()
    status = library().bl_image_validate(image, len(image), arena_bytes, details)
    return spec.Status(status), (details[0], details[1])


def check_format(format_: CFormat) -> tuple[spec.Status, int]:
    """Check a format as the device does; returns the status and the offset of the refused field."""
    field = _U32()
    status = library().bl_format_check(ctypes.byref(format_), ctypes.byref(field))
    return spec.Status(status), field.value


def decode(codes: npt.ArrayLike, format_: CFormat, zero_point: int = 0) -> npt.NDArray[np.float32]:
    """Decode finite codes, any shape, to their elements."""
    array = np.ascontiguousarray(codes, dtype=np.uint32)
    elements = np.empty(array.shape, dtype=np.float32)
    library().bl_native_decode(ctypes.byref(format_), array.ctypes.data, array.size, zero_point, elements.ctypes.data)
    return elements


def is_finite_code(codes: npt.ArrayLike, format_: CFormat) -> npt.NDArray[np.bool_]:
    """Tell, for each code, whether it is a finite number."""
    array = np.ascontiguousarray(codes, dtype=np.uint32)
    finite = np.empty(array.shape, dtype=np.uint8)
    library().bl_native_finite(ctypes.byref(format_), array.ctypes.data, array.size, finite.ctypes.data)
    return finite.astype(np.bool_)


def read_row(row: bytes, count: int, format_: CFormat) -> tuple[npt.NDArray[np.uint32], int]:
    """Unpack the first ``count`` codes of a row (trits as 2-bit codes); returns them and the number of bytes read.

    Raises:
        ValueError: the row is too short.
    """
    bits = -(-count // spec.TRITS_PER_BYTE) if format_.packing == spec.Packing.TRITS else -(-count * format_.width // 8)
    if len(row) < bits:
        message = f"a row of {len(row)} bytes is too short for {count} codes ({bits} bytes)"
        raise ValueError(message)
    codes = np.empty(count, dtype=np.uint32)
    used = library().bl_native_read_row(ctypes.byref(format_), row, count, codes.ctypes.data)
    return codes, int(used)


def probe_results() -> list[int]:
    """Return the results of the arithmetic probe on this machine, in the order of ``spec.PROBE_CASES``."""
    results = (_U32 * len(spec.PROBE_CASES))()
    library().bl_probe_run(results)
    return list(results)
