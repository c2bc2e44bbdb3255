"""How many bytes the codes of a MODEL would take if they were entropy coded (docs/quantization.md, "Entropy")."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.numeric.huffman import code_lengths
from bitloop.quantize.model import Model, QuantizedTensor

MAX_SYMBOL_BITS = 8
"""Widest code that is a symbol by itself; wider ones are coded byte by byte, as they are packed."""


@dataclass(frozen=True)
class TensorEntropy:
    """What the codes of one tensor hold.

    Attributes:
        name: of the tensor.
        elements: how many codes.
        zeros: how many elements are ±0.
        bits: Shannon entropy of the codes, in bits an element, without regard to their order.
        packed_bytes: as they are stored.
        huffman_bytes: in a canonical Huffman code of at most 15 bits, with a nibble a symbol for its code lengths.
    """

    name: str
    elements: int
    zeros: int
    bits: float
    packed_bytes: int
    huffman_bytes: int

    @property
    def coded_bytes(self) -> int:
        """Return the smaller of both: a tensor that Huffman's code makes longer stays packed."""
        return min(self.packed_bytes, self.huffman_bytes)


@dataclass(frozen=True)
class ModelEntropy:
    """The same of a whole MODEL.

    Attributes:
        tensors: in the MODEL's order.
        scales_bytes: scales and zero points, which are not coded.
    """

    tensors: tuple[TensorEntropy, ...]
    scales_bytes: int

    @property
    def coded_bytes(self) -> int:
        """Return the bytes of codes, each tensor packed or coded as is smaller, and of the scales."""
        return self.scales_bytes + sum(tensor.coded_bytes for tensor in self.tensors)

    @property
    def packed_bytes(self) -> int:
        """Return the bytes of packed codes and of the scales."""
        return self.scales_bytes + sum(tensor.packed_bytes for tensor in self.tensors)


def model_entropy(model: Model) -> ModelEntropy:
    """Return entropy and coded bytes of a MODEL's tensors."""
    tensors = model.tensors.values()
    return ModelEntropy(tuple(tensor_entropy(t) for t in tensors), sum(t.scales_bytes for t in tensors))


def tensor_entropy(tensor: QuantizedTensor) -> TensorEntropy:
    """Return entropy and coded bytes of one tensor."""
    _, counts = np.unique(tensor.codes, return_counts=True)
    return TensorEntropy(
        name=tensor.name,
        elements=tensor.codes.size,
        zeros=int(np.count_nonzero(tensor.elements() == 0)),
        bits=entropy_bits(counts),
        packed_bytes=tensor.codes_bytes,
        huffman_bytes=_huffman_bytes(tensor),
    )


def entropy_bits(counts: npt.NDArray[np.int64]) -> float:
    """Return the Shannon entropy of symbols in bits: the sum of -p·log2(p) (Shannon, 1948).

    Args:
        counts: how often each symbol occurs; one occurs at least once.
    """
    total = int(counts.sum())
    return math.fsum(count / total * math.log2(total / count) for count in counts.tolist() if count)


def huffman_bytes(counts: npt.NDArray[np.int64]) -> int:
    """Return the bytes of symbols in the best prefix code of at most 15 bits, and of its code lengths.

    Args:
        counts: how often each symbol of the alphabet occurs, those that never do included: each has a nibble of length.
    """
    weights: list[int] = counts.tolist()
    bits = sum(weight * length for weight, length in zip(weights, code_lengths(weights), strict=True))
    return -(-bits // 8) + -(-len(counts) // 2)


def _huffman_bytes(tensor: QuantizedTensor) -> int:
    width = tensor.format.width_bits
    if width <= MAX_SYMBOL_BITS:
        return huffman_bytes(np.bincount(tensor.codes.reshape(-1), minlength=1 << width))
    return huffman_bytes(np.bincount(np.frombuffer(tensor.packed_codes(), np.uint8), minlength=256))
