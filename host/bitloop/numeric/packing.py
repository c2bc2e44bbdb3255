"""Codes to bytes and back (docs/model.md, "Packing")."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError
from bitloop.spec import TRITS_PER_BYTE, Packing

MAX_WIDTH_BITS = 32
_BLOCK = 1 << 15  # codes at a time, a multiple of 8: every block but the last ends at a byte
_TRIT_WEIGHTS = np.array([3**i for i in range(TRITS_PER_BYTE)], dtype=np.uint32)
_TRIT_BYTES = 3**TRITS_PER_BYTE  # 243 bytes are used
# Digit (element + 1) of a 2-bit two's complement code, and back. The unused code 2 is refused before.
_DIGIT_OF_CODE = np.array([1, 2, 0, 0], dtype=np.uint32)
_CODE_OF_DIGIT = np.array([3, 0, 1], dtype=np.uint32)


def packed_bytes(count: int, width: int, packing: Packing = Packing.BITS) -> int:
    """Return how many bytes ``count`` codes take.

    Args:
        count: codes, 0 or more.
        width: bits of a code, 1 to 32 (not looked at for trits).
        packing: how they lie in bytes.

    Raises:
        FormatError: the width is out of range.
    """
    if packing is Packing.TRITS:
        return -(-count // TRITS_PER_BYTE)
    _check_width(width)
    return -(-count * width // 8)


def pack_bits(codes: npt.ArrayLike, width: int) -> bytes:
    """Pack codes into a little-endian bit stream: code i at bits [i*width, (i+1)*width), bit k in byte k>>3 at k&7.

    Args:
        codes: unsigned integers below ``2**width``, taken in row-major order.
        width: bits of a code, 1 to 32.

    Returns:
        ``packed_bytes(codes.size, width)`` bytes; unused bits of the last one are zero.

    Raises:
        FormatError: the width is out of range, or a code does not fit in it.
    """
    _check_width(width)
    flat = np.asarray(codes, dtype=np.uint32).reshape(-1)
    if flat.size and int(flat.max()) >> width:
        raise FormatError(f"a code of {width} bits was expected, found {int(flat.max()):#x}")
    if width in (8, 16, 32):
        return flat.astype(f"<u{width // 8}").tobytes()
    parts = []
    for start in range(0, flat.size, _BLOCK):
        block = flat[start : start + _BLOCK].astype("<u4").view(np.uint8).reshape(-1, 4)
        parts.append(np.packbits(np.unpackbits(block, axis=1, count=width, bitorder="little"), bitorder="little"))
    return b"".join(part.tobytes() for part in parts)


def unpack_bits(data: bytes | memoryview, width: int, count: int) -> npt.NDArray[np.uint32]:
    """Return the codes that :func:`pack_bits` packed.

    Args:
        data: exactly ``packed_bytes(count, width)`` bytes.
        width: bits of a code, 1 to 32.
        count: number of codes.

    Returns:
        uint32 ``[count]``.

    Raises:
        FormatError: the width is out of range, the length is another one, or a padding bit is not zero.
    """
    _check_length(data, packed_bytes(count, width), count)
    raw = np.frombuffer(data, dtype=np.uint8)
    if width in (8, 16, 32):
        return raw.view(f"<u{width // 8}").astype(np.uint32)
    if count * width % 8 and int(raw[-1]) >> (count * width % 8):
        raise FormatError(f"padding bits behind the last of {count} codes are not zero")
    codes = np.zeros((count, 4), dtype=np.uint8)
    for start in range(0, count, _BLOCK):
        n = min(_BLOCK, count - start)
        block = raw[start * width // 8 :][: packed_bytes(n, width)]
        bits = np.unpackbits(block, count=n * width, bitorder="little").reshape(n, width)
        codes[start : start + n, : -(-width // 8)] = np.packbits(bits, axis=1, bitorder="little")
    return codes.view("<u4").reshape(-1).astype(np.uint32, copy=False)


def pack_trits(codes: npt.ArrayLike) -> bytes:
    """Pack ternary codes (2-bit two's complement: 0, 1, 3) as five digits a byte, least significant first.

    Args:
        codes: taken in row-major order.

    Returns:
        ``ceil(codes.size / 5)`` bytes, each below 243; missing digits of the last one are zero.

    Raises:
        FormatError: a code is not 0, 1 or 3.
    """
    flat = np.asarray(codes, dtype=np.uint32).reshape(-1)
    if flat.size and (int(flat.max()) > 3 or (flat == 2).any()):
        raise FormatError("ternary codes are 0 (0), 1 (+1) and 3 (-1); found another")
    digits = np.zeros(packed_bytes(flat.size, 2, Packing.TRITS) * TRITS_PER_BYTE, dtype=np.uint32)
    digits[: flat.size] = _DIGIT_OF_CODE[flat]
    return (digits.reshape(-1, TRITS_PER_BYTE) @ _TRIT_WEIGHTS).astype(np.uint8).tobytes()


def unpack_trits(data: bytes | memoryview, count: int) -> npt.NDArray[np.uint32]:
    """Return the ternary codes that :func:`pack_trits` packed.

    Args:
        data: exactly ``ceil(count / 5)`` bytes.
        count: number of codes.

    Returns:
        uint32 ``[count]`` of 0, 1 and 3.

    Raises:
        FormatError: the length is another one, a byte is above 242, or a missing digit is not zero.
    """
    _check_length(data, packed_bytes(count, 2, Packing.TRITS), count)
    raw = np.frombuffer(data, dtype=np.uint8).astype(np.uint32)
    if raw.size and int(raw.max()) >= _TRIT_BYTES:
        raise FormatError(f"a byte of five ternary digits is at most {_TRIT_BYTES - 1}, found {int(raw.max())}")
    digits = (raw[:, None] // _TRIT_WEIGHTS % 3).reshape(-1)
    if digits[count:].any():
        raise FormatError(f"padding digits behind the last of {count} ternary codes are not zero")
    return np.take(_CODE_OF_DIGIT, digits[:count])


def pack(codes: npt.ArrayLike, width: int, packing: Packing) -> bytes:
    """Pack codes either way; see :func:`pack_bits` and :func:`pack_trits`."""
    return pack_trits(codes) if packing is Packing.TRITS else pack_bits(codes, width)


def unpack(data: bytes | memoryview, width: int, count: int, packing: Packing) -> npt.NDArray[np.uint32]:
    """Unpack codes either way; see :func:`unpack_bits` and :func:`unpack_trits`."""
    return unpack_trits(data, count) if packing is Packing.TRITS else unpack_bits(data, width, count)


def _check_width(width: int) -> None:
    if not 1 <= width <= MAX_WIDTH_BITS:
        raise FormatError(f"a packed code has 1 to {MAX_WIDTH_BITS} bits, not {width}")


def _check_length(data: bytes | memoryview, expected: int, count: int) -> None:
    if len(data) != expected:
        raise FormatError(f"{count} packed codes take {expected} bytes, found {len(data)}")
