"""The codec against gfloat, ml_dtypes, apytypes and exact fractions: all codes to 16 bits, millions of values."""

from __future__ import annotations

import sys
from pathlib import Path

from proofs.page import ROOT, Section, cells

sys.path.insert(0, str(Path(ROOT, "tests/oracles")))

import formats_oracle as oracle


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def prove() -> Section:
    """Compare every format."""
    formats = oracle.ieee_formats() + oracle.other_float_formats() + oracle.integer_formats()
    decoded = oracle.prove_decoding(formats, _report)
    encoded = oracle.prove_encoding(formats, 20_000, _report)
    return Section(
        "Codec against third parties",
        "Comparisons with gfloat, ml_dtypes, apytypes and exact fractions, each where it means the same "
        "(`tests/oracles/formats_oracle.py` says where it does not); the first difference would have ended the proof.",
        ("direction", "formats", "comparisons"),
        cells((("decoding, all codes to 16 bits", len(formats), decoded), ("encoding", len(formats), encoded))),
        holds=True,
    )
