"""Entropy of codes and bytes of Huffman's code: by hand, against scipy, and against Huffman's own algorithm."""

import heapq
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.quantize.apply import quantize_tensor
from bitloop.quantize.entropy import entropy_bits, huffman_bytes, model_entropy, tensor_entropy
from bitloop.quantize.spec import parse_tensor_spec

COUNTS = st.lists(st.integers(0, 5000), min_size=2, max_size=64).filter(any)


def huffman_bits(counts: list[int]) -> int:
    """The bits of Huffman's code (1952): every merge of the two least costs their sum; one symbol alone takes a bit."""
    heap = [count for count in counts if count]
    if len(heap) == 1:
        return heap[0]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


def _tensor(values, spec: str):
    return quantize_tensor("a.weights", np.array(values, np.float32), parse_tensor_spec(spec))


def test_by_hand() -> None:
    # 8 zeros, 4 ones, 2 twos, 2 of -1: probabilities 1/2, 1/4, 1/8, 1/8, so 1.75 bits; Huffman's lengths 1, 2, 3, 3
    # meet it: 8 + 8 + 6 + 6 = 28 bits, 4 bytes, and 16 nibbles of lengths, 8 bytes.
    tensor = _tensor([0] * 8 + [1] * 4 + [2] * 2 + [-1] * 2, "int4:none")
    found = tensor_entropy(tensor)
    assert (found.elements, found.zeros, found.bits) == (16, 8, 1.75)
    assert (found.packed_bytes, found.huffman_bytes, found.coded_bytes) == (8, 12, 8)
    # All alike: nothing to tell, but the code has a bit an element.
    found = tensor_entropy(_tensor([1.0] * 800, "int2:none"))
    assert (found.bits, found.huffman_bytes) == (0.0, 102)
    # Ternary's -1, 0, +1 with 1, 2, 1 of four: 1.5 bits; lengths 2, 1, 2 are 6 bits a four.
    found = tensor_entropy(_tensor([-1, 0, 0, 1] * 100, "ternary:none"))
    assert (found.bits, found.packed_bytes, found.huffman_bytes, found.coded_bytes) == (1.5, 80, 77, 77)


@settings(deadline=None)
@given(COUNTS)
def test_entropy_against_scipy(counts: list[int]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed")
    assert entropy_bits(np.array(counts)) == pytest.approx(float(stats.entropy(counts, base=2)), abs=1e-12)


@settings(deadline=None)
@given(COUNTS)
def test_bytes_against_huffmans_algorithm(counts: list[int]) -> None:
    assert huffman_bytes(np.array(counts)) == math.ceil(huffman_bits(counts) / 8) + math.ceil(len(counts) / 2)
    total = sum(counts)
    bits = 8 * (huffman_bytes(np.array(counts)) - math.ceil(len(counts) / 2))
    assert bits >= total * entropy_bits(np.array(counts)) - 1e-6
    assert bits <= total * (entropy_bits(np.array(counts)) + 1) + 8


def test_wide_codes_are_coded_byte_by_byte() -> None:
    values = np.random.default_rng(3).normal(size=3000).astype(np.float32)
    tensor = _tensor(values, "bf16")
    counts = list(Counter(tensor.packed_codes()).values())
    found = tensor_entropy(tensor)
    assert found.huffman_bytes == math.ceil(huffman_bits(counts) / 8) + 128
    codes = Counter(tensor.codes.tolist())
    assert found.bits == pytest.approx(-sum(n / 3000 * math.log2(n / 3000) for n in codes.values()))


def test_minus_zero_is_a_zero_and_a_code_of_its_own() -> None:
    found = tensor_entropy(_tensor([0.0, -0.0, 1.0, 1.0], "e4m3"))
    assert (found.zeros, found.bits) == (2, 1.5)


def test_a_model_adds_up(models) -> None:
    model = models("mlp8k", "int4:channel", "fp32")
    found = model_entropy(model)
    assert found.packed_bytes == model.sizes.total
    assert found.coded_bytes == model.sizes.scales + sum(min(t.packed_bytes, t.huffman_bytes) for t in found.tensors)
    assert [t.name for t in found.tensors] == list(model.tensors)
    # Ten fp32 biases are no longer for being "coded" with a table of 128 bytes.
    assert found.tensors[-1].coded_bytes == 40
