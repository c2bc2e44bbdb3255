"""Rounding weights together, so that a layer's output errs least (docs/quantization.md, "Rounding search").

AdaRound (Nagel et al., ICML 2020) asks for each weight whether it becomes the element below or the one above. It
relaxes this to a continuous problem; here the quadratic form itself goes down by one weight at a time (cyclic
coordinate descent, as in QuantEase, Behdin et al., 2023, which allows any element), which needs no learning rate, no
random numbers and never ends above where it began: at rounding to nearest.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.numeric.codec import decode, encode
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.activations import F64
from bitloop.quantize.model import QuantizedTensor
from bitloop.quantize.output_error import OutputError, product
from bitloop.quantize.spec import RoundingSearch
from bitloop.spec import FormatKind

Codes = npt.NDArray[np.uint32]

SWEEPS = 30
DAMPING = 0.01
"""Share of the mean of H's diagonal that is added to it, as GPTQ does (Frantar et al., 2022): few images do not say
much about inputs that they rarely use, and there a weight keeps to its own value."""
_LEAST_GAIN = 1e-12  # of the error's scale: below, a change is rounding noise


def search(
    tensor: QuantizedTensor, weights: F64, frozen: npt.NDArray[np.bool_], error: OutputError, how: RoundingSearch
) -> Codes:
    """Return codes with a smaller output error.

    Args:
        tensor: rounded to nearest, with its scales.
        weights: its values in binary32, pruned ones zero, in its shape.
        frozen: which weights keep their codes.
        error: of the layer's output.
        how: which elements a weight may become.

    Returns:
        uint32 in the tensor's shape. Output error and damping together are no greater than those of the tensor, and so
        is the output error alone, as nearest elements have the least damping.
    """
    outputs = tensor.shape[-1]
    w = weights.reshape(-1, outputs)
    codes = tensor.codes.reshape(-1, outputs).copy()
    elements = _Elements(tensor)
    q = elements.values(codes)
    damping = DAMPING * float(np.diag(error.h).sum()) / len(w)
    diagonal = np.diag(error.h) + damping
    slope = product(error.h, q) - error.target + damping * (q - w)  # half the gradient
    free = ~frozen.reshape(-1, outputs)
    least = -_LEAST_GAIN * diagonal * float((w * w).max(initial=0.0))
    neighbours = None
    if how is RoundingSearch.ADAROUND:
        neighbours = elements.neighbours(w)
    for _ in range(SWEEPS):
        changed = 0
        for i in np.flatnonzero(diagonal > 0):
            if neighbours is None:
                wanted = elements.nearest(q[i] - slope[i] / diagonal[i])
            else:
                low, high = neighbours[0][i], neighbours[1][i]
                wanted = np.where(codes[i] == low, high, low)
            value = elements.values(wanted)
            delta = value - q[i]
            gain = delta * (2 * slope[i] + diagonal[i] * delta)
            columns = np.flatnonzero((gain < least[i]) & free[i])
            if not columns.size:
                continue
            changed += columns.size
            delta = delta[columns]
            codes[i, columns], q[i, columns] = wanted[columns], value[columns]
            slope[:, columns] += np.multiply.outer(error.h[i], delta)  # H is symmetric
            slope[i, columns] += damping * delta
        if not changed:
            break
    return codes.reshape(tensor.shape)


class _Elements:
    """Codes of a tensor and what they stand for, by row of [inputs, outputs]."""

    def __init__(self, tensor: QuantizedTensor) -> None:
        self._format = tensor.format
        self._zeros: npt.NDArray[np.int32] | int = 0 if tensor.zero_points is None else tensor.zero_points
        self._scales = np.ones(1, np.float32) if tensor.scales is None else tensor.scales

    def values(self, codes: Codes) -> F64:
        return np.multiply(decode(codes, self._format, self._zeros), self._scales, dtype=np.float32).astype(np.float64)

    def nearest(self, values: F64) -> Codes:
        return self._encode(values, Rounding.NEAREST)

    def neighbours(self, values: F64) -> tuple[Codes, Codes]:
        """Return the codes of the elements next to values, toward zero and away; one twice where it is the last."""
        if self._format.kind is FormatKind.BINARY:
            inside = np.abs(values) < self._scales
            near = self.nearest(values)
            return near, np.where(inside, near ^ np.uint32(1), near)
        return self._encode(values, Rounding.TOWARD_ZERO), self._encode(values, Rounding.AWAY)

    def _encode(self, values: F64, rounding: Rounding) -> Codes:
        scales = np.asarray(self._scales, dtype=np.float64)
        return encode(values / scales, self._format, rounding, zero_point=self._zeros)
