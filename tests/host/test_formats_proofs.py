"""The short version of the proofs that scripts/verify runs in full: the codec against four oracles."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from bitloop.numeric import codec
from bitloop.numeric.formats import parse_format


def _oracle() -> ModuleType:
    path = Path(__file__).parents[1] / "oracles/formats_oracle.py"
    spec = importlib.util.spec_from_file_location("formats_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _oracle()
WIDE = ("fp16", "bf16", "fp32", "e8m8", "e1m23", "e4m11", "q1.14", "uint16", "e8m7nosub")
FLOATS = [*oracle.ieee_formats(), *oracle.other_float_formats()]


def test_decoding_of_all_codes() -> None:
    formats = [fmt for fmt in [*FLOATS, *oracle.integer_formats()] if fmt.width_bits <= 11]
    formats += [parse_format(name) for name in WIDE]
    lines: list[str] = []
    compared = oracle.prove_decoding(formats, lines.append, samples=2000)
    assert compared > 500_000
    assert len(lines) == len(formats)
    assert any("e4m3:" in line and "gfloat, apytypes, ml_dtypes/numpy, fractions" in line for line in lines)


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16", "e8m15", "e1m23"])
def test_encoding_into_wide_formats(name: str) -> None:
    few = [value for value in [parse_format(name)] if value.width_bits > 16]
    if few:
        assert oracle.prove_encoding(few, 20_000, lambda _line: None) > 1_000_000
    else:
        fmt = parse_format(name)
        values = np.concatenate([oracle.special_values(fmt)[::16], oracle.random_values(fmt, 20_000)])
        for rounding in oracle.DETERMINISTIC:
            expected = oracle.table_encode(fmt, values, rounding)
            assert np.array_equal(codec.encode(values, fmt, rounding), expected)


def test_encoding_into_narrow_floats() -> None:
    formats = [fmt for fmt in FLOATS if fmt.width_bits <= 9]
    assert oracle.prove_encoding(formats, 1000, lambda _line: None) > 3_000_000


def test_encoding_into_integers() -> None:
    formats = [fmt for fmt in oracle.integer_formats() if fmt.width_bits <= 6]
    assert oracle.prove_encoding(formats, 1000, lambda _line: None) > 500_000


def test_a_wrong_codec_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right_encode, right_decode = oracle.encode, oracle.decode

    def encode_wrongly(values: np.ndarray, fmt: object, *arguments: object, **options: object) -> np.ndarray:
        codes = right_encode(values, fmt, *arguments, **options).copy()
        codes[np.asarray(values) == 0.40625] ^= 1
        return codes

    def decode_wrongly(codes: np.ndarray, fmt: object) -> np.ndarray:
        elements = right_decode(codes, fmt).copy()
        elements[np.asarray(codes) == 5] *= 2
        return elements

    def negative_zero_lost(codes: np.ndarray, fmt: object) -> np.ndarray:
        return right_decode(codes, fmt) + np.float32(0)

    e4m3 = [parse_format("e4m3")]
    monkeypatch.setattr(oracle, "encode", encode_wrongly)
    with pytest.raises(AssertionError, match=r"e4m3, nearest, saturate: 0x1\.a"):
        oracle.prove_encoding(e4m3, 100, lambda _line: None)
    for wrong in (decode_wrongly, negative_zero_lost):
        monkeypatch.setattr(oracle, "decode", wrong)
        with pytest.raises(AssertionError, match="e4m3: code"):
            oracle.prove_decoding(e4m3, lambda _line: None)
