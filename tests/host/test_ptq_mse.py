"""Scales by squared error: against hand calculation, brute force over all elements, and the default scale."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitloop.errors import FormatError
from bitloop.numeric.codec import decode_table
from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.spec import ScaleRule, parse_tensor_spec

F64 = npt.NDArray[np.float64]
VALUE = st.just(0.0) | st.floats(2.0**-20, 2.0**20, width=32).flatmap(lambda v: st.sampled_from([v, -v]))
VALUES = st.lists(VALUE, min_size=1, max_size=40).map(lambda v: np.array(v, np.float32))
FORMATS = ["int2", "int3", "int4", "int8", "int12", "uint4", "e2m1finite", "e3m0", "e3m1nosub", "e4m3", "e5m2", "fp16"]
FORMATS += ["ue3m2", "q3.4", "e8m2", "bf16", "ternary", "binary"]


def error(values: npt.NDArray[np.float32], spec: str) -> float:
    """The squared error of what the tensor then stands for, in exact sums of another make."""
    stands_for = quantize_tensor("a.weights", values, parse_tensor_spec(spec)).values()
    return math.fsum((float(a) - float(b)) ** 2 for a, b in zip(values.ravel(), stands_for.ravel(), strict=True))


@settings(max_examples=300, deadline=None)
@given(
    VALUES,
    st.sampled_from(FORMATS),
    st.sampled_from(["fp32", "pow2"]),
    st.sampled_from(["nearest", "toward_zero", "away", "nearest_away"]),
    st.booleans(),
)
def test_never_worse_than_the_default(
    values: npt.NDArray[np.float32], name: str, kind: str, rounding: str, affine: bool
) -> None:
    spec = f"{name}:{kind}:{rounding}"
    if affine and name.startswith(("int", "uint", "q")):
        spec += ":affine"
    assert error(values, f"{spec}:mse") <= error(values, spec)


def least_over_all_elements(values: F64, elements: F64) -> float:
    """Try every element for every value, each set with its own best scale: Σw² - A²/B, A > 0."""
    total = float((values**2).sum())
    best = total
    for chosen in itertools.product(elements, repeat=len(values)):
        a = float(np.dot(values, chosen))
        b = float(np.dot(chosen, chosen))
        if a > 0 and b > 0:
            best = min(best, total - a * a / b)
    return best


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=4).map(lambda v: np.array(v, np.float32)),
    st.sampled_from(["int2", "int3", "e2m1finite", "e3m0", "uint2", "e2m0nosub"]),
)
@example(np.array([1.890625, 2.8125], np.float32), "int3")
def test_free_scales_are_the_optimum_over_all_sets_of_elements(values: npt.NDArray[np.float32], name: str) -> None:
    if np.abs(values).max() < 1e-6:
        return
    table = decode_table(parse_tensor_spec(name).format).astype(np.float64)
    elements = np.unique(table[np.isfinite(table)] + 0.0)
    exact = values.astype(np.float64)
    found, least = error(values, f"{name}:fp32:mse"), least_over_all_elements(exact, elements)
    # Scale and product are rounded to binary32: each value is off by up to 2·2^-24 of itself, which shifts the error by
    # twice the residual times that.
    rounding = 2 * 2.0**-24 * math.sqrt(float(exact @ exact))
    assert found == pytest.approx(least, rel=1e-5, abs=2 * math.sqrt(max(least, 0.0)) * rounding + 2 * rounding**2)


@settings(max_examples=100, deadline=None)
@given(VALUES, st.sampled_from(["int3", "int8", "e3m0", "e2m1finite", "e4m3", "ue3m2"]))
def test_powers_of_two_are_the_best_of_all(values: npt.NDArray[np.float32], name: str) -> None:
    fmt = parse_tensor_spec(name).format
    table = decode_table(fmt).astype(np.float64)
    elements = np.unique(table[np.isfinite(table)] + 0.0)
    errors = []
    for exponent in range(-60, 40):
        grid = elements * 2.0**exponent
        nearest = np.abs(values.astype(np.float64)[:, None] - grid).min(axis=1)
        errors.append(math.fsum(nearest**2))
    assert error(values, f"{name}:pow2:mse") == pytest.approx(min(errors), rel=1e-12)


def test_by_hand() -> None:
    # int2 has -2, -1, 0, 1. With the elements -2, 1 and three times 0 the best scale is A / B = (2·2 + 1) / 5 = 1,
    # without any error but 0.1² · 3; the default covers 2 with 1: scale 2, and 1 is a tie that goes to 0.
    values = np.array([-2.0, 1.0, 0.1, 0.1, -0.1], np.float32)
    tensor = quantize_tensor("a.weights", values, parse_tensor_spec("int2:mse"))
    assert tensor.scales == np.float32(1)
    assert tensor.elements().tolist() == [-2, 1, 0, 0, 0]
    assert quantize_tensor("a.weights", values, parse_tensor_spec("int2")).scales == np.float32(2)
    # int3 reaches 3. Nine weights of 1 at element k and one of 4 at 3: the scale is (9·k + 4·3) / (9·k² + 9).
    # k = 3: 39 / 90, error 9 · (1 - 1.3)² + (4 - 1.3)² = 8.1; k = 2: 30 / 45, error 9 · (1 - 4/3)² + 2² = 5;
    # k = 1: 21 / 18, error 9 · (1/6)² + (1/2)² = 0.5, the least.
    values = np.array([1.0] * 9 + [4.0], np.float32)
    tensor = quantize_tensor("a.weights", values, parse_tensor_spec("int3:mse"))
    assert tensor.scales == np.float32(21 / 18)
    assert tensor.elements().tolist() == [1] * 9 + [3]
    assert error(values, "int3:mse") == pytest.approx(0.5, rel=1e-6)


def test_many_breakpoints_go_to_the_grid_and_differ_little() -> None:
    values = np.random.default_rng(1).standard_t(4, 4000).astype(np.float32)
    from bitloop.quantize import mse

    exact = error(values, "int6:mse")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mse, "EXACT_BREAKPOINTS", 0)
        grid = error(values, "int6:mse")
    assert exact <= grid < 1.01 * exact
    assert exact < 0.9 * error(values, "int6")


def test_channels_are_fitted_apart() -> None:
    values = np.random.default_rng(2).normal(size=(200, 5)).astype(np.float32)
    tensor = quantize_tensor("a.weights", values, parse_tensor_spec("int4:channel:mse"))
    assert tensor.scales is not None
    for channel in range(5):
        alone = quantize_tensor("a.weights", values[:, channel], parse_tensor_spec("int4:mse"))
        assert alone.scales == tensor.scales[channel]


def test_formats_with_a_wide_range_keep_elements_small() -> None:
    for kind in ("fp32", "pow2"):
        tensor = quantize_tensor("a.weights", np.array([3.0, -1e-3], np.float32), parse_tensor_spec(f"bf16:{kind}:mse"))
        assert np.abs(tensor.elements()).max() <= 2.0**32


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("int4:channel:mse", "int4:channel:mse"),
        ("e3m1:mse:pow2", "e3m1:pow2:mse"),
        ("e3m1:mse", "e3m1:mse"),
        ("e3m1:mse:fp32", "e3m1:mse"),
        ("int4:cover", "int4"),
        ("int4:output:adaround:prune=0.05", "int4:output:prune=0.05:adaround"),
        ("int4:loss:pow2", "int4:pow2:loss"),
        ("int4:quantease:prune=1e-3", "int4:prune=0.001:quantease"),
        ("int4:prune=0", "int4"),
        ("int8:corrected", "int8:corrected"),
        ("fp32:prune=00.10", "fp32:prune=0.1"),
    ],
)
def test_texts_round_trip(text: str, canonical: str) -> None:
    spec = parse_tensor_spec(text)
    assert str(spec) == canonical
    assert parse_tensor_spec(canonical) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4:mse:output", "says both"),
        ("e3m1:none:mse", "has none to choose"),
        ("fp16:fp32:mse:inf", "may let values clip"),
        ("int4:prune=-1", "a pruning threshold is a number"),
        ("int4:prune=nan", "a pruning threshold is a number"),
        ("int4:prune=1e99", "a pruning threshold is 0 to"),
        ("binary:prune=0.1", "binary has no zero"),
        ("int4:adaround:stochastic", "both say how to round"),
        ("int4:adaround:quantease", "says both"),
    ],
)
def test_what_does_not_go_together_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_tensor_spec(text)


def test_recipes_say_what_only_weights_or_biases_have() -> None:
    for weights, biases, message in (
        ("int4:corrected", None, "weights cannot be 'corrected'"),
        ("int4", "int8:output", "biases cannot have 'output'"),
        ("int4", "int8:loss", "biases cannot have 'loss'"),
        ("int4", "int8:adaround", "biases cannot have 'adaround'"),
    ):
        with pytest.raises(FormatError, match=message):
            parse_recipe(weights, biases)
    recipe = parse_recipe("e3m1:output:prune=0.05:adaround")
    assert str(recipe.biases) == "e3m1:mse"
    assert parse_recipe(recipe.to_dict()["weights"], recipe.to_dict()["biases"]) == recipe
    assert recipe.weights.rule is ScaleRule.OUTPUT


def test_a_recipe_that_takes_images_is_refused_without(networks) -> None:
    for weights, biases in (
        ("int4:output", "fp32"),
        ("int4:loss", "fp32"),
        ("int4:adaround", "fp32"),
        ("int4", "fp32:corrected"),
    ):
        with pytest.raises(FormatError, match=r"dense1\.(weights|biases).*takes calibration images"):
            quantize(networks("mlp8k"), parse_recipe(weights, biases))
