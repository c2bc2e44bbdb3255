"""What a tensor is quantized to: format, scale, rounding; and how that is written (docs/formats.md, "Recipes")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bitloop.errors import FormatError
from bitloop.numeric.codec import Overflow
from bitloop.numeric.formats import Format, close_matches, parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.spec import FormatKind, Granularity, Packing, ScaleKind

_SEED = "seed="
MAX_SEED = 0xFFFFFFFF


@dataclass(frozen=True)
class TensorSpec:
    """How one tensor is quantized.

    Attributes:
        format: of its elements.
        scale: what decoded elements are multiplied by.
        granularity: one scale (and zero point) a tensor, or one an output channel.
        rounding: between two elements.
        overflow: ``saturate`` to the largest finite element, or to infinity (``inf``), which no model may hold: it
            makes quantization fail where a value is too large, instead of saturating it.
        affine: integers with a zero point, so that the range need not be symmetric.
        seed: of stochastic rounding, 32 bits.
        packing: how the codes lie in the file.

    Raises:
        FormatError: the parts do not go together.
    """

    format: Format
    scale: ScaleKind
    granularity: Granularity = Granularity.TENSOR
    rounding: Rounding = Rounding.NEAREST
    overflow: Overflow = "saturate"
    affine: bool = False
    seed: int = 0
    packing: Packing = Packing.BITS

    def __post_init__(self) -> None:
        name = self.format.name
        if self.affine and not self.format.is_integer:
            raise FormatError(f"{name} cannot be affine: only integers and fixed point have a zero point")
        if self.granularity is Granularity.CHANNEL and self.scale is ScaleKind.NONE and not self.affine:
            raise FormatError(f"{name} without a scale has nothing that could differ by channel: leave out 'channel'")
        if self.overflow == "inf" and not self.format.has_infinities:
            raise FormatError(f"{name} has no infinities: leave out 'inf'")
        if not 0 <= self.seed <= MAX_SEED:
            raise FormatError(f"a seed is 0 to {MAX_SEED}, not {self.seed}")
        if self.seed and self.rounding is not Rounding.STOCHASTIC:
            raise FormatError(f"a seed needs the rounding 'stochastic', not {self.rounding.value!r}")
        if self.packing is Packing.TRITS and self.format.kind is not FormatKind.TERNARY:
            raise FormatError(f"{name} cannot be packed as trits: only ternary can")

    def __str__(self) -> str:
        """Return the canonical text; :func:`parse_tensor_spec` gives an equal spec back."""
        channel = self.granularity is Granularity.CHANNEL
        parts = [self.format.name]
        if self.scale is not default_scale(self.format, scaled=channel or self.affine):
            parts.append(self.scale.name.lower())
        if channel:
            parts.append("channel")
        if self.affine:
            parts.append("affine")
        if self.rounding is not Rounding.NEAREST:
            parts.append(self.rounding.value)
        if self.overflow == "inf":
            parts.append("inf")
        if self.seed:
            parts.append(f"{_SEED}{self.seed}")
        if self.packing is not default_packing(self.format):
            parts.append(self.packing.name.lower())
        return ":".join(parts)

    def for_biases(self) -> TensorSpec:
        """Return the same with one scale a tensor, as biases have one value a channel."""
        return replace(self, granularity=Granularity.TENSOR)


def default_scale(fmt: Format, *, scaled: bool = False) -> ScaleKind:
    """Return the scale that is taken when none is named.

    Floats and fixed point have a range of their own and take none, unless something that needs a scale was asked for
    (``scaled``: per channel, affine). Integers, ternary and binary count steps and take a binary32 scale.
    """
    own_range = fmt.is_float or fmt.fixed_point
    return ScaleKind.NONE if own_range and not scaled else ScaleKind.FP32


def default_packing(fmt: Format) -> Packing:
    """Return five trits a byte for ternary (1.6 bits an element), the bit stream for all others."""
    return Packing.TRITS if fmt.kind is FormatKind.TERNARY else Packing.BITS


_TOKENS: dict[str, tuple[str, Any]] = {
    **{kind.name.lower(): ("scale", kind) for kind in ScaleKind},
    **{granularity.name.lower(): ("granularity", granularity) for granularity in Granularity},
    **{rounding.value: ("rounding", rounding) for rounding in Rounding},
    **{packing.name.lower(): ("packing", packing) for packing in Packing},
    "affine": ("affine", True),
    "inf": ("overflow", "inf"),
}
TOKENS: tuple[str, ...] = (*_TOKENS, f"{_SEED}N")
"""What may follow a format's name, each behind a colon."""


def parse_tensor_spec(text: str) -> TensorSpec:
    """Return the spec of a text such as ``e4m3:pow2`` or ``int4:channel:stochastic:seed=7``.

    Args:
        text: a format's name, then any of :data:`TOKENS` in any order, each behind a colon and at most one of a kind.

    Raises:
        FormatError: the format or a token is unknown (close matches are named), two tokens contradict one another, or
            the parts do not go together.
    """
    name, *tokens = text.strip().lower().split(":")
    fmt = parse_format(name)
    given: dict[str, Any] = {}
    words: dict[str, str] = {}
    for token in tokens:
        field, value = _parse_token(token, text)
        if field in given:
            raise FormatError(f"{text!r} says both {words[field]!r} and {token!r}; leave one out")
        given[field], words[field] = value, token
    scaled = given.get("granularity") is Granularity.CHANNEL or given.get("affine", False)
    given.setdefault("scale", default_scale(fmt, scaled=scaled))
    given.setdefault("packing", default_packing(fmt))
    build: Callable[..., TensorSpec] = TensorSpec
    return build(fmt, **given)


def _parse_token(token: str, text: str) -> tuple[str, Any]:
    if token in _TOKENS:
        return _TOKENS[token]
    if token.startswith(_SEED):
        digits = token[len(_SEED) :]
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
            raise FormatError(f"{token!r} in {text!r}: a seed is a number from 0 to {MAX_SEED}")
        return "seed", int(digits)
    raise FormatError(
        f"unknown token {token!r} in {text!r}{close_matches(token, TOKENS)} (expected one of {', '.join(TOKENS)})"
    )
