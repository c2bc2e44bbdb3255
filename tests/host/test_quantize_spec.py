"""Texts of tensor specs and recipes, and what is refused."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bitloop.errors import FormatError
from bitloop.numeric.formats import COMMON_NAMES, parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.recipe import Recipe, parse_recipe
from bitloop.quantize.spec import TensorSpec, parse_tensor_spec
from bitloop.spec import Granularity, Packing, ScaleKind


@pytest.mark.parametrize(
    ("text", "scale", "granularity", "canonical"),
    [
        ("fp32", ScaleKind.NONE, Granularity.TENSOR, "fp32"),
        ("e4m3", ScaleKind.NONE, Granularity.TENSOR, "e4m3"),
        ("q3.4", ScaleKind.NONE, Granularity.TENSOR, "q3.4"),
        ("int8", ScaleKind.FP32, Granularity.TENSOR, "int8"),
        ("ternary", ScaleKind.FP32, Granularity.TENSOR, "ternary"),
        ("binary", ScaleKind.FP32, Granularity.TENSOR, "binary"),
        ("int8:fp32:tensor:bits:nearest", ScaleKind.FP32, Granularity.TENSOR, "int8"),
        ("int8:none", ScaleKind.NONE, Granularity.TENSOR, "int8:none"),
        ("e4m3:pow2", ScaleKind.POW2, Granularity.TENSOR, "e4m3:pow2"),
        ("e4m3:channel", ScaleKind.FP32, Granularity.CHANNEL, "e4m3:channel"),
        ("e4m3:channel:fp32", ScaleKind.FP32, Granularity.CHANNEL, "e4m3:channel"),
        ("q3.4:channel:pow2", ScaleKind.POW2, Granularity.CHANNEL, "q3.4:pow2:channel"),
        ("INT4:Channel", ScaleKind.FP32, Granularity.CHANNEL, "int4:channel"),
        ("q3.4:affine", ScaleKind.FP32, Granularity.TENSOR, "q3.4:affine"),
        ("uint8:affine:none", ScaleKind.NONE, Granularity.TENSOR, "uint8:none:affine"),
        ("ternary:bits:pow2", ScaleKind.POW2, Granularity.TENSOR, "ternary:pow2:bits"),
        ("e8m23:toward_zero", ScaleKind.NONE, Granularity.TENSOR, "fp32:toward_zero"),
        ("e5m2:seed=7:stochastic", ScaleKind.NONE, Granularity.TENSOR, "e5m2:stochastic:seed=7"),
        ("fp16:inf", ScaleKind.NONE, Granularity.TENSOR, "fp16:inf"),
    ],
)
def test_defaults_and_canonical_texts(text: str, scale: ScaleKind, granularity: Granularity, canonical: str) -> None:
    spec = parse_tensor_spec(text)
    assert (spec.scale, spec.granularity, str(spec)) == (scale, granularity, canonical)


def test_what_the_tokens_mean() -> None:
    assert parse_tensor_spec("int4:channel:stochastic:seed=4294967295:affine") == TensorSpec(
        parse_format("int4"),
        ScaleKind.FP32,
        Granularity.CHANNEL,
        Rounding.STOCHASTIC,
        affine=True,
        seed=0xFFFFFFFF,
    )
    assert parse_tensor_spec("ternary").packing is Packing.TRITS
    assert parse_tensor_spec("ternary:bits").packing is Packing.BITS
    assert parse_tensor_spec("e5m2:inf").overflow == "inf"
    assert parse_tensor_spec("e5m2").overflow == "saturate"


@given(
    name=st.sampled_from([*COMMON_NAMES, "e4m3fnb3nosub", "ue2m5"]),
    scale=st.sampled_from(ScaleKind),
    granularity=st.sampled_from(Granularity),
    rounding=st.sampled_from(Rounding),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    seed=st.integers(0, 3),
    data=st.data(),
)
def test_every_spec_round_trips(  # noqa: PLR0917 - one a field
    name: str,
    scale: ScaleKind,
    granularity: Granularity,
    rounding: Rounding,
    flags: tuple[bool, bool, bool],
    seed: int,
    data: st.DataObject,
) -> None:
    affine, infinite, trits = flags
    try:
        spec = TensorSpec(
            parse_format(name),
            scale,
            granularity,
            rounding,
            overflow="inf" if infinite else "saturate",
            affine=affine,
            seed=seed,
            packing=Packing.TRITS if trits else Packing.BITS,
        )
    except FormatError:
        assume(False)
        raise
    assert parse_tensor_spec(str(spec)) == spec
    fmt, *tokens = str(spec).split(":")
    shuffled = data.draw(st.permutations(tokens))
    assert parse_tensor_spec(":".join([fmt, *shuffled])) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("e4m33:pow2", "0 to 23 mantissa bits"),
        ("e4m3fnuz:pow2", "did you mean e4m3fn"),
        ("int8:pow", "unknown token 'pow' in 'int8:pow'; did you mean pow2"),
        ("int8:chanel", "did you mean channel"),
        ("int8:", "unknown token ''"),
        ("int8:per-tensor", r"expected one of none, pow2, fp32, tensor, channel, nearest, .*seed=N"),
        ("int8:pow2:fp32", "says both 'pow2' and 'fp32'"),
        ("int8:pow2:pow2", "says both"),
        ("int8:seed=1:seed=2:stochastic", "says both"),
        ("e4m3:none:channel", "nothing that could differ by channel"),
        ("e4m3:affine", "e4m3 cannot be affine"),
        ("ternary:affine", "ternary cannot be affine"),
        ("e4m3fn:inf", "e4m3fn has no infinities"),
        ("int8:inf", "int8 has no infinities"),
        ("int8:trits", "int8 cannot be packed as trits"),
        ("int8:seed=1", "a seed needs the rounding 'stochastic'"),
        ("int8:stochastic:seed=-1", "a seed is a number"),
        ("int8:stochastic:seed=x", "a seed is a number"),
        ("int8:stochastic:seed=", "a seed is a number"),
        ("int8:stochastic:seed=4294967296", "a seed is 0 to 4294967295"),
        ("int8:stochastic:seed=99999999999999999999", "a seed is a number"),
    ],
)
def test_specs_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_tensor_spec(text)


@pytest.mark.parametrize(
    ("weights", "biases", "expected"),
    [
        ("e4m3:pow2", None, "e4m3:pow2"),
        ("e4m3:channel", None, "e4m3:fp32"),
        ("e8m2:toward_zero", None, "e8m2:toward_zero"),
        ("ue4m3", None, "fp32"),
        ("int8:channel", None, "fp32"),
        ("ternary", None, "fp32"),
        ("q3.4", None, "fp32"),
        ("int8", "int16:pow2", "int16:pow2"),
    ],
)
def test_biases_by_default(weights: str, biases: str | None, expected: str) -> None:
    assert str(parse_recipe(weights, biases).biases) == expected


def test_overrides() -> None:
    recipe = parse_recipe("e4m3:pow2", "e5m2", ["dense1.weights=int4:channel", " dense2.biases = fp16 "])
    assert str(recipe.spec_for("dense1.weights")) == "int4:channel"
    assert str(recipe.spec_for("dense2.weights")) == "e4m3:pow2"
    assert str(recipe.spec_for("dense1.biases")) == "e5m2"
    assert str(recipe.spec_for("dense2.biases")) == "fp16"
    assert recipe.to_dict() == {
        "weights": "e4m3:pow2",
        "biases": "e5m2",
        "overrides": {"dense1.weights": "int4:channel", "dense2.biases": "fp16"},
    }


def test_an_override_of_no_tensor_lists_those_there_are() -> None:
    recipe = parse_recipe("int8", None, ["dens1.weights=int4"])
    with pytest.raises(FormatError, match=r"no tensor 'dens1.weights'.*did you mean dense1.weights.*dense1.biases\)"):
        recipe.check_names(["dense1.weights", "dense1.biases"])


@pytest.mark.parametrize("text", ["dense1.weights", "=int8", "dense1.weights=", "", "="])
def test_overrides_that_cannot_be_read(text: str) -> None:
    with pytest.raises(FormatError, match="expected TENSOR=SPEC"):
        parse_recipe("int8", None, [text])


def test_contradictions_are_refused() -> None:
    with pytest.raises(FormatError, match="overridden twice"):
        parse_recipe("int8", None, ["a.weights=int4", "a.weights=int5"])
    with pytest.raises(FormatError, match="biases cannot have a scale per channel"):
        parse_recipe("int8", "int8:channel")
    with pytest.raises(FormatError, match=r"a\.biases cannot have a scale per channel"):
        parse_recipe("int8", None, ["a.biases=int8:channel"])
    channel = parse_tensor_spec("int8:channel")
    with pytest.raises(FormatError, match="one value a channel"):
        Recipe(channel, channel)
