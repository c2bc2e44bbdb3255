"""Descriptors of element formats, and their names (docs/formats.md; elements as docs/arithmetic.md defines them)."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache

from bitloop.errors import FormatError
from bitloop.spec import (
    MAX_EXPONENT_BITS,
    MAX_INTEGER_BITS,
    MAX_MANTISSA_BITS,
    MIN_INTEGER_BITS,
    FormatKind,
    TopCodes,
)

BINARY32_MIN_EXPONENT = -149  # of the smallest subnormal
BINARY32_MAX_EXPONENT = 127

_ALIASES: dict[str, tuple[int, int]] = {"fp32": (8, 23), "fp16": (5, 10), "bf16": (8, 7)}
_FLOAT = re.compile(r"(u?)e([0-9]+)m([0-9]+)(fn|finite)?(?:b(-?[0-9]+))?(nosub)?")
_INTEGER = re.compile(r"(u?)int([0-9]+)")
_FIXED = re.compile(r"(u?)q([0-9]+)\.([0-9]+)")
_TOP_SUFFIX = {TopCodes.IEEE: "", TopCodes.FN: "fn", TopCodes.FINITE: "finite"}
COMMON_NAMES: tuple[str, ...] = (
    *(
        "fp32",
        "fp16",
        "bf16",
        "e8m2",
        "e5m2",
        "e4m3",
        "e4m3fn",
        "e3m4",
        "e3m2finite",
        "e2m3finite",
        "e3m1",
        "e2m1finite",
    ),
    *(
        "ue5m3",
        "int16",
        "int8",
        "int6",
        "int5",
        "int4",
        "int3",
        "int2",
        "uint8",
        "uint4",
        "q1.14",
        "q0.7",
        "q3.4",
        "uq4.4",
    ),
    *("ternary", "binary"),
)
"""Names for lists, help texts and suggestions; the grammar has many more."""
EXPECTED = (
    "expected fp32, fp16, bf16, [u]e<E>m<M>[fn|finite][b<BIAS>][nosub] with E 1-8 and M 0-23, [u]int2 to [u]int16, "
    "[u]q<m>.<n>, ternary or binary"
)


@dataclass(frozen=True)
class Format:
    """What the codes of a tensor stand for, without scale and zero point.

    Build one with :func:`parse_format`, :func:`float_format`, :func:`integer_format` or :func:`fixed_point_format`.

    Attributes:
        kind: family of the format.
        width_bits: bits of a code, 1 to 32 (ternary: 2, however it is packed).
        signed: whether there are negative elements (floats: a sign bit; integers: two's complement).
        exponent_bits: float: width of the exponent field, 1 to 8.
        mantissa_bits: float: width of the mantissa field, 0 to 23.
        bias: float: what is subtracted from the exponent field.
        subnormals: float: whether an exponent field of zero holds subnormals; otherwise all its codes are zero.
        top_codes: float: what the highest codes mean.
        fraction_bits: integer: the element is the integer times 2^-fraction_bits.
        fixed_point: integer: named ``q<m>.<n>``, and by default quantized without a scale.
    """

    kind: FormatKind
    width_bits: int
    signed: bool = True
    exponent_bits: int = 0
    mantissa_bits: int = 0
    bias: int = 0
    subnormals: bool = False
    top_codes: TopCodes = TopCodes.IEEE
    fraction_bits: int = 0
    fixed_point: bool = False

    def __str__(self) -> str:
        return self.name

    @property
    def is_float(self) -> bool:
        """Whether elements have an exponent of their own."""
        return self.kind is FormatKind.FLOAT

    @property
    def is_integer(self) -> bool:
        """Whether elements are integers times a fixed power of two; only these can be affine."""
        return self.kind is FormatKind.INTEGER

    @property
    def name(self) -> str:
        """Canonical name; :func:`parse_format` gives an equal format back."""
        sign = "" if self.signed else "u"
        if self.kind is FormatKind.TERNARY:
            return "ternary"
        if self.kind is FormatKind.BINARY:
            return "binary"
        if self.kind is FormatKind.INTEGER:
            if self.fixed_point:
                return f"{sign}q{self.width_bits - self.fraction_bits - self.signed}.{self.fraction_bits}"
            return f"{sign}int{self.width_bits}"
        text = f"{sign}e{self.exponent_bits}m{self.mantissa_bits}{_TOP_SUFFIX[self.top_codes]}"
        if self.bias != default_bias(self.exponent_bits):
            text += f"b{self.bias}"
        if not self.subnormals:
            text += "nosub"
        return _ALIAS_OF.get(text, text)

    @property
    def sign_bit(self) -> int:
        """Float: the code of -0, or 0 without a sign."""
        return 1 << (self.width_bits - 1) if self.signed else 0

    @property
    def max_code(self) -> int:
        """Float: the code of the largest finite element."""
        e, m = self.exponent_bits, self.mantissa_bits
        top = {
            TopCodes.IEEE: ((1 << e) - 1 << m) - 1,
            TopCodes.FN: (1 << e + m) - 2,
            TopCodes.FINITE: (1 << e + m) - 1,
        }[self.top_codes]
        return top if self.subnormals or top >> m else 0

    @property
    def infinity_code(self) -> int | None:
        """Float: the code of +infinity, or None where there is none."""
        if not self.has_infinities:
            return None
        return (1 << self.exponent_bits) - 1 << self.mantissa_bits

    @property
    def has_infinities(self) -> bool:
        """Whether some codes are infinite."""
        return self.is_float and self.top_codes is TopCodes.IEEE

    @property
    def min_exponent(self) -> int:
        """Float: exponent of the smallest normal element, and of the subnormals."""
        return 1 - self.bias

    @property
    def integer_limits(self) -> tuple[int, int]:
        """Integer and ternary: least and greatest integer before fraction bits and zero point."""
        if self.kind is FormatKind.TERNARY:
            return -1, 1
        if self.signed:
            return -(1 << self.width_bits - 1), (1 << self.width_bits - 1) - 1
        return 0, (1 << self.width_bits) - 1

    @property
    def max_finite(self) -> float:
        """The largest finite element (with zero point 0); 0.0 where every other code is infinite or NaN."""
        if self.is_float:
            field, mantissa = self.max_code >> self.mantissa_bits, self.max_code & (1 << self.mantissa_bits) - 1
            if field:
                mantissa += 1 << self.mantissa_bits
            return float(mantissa) * 2.0 ** (max(field, 1) - self.bias - self.mantissa_bits)
        if self.kind is FormatKind.BINARY:
            return 1.0
        return self.integer_limits[1] * 2.0**-self.fraction_bits

    @property
    def min_finite(self) -> float:
        """The least (most negative) finite element, with zero point 0; 0.0 for unsigned formats."""
        if self.is_float:
            return -self.max_finite if self.signed else 0.0
        if self.kind is FormatKind.BINARY:
            return -1.0
        return self.integer_limits[0] * 2.0**-self.fraction_bits

    @property
    def min_positive(self) -> float:
        """The smallest element above zero; 0.0 where there is none."""
        if not self.is_float:
            return 2.0**-self.fraction_bits
        smallest = 1 if self.subnormals else 1 << self.mantissa_bits
        if smallest > self.max_code:
            return 0.0
        mantissa_bits = self.mantissa_bits if smallest < 1 << self.mantissa_bits else 0
        return 2.0 ** (self.min_exponent - mantissa_bits)


def default_bias(exponent_bits: int) -> int:
    """Return IEEE 754's bias, 2^(E-1) - 1."""
    return (1 << exponent_bits - 1) - 1


def float_format(
    exponent_bits: int,
    mantissa_bits: int,
    *,
    signed: bool = True,
    bias: int | None = None,
    subnormals: bool = True,
    top_codes: TopCodes = TopCodes.IEEE,
) -> Format:
    """Return a float format.

    Args:
        exponent_bits: 1 to 8.
        mantissa_bits: 0 to 23.
        signed: with a sign bit; without one there is no -0 either.
        bias: of the exponent; IEEE 754's where None.
        subnormals: as in :class:`Format`.
        top_codes: as in :class:`Format`.

    Raises:
        FormatError: a width is out of range, or a finite element is no binary32 number; the message names the bound.
    """
    if not 1 <= exponent_bits <= MAX_EXPONENT_BITS:
        raise FormatError(f"a float has 1 to {MAX_EXPONENT_BITS} exponent bits, not {exponent_bits}")
    if not 0 <= mantissa_bits <= MAX_MANTISSA_BITS:
        raise FormatError(f"a float has 0 to {MAX_MANTISSA_BITS} mantissa bits, not {mantissa_bits}")
    fmt = Format(
        FormatKind.FLOAT,
        signed + exponent_bits + mantissa_bits,
        signed=signed,
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=default_bias(exponent_bits) if bias is None else bias,
        subnormals=subnormals,
        top_codes=top_codes,
    )
    lowest = fmt.min_exponent - mantissa_bits
    highest = (fmt.max_code >> mantissa_bits) - fmt.bias
    if lowest < BINARY32_MIN_EXPONENT:
        raise FormatError(
            f"{fmt.name} is not exact in binary32: its least step is 2^{lowest}, binary32's is "
            f"2^{BINARY32_MIN_EXPONENT}; take a bias that is less by {BINARY32_MIN_EXPONENT - lowest} or more"
        )
    if highest > BINARY32_MAX_EXPONENT:
        raise FormatError(
            f"{fmt.name} is not exact in binary32: its largest exponent is {highest}, binary32's is "
            f"{BINARY32_MAX_EXPONENT}; take a bias that is greater by {highest - BINARY32_MAX_EXPONENT} or more"
        )
    return fmt


def integer_format(width_bits: int, *, signed: bool = True) -> Format:
    """Return ``int<width>`` or ``uint<width>``; FormatError unless the width is 2 to 16 bits."""
    return _integer(width_bits, signed, 0, fixed_point=False)


def fixed_point_format(integer_bits: int, fraction_bits: int, *, signed: bool = True) -> Format:
    """Return ``q<integer_bits>.<fraction_bits>`` (TI's notation: the sign bit is counted apart) or its unsigned form.

    Raises:
        FormatError: unless sign, integer and fraction bits are 2 to 16 in all.
    """
    return _integer(signed + integer_bits + fraction_bits, signed, fraction_bits, fixed_point=True)


def _integer(width_bits: int, signed: bool, fraction_bits: int, *, fixed_point: bool) -> Format:
    fmt = Format(FormatKind.INTEGER, width_bits, signed=signed, fraction_bits=fraction_bits, fixed_point=fixed_point)
    if not MIN_INTEGER_BITS <= width_bits <= MAX_INTEGER_BITS:
        raise FormatError(
            f"{fmt.name} has {width_bits} bits; integers and fixed point have {MIN_INTEGER_BITS} to {MAX_INTEGER_BITS}"
        )
    return fmt


TERNARY = Format(FormatKind.TERNARY, 2)
BINARY = Format(FormatKind.BINARY, 1)
_ALIAS_OF = {f"e{e}m{m}": alias for alias, (e, m) in _ALIASES.items()}


def close_matches(word: str, names: tuple[str, ...]) -> str:
    """Return ``; did you mean a, b?`` with the closest of ``names``, or an empty text."""
    matches = difflib.get_close_matches(word, names, n=3, cutoff=0.5)
    return f"; did you mean {', '.join(matches)}?" if matches else ""


@lru_cache(maxsize=1024)
def parse_format(name: str) -> Format:
    """Return the format of a name (grammar: docs/formats.md).

    Args:
        name: as in ``e4m3fn``, ``int8`` or ``q3.4``; case and surrounding blanks do not matter.

    Raises:
        FormatError: the name is unknown (close matches are named), or an element would not be exact in binary32.
    """
    text = name.strip().lower()
    try:
        known = _parse(text)
    except FormatError as error:
        raise FormatError(f"no format {name!r:.60}: {error}") from error
    if known is None:
        raise FormatError(f"unknown format {name!r:.60}{close_matches(text, COMMON_NAMES)} ({EXPECTED})")
    return known


def _parse(text: str) -> Format | None:
    """Return the format of a name in lower case; None if the grammar has no such name."""
    if text in _ALIASES:
        return float_format(*_ALIASES[text])
    if text == "ternary":
        return TERNARY
    if text == "binary":
        return BINARY
    if match := _FLOAT.fullmatch(text):
        unsigned, exponent, mantissa, top, bias, nosub = match.groups()
        return float_format(
            _number(exponent),
            _number(mantissa),
            signed=not unsigned,
            bias=None if bias is None else _number(bias),
            subnormals=not nosub,
            top_codes={None: TopCodes.IEEE, "fn": TopCodes.FN, "finite": TopCodes.FINITE}[top],
        )
    if match := _INTEGER.fullmatch(text):
        return integer_format(_number(match[2]), signed=not match[1])
    if match := _FIXED.fullmatch(text):
        return fixed_point_format(_number(match[2]), _number(match[3]), signed=not match[1])
    return None


def _number(digits: str) -> int:
    """Return a decimal number of a name; more than five digits cannot be meant."""
    if len(digits) > 6:
        raise FormatError(f"the number {digits[:12]}... in a format name is too long ({EXPECTED})")
    return int(digits)
