"""All that is measured of a MODEL, and of what quantization did to its network (docs/quantization.md, "Seeing it")."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from bitloop.network.network import Network
from bitloop.quantize.histogram import Bins, Histogram, code_histogram, value_histogram
from bitloop.quantize.model import Model
from bitloop.quantize.quality import TensorCodes, TensorError, check_source, model_sqnr_db, tensor_codes, tensor_error

__all__ = ["Inspection", "inspect_model"]


@dataclass(frozen=True, eq=False)
class Inspection:
    """What is known of a MODEL.

    Attributes:
        model: the MODEL.
        network: what it was quantized from, or None where that is not known.
        codes: what each tensor's codes hold.
        errors: what quantization did to each tensor; empty without a network.
        histograms: by tensor; of the network's values, or without one of the codes' values.
    """

    model: Model
    network: Network | None
    codes: tuple[TensorCodes, ...]
    errors: tuple[TensorError, ...]
    histograms: Mapping[str, Histogram]

    @property
    def sqnr_db(self) -> float | None:
        """Return the ratio of signal to quantization noise of all tensors taken as one; None without a network."""
        return model_sqnr_db(self.errors) if self.network is not None else None

    def document(self) -> dict[str, object]:
        """Return it for programs; a ratio that is infinite is null, and ``exact`` says whether for lack of noise."""
        ratio = self.sqnr_db
        return {
            "network": None if self.network is None else self.network.name,
            "sqnr_db": None if ratio is None else _finite(ratio),
            "exact": None if ratio is None else ratio == math.inf,
            "tensors": [
                {
                    **asdict(codes),
                    "error": None if self.network is None else _error_document(self.errors[number]),
                    "histogram": _histogram_document(self.histograms[codes.name]),
                }
                for number, codes in enumerate(self.codes)
            ],
        }


def inspect_model(model: Model, network: Network | None = None) -> Inspection:
    """Measure a MODEL.

    Args:
        model: the MODEL.
        network: what it was quantized from, if that is known.

    Raises:
        NetworkError: the network has other tensors or shapes.
    """
    codes = tuple(tensor_codes(tensor) for tensor in model.tensors.values())
    if network is None:
        histograms = {name: code_histogram(tensor) for name, tensor in model.tensors.items()}
        return Inspection(model, None, codes, (), histograms)
    check_source(model, network.parameters, network.name)
    pairs = [(tensor, network.parameters[name]) for name, tensor in model.tensors.items()]
    errors = tuple(tensor_error(tensor, values) for tensor, values in pairs)
    histograms = {tensor.name: value_histogram(tensor, values) for tensor, values in pairs}
    return Inspection(model, network, codes, errors, histograms)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _error_document(error: TensorError) -> dict[str, object]:
    ratio = error.sqnr_db
    return {**asdict(error), "sqnr_db": _finite(ratio), "exact": ratio == math.inf}


def _histogram_document(histogram: Histogram) -> dict[str, object]:
    return {
        "unit": "scale of the channel" if histogram.by_channel else "value",
        "elements": None if histogram.elements is None else histogram.elements.tolist(),
        "bins": _bins_document(histogram.bins),
        "below": histogram.below,
        "above": histogram.above,
        "span": histogram.span,
        "limits": histogram.limits,
        "shape": None if histogram.shape is None else _bins_document(histogram.shape),
    }


def _bins_document(bins: Bins) -> dict[str, object]:
    return {"edges": bins.edges.tolist(), "counts": bins.counts.tolist()}
