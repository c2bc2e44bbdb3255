"""What a sweep measures: cells, each one spec for some tensors of a network while the rest stays as it is."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import FormatError, UsageError
from bitloop.network.network import Network
from bitloop.numeric.formats import Format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.recipe import Recipe
from bitloop.quantize.spec import TensorSpec, parse_tensor_spec
from bitloop.spec import (
    MAX_EXPONENT_BITS,
    MAX_INTEGER_BITS,
    MAX_MANTISSA_BITS,
    MIN_INTEGER_BITS,
    TRITS_PER_BYTE,
    Packing,
)

__all__ = ["BASE", "OF", "Cell", "Grid", "base_recipe", "element_bits", "grid_position", "parse_range", "recipe_of"]

UNQUANTIZED = "fp32"
OF = ("weights", "biases", "both")
"""What a cell changes."""
EXPONENTS = (1, 8)
MANTISSAS = (0, 10)
_SCALES = {"none", "pow2", "fp32", "tensor", "channel", "affine", "mse"}
_ROUNDINGS = {rounding.value for rounding in Rounding}


@dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Attributes:
        of: which tensors get the spec: "weights", "biases" or "both"; "base" is the network in binary32.
        layer: the layer whose tensors these are; None is every layer.
        spec: a tensor spec in its canonical text.
    """

    of: str
    layer: str | None
    spec: str

    @property
    def key(self) -> str:
        """A text that no other cell of a sweep has."""
        where = self.of if self.layer is None else f"{self.layer}.{self.of}"
        return f"{where}={self.spec}"


BASE = Cell("base", None, UNQUANTIZED)
"""The network in binary32."""


@dataclass(frozen=True)
class Grid:
    """What is swept, as texts; :meth:`cells` gives the cells.

    Attributes:
        exponents: least and greatest exponent bits of the float grid, or None for no such grid.
        mantissas: least and greatest mantissa bits of it.
        ints: least and greatest width of integers, or None for none.
        formats: tensor specs besides.
        scales: what is put behind a format that names no scale itself: tokens such as ``pow2``, ``channel:pow2``; ""
            is the format's default.
        roundings: the same for roundings.
        prunes: thresholds; values of a smaller magnitude are zeroed first. 0 is none.
        of: some of :data:`OF`.
        per_layer: whether each layer is changed alone, instead of all at once.
        others: spec of the tensors that are not swept (biases: with one scale a tensor).
    """

    exponents: tuple[int, int] | None = EXPONENTS
    mantissas: tuple[int, int] = MANTISSAS
    ints: tuple[int, int] | None = None
    formats: tuple[str, ...] = ()
    scales: tuple[str, ...] = ("",)
    roundings: tuple[str, ...] = ("",)
    prunes: tuple[float, ...] = (0.0,)
    of: tuple[str, ...] = ("weights",)
    per_layer: bool = False
    others: str = UNQUANTIZED

    def specs(self) -> list[TensorSpec]:
        """Return the specs in the order of the grid, each once.

        Raises:
            FormatError: a text cannot be read, or parts do not go together.
            UsageError: a range is out of bounds, or there is nothing to sweep.
        """
        names = list(self.formats)
        if self.exponents is not None:
            names += [
                f"e{exponent}m{mantissa}"
                for exponent in _values("exponent bits", self.exponents, 1, MAX_EXPONENT_BITS)
                for mantissa in _values("mantissa bits", self.mantissas, 0, MAX_MANTISSA_BITS)
            ]
        if self.ints is not None:
            names += [f"int{n}" for n in _values("widths of integers", self.ints, MIN_INTEGER_BITS, MAX_INTEGER_BITS)]
        texts = [
            ":".join(filter(None, (name, *extra, f"prune={prune!r}" if prune else "")))
            for name in names
            for extra in _extras(name, self.scales, self.roundings)
            for prune in self.prunes
        ]
        if not texts:
            raise UsageError("there is nothing to sweep: name --formats, --ints, --exponents, --scale or --rounding")
        return list(dict.fromkeys(parse_tensor_spec(text) for text in texts))

    def cells(self, network: Network) -> list[Cell]:
        """Return the cells for a network, the base first; cells of one layer stand together.

        Raises:
            FormatError, UsageError: as :meth:`specs`; or ``of`` names nothing that the network has.
        """
        unknown = [word for word in self.of if word not in OF]
        if unknown or not self.of:
            raise UsageError(f"--of is {', '.join(self.of) or 'empty'}; there are {', '.join(OF)}")
        parse_tensor_spec(self.others)
        specs = self.specs()
        layers = [name.removesuffix(".weights") for name in network.parameters if name.endswith(".weights")]
        cells = [BASE]
        for layer in layers if self.per_layer else [None]:
            for of in dict.fromkeys(self.of):
                if of == "weights" or _has_biases(network, layer):
                    cells += [Cell(of, layer, str(spec)) for spec in specs]
        if len(cells) == 1:
            raise UsageError(f"network {network.name!r} has no {' or '.join(self.of)} to sweep")
        return cells


def recipe_of(cell: Cell, others: str) -> Recipe:
    """Return the recipe that a cell stands for.

    Args:
        cell: what is changed.
        others: spec of what is not.

    Raises:
        FormatError: a spec does not go with biases (one scale a channel).
    """
    if cell.of == "base":
        return base_recipe(UNQUANTIZED)
    base, spec = base_recipe(others), parse_tensor_spec(cell.spec)
    weights = spec if cell.of in ("weights", "both") else None
    biases = None if cell.of == "weights" else spec.for_biases() if cell.of == "both" else spec
    if cell.layer is None:
        return Recipe(weights or base.weights, biases or base.biases)
    changed = {f"{cell.layer}.weights": weights, f"{cell.layer}.biases": biases}
    return Recipe(base.weights, base.biases, {name: spec for name, spec in changed.items() if spec is not None})


def base_recipe(others: str) -> Recipe:
    """Return the recipe of what is not swept: one spec for all tensors, biases with one scale a tensor."""
    spec = parse_tensor_spec(others)
    return Recipe(spec, spec.for_biases())


def element_bits(spec: str) -> float:
    """Return the bits that an element of a spec takes where it is stored: 1.6 for ternary, five to a byte."""
    parsed = parse_tensor_spec(spec)
    return 8 / TRITS_PER_BYTE if parsed.packing is Packing.TRITS else float(parsed.format.width_bits)


def grid_position(spec: str) -> tuple[int, int, str] | None:
    """Return exponent bits, mantissa bits, and what is asked for besides; None unless it is a plain ``e<E>m<M>``."""
    parsed = parse_tensor_spec(spec)
    fmt: Format = parsed.format
    if not fmt.is_float or fmt != parse_tensor_spec(f"e{fmt.exponent_bits}m{fmt.mantissa_bits}").format:
        return None
    return fmt.exponent_bits, fmt.mantissa_bits, str(parsed).partition(":")[2]


def parse_range(text: str, what: str) -> tuple[int, int]:
    """Read ``1-8``, or ``4`` for 4 to 4.

    Raises:
        UsageError: it is neither.
    """
    match = re.fullmatch(r"\s*([0-9]{1,3})\s*(?:-\s*([0-9]{1,3})\s*)?", text)
    if match is None:
        raise UsageError(f"{what} are given as a range such as 1-8, or one number; not as {text!r}")
    first = int(match[1])
    return first, int(match[2]) if match[2] else first


def _values(what: str, bounds: tuple[int, int], least: int, most: int) -> range:
    low, high = bounds
    if not least <= low <= high <= most:
        raise UsageError(f"{what} from {low} to {high} cannot be swept; there are {least} to {most}")
    return range(low, high + 1)


def _extras(name: str, scales: Sequence[str], roundings: Sequence[str]) -> list[tuple[str, str]]:
    """Return what is put behind a format: every scale with every rounding, of kinds that it does not name itself."""
    own = set(name.strip().lower().split(":")[1:])
    unknown = [text for text in scales if not set(filter(None, text.split(":"))) <= _SCALES]
    if unknown:
        raise FormatError(f"unknown scale {unknown[0]!r}; take some of {', '.join(sorted(_SCALES))}, joined by colons")
    wrong = [text for text in roundings if text and text.partition(":")[0] not in _ROUNDINGS]
    if wrong:
        raise FormatError(f"unknown rounding {wrong[0]!r}; there are {', '.join(sorted(_ROUNDINGS))}")
    return [
        (scale, rounding)
        for scale in (("",) if own & _SCALES else scales)
        for rounding in (("",) if own & _ROUNDINGS else roundings)
    ]


def _has_biases(network: Network, layer: str | None) -> bool:
    return any(name.endswith(".biases") and (layer is None or name == f"{layer}.biases") for name in network.parameters)
