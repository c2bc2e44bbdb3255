"""Names and limits of formats, against published tables and a grammar written apart from the parser."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitloop.errors import FormatError
from bitloop.numeric.formats import BINARY, COMMON_NAMES, TERNARY, Format, float_format, parse_format
from bitloop.quantize.spec import TOKENS, parse_tensor_spec
from bitloop.spec import FormatKind, TopCodes

# name: width, largest, smallest positive. IEEE 754-2019 table 3.5 (fp16, fp32); Google's bfloat16; OCP 8-bit Floating
# Point Specification 1.0, tables 1 and 2 (e4m3fn, e5m2); OCP Microscaling Formats 1.0, tables 2 to 5 (the finite ones);
# the rest by hand from the table of docs/arithmetic.md.
LIMITS = {
    "fp32": (32, (2 - 2**-23) * 2.0**127, 2.0**-149),
    "fp16": (16, 65504.0, 2.0**-24),
    "bf16": (16, (2 - 2**-7) * 2.0**127, 2.0**-133),
    "e4m3fn": (8, 448.0, 2.0**-9),
    "e5m2": (8, 57344.0, 2.0**-16),
    "e3m2finite": (6, 28.0, 0.0625),
    "e2m3finite": (6, 7.5, 0.125),
    "e2m1finite": (4, 6.0, 0.5),
    "e4m3": (8, 240.0, 2.0**-9),
    "e3m1": (5, 12.0, 0.125),
    "e8m2": (11, 1.75 * 2.0**127, 2.0**-128),
    "ue5m3": (8, 1.875 * 2.0**15, 2.0**-17),
    "e4m3nosub": (8, 240.0, 2.0**-6),
    "e4m3b11": (8, 15.0, 2.0**-13),
    "e1m2": (4, 1.5, 0.5),
    "e1m0": (2, 0.0, 0.0),
    "e1m0finite": (2, 2.0, 2.0),
    "e4m0fn": (5, 128.0, 2.0**-6),
    "e1m3nosub": (5, 0.0, 0.0),
    "int8": (8, 127.0, 1.0),
    "int2": (2, 1.0, 1.0),
    "uint4": (4, 15.0, 1.0),
    "q3.4": (8, 7.9375, 0.0625),
    "q0.7": (8, 127 / 128, 1 / 128),
    "uq4.4": (8, 15.9375, 0.0625),
    "ternary": (2, 1.0, 1.0),
    "binary": (1, 1.0, 1.0),
}


@pytest.mark.parametrize("name", LIMITS)
def test_limits_are_the_published_ones(name: str) -> None:
    fmt = parse_format(name)
    assert (fmt.width_bits, fmt.max_finite, fmt.min_positive) == LIMITS[name]


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("int8", -128.0),
        ("uint8", 0.0),
        ("q3.4", -8.0),
        ("e4m3", -240.0),
        ("ue4m3", 0.0),
        ("ternary", -1.0),
        ("binary", -1.0),
    ],
)
def test_least_element(name: str, least: float) -> None:
    assert parse_format(name).min_finite == least


def test_all_192_ieee_names_exist_and_round_trip() -> None:
    names = {f"e{e}m{m}" for e in range(1, 9) for m in range(24)}
    formats = {name: parse_format(name) for name in names}
    assert len(set(formats.values())) == 192
    for name, fmt in formats.items():
        assert parse_format(fmt.name) == fmt
        assert (fmt.width_bits, fmt.top_codes, fmt.subnormals) == (
            1 + fmt.exponent_bits + fmt.mantissa_bits,
            TopCodes.IEEE,
            True,
        )
        assert fmt.name == {"e8m23": "fp32", "e5m10": "fp16", "e8m7": "bf16"}.get(name, name)


@given(
    unsigned=st.booleans(),
    exponent=st.integers(1, 8),
    mantissa=st.integers(0, 23),
    top=st.sampled_from(["", "fn", "finite"]),
    bias=st.none() | st.integers(-140, 160),
    nosub=st.booleans(),
)
def test_every_float_name_is_its_format(  # noqa: PLR0917 - one an element of the grammar
    unsigned: bool, exponent: int, mantissa: int, top: str, bias: int | None, nosub: bool
) -> None:
    name = "u" * unsigned + f"e{exponent}m{mantissa}{top}" + ("" if bias is None else f"b{bias}") + "nosub" * nosub
    try:
        fmt = parse_format(name)
    except FormatError as error:
        assume("not exact in binary32" not in str(error))
        raise
    assert (fmt.signed, fmt.exponent_bits, fmt.mantissa_bits, fmt.subnormals) == (
        not unsigned,
        exponent,
        mantissa,
        not nosub,
    )
    assert fmt.bias == (2 ** (exponent - 1) - 1 if bias is None else bias)
    assert fmt.top_codes is {"": TopCodes.IEEE, "fn": TopCodes.FN, "finite": TopCodes.FINITE}[top]
    assert parse_format(fmt.name) == fmt
    assert parse_format(f" {name.upper()} ") == fmt


def test_integers_and_fixed_point() -> None:
    assert parse_format("int8") == Format(FormatKind.INTEGER, 8)
    assert parse_format("uint16") == Format(FormatKind.INTEGER, 16, signed=False)
    assert parse_format("q3.4") == Format(FormatKind.INTEGER, 8, fraction_bits=4, fixed_point=True)
    assert parse_format("uq0.8") == Format(FormatKind.INTEGER, 8, signed=False, fraction_bits=8, fixed_point=True)
    assert parse_format("q7.0") != parse_format("int8")  # the same elements, but by default no scale
    assert parse_format("ternary") == TERNARY
    assert parse_format("binary") == BINARY
    for name in (*COMMON_NAMES, "int2", "uint16", "q0.1", "q15.0", "uq16.0", "uq0.2"):
        assert parse_format(name).name == name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("e4m3fnuz", r"unknown format 'e4m3fnuz'; did you mean e4m3fn"),
        ("fp23", r"did you mean fp32"),
        ("tenary", r"did you mean ternary"),
        ("", "unknown format ''"),
        ("e4m3 fn", "unknown format"),
        ("e4m3b", "unknown format"),
        ("uint8u", "unknown format"),
        ("e0m3", "1 to 8 exponent bits, not 0"),
        ("e9m3", "1 to 8 exponent bits, not 9"),
        ("e4m24", "0 to 23 mantissa bits, not 24"),
        ("int1", "2 to 16"),
        ("int17", "int17 has 17 bits"),
        ("q8.8", "q8.8 has 17 bits"),
        ("q0.0", "2 to 16"),
        ("e8m7fn", "largest exponent is 128, binary32's is 127; take a bias that is greater by 1 "),
        ("e8m23b128", r"least step is 2\^-150, binary32's is 2\^-149; take a bias that is less by 1 "),
        ("e4m3b-115", "largest exponent is 129"),
        ("e4m3b9999999", "too long"),
    ],
)
def test_names_that_are_refused(name: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_format(name)


def test_bounds_in_binary32_are_tight() -> None:
    # e4m3: exponents 1 - b to 14 - b (IEEE), steps of 2^(1 - b - 3).
    assert float_format(4, 3, bias=147).min_positive == 2.0**-149
    with pytest.raises(FormatError, match="least step"):
        float_format(4, 3, bias=148)
    assert float_format(4, 3, bias=-113).max_finite == 1.875 * 2.0**127
    with pytest.raises(FormatError, match="largest exponent"):
        float_format(4, 3, bias=-114)
    # One exponent bit with IEEE top codes: subnormals only, below 2^(1 - b).
    assert float_format(1, 3, bias=-127).max_finite == 1.75 * 2.0**127
    # fn without mantissa bits loses its top exponent, fn with mantissa bits keeps it.
    assert float_format(8, 0, top_codes=TopCodes.FN).max_finite == 2.0**127
    with pytest.raises(FormatError, match="largest exponent"):
        float_format(8, 1, top_codes=TopCodes.FN)


def test_the_document_says_what_the_code_does() -> None:
    text = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \| (\d+)[^|]*\| ([0-9.e+-]+) \| ([0-9.e+-]+) \|", text, re.MULTILINE)
    assert len(rows) >= 20
    for name, width, largest, smallest in rows:
        fmt = parse_format(name)
        assert fmt.name == name
        assert (width, largest, smallest) == (str(fmt.width_bits), f"{fmt.max_finite:g}", f"{fmt.min_positive:g}")
    examples = re.search(r"\| spec \| is \|\n(.*?)\n\n", text, re.DOTALL)
    assert examples is not None
    specs = re.findall(r"^\| `([^`]+)`", examples[1], re.MULTILINE)
    assert len(specs) >= 8
    for spec in specs:
        parse_tensor_spec(spec)
    for token in TOKENS:
        assert f"`{token}`" in text
