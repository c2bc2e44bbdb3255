"""What a tensor will stand for once it is quantized, and where a gradient may pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError
from bitloop.numeric.codec import decode, encode
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.apply import pruned
from bitloop.quantize.scales import choose_scales
from bitloop.quantize.spec import TensorSpec
from bitloop.spec import Granularity, ScaleKind

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class FakeQuantized:
    """A tensor's quantized values and its straight-through mask.

    Attributes:
        values: float32 in the tensor's shape: fl(element · scale), as ``QuantizedTensor.values()`` gives it.
        inside: float32 in the tensor's shape: 1 where the value lies in the clipping range, 0 where it was saturated.
    """

    values: F32
    inside: F32


def check_trainable(name: str, spec: TensorSpec) -> None:
    """Check that a spec can be trained with.

    Raises:
        FormatError: it rounds stochastically, or takes calibration images.
    """
    if spec.calibrated:
        raise FormatError(
            f"tensor {name!r} cannot be trained with {spec}, which takes calibration images: training itself does "
            "better what they are for; take the spec without those words"
        )
    if spec.rounding is Rounding.STOCHASTIC:
        raise FormatError(
            f"tensor {name!r} cannot be trained with {spec}: its stochastic rounding draws by an element's index, so "
            "training would fit one fixed draw; leave out 'stochastic'"
        )


def fake_quantize(values: F32, spec: TensorSpec) -> FakeQuantized:
    """Quantize a tensor and decode it again, with the scales that quantization would choose for it now.

    The gradient of the straight-through estimator (Bengio, Léonard and Courville, 2013) is 1 from the format's least to
    its greatest element, and 0 outside.

    Args:
        values: finite, output channels along the last axis.
        spec: what becomes of it.

    Returns:
        Values equal, bit for bit, to ``quantize_tensor(name, values, spec).values()``, and the mask.

    Raises:
        FormatError: rounding is stochastic, a value is NaN or overflows to infinity, or no scale serves.
    """
    check_trainable("values", spec)
    fmt = spec.format
    exact = pruned(values.astype(np.float64), spec.prune)
    by_channel = spec.granularity is Granularity.CHANNEL
    scales, zeros = choose_scales(exact.reshape(-1, values.shape[-1] if by_channel else 1), spec)
    scaled = exact if spec.scale is ScaleKind.NONE else exact / scales.astype(np.float64)
    zero_point: npt.ArrayLike = 0 if zeros is None else zeros
    codes = encode(scaled, fmt, spec.rounding, overflow=spec.overflow, zero_point=zero_point)
    quantized = decode(codes, fmt, zero_point)
    if not np.isfinite(quantized).all():
        raise FormatError(
            f"values overflow to infinity in {fmt.name}, whose largest element is {fmt.max_finite:g}; leave out 'inf' "
            "to saturate, or add a scale (pow2, fp32)"
        )
    if spec.scale is not ScaleKind.NONE:
        quantized = quantized * scales
    moved = np.asarray(zero_point) * 2.0**-fmt.fraction_bits
    inside = (scaled >= fmt.min_finite - moved) & (scaled <= fmt.max_finite - moved)
    return FakeQuantized(quantized, inside.astype(np.float32))
