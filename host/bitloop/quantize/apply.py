"""A network and a recipe to a MODEL."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError, NetworkError
from bitloop.network.network import Network
from bitloop.numeric.codec import encode, is_finite_code
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.quantize.recipe import Recipe
from bitloop.quantize.scales import choose_scales
from bitloop.quantize.spec import TensorSpec
from bitloop.spec import Granularity, ScaleKind

_log = logging.getLogger(__name__)


def quantize(network: Network, recipe: Recipe) -> Model:
    """Quantize every weight and bias of a network.

    Args:
        network: with finite binary32 parameters.
        recipe: what becomes of each tensor.

    Returns:
        The MODEL; the same network and recipe give the same bytes.

    Raises:
        NetworkError: a weight or bias is NaN or infinite (tensor and index are named).
        FormatError: the recipe names a tensor the network lacks, asks for a scale beyond binary32, for overflow to
            infinity where a value does overflow, or for what takes calibration images.
    """
    recipe.check_names(network.parameters)
    tensors = {
        name: quantize_tensor(name, values, recipe.spec_for(name)) for name, values in network.parameters.items()
    }
    return Model(
        name=network.name,
        dataset=network.dataset,
        architecture=network.architecture,
        recipe=recipe.to_dict(),
        tensors=tensors,
    )


def quantize_tensor(name: str, values: npt.NDArray[np.float32], spec: TensorSpec) -> QuantizedTensor:
    """Quantize one tensor.

    Args:
        name: for messages and the file.
        values: output channels along the last axis.
        spec: what becomes of it.

    Raises:
        NetworkError, FormatError: as :func:`quantize`.
    """
    if spec.calibrated:
        raise FormatError(
            f"tensor {name!r} is to become {spec}, which takes calibration images; quantize with some of the train "
            "split (bitloop quantize does; in Python bitloop.quantize.ptq.quantize), or take another spec"
        )
    exact = pruned(_finite(name, values), spec.prune)
    by_channel = spec.granularity is Granularity.CHANNEL
    try:
        scales, zeros = choose_scales(exact.reshape(-1, values.shape[-1] if by_channel else 1), spec)
    except FormatError as error:
        raise FormatError(f"tensor {name!r}: {error}") from error
    return encode_tensor(name, exact, spec, scales, zeros)


def encode_tensor(
    name: str,
    exact: npt.NDArray[np.float64],
    spec: TensorSpec,
    scales: npt.NDArray[np.float32],
    zeros: npt.NDArray[np.int32] | None,
) -> QuantizedTensor:
    """Round a tensor with scales that are known.

    Args:
        name: for messages and the file.
        exact: finite, pruned; output channels along the last axis.
        spec: what becomes of it.
        scales: one, or one a channel; 1 with scale ``none``.
        zeros: as many zero points, where the spec is affine.

    Raises:
        FormatError: a value overflows to infinity where that was asked for.
    """
    scaled = exact if spec.scale is ScaleKind.NONE else exact / scales.astype(np.float64)
    codes = encode(
        scaled,
        spec.format,
        spec.rounding,
        overflow=spec.overflow,
        zero_point=0 if zeros is None else zeros,
        seed=spec.seed,
    )
    infinite = int(np.count_nonzero(~is_finite_code(codes, spec.format)))
    if infinite:
        raise FormatError(
            f"tensor {name!r}: {infinite} of {codes.size} values overflow to infinity in {spec.format.name}, whose "
            f"largest element is {spec.format.max_finite:g}; leave out 'inf' to saturate, or add a scale (pow2, fp32)"
        )
    if zeros is None:
        clipped = (scaled > spec.format.max_finite) | (scaled < spec.format.min_finite)
        if spec.scale is ScaleKind.NONE or not spec.format.signed:
            _report_clipping(name, int(np.count_nonzero(clipped)), codes.size, spec)
    return QuantizedTensor(
        name=name,
        format=spec.format,
        scale=spec.scale,
        granularity=spec.granularity,
        rounding=spec.rounding,
        packing=spec.packing,
        codes=codes,
        scales=None if spec.scale is ScaleKind.NONE else scales,
        zero_points=zeros,
    )


def _finite(name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(exact))[0])
        raise NetworkError(
            f"tensor {name!r} holds {exact[index]} at index {index}; only finite values can be quantized"
        )
    return exact


def pruned(values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    """Return values with +0 in place of those of a magnitude below a threshold; NaN stays."""
    return np.where(np.abs(values) < threshold, 0.0, values) if threshold else values


def _report_clipping(name: str, clipped: int, count: int, spec: TensorSpec) -> None:
    if clipped:
        _log.warning("%s: %d of %d values lie outside of %s and were saturated", name, clipped, count, spec)
