"""The bits of a code: what each position means in its format, and a MODEL with one of them flipped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import numpy.typing as npt

from bitloop.errors import UsageError
from bitloop.numeric.codec import is_finite_code
from bitloop.numeric.formats import Format
from bitloop.numeric.rounding import stochastic_bits
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import FormatKind

__all__ = ["BitKind", "BitPosition", "Flip", "check_choice", "flip", "positions_of", "struck"]

_SEEDS = 1 << 32


class BitKind(str, Enum):
    """What part of a code a bit belongs to; magnitudes are those of integers, fixed point and ternary."""

    SIGN = "sign"
    EXPONENT = "exponent"
    MANTISSA = "mantissa"
    MAGNITUDE = "magnitude"


@dataclass(frozen=True)
class BitPosition:
    """A bit of the codes of a format.

    Attributes:
        bit: its number in the code, 0 being the least significant one.
        kind: the part of the code that it belongs to.
        index: its number in that part, 0 being the least significant one.
        meaning: what its flip does to an element, in short: ``×2^±4``, ``±2^-3 of 2^e``, ``±2^6``, ``−x``.
    """

    bit: int
    kind: BitKind
    index: int
    meaning: str

    @property
    def name(self) -> str:
        """What it is called, as in ``sign``, ``exponent 3``, ``mantissa 0``, ``magnitude 6``."""
        return self.kind.value if self.kind is BitKind.SIGN else f"{self.kind.value} {self.index}"

    @property
    def short(self) -> str:
        """The same for the head of a narrow column: ``S``, ``E3``, ``M0``; of a magnitude the number alone."""
        head = {BitKind.SIGN: "S", BitKind.EXPONENT: "E", BitKind.MANTISSA: "M", BitKind.MAGNITUDE: ""}[self.kind]
        return head if self.kind is BitKind.SIGN else f"{head}{self.index}"


@dataclass(frozen=True, eq=False)
class Flip:
    """A MODEL with one bit of a tensor's codes flipped.

    Attributes:
        model: with other codes in that tensor, and nothing else changed.
        changed: codes that were flipped.
        left: codes that were to be flipped and were not, because what came of it would be no finite number, or no
            code: such a MODEL is refused wherever it is read.
        mean_change: mean distance of the changed values from what they were, scales included, in units of the root
            mean square of the tensor's values; None where no code was changed or all values are zero.
    """

    model: Model
    changed: int
    left: int
    mean_change: float | None


def positions_of(fmt: Format) -> list[BitPosition]:
    """Return the bits of a format's codes, from the sign or the most significant one down to the least."""
    return [_position(fmt, bit) for bit in reversed(range(fmt.width_bits))]


def check_choice(share: float, seed: int) -> None:
    """See that a share and a seed make sense.

    Raises:
        UsageError: the share is not in (0, 1], or the seed has more than 32 bits.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"the share of codes that is flipped lies above 0 and is at most 1, not {share}")
    if not 0 <= seed < _SEEDS:
        raise UsageError(f"a seed has 32 bits, 0 to {_SEEDS - 1}; {seed} has not")


def struck(count: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which of a tensor's codes are to be flipped, bool ``[count]``.

    Every code draws a number with the generator of stochastic rounding (docs/arithmetic.md), by its place and the
    seed; the least ones are taken, of equal ones the first. The same share and seed strike the same codes of a tensor
    at each bit, and a greater share strikes all that a lesser one does.

    Args:
        count: codes of the tensor, 1 or more.
        share: how many of them, in (0, 1]: the nearest whole number (half-way the even one), 1 at least.
        seed: 32 bits.

    Raises:
        UsageError: share or seed make no sense.
    """
    check_choice(share, seed)
    chosen = np.zeros(count, np.bool_)
    drawn = stochastic_bits(np.arange(count), seed)
    chosen[np.argsort(drawn, kind="stable")[: max(1, round(share * count))]] = True
    return chosen


def flip(model: Model, tensor: str, bit: int, *, share: float = 1.0, seed: int = 0) -> Flip:
    """Flip one bit of a tensor's codes.

    Args:
        model: stays as it is.
        tensor: its name.
        bit: number in the code, 0 being the least significant one.
        share: of the codes that are struck: :func:`struck`.
        seed: the same.

    Raises:
        UsageError: there is no such tensor or bit, or share or seed make no sense.
    """
    before = model.tensors.get(tensor)
    if before is None:
        raise UsageError(f"{model.name!r} has no tensor {tensor!r}; it has {', '.join(model.tensors)}")
    if not 0 <= bit < before.format.width_bits:
        raise UsageError(f"a code of {before.format.name} has the bits 0 to {before.format.width_bits - 1}, not {bit}")
    flipped = before.codes ^ np.uint32(1 << bit)
    chosen = struck(before.codes.size, share, seed).reshape(before.shape)
    taken = chosen & is_finite_code(flipped, before.format)
    after = replace(before, codes=np.where(taken, flipped, before.codes))
    changed = int(taken.sum())
    return Flip(
        model=replace(model, tensors={**model.tensors, tensor: after}),
        changed=changed,
        left=int(chosen.sum()) - changed,
        mean_change=_mean_change(before, after, taken),
    )


def _position(fmt: Format, bit: int) -> BitPosition:
    top = bit == fmt.width_bits - 1
    if fmt.kind is FormatKind.BINARY:
        return BitPosition(bit, BitKind.SIGN, 0, "−x")
    if fmt.is_float:
        if fmt.signed and top:
            return BitPosition(bit, BitKind.SIGN, 0, "−x")
        index = bit - fmt.mantissa_bits
        if index >= 0:
            return BitPosition(bit, BitKind.EXPONENT, index, f"×2^±{1 << index}")
        return BitPosition(bit, BitKind.MANTISSA, bit, f"±2^{index} of 2^e")
    meaning = f"±2^{bit - fmt.fraction_bits}"
    if fmt.signed and top:
        return BitPosition(bit, BitKind.SIGN, 0, meaning)
    return BitPosition(bit, BitKind.MAGNITUDE, bit, meaning)


def _mean_change(before: QuantizedTensor, after: QuantizedTensor, taken: npt.NDArray[np.bool_]) -> float | None:
    """Return the mean change of a changed value over the root mean square, in binary64: nothing overflows there."""
    scales = np.float64(1.0) if before.scales is None else before.scales.astype(np.float64)
    old, new = (tensor.elements().astype(np.float64) * scales for tensor in (before, after))
    size = float(np.sqrt(np.mean(np.square(old))))
    if not taken.any() or size == 0.0:
        return None
    return float(np.mean(np.abs(new - old)[taken])) / size
