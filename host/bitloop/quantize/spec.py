"""What a tensor is quantized to: format, scale, rounding; and how that is written (docs/formats.md, "Recipes")."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from bitloop.errors import FormatError
from bitloop.numeric.codec import Overflow
from bitloop.numeric.formats import Format, close_matches, parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.spec import FormatKind, Granularity, Packing, ScaleKind

_SEED = "seed="
_PRUNE = "prune="
_CORRECTED = "corrected"
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,40})?(e[+-]?[0-9]{1,3})?")
MAX_PRUNE = float(1 << 100)
"""Above any weight; a threshold that says so is a slip."""
MAX_SEED = 0xFFFFFFFF


class ScaleRule(str, Enum):
    """How a scale is chosen from values (docs/quantization.md)."""

    COVER = "cover"
    """The smallest that clips nothing; of ternary and binary the one with the least squared error."""
    MSE = "mse"
    """The least squared error of the tensor; what is large may clip."""
    OUTPUT = "output"
    """The least squared error of the layer's output on calibration images."""
    LOSS = "loss"
    """The least divergence of the network's probabilities from binary32's on calibration images."""

    @property
    def takes_images(self) -> bool:
        """Whether it takes calibration images."""
        return self in (ScaleRule.OUTPUT, ScaleRule.LOSS)


class RoundingSearch(str, Enum):
    """How the elements next to a weight are chosen among (docs/quantization.md)."""

    NONE = "none"
    """By the rounding, each weight for itself."""
    ADAROUND = "adaround"
    """The element below or above, whichever lets the layer's output err least on calibration images."""
    QUANTEASE = "quantease"
    """Any element, by the same measure."""


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
        rule: how the scale is chosen.
        prune: values of a smaller magnitude are set to zero first; 0 prunes nothing.
        search: how weights are rounded if not each for itself.
        corrected: biases: the mean shift of the layer's output on calibration images is taken off first.

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
    rule: ScaleRule = ScaleRule.COVER
    prune: float = 0.0
    search: RoundingSearch = RoundingSearch.NONE
    corrected: bool = False

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
        if self.rule is not ScaleRule.COVER and self.scale is ScaleKind.NONE:
            raise FormatError(f"{name} without a scale has none to choose: leave out {self.rule.value!r} or 'none'")
        if self.rule is not ScaleRule.COVER and self.overflow == "inf":
            raise FormatError(f"{self.rule.value!r} may let values clip, which 'inf' forbids: leave one out")
        if not 0.0 <= self.prune <= MAX_PRUNE:
            raise FormatError(f"a pruning threshold is 0 to {MAX_PRUNE:g}, not {self.prune!r}")
        if self.prune and self.format.kind is FormatKind.BINARY:
            raise FormatError("binary has no zero that pruned values could be: leave out 'prune', or take ternary")
        if self.search is not RoundingSearch.NONE and self.rounding is not Rounding.NEAREST:
            raise FormatError(f"{self.search.value!r} and {self.rounding.value!r} both say how to round; leave one out")

    def __str__(self) -> str:
        """Return the canonical text; :func:`parse_tensor_spec` gives an equal spec back."""
        channel = self.granularity is Granularity.CHANNEL
        fitted = self.rule is not ScaleRule.COVER
        parts = [self.format.name]
        if self.scale is not default_scale(self.format, scaled=channel or self.affine or fitted):
            parts.append(self.scale.name.lower())
        if channel:
            parts.append("channel")
        if self.affine:
            parts.append("affine")
        if self.rule is not ScaleRule.COVER:
            parts.append(self.rule.value)
        if self.prune:
            parts.append(f"{_PRUNE}{self.prune!r}")
        if self.search is not RoundingSearch.NONE:
            parts.append(self.search.value)
        if self.rounding is not Rounding.NEAREST:
            parts.append(self.rounding.value)
        if self.overflow == "inf":
            parts.append("inf")
        if self.seed:
            parts.append(f"{_SEED}{self.seed}")
        if self.packing is not default_packing(self.format):
            parts.append(self.packing.name.lower())
        if self.corrected:
            parts.append(_CORRECTED)
        return ":".join(parts)

    @property
    def calibrated(self) -> bool:
        """Whether it takes calibration images to quantize to it."""
        return self.corrected or self.rule.takes_images or self.search is not RoundingSearch.NONE

    def for_biases(self) -> TensorSpec:
        """Return what biases have in common with the weights: one scale a tensor, nothing pruned, no rounding search.

        A bias is added to the output as it is, so its own squared error is the output's: what takes calibration images
        becomes ``mse``.
        """
        rule = ScaleRule.MSE if self.rule.takes_images else self.rule
        return replace(self, granularity=Granularity.TENSOR, rule=rule, prune=0.0, search=RoundingSearch.NONE)


def default_scale(fmt: Format, *, scaled: bool = False) -> ScaleKind:
    """Return the scale that is taken when none is named.

    Floats and fixed point have a range of their own and take none, unless something that needs a scale was asked for
    (``scaled``: per channel, affine, a rule). Integers, ternary and binary count steps and take a binary32 scale.
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
    **{rule.value: ("rule", rule) for rule in ScaleRule},
    **{search.value: ("search", search) for search in RoundingSearch if search is not RoundingSearch.NONE},
    "affine": ("affine", True),
    "inf": ("overflow", "inf"),
    _CORRECTED: ("corrected", True),
}
TOKENS: tuple[str, ...] = (*_TOKENS, f"{_SEED}N", f"{_PRUNE}THRESHOLD")
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
    fitted = given.get("rule", ScaleRule.COVER) is not ScaleRule.COVER
    scaled = given.get("granularity") is Granularity.CHANNEL or given.get("affine", False) or fitted
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
    if token.startswith(_PRUNE):
        number = token[len(_PRUNE) :]
        if not _NUMBER.fullmatch(number):
            raise FormatError(f"{token!r} in {text!r}: a pruning threshold is a number such as 0.05")
        return "prune", float(number)
    raise FormatError(
        f"unknown token {token!r} in {text!r}{close_matches(token, TOKENS)} (expected one of {', '.join(TOKENS)})"
    )
