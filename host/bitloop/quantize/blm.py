"""The .blm file: bytes to MODEL and back (docs/model.md, byte for byte). Nothing that is read is trusted."""

from __future__ import annotations

import json
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError, ModelError, NetworkError
from bitloop.files import write_atomically
from bitloop.network.architecture import Architecture
from bitloop.numeric.formats import parse_format
from bitloop.numeric.packing import packed_bytes, unpack
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import MAX_MODEL_BYTES, MODEL_MAGIC, MODEL_VERSION, Granularity, Packing, ScaleKind

_PREAMBLE = struct.Struct("<4sHHII")  # magic, version, reserved, file length, header length
_CRC = struct.Struct("<I")
MAX_HEADER_BYTES = 1 << 24
MAX_ELEMENTS = 1 << 26
"""Most codes in all tensors together (as many as fill the largest file with fp32): bounds the reader's memory."""
_HEADER_KEYS = {"name", "dataset", "recipe", "architecture", "tensors"}
_TENSOR_KEYS = {
    *("name", "shape", "format", "scale", "granularity", "rounding", "packing"),
    *("offset", "length", "scales", "zero_points", "groups"),
}
_SCALES = {kind.name.lower(): kind for kind in ScaleKind}
_GRANULARITIES = {granularity.name.lower(): granularity for granularity in Granularity}
_ROUNDINGS = {rounding.value: rounding for rounding in Rounding}
_PACKINGS = {packing.name.lower(): packing for packing in Packing}


def save(model: Model, path: Path | str) -> None:
    """Write a MODEL so that the file is whole or not there at all.

    Raises:
        ModelError: the model is too large for a file, or the file cannot be written.
    """
    target = Path(path)
    data = to_bytes(model)
    try:
        write_atomically(target, data)
    except OSError as error:
        why = error.strerror or error
        raise ModelError(f"cannot write {target}: {why}; name a folder that exists and is yours, with room") from error


def load(path: Path | str) -> Model:
    """Read a MODEL.

    Raises:
        ModelError: there is no such file, or it is damaged, truncated, oversized or hostile; the message says how.
    """
    source = Path(path)
    try:
        if not source.is_file():
            raise ModelError(f"there is no model file {source}; make one with: bitloop quantize")
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > MAX_MODEL_BYTES:
                raise ModelError(f"{source} has {size} bytes; a model has at most {MAX_MODEL_BYTES}")
            data = file.read(MAX_MODEL_BYTES + 1)
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return from_bytes(data)
    except ModelError as error:
        raise ModelError(f"{source}: {error}") from error


def to_bytes(model: Model) -> bytes:
    """Return the bytes of the file; equal models give equal bytes.

    Raises:
        ModelError: they are more than a MODEL may have.
    """
    tensors: list[dict[str, Any]] = []
    parts: list[bytes] = []
    offset = 0
    for tensor in model.tensors.values():
        codes = tensor.packed_codes()
        scales = b"" if tensor.scales is None else tensor.scales.astype("<f4").tobytes()
        zeros = b"" if tensor.zero_points is None else tensor.zero_points.astype("<i4").tobytes()
        tensors.append(
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "format": tensor.format.name,
                "scale": tensor.scale.name.lower(),
                "granularity": tensor.granularity.name.lower(),
                "rounding": tensor.rounding.value,
                "packing": tensor.packing.name.lower(),
                "offset": offset,
                "length": len(codes),
                "scales": offset + len(codes) if scales else None,
                "zero_points": offset + len(codes) + len(scales) if zeros else None,
                "groups": tensor.groups,
            }
        )
        parts += [codes, scales, zeros]
        offset += len(codes) + len(scales) + len(zeros)
    header = _dump(
        {
            "name": model.name,
            "dataset": model.dataset,
            "recipe": {**model.recipe, "overrides": dict(model.recipe["overrides"])},
            "architecture": model.architecture.to_dict(),
            "tensors": tensors,
        }
    )
    length = _PREAMBLE.size + len(header) + offset + _CRC.size
    elements = sum(tensor.codes.size for tensor in model.tensors.values())
    if length > MAX_MODEL_BYTES or len(header) > MAX_HEADER_BYTES or elements > MAX_ELEMENTS:
        raise ModelError(
            f"the model has {length} bytes, {elements} weights and biases and a header of {len(header)} bytes; at most "
            f"{MAX_MODEL_BYTES}, {MAX_ELEMENTS} and {MAX_HEADER_BYTES} fit in a file"
        )
    preamble = _PREAMBLE.pack(MODEL_MAGIC, MODEL_VERSION, 0, length, len(header))
    body = b"".join([preamble, header, *parts])
    return body + _CRC.pack(zlib.crc32(body))


def from_bytes(data: bytes) -> Model:
    """Return the MODEL of a file's bytes.

    Raises:
        ModelError: anything at all is not as docs/model.md has it; the message says what.
    """
    header, payload = _split(data)
    entries = _object(_parse(header), _HEADER_KEYS, "the header")
    descriptors = entries["tensors"]
    if not isinstance(descriptors, list):
        raise ModelError("the header's tensors are no list")
    try:
        architecture = Architecture.from_dict(entries["architecture"])
        shapes = architecture.parameter_shapes()
    except NetworkError as error:
        raise ModelError(f"the architecture cannot be: {error}") from error
    elements = sum(math.prod(shape) for shape in shapes.values())
    if elements > MAX_ELEMENTS:
        raise ModelError(f"the model has {elements} weights and biases; at most {MAX_ELEMENTS} are read")
    if len(descriptors) != len(shapes):
        raise ModelError(f"the header describes {len(descriptors)} tensors, but the architecture has {len(shapes)}")
    tensors: dict[str, QuantizedTensor] = {}
    end = 0
    for descriptor, (name, shape) in zip(descriptors, shapes.items(), strict=True):
        tensors[name], end = _read_tensor(descriptor, name, shape, payload, end)
    if end != len(payload):
        raise ModelError(f"the tensors take {end} bytes, but the payload has {len(payload)}")
    return Model(entries["name"], entries["dataset"], architecture, entries["recipe"], tensors)


def _split(data: bytes) -> tuple[bytes, memoryview]:
    """Check preamble and CRC; return header and payload."""
    least = _PREAMBLE.size + _CRC.size
    if len(data) < least:
        raise ModelError(f"the file has {len(data)} bytes; a model has at least {least}")
    if len(data) > MAX_MODEL_BYTES:
        raise ModelError(f"the file has more than {MAX_MODEL_BYTES} bytes, the most a model may have")
    magic, version, reserved, length, header_length = _PREAMBLE.unpack_from(data)
    if magic != MODEL_MAGIC:
        raise ModelError(f"the file starts with {magic!r}, expected {MODEL_MAGIC!r}: it is no bitloop model")
    if version != MODEL_VERSION:
        raise ModelError(f"the file has version {version}, but this bitloop reads {MODEL_VERSION}: update bitloop")
    if length != len(data):
        raise ModelError(f"the file has {len(data)} bytes, but says {length}: it was cut or something was appended")
    found, expected = zlib.crc32(data[: -_CRC.size]), _CRC.unpack_from(data, len(data) - _CRC.size)[0]
    if found != expected:
        raise ModelError(f"the file's CRC-32 is {found:#010x}, but it says {expected:#010x}: the file is damaged")
    if reserved:
        raise ModelError(f"the reserved field is {reserved}, expected 0")
    if header_length > min(len(data) - least, MAX_HEADER_BYTES):
        raise ModelError(f"the header's length is {header_length}, more than the file holds or a header may have")
    end = _PREAMBLE.size + header_length
    return data[_PREAMBLE.size : end], memoryview(data)[end : -_CRC.size]


def _read_tensor(
    descriptor: object, name: str, shape: tuple[int, ...], payload: memoryview, offset: int
) -> tuple[QuantizedTensor, int]:
    """Return the tensor that must start at ``offset``, and where it ends."""
    entries = _object(descriptor, _TENSOR_KEYS, f"the descriptor of tensor {name!r}")
    _expect(entries, name, "name", name)
    _expect(entries, name, "shape", list(shape))
    text = entries["format"]
    try:
        fmt = parse_format(text) if isinstance(text, str) else None
    except FormatError as error:
        raise ModelError(f"tensor {name!r}: {error}") from error
    if fmt is None or fmt.name != text:
        raise ModelError(f"tensor {name!r}: the format is {text!r:.40}, expected a canonical name")
    scale: ScaleKind = _choice(entries, name, "scale", _SCALES)
    granularity: Granularity = _choice(entries, name, "granularity", _GRANULARITIES)
    rounding: Rounding = _choice(entries, name, "rounding", _ROUNDINGS)
    packing: Packing = _choice(entries, name, "packing", _PACKINGS)
    affine = entries["zero_points"] is not None
    groups = 0
    if affine or scale is not ScaleKind.NONE:
        groups = shape[-1] if granularity is Granularity.CHANNEL else 1
    count = math.prod(shape)
    length = packed_bytes(count, fmt.width_bits, packing)
    scales_at = offset + length
    zeros_at = scales_at + (4 * groups if scale is not ScaleKind.NONE else 0)
    end = zeros_at + (4 * groups if affine else 0)
    _expect(entries, name, "groups", groups)
    _expect(entries, name, "offset", offset)
    _expect(entries, name, "length", length)
    _expect(entries, name, "scales", None if scale is ScaleKind.NONE else scales_at)
    _expect(entries, name, "zero_points", zeros_at if affine else None)
    if end > len(payload):
        raise ModelError(f"tensor {name!r} ends at byte {end}, but the payload has {len(payload)}")
    try:
        codes = unpack(payload[offset:scales_at], fmt.width_bits, count, packing)
    except FormatError as error:
        raise ModelError(f"tensor {name!r}: {error}") from error
    tensor = QuantizedTensor(
        name=name,
        format=fmt,
        scale=scale,
        granularity=granularity,
        rounding=rounding,
        packing=packing,
        codes=codes.reshape(shape),
        scales=None if scale is ScaleKind.NONE else _array(payload[scales_at:zeros_at], np.dtype("<f4"), np.float32),
        zero_points=_array(payload[zeros_at:end], np.dtype("<i4"), np.int32) if affine else None,
    )
    return tensor, end


def _array(data: memoryview, stored: np.dtype[Any], native: type[np.generic]) -> npt.NDArray[Any]:
    return np.frombuffer(data, dtype=stored).astype(native)


def _dump(header: dict[str, Any]) -> bytes:
    return json.dumps(header, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")).encode()


def _parse(header: bytes) -> object:
    """Return the header's JSON, which must be in its one canonical form (so: no key twice, no NaN)."""
    try:
        parsed = json.loads(header.decode())
        canonical = _dump(parsed)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the header is no JSON: {error!s:.200}") from error
    if canonical != header:
        raise ModelError("the header is not in canonical form: keys sorted and single, no white space")
    return parsed


def _object(value: object, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ModelError(f"{what} is no object")
    if set(value) != keys:
        unknown, missing = sorted(set(value) - keys), sorted(keys - set(value))
        raise ModelError(f"{what} has unknown keys {unknown!s:.200} and lacks {missing}")
    return value


def _expect(entries: dict[str, Any], tensor: str, key: str, expected: object) -> None:
    value = entries[key]
    if json.dumps(value) != json.dumps(expected):  # as Python compares, 1 would be 1.0 and true
        raise ModelError(f"tensor {tensor!r}: {key} is {value!r:.80}, expected {expected!r}")


def _choice(entries: dict[str, Any], tensor: str, key: str, choices: dict[str, Any]) -> Any:
    value = entries[key]
    if not isinstance(value, str) or value not in choices:
        raise ModelError(f"tensor {tensor!r}: {key} is {value!r:.80}, expected one of {', '.join(choices)}")
    return choices[value]
