"""Histograms of a tensor's values over what its format can represent (docs/quantization.md, "Seeing it")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.numeric.codec import decode, decode_table, encode, is_finite_code
from bitloop.numeric.formats import Format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.model import QuantizedTensor
from bitloop.quantize.quality import element_limits, scaled_values
from bitloop.spec import FormatKind

__all__ = ["Bins", "Histogram", "code_histogram", "elements_of", "rounding_edges", "value_histogram"]

F64 = npt.NDArray[np.float64]

MAX_BIN_BITS = 8
"""Widest code whose every element has a bin of its own."""
MAX_EVEN_BINS = 128
"""Most bins of equal width; of few values twice as many as Rice's rule has, 4·∛n."""
_ALIKE = 1e-9
"""Values that differ by less are one: too few binary64 numbers lie between them for edges."""


@dataclass(frozen=True, eq=False)
class Bins:
    """Counts between edges.

    Attributes:
        edges: float64 ``[bins + 1]``, ascending; two are equal where a rounding leaves an element only itself.
        counts: int64 ``[bins]``.
    """

    edges: F64
    counts: npt.NDArray[np.int64]

    def merged(self, width: float) -> Bins:
        """Return bins of at least a width, runs of these; the last one takes what is left over."""
        kept = [float(self.edges[0])]
        for edge in self.edges[1:].tolist():
            if edge - kept[-1] >= width:
                kept.append(edge)
        if len(kept) == 1:
            kept.append(float(self.edges[-1]))
        kept[-1] = float(self.edges[-1])
        starts = np.searchsorted(self.edges[:-1], kept[:-1], side="left")
        return Bins(np.array(kept), np.add.reduceat(self.counts, starts))


@dataclass(frozen=True, eq=False)
class Histogram:
    """How a tensor's values lie between the elements of its format.

    Attributes:
        by_channel: whether all figures are in units of the channel's scale (w / scale), each channel having its own;
            else they are in units of the values.
        elements: what the format represents, ascending; None where these are more than codes of 8 bits have.
        bins: with elements the interval that is rounded to each, else intervals of equal width. Saturated values are
            not in them; the outermost edges are the least and the greatest element.
        below: how many values lie under the least element.
        above: how many lie over the greatest.
        span: the least and the greatest of the values.
        limits: the least and the greatest element.
        shape: all values in intervals of equal width; None where they are the values of codes.
    """

    by_channel: bool
    elements: F64 | None
    bins: Bins
    below: int
    above: int
    span: tuple[float, float]
    limits: tuple[float, float]
    shape: Bins | None


def value_histogram(tensor: QuantizedTensor, values: npt.NDArray[np.float32]) -> Histogram:
    """Return how values lie between the elements that a tensor's format, scale and rounding bring them to.

    Args:
        tensor: as it was quantized. Where its rounding is stochastic, intervals are those of the nearest element.
        values: binary32, finite, of the tensor's shape.
    """
    return _histogram(tensor, scaled_values(tensor, values), shape=True)


def code_histogram(tensor: QuantizedTensor) -> Histogram:
    """Return how often each element of a tensor's format occurs in it."""
    return _histogram(tensor, tensor.elements().astype(np.float64), shape=False)


def elements_of(tensor: QuantizedTensor) -> F64:
    """Return the elements of a tensor's format without scale, ascending; with several zero points those of any.

    The format has codes of at most 16 bits.
    """
    fmt = tensor.format
    if tensor.zero_points is not None:
        low, high = fmt.integer_limits
        integers = np.arange(low - int(tensor.zero_points.max()), high - int(tensor.zero_points.min()) + 1)
        return np.ldexp(integers.astype(np.float64), -fmt.fraction_bits)
    codes = np.arange(1 << fmt.width_bits, dtype=np.uint32)
    return np.unique(decode_table(fmt)[is_finite_code(codes, fmt)].astype(np.float64)) + 0.0


def rounding_edges(elements: F64, fmt: Format, rounding: Rounding) -> F64:
    """Return where rounding goes over from one element to the next.

    Args:
        elements: ascending, at least one.
        fmt: whose they are; binary takes the sign whatever the rounding.
        rounding: stochastic has no such places, and gets those of nearest.

    Returns:
        ``[elements + 1]``: the middle of two neighbours, or with a directed rounding the one of them that is nearer to
        zero (``away``) or farther from it (``toward_zero``). The outermost are the outermost elements: what is beyond
        them is saturated.
    """
    under, over = elements[:-1], elements[1:]
    if fmt.kind is FormatKind.BINARY or rounding not in (Rounding.TOWARD_ZERO, Rounding.AWAY):
        inner = (under + over) / 2
    elif rounding is Rounding.TOWARD_ZERO:
        inner = np.where(over > 0, over, under)
    else:
        inner = np.where(over > 0, under, over)
    return np.concatenate((elements[:1], inner, elements[-1:]))


def _histogram(tensor: QuantizedTensor, scaled: F64, *, shape: bool) -> Histogram:
    low, high = element_limits(tensor)
    under, over = scaled < low, scaled > high
    within = ~(under | over)
    if tensor.format.width_bits <= MAX_BIN_BITS:
        elements = elements_of(tensor)
        bins = _interval_bins(tensor, elements, scaled, within)
    else:
        elements = None
        bins = _even_bins(scaled[within])
    by_channel = tensor.groups > 1
    unit = 1.0 if by_channel or tensor.scales is None else float(tensor.scales[0])
    return Histogram(
        by_channel=by_channel,
        elements=None if elements is None else elements * unit,
        bins=Bins(bins.edges * unit, bins.counts),
        below=int(np.count_nonzero(under)),
        above=int(np.count_nonzero(over)),
        span=(float(scaled.min()) * unit, float(scaled.max()) * unit),
        limits=(float(low.min()) * unit, float(high.max()) * unit),
        shape=_even_bins(scaled, unit) if shape else None,
    )


def _interval_bins(tensor: QuantizedTensor, elements: F64, scaled: F64, within: npt.NDArray[np.bool_]) -> Bins:
    """Count by the encoder itself, so that ties fall where it lets them fall."""
    rounding = Rounding.NEAREST if tensor.rounding is Rounding.STOCHASTIC else tensor.rounding
    zeros: npt.ArrayLike = 0 if tensor.zero_points is None else tensor.zero_points
    codes = encode(scaled, tensor.format, rounding, zero_point=zeros)
    places = np.searchsorted(elements, decode(codes, tensor.format, zeros).astype(np.float64)[within])
    return Bins(rounding_edges(elements, tensor.format, rounding), np.bincount(places, minlength=len(elements)))


def _even_bins(values: F64, unit: float = 1.0) -> Bins:
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    size = max(abs(low), abs(high))
    if high - low <= _ALIKE * size:
        room = size / 16 or 1.0
        low, high = low - room, high + room
    number = min(MAX_EVEN_BINS, math.ceil(4 * max(values.size, 1) ** (1 / 3)))
    counts, edges = np.histogram(values, bins=number, range=(low, high))
    return Bins(edges * unit, counts.astype(np.int64))
