"""Which cells a sweep has, and what each of them is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bitloop.errors import FormatError, UsageError
from bitloop.network.network import Network
from bitloop.study.grid import BASE, Cell, Grid, element_bits, grid_position, parse_range, recipe_of

Networks = Callable[[str], Network]


def specs(**fields: object) -> list[str]:
    defaults: dict[str, object] = {"exponents": None}
    return [str(spec) for spec in Grid(**{**defaults, **fields}).specs()]  # type: ignore[arg-type]


def test_the_default_grid_has_88_formats(networks: Networks) -> None:
    cells = Grid().cells(networks("mlp"))
    assert len(cells) == 1 + 88
    assert cells[0] == BASE
    assert len({cell.key for cell in cells}) == 89
    assert {grid_position(cell.spec) for cell in cells[1:]} == {(e, m, "") for e in range(1, 9) for m in range(11)}


def test_scales_and_roundings_are_put_behind_formats() -> None:
    found = specs(formats=("e4m3", "int4"), scales=("pow2", "channel"), roundings=("nearest", "toward_zero"))
    assert found == [
        "e4m3:pow2",
        "e4m3:pow2:toward_zero",
        "e4m3:channel",
        "e4m3:channel:toward_zero",
        "int4:pow2",
        "int4:pow2:toward_zero",
        "int4:channel",
        "int4:channel:toward_zero",
    ]


def test_what_a_format_says_itself_stays() -> None:
    assert specs(formats=("int4:channel", "e4m3:away"), scales=("pow2",), roundings=("toward_zero",)) == [
        "int4:channel:toward_zero",
        "e4m3:pow2:away",
    ]


def test_equal_specs_are_one() -> None:
    assert specs(formats=("bf16", "e8m7", "e8m7:none:nearest"), exponents=(8, 8), mantissas=(7, 7)) == ["bf16"]


def test_integers_and_stochastic_rounding() -> None:
    assert specs(ints=(2, 4)) == ["int2", "int3", "int4"]
    assert specs(ints=(3, 3), roundings=("stochastic", "stochastic:seed=7")) == [
        "int3:stochastic",
        "int3:stochastic:seed=7",
    ]


def test_what_is_changed(networks: Networks) -> None:
    grid = Grid(exponents=None, formats=("e3m1:channel",), of=("weights", "both"), others="int8:channel")
    weights, both = (recipe_of(cell, grid.others) for cell in grid.cells(networks("mlp"))[1:])
    assert (str(weights.weights), str(weights.biases)) == ("e3m1:channel", "int8")
    assert (str(both.weights), str(both.biases)) == ("e3m1:channel", "e3m1:fp32")
    biases = recipe_of(Cell("biases", None, "e3m1"), "fp32")
    assert (str(biases.weights), str(biases.biases)) == ("fp32", "e3m1")
    base = recipe_of(BASE, "int4")
    assert (str(base.weights), str(base.biases)) == ("fp32", "fp32")
    with pytest.raises(FormatError, match="biases"):
        recipe_of(Cell("biases", None, "int4:channel"), "fp32")


def test_layer_by_layer(networks: Networks) -> None:
    grid = Grid(exponents=None, formats=("int4", "int3"), of=("weights", "biases"), per_layer=True)
    cells = grid.cells(networks("cnn"))
    assert [cell.key for cell in cells[1:5]] == [
        "conv1.weights=int4",
        "conv1.weights=int3",
        "conv1.biases=int4",
        "conv1.biases=int3",
    ]
    assert len(cells) == 1 + 3 * 2 * 2
    recipe = recipe_of(cells[3], "e4m3")
    assert {name: str(spec) for name, spec in recipe.overrides.items()} == {"conv1.biases": "int4"}
    assert (str(recipe.weights), str(recipe.biases)) == ("e4m3", "e4m3")
    both = recipe_of(Cell("both", "dense1", "int4:channel"), "fp32")
    assert {name: str(spec) for name, spec in both.overrides.items()} == {
        "dense1.weights": "int4:channel",
        "dense1.biases": "int4",
    }


def test_layers_without_biases_have_no_cells_of_them(networks: Networks) -> None:
    network = networks("bitopt2018")
    cells = Grid(exponents=None, formats=("int4",), of=("biases",), per_layer=True).cells(network)
    assert [cell.layer for cell in cells[1:]] == ["dense1", "dense2"]


@pytest.mark.parametrize(
    ("spec", "bits", "position"),
    [
        ("fp32", 32, (8, 23, "")),
        ("bf16:pow2", 16, (8, 7, "pow2")),
        ("e4m3:pow2:toward_zero", 8, (4, 3, "pow2:toward_zero")),
        ("e4m3fn", 8, None),
        ("ue4m3", 7, None),
        ("e4m3b9", 8, None),
        ("int4:channel", 4, None),
        ("q3.4", 8, None),
        ("ternary", 1.6, None),
        ("ternary:bits", 2, None),
        ("binary", 1, None),
    ],
)
def test_widths_and_places_in_the_grid(spec: str, bits: float, position: tuple[int, int, str] | None) -> None:
    assert element_bits(spec) == bits
    assert grid_position(spec) == position


def test_ranges() -> None:
    assert parse_range("1-8", "x") == (1, 8)
    assert parse_range(" 4 ", "x") == (4, 4)
    for text in ("", "a", "1-", "-3", "1-2-3", "1.5"):
        with pytest.raises(UsageError, match="range"):
            parse_range(text, "exponent bits")


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        ({"exponents": (0, 3)}, UsageError, "exponent bits from 0 to 3"),
        ({"exponents": (1, 9)}, UsageError, "1 to 8"),
        ({"mantissas": (5, 4), "exponents": (1, 2)}, UsageError, "from 5 to 4"),
        ({"ints": (1, 8)}, UsageError, "2 to 16"),
        ({}, UsageError, "nothing to sweep"),
        ({"formats": ("e4m3",), "scales": ("huge",)}, FormatError, "unknown scale 'huge'"),
        ({"formats": ("e4m3",), "roundings": ("up",)}, FormatError, "unknown rounding 'up'"),
        ({"formats": ("nope",)}, FormatError, "unknown format"),
        ({"formats": ("int4",), "of": ("all",)}, UsageError, "there are weights, biases, both"),
        ({"formats": ("int4",), "of": ()}, UsageError, "empty"),
        ({"formats": ("int4",), "others": "nope"}, FormatError, "unknown format"),
    ],
)
def test_what_makes_no_sense(fields: dict[str, object], kind: type[Exception], words: str, networks: Networks) -> None:
    defaults: dict[str, object] = {"exponents": None}
    with pytest.raises(kind, match=words):
        Grid(**{**defaults, **fields}).cells(networks("mlp"))  # type: ignore[arg-type]
