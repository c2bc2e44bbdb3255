"""Pruning by threshold: exactly what lies under it becomes zero, before anything else."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.spec import parse_tensor_spec


@given(arrays(np.float32, 30, elements=st.floats(-1, 1, width=32)), st.sampled_from([0.01, 0.05, 0.1, 0.5, 1.0]))
def test_exactly_what_lies_under_the_threshold_becomes_zero(values, threshold) -> None:
    # fp32 keeps every value, so that what changed is what was pruned.
    stands_for = quantize_tensor("a.weights", values, parse_tensor_spec(f"fp32:prune={threshold}")).values()
    for before, after in zip(values.tolist(), stands_for.tolist(), strict=True):
        assert after == (0.0 if abs(before) < threshold else before)


def test_the_threshold_itself_stays() -> None:
    tensor = quantize_tensor("a.weights", np.array([0.25, -0.25, 0.2499, -0.2, 0.0], np.float32), _spec("fp32", 0.25))
    assert tensor.values().tolist() == [0.25, -0.25, 0, 0, 0]
    # 0.1 of binary32 lies above the decimal 0.1: it stays.
    assert quantize_tensor("a.weights", np.array([0.1], np.float32), _spec("fp32", 0.1)).values()[0] == np.float32(0.1)


def test_it_comes_before_the_scale() -> None:
    # Affine: without the small negative value the range begins at 0.
    tensor = quantize_tensor("a.weights", np.array([-0.01, 3.0], np.float32), _spec("uint2:affine", 0.05))
    assert tensor.scales == np.float32(1)
    assert tensor.zero_points == 0
    assert tensor.values().tolist() == [0, 3]
    # Ternary's scale is the mean of what is left.
    tensor = quantize_tensor("a.weights", np.array([0.9, 0.3, -0.25], np.float32), _spec("ternary", 0.5))
    assert tensor.scales == np.float32(0.9)


def test_weights_alone_unless_biases_are_named(networks) -> None:
    network = networks("mlp8k")
    model = quantize(network, parse_recipe("fp32:prune=0.1", None))
    weights = network.parameters["dense1.weights"]
    assert np.count_nonzero(model.tensors["dense1.weights"].values() == 0) == np.count_nonzero(np.abs(weights) < 0.1)
    assert (model.tensors["dense1.biases"].values() == network.parameters["dense1.biases"]).all()
    model = quantize(network, parse_recipe("fp32", "fp32:prune=0.1"))
    biases = network.parameters["dense1.biases"]
    assert np.count_nonzero(model.tensors["dense1.biases"].values() == 0) == np.count_nonzero(np.abs(biases) < 0.1)
    assert model.recipe["biases"] == "fp32:prune=0.1"


def _spec(name: str, threshold: float):
    return parse_tensor_spec(f"{name}:prune={threshold}")
