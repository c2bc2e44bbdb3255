"""The LX106's own floats, compiled for this machine, are IEEE 754's: bit for bit what numpy computes."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import ToolchainError
from bitloop.native.build import find_compiler


def _oracle() -> ModuleType:
    path = Path(__file__).parents[1] / "oracles/soft_float_oracle.py"
    spec = importlib.util.spec_from_file_location("soft_float_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _oracle()


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    try:
        find_compiler()
    except ToolchainError as error:
        pytest.skip(str(error))
    built: ctypes.CDLL = oracle.build(tmp_path_factory.mktemp("soft_float"))
    return built


def test_every_exponent_with_every_other(library: ctypes.CDLL) -> None:
    edges = oracle.edge_values()
    assert edges.size == 256 * 8 * 2
    for bits in (0, 0x80000000, 1, 0x007FFFFF, 0x00800000, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001):
        assert bits in edges
    assert oracle.prove_edges(library) > 11 * edges.size**2


def test_millions_at_random(library: ctypes.CDLL) -> None:
    assert oracle.prove_random(library, 2_000_000) == 15 * 2_000_000


WORDS = st.integers(0, 0xFFFFFFFF)
FLOATS = st.floats(width=32).map(lambda value: int(np.float32(value).view(np.uint32)))


@settings(max_examples=500, deadline=None)
@given(WORDS | FLOATS, WORDS | FLOATS)
def test_drawn_pairs(library: ctypes.CDLL, a: int, b: int) -> None:
    one, other = np.array([a], np.uint32), np.array([b], np.uint32)
    oracle.prove_pairs(library, one, other)
    oracle.prove_conversions(library, one)


@pytest.mark.parametrize(
    ("name", "a", "b", "wanted"),
    [
        ("mul", 0x3F800800, 0x3F800800, 0x3F801000),  # (1 + 2^-12)^2: half an ulp above, to even
        ("mul", 0x00800000, 0x3F000000, 0x00400000),  # 2^-126 / 2 is subnormal
        ("mul", 0x80000001, 0x3F000000, 0x80000000),  # half of -2^-149 is a tie, to even: -0
        ("add", 0x3F800000, 0x33800000, 0x3F800000),  # 1 + 2^-24, to even
        ("add", 0x3F800001, 0x33800000, 0x3F800002),
        ("add", 0x7F7FFFFF, 0x73000000, 0x7F800000),  # the largest and half its ulp
        ("add", 0x3F800000, 0xBF800000, 0x00000000),  # +0, not -0
        ("add", 0x80000000, 0x80000000, 0x80000000),
        ("sub", 0x7F800000, 0x7F800000, 0x7FC00000),
        ("mul", 0x7F800000, 0x80000000, 0x7FC00000),
        ("add", 0xFF800001, 0x3F800000, 0x7FC00000),  # any NaN becomes this one
        ("div", 0x3F800000, 0x40400000, 0x3EAAAAAB),  # 1 / 3
        ("div", 0x3F800000, 0x80000000, 0xFF800000),
    ],
)
def test_cases_by_hand(library: ctypes.CDLL, name: str, a: int, b: int, wanted: int) -> None:
    assert oracle.results(library, name, np.array([a], np.uint32), np.array([b], np.uint32))[0] == wanted


@pytest.mark.parametrize(
    "change",
    [
        ("(shifted << count) == a ? shifted : shifted | 1u", "shifted"),
        ("low << 16 == 0 ? top : top | 1u", "top"),
        (" - 1u + ((m >> GUARD_BITS) & 1u);", ";"),
        ("small_exponent < 31 ?", "small_exponent < 25 ?"),
        ("if (RARELY(shift >= exponent)) {", "if (shift > exponent) {"),
        ("if (RARELY(exponent == TOP_EXPONENT)) {\n                return", "if (0) {\n                return"),
        ("m = (m >> 1) | (m & 1u);", "m = m >> 1;"),
        ("product = (product >> 1) | (product & 1u);", "product = product >> 1;"),
        ("is_zero(large) ? large & small : large", "large"),
        ("return m != 0 ? quotient | 1u : quotient;", "return quotient;"),
        ("- zeros, (m >> 1) | (m & 1u));", "- zeros, m >> 1);"),
        ("a & SIGN ? SIGN - a : a", "a"),
    ],
)
def test_a_wrong_source_is_found(change: tuple[str, str], tmp_path: Path) -> None:
    """The proofs above are worth something: each of these slips is seen by them."""
    try:
        find_compiler()
    except ToolchainError as error:
        pytest.skip(str(error))
    wrong = oracle.build(tmp_path, change)
    edges = oracle.edge_values()
    edges = edges[np.isin(edges >> 23 & 255, [0, 1, 2, 102, 103, 104, 126, 127, 128, 150, 151, 253, 254, 255])]

    def prove() -> None:
        oracle.prove_pairs(wrong, np.repeat(edges, edges.size), np.tile(edges, edges.size))
        oracle.prove_random(wrong, 200_000)

    with pytest.raises(AssertionError, match=r"of \d+ are wrong"):
        prove()
