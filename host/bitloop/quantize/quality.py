"""What quantization did to a tensor: signal to noise, saturation, codes in use (docs/quantization.md, "Seeing it")."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import ModelError, NetworkError
from bitloop.numeric.formats import Format
from bitloop.quantize.entropy import entropy_bits
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import FormatKind

__all__ = [
    "Reach",
    "TensorCodes",
    "TensorError",
    "check_source",
    "code_count",
    "decibel",
    "element_limits",
    "format_reach",
    "max_error",
    "model_sqnr_db",
    "rms",
    "saturated",
    "scaled_values",
    "sqnr_db",
    "tensor_codes",
    "tensor_error",
    "value_reach",
    "zeroed",
]

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reach:
    """From which magnitude to which something goes; both 0 where all is zero.

    Attributes:
        least: the least magnitude above zero.
        greatest: the greatest magnitude.
    """

    least: float
    greatest: float


@dataclass(frozen=True)
class TensorCodes:
    """What is known of a tensor of a MODEL without the values that it was quantized from.

    Attributes:
        name: of the tensor.
        elements: how many codes.
        codes: how many finite codes its format has; −0 is one.
        used_codes: how many of them occur.
        entropy_bits: Shannon entropy of the codes, in bits an element.
        rms: root of the mean square of the quantized values.
        format_reach: of its format, with its scale; with a scale a channel the least and the greatest of all channels.
        reach: of its quantized values.
    """

    name: str
    elements: int
    codes: int
    used_codes: int
    entropy_bits: float
    rms: float
    format_reach: Reach
    reach: Reach


@dataclass(frozen=True)
class TensorError:
    """What quantization did to a tensor's values.

    Attributes:
        name: of the tensor.
        elements: how many values.
        signal: Σw² of the values w.
        noise: Σ(w − ŵ)², ŵ being what w became.
        max_error: the greatest |w − ŵ|.
        saturated: how many values lie outside of what the format reaches with its scale.
        zeroed: how many values that are not zero became zero, by rounding or pruning.
        rms: root of the mean square of the values.
        reach: of the values.
    """

    name: str
    elements: int
    signal: float
    noise: float
    max_error: float
    saturated: int
    zeroed: int
    rms: float
    reach: Reach

    @property
    def sqnr_db(self) -> float:
        """Return the ratio of signal to quantization noise in dB, infinite when exact."""
        return decibel(self.signal, self.noise)


def tensor_codes(tensor: QuantizedTensor) -> TensorCodes:
    """Return what a tensor's codes hold.

    Raises:
        ModelError: an element times its scale is beyond binary32.
    """
    _, counts = np.unique(tensor.codes, return_counts=True)
    values = _finite_values(tensor)
    return TensorCodes(
        name=tensor.name,
        elements=tensor.codes.size,
        codes=code_count(tensor.format),
        used_codes=len(counts),
        entropy_bits=entropy_bits(counts),
        rms=rms(values),
        format_reach=format_reach(tensor),
        reach=value_reach(values),
    )


def tensor_error(tensor: QuantizedTensor, values: F32) -> TensorError:
    """Return what became of a tensor's values.

    Args:
        tensor: as it was quantized.
        values: binary32, finite, of the tensor's shape: what it was quantized from.

    Raises:
        ModelError: as :func:`tensor_codes`.
    """
    quantized = _finite_values(tensor)
    return TensorError(
        name=tensor.name,
        elements=values.size,
        signal=_square_sum(values.astype(np.float64)),
        noise=_square_sum(_errors(values, quantized)),
        max_error=max_error(values, quantized),
        saturated=int(np.count_nonzero(saturated(tensor, values))),
        zeroed=zeroed(values, quantized),
        rms=rms(values),
        reach=value_reach(values),
    )


def check_source(model: Model, parameters: Mapping[str, npt.NDArray[Any]], name: str) -> None:
    """Check that a MODEL can have been quantized from a network's parameters.

    Raises:
        NetworkError: they have other tensors or shapes.
    """
    found = {tensor: values.shape for tensor, values in parameters.items()}
    expected = {tensor: held.shape for tensor, held in model.tensors.items()}
    if found == expected:
        return
    differing = [tensor for tensor in {**expected, **found} if found.get(tensor) != expected.get(tensor)]
    first = differing[0]
    held, given = (shapes.get(first, "missing") for shapes in (expected, found))
    raise NetworkError(
        f"the MODEL {model.name} was not quantized from {name}: {len(differing)} tensors differ, first {first!r}: "
        f"{held} in the MODEL and {given} in the network; name the network that it was made from"
    )


def sqnr_db(values: F32, quantized: F32) -> float:
    """Return the signal-to-quantization-noise ratio 10·log10(Σw² / Σ(w − ŵ)²) in dB.

    Widrow and Kollár, *Quantization Noise*, 2008; Gersho and Gray, *Vector Quantization and Signal Compression*, 1992,
    chapter 5. Differences and squares are binary64, sums correctly rounded: the same figure on every machine.

    Args:
        values: w, binary32, finite.
        quantized: ŵ, of the same shape.

    Returns:
        inf when ŵ = w throughout; -inf where all w are zero and some ŵ are not.
    """
    return decibel(_square_sum(values.astype(np.float64)), _square_sum(_errors(values, quantized)))


def decibel(signal: float, noise: float) -> float:
    """Return a ratio of two powers in dB: inf without noise, else -inf without signal."""
    if noise == 0.0:
        return math.inf
    return -math.inf if signal == 0.0 else 10.0 * math.log10(signal / noise)


def model_sqnr_db(errors: Iterable[TensorError]) -> float:
    """Return the signal-to-quantization-noise ratio of several tensors taken as one, in dB."""
    found = list(errors)
    return decibel(math.fsum(error.signal for error in found), math.fsum(error.noise for error in found))


def max_error(values: F32, quantized: F32) -> float:
    """Return the greatest |w − ŵ|; 0 of no values."""
    return float(np.abs(_errors(values, quantized)).max(initial=0.0))


def zeroed(values: F32, quantized: F32) -> int:
    """Return how many values other than ±0 became ±0."""
    return int(np.count_nonzero((values != 0) & (quantized == 0)))


def rms(values: F32) -> float:
    """Return the root of the mean square; 0 of no values."""
    return math.sqrt(_square_sum(values.astype(np.float64)) / values.size) if values.size else 0.0


def saturated(tensor: QuantizedTensor, values: F32) -> npt.NDArray[np.bool_]:
    """Return which values, divided by their scale, lie beyond the least or the greatest element."""
    low, high = element_limits(tensor)
    scaled = scaled_values(tensor, values)
    return (scaled < low) | (scaled > high)


def scaled_values(tensor: QuantizedTensor, values: F32) -> F64:
    """Return w / scale in binary64, in the tensor's shape: what the encoder rounds."""
    exact = values.astype(np.float64)
    return exact if tensor.scales is None else exact / tensor.scales.astype(np.float64)


def element_limits(tensor: QuantizedTensor) -> tuple[F64, F64]:
    """Return the least and the greatest element without scale, zero points taken off; one, or one a channel."""
    step = 2.0**-tensor.format.fraction_bits
    zeros = np.zeros(1) if tensor.zero_points is None else tensor.zero_points.astype(np.float64)
    return tensor.format.min_finite - zeros * step, tensor.format.max_finite - zeros * step


def code_count(fmt: Format) -> int:
    """Return how many codes of a format are finite numbers."""
    if fmt.kind is FormatKind.TERNARY:
        return 3
    if not fmt.is_float:
        return 1 << fmt.width_bits
    # Without subnormals, a format that lacks normal elements too has zeros only: every mantissa under field 0.
    magnitudes = fmt.max_code + 1 if fmt.subnormals or fmt.max_code else 1 << fmt.mantissa_bits
    return magnitudes << fmt.signed


def format_reach(tensor: QuantizedTensor) -> Reach:
    """Return from which magnitude to which a format goes with its scale.

    The least is a magnitude above zero. With a scale a channel it is that of all channels, as is the greatest.
    """
    low, high = element_limits(tensor)
    scales = np.ones(1) if tensor.scales is None else tensor.scales.astype(np.float64)
    least = float((tensor.format.min_positive * scales).min())
    return Reach(least, float((np.maximum(np.abs(low), np.abs(high)) * scales).max()))


def value_reach(values: F32) -> Reach:
    """Return from which magnitude above zero to which values go; both 0 where all are zero."""
    sizes = np.abs(values[values != 0]).astype(np.float64)
    return Reach(float(sizes.min()), float(sizes.max())) if sizes.size else Reach(0.0, 0.0)


def _finite_values(tensor: QuantizedTensor) -> F32:
    with np.errstate(over="ignore"):
        values = tensor.values()
    if np.isfinite(values).all():
        return values
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
    raise ModelError(
        f"tensor {tensor.name!r}: the element {tensor.elements()[index]:g} at index {index} times its scale is beyond "
        "binary32; quantize the network again"
    )


def _errors(values: F32, quantized: F32) -> F64:
    return values.astype(np.float64) - quantized.astype(np.float64)


def _square_sum(values: F64) -> float:
    return math.fsum(np.square(values).ravel().tolist())
