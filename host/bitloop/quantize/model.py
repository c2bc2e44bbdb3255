"""The MODEL: what a person keeps, names and hashes (docs/model.md)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError, ModelError
from bitloop.network.architecture import Architecture
from bitloop.numeric.codec import decode, is_finite_code
from bitloop.numeric.formats import Format
from bitloop.numeric.packing import pack, packed_bytes
from bitloop.numeric.rounding import Rounding
from bitloop.spec import FormatKind, Granularity, Packing, ScaleKind

F32 = npt.NDArray[np.float32]
MAX_TEXT_LENGTH = 256
_MIN_NORMAL = float(np.finfo(np.float32).tiny)
_BIASES = ".biases"


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """Codes, and what they stand for; read-only once built.

    Attributes:
        name: ``<layer>.weights`` or ``<layer>.biases``.
        format: of the codes.
        scale: kind of the scales.
        granularity: one scale (and zero point) a tensor, or one a channel: an index of the last axis.
        rounding: how the codes were made, for the record.
        packing: how they lie in the file.
        codes: uint32, in the tensor's shape: dense (in, out), convolution (ky, kx, in, out), biases (out,).
        scales: float32 ``[groups]``, or None with scale ``none``.
        zero_points: int32 ``[groups]``, or None when not affine.

    Raises:
        ModelError: the parts do not fit one another, a code is no finite number, a scale is not positive, normal and
            finite (pow2: a power of two), or a zero point lies outside of the integers' range.
    """

    name: str
    format: Format
    scale: ScaleKind
    granularity: Granularity
    rounding: Rounding
    packing: Packing
    codes: npt.NDArray[np.uint32]
    scales: F32 | None = None
    zero_points: npt.NDArray[np.int32] | None = None

    def __post_init__(self) -> None:
        try:
            finite = is_finite_code(self.codes, self.format)
        except FormatError as error:
            raise ModelError(f"tensor {self.name!r}: {error}") from error
        if self.codes.dtype != np.uint32 or not self.codes.ndim or not self.codes.size:
            raise ModelError(
                f"tensor {self.name!r}: codes are {self.codes.dtype} {self.shape}, expected uint32, not none"
            )
        if not finite.all():
            index = tuple(int(i) for i in np.argwhere(~finite)[0])
            raise ModelError(
                f"tensor {self.name!r}: the code {int(self.codes[index]):#x} at index {index} is no finite number of "
                f"{self.format.name}"
            )
        if self.packing is Packing.TRITS and self.format.kind is not FormatKind.TERNARY:
            raise ModelError(f"tensor {self.name!r}: {self.format.name} cannot be packed as trits, only ternary can")
        if (self.scales is None) != (self.scale is ScaleKind.NONE):
            raise ModelError(
                f"tensor {self.name!r}: scale kind {self.scale.name.lower()} and scales do not go together"
            )
        if self.granularity is Granularity.CHANNEL and (self.groups == 0 or self.name.endswith(_BIASES)):
            raise ModelError(f"tensor {self.name!r} has nothing that could differ by channel")
        if self.scales is not None:
            self._check_scales(self.scales)
        if self.zero_points is not None:
            self._check_zero_points(self.zero_points)
        for array in (self.codes, self.scales, self.zero_points):
            if array is not None:
                array.flags.writeable = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        return self.codes.shape

    @property
    def affine(self) -> bool:
        """Whether it has zero points."""
        return self.zero_points is not None

    @property
    def groups(self) -> int:
        """How many scales (and zero points) it has: 0 with neither, else 1 or the number of channels."""
        if self.scales is None and self.zero_points is None:
            return 0
        return self.shape[-1] if self.granularity is Granularity.CHANNEL else 1

    @property
    def codes_bytes(self) -> int:
        """Bytes of the packed codes."""
        return packed_bytes(self.codes.size, self.format.width_bits, self.packing)

    @property
    def scales_bytes(self) -> int:
        """Bytes of scales and zero points."""
        return sum(array.nbytes for array in (self.scales, self.zero_points) if array is not None)

    def packed_codes(self) -> bytes:
        """Return the codes as they lie in the file."""
        return pack(self.codes, self.format.width_bits, self.packing)

    def elements(self) -> F32:
        """Return the decoded codes, zero points taken off, without scale; float32 in the tensor's shape."""
        return decode(self.codes, self.format, 0 if self.zero_points is None else self.zero_points)

    def values(self) -> F32:
        """Return fl(element · scale): what the tensor stands for; float32 in the tensor's shape."""
        elements = self.elements()
        return elements if self.scales is None else elements * self.scales

    def _check_scales(self, scales: F32) -> None:
        self._check_group_array("scales", scales, np.dtype(np.float32))
        good = np.isfinite(scales) & (scales >= _MIN_NORMAL)
        if self.scale is ScaleKind.POW2:
            good &= np.frexp(np.where(good, scales, 1.0))[0] == 0.5
        if not good.all():
            group = int(np.flatnonzero(~good)[0])
            kind = "power of two" if self.scale is ScaleKind.POW2 else "number"
            raise ModelError(
                f"tensor {self.name!r}: scale {group} is {scales[group]}, expected a positive normal {kind} of binary32"
            )

    def _check_zero_points(self, zero_points: npt.NDArray[np.int32]) -> None:
        if not self.format.is_integer:
            raise ModelError(f"tensor {self.name!r}: {self.format.name} has no zero points")
        self._check_group_array("zero points", zero_points, np.dtype(np.int32))
        low, high = self.format.integer_limits
        good = (zero_points >= low) & (zero_points <= high)
        if not good.all():
            group = int(np.flatnonzero(~good)[0])
            raise ModelError(
                f"tensor {self.name!r}: zero point {group} is {int(zero_points[group])}, expected {low} to {high}"
            )

    def _check_group_array(self, what: str, array: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
        if array.dtype != dtype or array.shape != (self.groups,):
            raise ModelError(
                f"tensor {self.name!r}: {what} are {array.dtype} {array.shape}, expected {dtype} ({self.groups},)"
            )


@dataclass(frozen=True)
class Sizes:
    """Bytes of a MODEL by what they hold; header and CRC are not counted."""

    weights: int
    biases: int
    scales: int

    @property
    def total(self) -> int:
        """Everything a device must store of it."""
        return self.weights + self.biases + self.scales


@dataclass(frozen=True, eq=False)
class Model:
    """A quantized network.

    Attributes:
        name: of the network.
        dataset: it was trained on; "" when unknown.
        architecture: its layers.
        recipe: what was asked for, as text: ``weights``, ``biases``, ``overrides`` (an object).
        tensors: by name, in the order of the layers, weights before biases.

    Raises:
        ModelError: tensors and architecture do not fit, or a text cannot be shown in one line.
    """

    name: str
    dataset: str
    architecture: Architecture
    recipe: Mapping[str, Any]
    tensors: Mapping[str, QuantizedTensor]

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        _check_text("dataset", self.dataset)
        _check_recipe(self.recipe)
        shapes = self.architecture.parameter_shapes()
        if list(self.tensors) != list(shapes):
            raise ModelError(f"the tensors are {list(self.tensors)}, but the architecture has {list(shapes)}")
        for name, tensor in self.tensors.items():
            if tensor.name != name or tensor.shape != shapes[name]:
                raise ModelError(
                    f"tensor {name!r} is named {tensor.name!r} and has shape {tensor.shape}, but the architecture asks "
                    f"for {shapes[name]}"
                )
        object.__setattr__(self, "recipe", MappingProxyType(dict(self.recipe)))
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))

    @property
    def sizes(self) -> Sizes:
        """Bytes of packed weights, packed biases, and scales with zero points."""
        biases = sum(t.codes_bytes for n, t in self.tensors.items() if n.endswith(_BIASES))
        codes = sum(t.codes_bytes for t in self.tensors.values())
        return Sizes(codes - biases, biases, sum(t.scales_bytes for t in self.tensors.values()))

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's bytes, in hexadecimal."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        """Return the bytes of the file; equal models give equal bytes.

        Raises:
            ModelError: they would be more than a MODEL may have.
        """
        from bitloop.quantize import blm  # noqa: PLC0415 - the file format builds on this module

        return blm.to_bytes(self)


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str) or not text.isprintable() or len(text) > MAX_TEXT_LENGTH:
        raise ModelError(f"the model's {what} is no printable text of up to {MAX_TEXT_LENGTH} characters: {text!r:.80}")


def _check_recipe(recipe: object) -> None:
    if not isinstance(recipe, Mapping) or set(recipe) != {"weights", "biases", "overrides"}:
        raise ModelError("the model's recipe is no object with the keys weights, biases, overrides")
    overrides = recipe["overrides"]
    if not isinstance(overrides, Mapping):
        raise ModelError("the overrides of the model's recipe are no object")
    for text in (recipe["weights"], recipe["biases"], *overrides, *overrides.values()):
        _check_text("recipe", text)
