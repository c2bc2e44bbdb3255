"""Every way of evaluating gives the same bits; cross-entropy is that of scipy; a wrong bit is found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import logsumexp

from bitloop.bench.compare import bits
from bitloop.data.dataset import Images
from bitloop.errors import DisagreementError, UsageError
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.bounded import bounded_logits
from bitloop.simulate.reference import labels, prefix_of, simulate, simulate_from
from bitloop.study.evaluate import Evaluator, Route, Score, core_logits, cross_entropy, first_difference, score

Models = Callable[..., Model]
EXACT = (Route.CORE, Route.REFERENCE, Route.SUFFIX)


def changed(network: Network, tensor: str, spec: str) -> Model:
    return quantize(network, parse_recipe("fp32", "fp32", [f"{tensor}={spec}"]))


@pytest.mark.parametrize("name", ["mlp8k", "cnn"])
@pytest.mark.parametrize("spec", ["e4m3:pow2", "int4", "ternary"])
def test_all_routes_give_the_same_bits(
    name: str, spec: str, networks: Callable[[str], Network], drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, pixels = networks(name), drawn_images.pixels[:40]
    base = quantize(network, parse_recipe("fp32"))
    for tensor in network.parameters:
        model = changed(network, tensor, spec)
        expected = bits(simulate(model, pixels))
        for route in EXACT:
            monkeypatch.setattr(Evaluator, "route", lambda self, model, start, route=route, **_: route)
            np.testing.assert_array_equal(bits(Evaluator(base, pixels).logits(model)), expected)


def test_a_cached_prefix_serves_layer_after_layer(networks: Callable[[str], Network], drawn_images: Images) -> None:
    network, pixels = networks("mlp8k"), drawn_images.pixels[:30]
    evaluator = Evaluator(quantize(network, parse_recipe("fp32")), pixels)
    for tensor in [*network.parameters, *reversed(list(network.parameters))]:
        for spec in ("int3", "e3m1:pow2"):
            model = changed(network, tensor, spec)
            np.testing.assert_array_equal(bits(evaluator.logits(model)), bits(simulate(model, pixels)))


def test_the_suffix_computes_what_the_whole_does(models: Models, drawn_images: Images) -> None:
    model = models("cnn", "e4m3", "fp16")
    pixels = drawn_images.pixels[:25]
    for layer in model.architecture.layers[:-1]:  # the last is a Softmax
        prefix = prefix_of(model, pixels, layer.name, batch=7)
        assert prefix.size_bytes == sum(4 * block.size for block in prefix.blocks)
        np.testing.assert_array_equal(bits(simulate_from(model, prefix)), bits(simulate(model, pixels)))
    with pytest.raises(UsageError, match="no layer"):
        prefix_of(model, pixels, "nosuch")


def test_a_cache_too_small_is_not_used(networks: Callable[[str], Network], drawn_images: Images) -> None:
    network = networks("cnn")
    base = quantize(network, parse_recipe("fp32"))
    last = list(network.parameters)[-1].rpartition(".")[0]
    model = changed(network, f"{last}.weights", "int4")
    assert Evaluator(base, drawn_images.pixels).route(model, last) is Route.SUFFIX
    assert Evaluator(base, drawn_images.pixels, cache_bytes=100).route(model, last) is not Route.SUFFIX


def test_first_difference(networks: Callable[[str], Network]) -> None:
    network = networks("cnn")
    base = quantize(network, parse_recipe("fp32"))
    assert first_difference(base, quantize(network, parse_recipe("e8m23"))) is None
    assert first_difference(base, changed(network, "conv2.biases", "int4")) == "conv2"
    assert first_difference(base, changed(network, "dense1.weights", "e8m22")) == "dense1"
    # The same numbers in another format: other codes, so nothing is taken for equal.
    assert first_difference(base, changed(network, "conv1.weights", "e8m23:pow2")) == "conv1"
    # The same format and scale, other codes; the same codes, other scales.
    coarse = quantize(network, parse_recipe("e4m3:pow2", "fp32"))
    cut = quantize(network, parse_recipe("e4m3:pow2", "fp32", ["conv2.weights=e4m3:pow2:toward_zero"]))
    assert first_difference(coarse, cut) == "conv2"
    doubled = {name: 2 * array if name == "dense1.weights" else array for name, array in network.parameters.items()}
    twice = quantize(Network(network.architecture, doubled, "mnist", {}), parse_recipe("e4m3:pow2", "fp32"))
    np.testing.assert_array_equal(twice.tensors["dense1.weights"].codes, coarse.tensors["dense1.weights"].codes)
    assert first_difference(coarse, twice) == "dense1"
    with pytest.raises(UsageError, match="architecture"):
        first_difference(base, quantize(networks("mlp"), parse_recipe("fp32")))


def test_cross_entropy_is_that_of_scipy() -> None:
    generator = np.random.default_rng(3)
    logits = (30 * generator.normal(size=(500, 10))).astype(np.float32)
    logits[0] = 3e38 * np.sign(logits[0])
    true = generator.integers(0, 10, 500).astype(np.uint8)
    wide = logits.astype(np.float64)
    expected = (logsumexp(wide, axis=1) - wide[np.arange(500), true]).mean()
    assert cross_entropy(logits, true) == pytest.approx(expected, rel=1e-13)


def test_cross_entropy_by_hand() -> None:
    even = np.zeros((4, 10), np.float32)
    assert cross_entropy(even, np.array([0, 1, 2, 9], np.uint8)) == pytest.approx(math.log(10), rel=1e-15)
    sure = np.array([[0, 1000.0]], np.float32)
    assert cross_entropy(sure, np.array([1], np.uint8)) == 0.0
    assert cross_entropy(sure, np.array([0], np.uint8)) == 1000.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_have_no_cross_entropy(value: float) -> None:
    logits = np.array([[0, 1, 2], [0, value, 2]], np.float32)
    found = score(logits, np.array([2, 2], np.uint8))
    assert found.cross_entropy is None
    assert found.right.tolist() == [True, value != np.inf]


def test_no_images_have_no_score() -> None:
    with pytest.raises(UsageError, match="no images"):
        score(np.zeros((0, 10), np.float32), np.zeros(0, np.uint8))


def test_one_wrong_bit_is_a_disagreement(models: Models, drawn_images: Images) -> None:
    model, images = models("mlp8k", "e4m3"), drawn_images.first(30)
    evaluator = Evaluator(models("mlp8k"), images.pixels)
    worth = score(evaluator.logits(model), images.labels)
    assert evaluator.check(model, worth, 20) == 20
    assert evaluator.check(model, worth, 1000) == 30
    assert evaluator.check(model, worth, 0) == 0
    worth.logits.view(np.uint32)[17, 4] ^= 1
    with pytest.raises(DisagreementError, match=r"the evaluator .* 1 of 20 .* 1 ULP.* image 17"):
        evaluator.check(model, worth, 20)


def test_a_wrong_core_is_a_disagreement(models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = models("mlp8k", "e4m3"), drawn_images.first(30)
    other = models("mlp8k", "e4m2")
    worth = score(simulate(model, images.pixels), images.labels)
    monkeypatch.setattr("bitloop.study.evaluate.core_logits", lambda _, part: core_logits(other, part))
    with pytest.raises(DisagreementError, match="the compiled core and the numpy reference differ"):
        Evaluator(model, images.pixels).check(model, worth, 20)


@pytest.mark.parametrize("name", ["mlp8k", "cnn"])
def test_labels_by_bounds_are_exact_from_every_layer_on(
    name: str, networks: Callable[[str], Network], drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = networks(name), drawn_images.first(60)
    evaluator = Evaluator(quantize(network, parse_recipe("fp32")), images.pixels)
    monkeypatch.setattr(Evaluator, "route", lambda *_, **__: Route.BOUNDED)
    for tensor in [*network.parameters, *reversed(list(network.parameters))]:
        model = changed(network, tensor, "e3m1:pow2")
        worth = evaluator.score(model, images.labels)
        exact = score(simulate(model, images.pixels), images.labels)
        np.testing.assert_array_equal(worth.right, exact.right)
        assert worth.cross_entropy == pytest.approx(exact.cross_entropy, rel=1e-5)
        assert worth.bounds is not None
        assert evaluator.check(model, worth, 20) == 20


def test_an_open_label_is_computed_by_the_core(
    models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = models("mlp8k", "e4m3"), drawn_images.first(30)
    expected = simulate(model, images.pixels)
    found = bounded_logits(model, images.pixels)
    found.logits[5] = found.logits[5, ::-1]  # a wrong label, of which its bound says so
    found.bounds[5] = 1e6
    monkeypatch.setattr("bitloop.study.evaluate.bounded_logits", lambda *_: found)
    monkeypatch.setattr(Evaluator, "route", lambda *_, **__: Route.BOUNDED)
    worth = Evaluator(model, images.pixels).score(model, images.labels)
    assert worth.bounds is not None
    assert worth.bounds[5].tolist() == [0.0] * 10
    np.testing.assert_array_equal(bits(worth.logits[5:6]), bits(expected[5:6]))
    np.testing.assert_array_equal(worth.right, labels(expected) == images.labels)


@pytest.mark.parametrize(("image", "change"), [(3, 1.01), (7, np.nan)])
def test_logits_beyond_their_bounds_are_a_disagreement(
    image: int, change: float, models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = models("mlp8k", "e4m3"), drawn_images.first(30)
    monkeypatch.setattr(Evaluator, "route", lambda *_, **__: Route.BOUNDED)
    evaluator = Evaluator(model, images.pixels)
    worth = evaluator.score(model, images.labels)
    assert worth.bounds is not None
    worth.logits[image, 2] += np.float32(change * worth.bounds[image].max())
    with pytest.raises(DisagreementError, match=rf"more than is possible in 1 of 20 .* image {image} "):
        evaluator.check(model, worth, 20)
    assert evaluator.check(model, worth, image) == image


def test_logits_that_are_nan_everywhere_agree(
    networks: Callable[[str], Network], drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, images = networks("mlp8k"), drawn_images.first(30)
    huge = {name: np.float32(2.0**127) * np.sign(array) for name, array in network.parameters.items()}
    model = quantize(Network(network.architecture, huge, "mnist", {}), parse_recipe("fp32"))
    monkeypatch.setattr(Evaluator, "route", lambda *_, **__: Route.BOUNDED)
    evaluator = Evaluator(model, images.pixels)
    worth = evaluator.score(model, images.labels)
    expected = simulate(model, images.pixels)
    assert np.isnan(expected).any()
    assert worth.cross_entropy is None
    np.testing.assert_array_equal(worth.right, labels(expected) == images.labels)
    assert evaluator.check(model, worth, 20) == 20


def test_an_open_label_that_is_another_is_a_disagreement(models: Models, drawn_images: Images) -> None:
    model, images = models("mlp8k", "e4m3"), drawn_images.first(5)
    logits = simulate(model, images.pixels)
    order = logits[2].argsort()
    logits[2, order[-1]], logits[2, order[-2]] = logits[2, order[-2]], logits[2, order[-1]]
    worth = Score(labels(logits) == images.labels, 1.0, logits, np.full(logits.shape, np.inf))
    with pytest.raises(DisagreementError, match="in 1 of 5 "):
        Evaluator(model, images.pixels).check(model, worth, 5)


def test_judging_takes_bounds_only_where_they_are_faster(
    networks: Callable[[str], Network], drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = networks("cnn")
    base = quantize(network, parse_recipe("fp32"))
    for seconds, expected in ((0.0, True), (math.inf, False)):
        monkeypatch.setattr(Evaluator, "_bounded_seconds", lambda *_, seconds=seconds: seconds)
        evaluator = Evaluator(base, drawn_images.pixels)
        assert (evaluator.route(base, None, judging=True) is Route.BOUNDED) is expected
        assert evaluator.route(base, None) is not Route.BOUNDED
    assert Evaluator(base, drawn_images.pixels, cache_bytes=100)._may_keep(1000) is False
