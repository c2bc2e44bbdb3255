"""The squared error of a layer's output as a quadratic form of its weights (docs/quantization.md, "Output error").

With the inputs X of the network in binary32, its weights W, the inputs X' that quantized layers before give, and
quantized weights Q, the error is |X'Q - XW|² = tr(QᵀHQ) - 2 tr(QᵀGW) + tr(WᵀRW), where H = X'ᵀX', G = X'ᵀX, R = XᵀX
(Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020, for X' = X). The three are
exact whole numbers times a step (:mod:`bitloop.quantize.activations`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.quantize import activations
from bitloop.quantize.activations import F32, F64, Linear

_TILE_BYTES = 1 << 18  # of sums that lie in a core's second-level cache


@dataclass(frozen=True, eq=False)
class OutputError:
    """What the output error of one layer takes, whatever its weights become.

    Attributes:
        h: X'ᵀX', [inputs, inputs].
        target: GW, [inputs, outputs].
        power: diagonal of WᵀRW: the sum of squares of each output in binary32, (outputs,).
        shift: the mean of XW - X'Q is ``shift - mean · Q``: mean of XW, (outputs,).
        mean: of X', (inputs,).
        rows: of X.
        centred: whether means were taken off, as a bias that is corrected afterwards takes them off.
    """

    h: F64
    target: F64
    power: F64
    shift: F64
    mean: F64
    rows: int
    centred: bool

    @classmethod
    def of(cls, layer: Linear, weights: F64, before: tuple[F32, F32], *, centred: bool) -> OutputError:
        """Take the statistics of a layer's inputs.

        Args:
            layer: dense or convolution.
            weights: in binary32's values, in their tensor's shape.
            before: activations before the layer, of the network in binary32 and of the quantized layers.
            centred: whether the outputs' means are left out of account.
        """
        w = weights.reshape(-1, weights.shape[-1])
        reference, quantized = before
        rows = activations.rows_of(layer, reference)
        bits = activations.grid_bits(rows)
        same = quantized is reference
        step, step_q = activations.step_of(reference, bits), activations.step_of(quantized, bits)
        n = len(w)
        r, g, h = (np.zeros((n, n)) for _ in range(3))
        sums, sums_q = np.zeros(n), np.zeros(n)
        for x, xq in zip(
            activations.inputs(layer, reference, step), activations.inputs(layer, quantized, step_q), strict=True
        ):
            r += x.T @ x
            sums += x.sum(axis=0)
            if not same:
                g += xq.T @ x
                h += xq.T @ xq
                sums_q += xq.sum(axis=0)
        if same:
            g, h, sums_q = r, r, sums
        mean, mean_q = sums * step / rows, sums_q * step_q / rows
        r, g, h = r * (step * step), g * (step_q * step), h * (step_q * step_q)
        if centred:
            r = r - rows * np.multiply.outer(mean, mean)
            g = g - rows * np.multiply.outer(mean_q, mean)
            h = h - rows * np.multiply.outer(mean_q, mean_q)
        return cls(
            h=h,
            target=product(g, w),
            power=np.asarray((w * product(r, w)).sum(axis=0)),
            shift=column_sums(mean, w),
            mean=mean_q,
            rows=rows,
            centred=centred,
        )

    def errors(self, q: F64) -> F64:
        """Return the sum of squares of each output's error, (outputs,), for weights [inputs, outputs]."""
        return np.asarray((q * (product(self.h, q) - 2 * self.target)).sum(axis=0) + self.power)

    def relative(self, q: F64) -> float:
        """Return the error of all outputs as a share of their sum of squares."""
        power = math.fsum(self.power.tolist())
        return max(math.fsum(self.errors(q).tolist()), 0.0) / power if power > 0 else 0.0

    def mean_shift(self, q: F64) -> F64:
        """Return what is to be added to each output's bias so that its mean is that of the binary32 network."""
        return self.shift - column_sums(self.mean, q)


def product(a: F64, b: F64) -> F64:
    """Return the matrix product a · b, summed in ascending order: the same on every machine."""
    columns = np.ascontiguousarray(a.T)
    out = np.zeros((len(a), b.shape[1]))
    width = max(1, _TILE_BYTES // (8 * max(len(a), 1)))
    for start in range(0, b.shape[1], width):
        part = np.ascontiguousarray(b[:, start : start + width])
        tile = np.zeros((len(a), part.shape[1]))
        term = np.empty_like(tile)
        for column, row in zip(columns, part, strict=True):
            if row.any():
                np.multiply(column[:, np.newaxis], row, out=term)
                np.add(tile, term, out=tile)
        out[:, start : start + width] = tile
    return out


def column_sums(vector: F64, matrix: F64) -> npt.NDArray[np.float64]:
    """Return vector · matrix, each sum correctly rounded but for its products."""
    return np.array([math.fsum((vector * column).tolist()) for column in matrix.T])
