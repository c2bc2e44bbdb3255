"""Searches of a whole grid: the tree bit for bit, the best by brute force, what is gone on with, what is refused."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.multitest import multipletests

from bitloop.data.dataset import Dataset, Images, load
from bitloop.data.splits import Split
from bitloop.errors import BitloopError, DataError, DisagreementError, FormatError, SealedSplitError, UsageError
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax
from bitloop.network.network import Network, load_network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import labels, simulate
from bitloop.study.device import DeviceOptions
from bitloop.study.evaluate import score
from bitloop.study.search.bench import non_dominated
from bitloop.study.search.choices import BIASES, FEW_WEIGHTS, WEIGHTS, Choices, choices_of
from bitloop.study.search.confirm import holm
from bitloop.study.search.crew import parts_of
from bitloop.study.search.evaluations import accuracy_front
from bitloop.study.search.library import Library
from bitloop.study.search.search import Search, SearchOptions, plan_search, run_search
from bitloop.study.search.tree import Tree
from bitloop.study.statistics import compare

FP32 = parse_recipe("fp32", "fp32")
MLP8K = ("dense1.weights", "dense1.biases", "dense2.weights", "dense2.biases")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network("mlp8k-digits")


@pytest.fixture
def search(digits: Dataset, network: Network, tmp_path: Path) -> Callable[..., Search]:
    """Search ``mlp8k-digits`` on the digits: ``search(choices, out=..., margin=..., any other option)``."""

    def run(
        *,
        weights: tuple[str, ...] = ("int2:mse", "int3:channel:mse", "int4:mse", "int8:channel"),
        biases: tuple[str, ...] = ("int3", "e4m3"),
        pinned: tuple[str, ...] = (),
        out: str = "search",
        **options: object,
    ) -> Search:
        chosen = choices_of(network, weights=weights, biases=biases, pinned=pinned)
        asked = replace(SearchOptions(choices=chosen, margin=0.05, processes=1), **options)
        return run_search(network, digits.split(Split.SEARCH), digits.split(Split.CONFIRM), asked, tmp_path / out)

    return run


# By brute force, which shares no code with the search


@dataclass(frozen=True)
class Found:
    """An assignment by brute force."""

    key: str
    total_bytes: int
    correct: int
    only_fp32: int
    only_this: int
    cross_entropy: float
    bound: float


def brute_force(network: Network, images: Images, choices: Choices) -> list[Found]:
    """Quantize and simulate every assignment for itself, and return them from the best to the worst."""
    reference = labels(simulate(quantize(network, FP32), images.pixels)) == images.labels
    found = []
    for specs in itertools.product(*choices.specs):
        texts = [f"{tensor}={spec}" for tensor, spec in zip(choices.tensors, specs, strict=True)]
        model = quantize(network, parse_recipe("fp32", "fp32", texts))
        logits = simulate(model, images.pixels)
        right = labels(logits) == images.labels
        wide = logits.astype(np.float64)
        top = wide.max(axis=1)
        losses = top + np.log(np.exp(wide - top[:, None]).sum(axis=1)) - wide[np.arange(len(wide)), images.labels]
        found.append(
            Found(
                " ".join(specs),
                model.sizes.total,
                int(right.sum()),
                int((reference & ~right).sum()),
                int((right & ~reference).sum()),
                float(losses.mean()),
                compare(reference, right).bound,
            )
        )
    return sorted(found, key=lambda one: (one.total_bytes, -one.correct, round(one.cross_entropy, 9), one.key))


# The tree


@st.composite
def small_networks(draw: st.DrawFn) -> Network:
    """Chains of up to three layers with parameters, with every kind of layer somewhere."""
    side = draw(st.integers(5, 8))
    layers: list[object] = []
    if draw(st.booleans()):
        layers.append(AveragePool2D("pool0", (2, 2), (1, 1), "same"))
    for number in range(draw(st.integers(0, 2))):
        padding = draw(st.sampled_from(["same", "valid"]))
        stride = draw(st.integers(1, 2))
        layers.append(
            Conv2D(f"conv{number}", draw(st.integers(1, 3)), (2, 2), (stride, stride), padding, draw(st.booleans()))
        )
        if draw(st.booleans()):
            layers.append(ReLU(f"relu{number}"))
        if draw(st.booleans()):
            pool = draw(st.sampled_from([MaxPool2D, AveragePool2D]))
            layers.append(pool(f"pool{number + 1}", (2, 2), (1, 1), "same"))
    if draw(st.booleans()):
        layers.append(Flatten("flatten"))
    if draw(st.booleans()):
        layers += [Dense("hidden", draw(st.integers(1, 5)), draw(st.booleans())), ReLU("relu_hidden")]
    layers.append(Dense("last", draw(st.integers(2, 4)), draw(st.booleans())))
    if draw(st.booleans()):
        layers.append(Softmax("softmax"))
    architecture = Architecture("drawn", (side, side, draw(st.integers(1, 2))), tuple(layers))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    scale = draw(st.sampled_from([0.3, 1.0, 1e20]))  # the last overflows: NaN and infinite logits
    parameters = {
        name: (scale * generator.normal(size=shape)).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return Network(architecture, parameters, "", {})


@settings(max_examples=25, deadline=None)
@given(network=small_networks(), data=st.data())
def test_the_tree_gives_the_bits_of_the_reference(network: Network, data: st.DataObject) -> None:
    choices = choices_of(network, weights=("fp32", "int3:channel", "ternary"), biases=("fp32", "int4"))
    library = Library(network, choices)
    generator = np.random.default_rng(5)
    shape = network.architecture.input_shape
    count = data.draw(st.sampled_from([1, 7, 1030]))  # 1,030: more than one block
    pixels = generator.integers(0, 256, (count, *shape)).astype(np.uint8)
    classes = int(np.prod(network.architecture.output_shapes()[-1]))
    true = generator.integers(0, classes, count).astype(np.uint8)
    every = list(itertools.product(*(range(len(specs)) for specs in choices.specs)))
    chosen = data.draw(st.lists(st.sampled_from(every), min_size=1, max_size=8, unique=True))
    for assignment, found in zip(chosen, Tree(library, pixels, true).scores(chosen), strict=True):
        model = quantize(network, choices.recipe(assignment))
        assert library.model(assignment).sha256 == model.sha256
        assert library.sizes(assignment) == model.sizes
        expected = score(simulate(model, pixels), true)
        assert np.array_equal(found.right, expected.right)
        assert found.cross_entropy == expected.cross_entropy


# The best of a grid


def test_the_best_are_those_of_brute_force(search: Callable[..., Search], digits: Dataset, network: Network) -> None:
    found = search()
    every = brute_force(network, digits.split(Split.SEARCH), found.choices)
    good = [one for one in every if one.bound <= 0.05]
    assert 10 < len(good) < len(every) == 64 == len(found.evaluations)
    assert found.admissible == len(good)
    assert [candidate.evaluation.key for candidate in found.candidates] == [one.key for one in good[:10]]
    by_key = {one.key: one for one in every}
    for evaluation in found.evaluations:
        expected = by_key[evaluation.key]
        assert (evaluation.total_bytes, evaluation.correct) == (expected.total_bytes, expected.correct)
        assert (evaluation.only_fp32, evaluation.only_this) == (expected.only_fp32, expected.only_this)
        assert evaluation.cross_entropy == pytest.approx(expected.cross_entropy, rel=1e-12)
    # On the confirm split, too, and the winner is the first that holds there.
    confirmed = {one.key: one for one in brute_force(network, digits.split(Split.CONFIRM), found.choices)}
    for candidate in found.candidates:
        there = confirmed[candidate.evaluation.key]
        assert candidate.confirm_accuracy.correct == there.correct
        assert candidate.confirm.bound == there.bound
        assert candidate.is_confirmed == (there.bound <= 0.05)
    assert found.winner is next((one for one in found.candidates if one.is_confirmed), None)
    # By how much the search flattered them, by hand.
    losses = [
        100 * ((confirmed[one.key].only_fp32 - confirmed[one.key].only_this) - (one.only_fp32 - one.only_this)) / 200
        for one in good[:10]
    ]
    assert found.curse is not None
    assert found.curse.mean == pytest.approx(np.mean(losses))
    # The front, by its definition.
    front = {one.key for one in found.front}
    for one in every:
        beaten = [o for o in every if o.total_bytes <= one.total_bytes and o.correct >= one.correct and o != one]
        if one.key in front:
            assert not [o for o in beaten if (o.total_bytes, o.correct) != (one.total_bytes, one.correct)]
        else:
            assert beaten


def test_three_layers_and_one_without_biases(digits: Dataset, tmp_path: Path) -> None:
    trained = load_network("mlp-digits")
    layers = tuple(
        replace(layer, use_bias=False) if layer.name == "dense2" else layer for layer in trained.architecture.layers
    )
    parameters = {name: values for name, values in trained.parameters.items() if name != "dense2.biases"}
    network = Network(replace(trained.architecture, layers=layers), parameters, "digits", {})
    chosen = choices_of(
        network, weights=("int3:mse", "int5"), biases=("int4", "fp16"), pinned=["dense1.weights=int4,int6:channel"]
    )
    images = digits.split(Split.SEARCH).first(120)
    options = SearchOptions(choices=chosen, margin=0.2, processes=2)
    found = run_search(network, images, digits.split(Split.CONFIRM), options, tmp_path / "s")
    good = [one for one in brute_force(network, images, chosen) if one.bound <= 0.2]
    assert len(found.evaluations) == chosen.count == 32
    assert [one.evaluation.key for one in found.candidates] == [one.key for one in good[:10]]


def test_the_winner_is_a_model_that_can_be_run(
    search: Callable[..., Search], digits: Dataset, network: Network
) -> None:
    found = search(margin=0.1)
    assert found.winner is not None
    model = blm.load(found.folder.winner)
    assert model.sha256 == found.winner.model_sha256 == quantize(network, found.winner.recipe).sha256
    assert model.sizes.total == found.winner.total_bytes
    images = digits.split(Split.CONFIRM)
    right = int((labels(simulate(model, images.pixels)) == images.labels).sum())
    assert right == found.winner.confirm_accuracy.correct
    assert found.verified == {"fp32": 200, "winner": 200}


def test_a_pinned_tensor_keeps_its_format(search: Callable[..., Search]) -> None:
    found = search(pinned=("dense2.weights=int5:pow2", "dense1.biases=fp32,e4m3"))
    assert found.choices.specs == (
        ("int2:mse", "int3:channel:mse", "int4:mse", "int8:channel"),
        ("fp32", "e4m3"),
        ("int5:pow2",),
        ("int3", "e4m3"),
    )
    assert {one.specs[2] for one in found.evaluations} == {"int5:pow2"}
    assert len(found.evaluations) == 16


def test_no_winner_where_nothing_holds(search: Callable[..., Search]) -> None:
    found = search(weights=("binary",), biases=("int2",))
    assert (found.admissible, found.candidates, found.winner, found.curse) == (0, [], None, None)
    assert not found.folder.winner.exists()
    assert found.verified == {"fp32": 200}
    assert json.loads(found.folder.result.read_text())["winner"] is None


# Statistics


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(list(multipletests(values, method="holm")[1]), abs=1e-15)


def test_holm_refuses_what_is_no_p() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), max_size=12))
def test_what_nothing_dominates(points: list[tuple[float, ...]]) -> None:
    front = [points[place] for place in non_dominated(points)]
    for point in points:
        dominated = any(
            all(a <= b for a, b in zip(o, point, strict=True)) and any(a < b for a, b in zip(o, point, strict=True))
            for o in points
        )
        assert (point in front) is not dominated


# Folders


def test_what_is_written(search: Callable[..., Search]) -> None:
    found = search(margin=0.1)
    names = {path.name for path in found.folder.path.iterdir()} - {".lock"}
    assert names == {"search.json", "evaluations.jsonl", "result.json", "candidates.csv", "winner.blm"}
    document = json.loads(found.folder.result.read_text())
    assert document == json.loads(json.dumps(found.document()))
    assert document["winner"]["formats"] == dict(zip(MLP8K, found.winner.evaluation.specs, strict=True))
    rows = list(csv.DictReader(found.folder.table.open(newline="")))
    assert [int(row["total_bytes"]) for row in rows] == [one.total_bytes for one in found.candidates]
    assert [float(row["confirm_loss_bound"]) for row in rows] == [one.confirm.bound for one in found.candidates]


def test_going_on_gives_the_same(search: Callable[..., Search]) -> None:
    whole = search()
    lines = whole.folder.evaluations.read_bytes()
    result = whole.folder.result.read_bytes()
    whole.folder.evaluations.write_bytes(lines[: len(lines) // 2])
    again = search()
    assert 0 < again.evaluated_now < 64
    assert sorted(again.folder.evaluations.read_bytes().splitlines()) == sorted(lines.splitlines())
    assert again.folder.result.read_bytes() == result
    assert search().evaluated_now == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margin": 0.04}, "margin was 0.05, now it is 0.04"),
        ({"biases": ("int3",)}, "tensors was"),
        ({"objectives": ("bytes", "ram"), "device": DeviceOptions(url="sim://native")}, "objectives was bytes"),
    ],
)
def test_another_search_is_not_gone_on_with(
    search: Callable[..., Search], options: dict[str, object], words: str
) -> None:
    search()
    with pytest.raises(UsageError, match=words):
        search(**options)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b'"correct": 1', b'"correct": 2', "says what cannot be"),
        (b'"weights_bytes": ', b'"weights_bytes": 1', "says what cannot be"),
        (b'"int3"', b'"int7"', "no evaluation of this search"),
        (b'"only_fp32"', b'"only"', "no evaluation of this search"),
        (b'"scales_bytes": ', b'"scales_bytes": true, "more": ', "no evaluation of this search"),
    ],
)
def test_a_changed_line_is_refused(search: Callable[..., Search], old: bytes, new: bytes, words: str) -> None:
    path = search().folder.evaluations
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))
    with pytest.raises(DataError, match=words):
        search()


def test_figures_that_do_not_come_again_are_a_disagreement(search: Callable[..., Search]) -> None:
    found = search()
    best = found.candidates[0].evaluation
    line = json.dumps(list(best.specs))[1:-1].encode()
    data = found.folder.evaluations.read_bytes().splitlines(keepends=True)
    place = next(i for i, one in enumerate(data) if line in one)
    wrong = data[place]
    for name in ("only_fp32", "only_this"):  # one image more on both sides: as many right as before
        value = getattr(best, name)
        wrong = wrong.replace(f'"{name}": {value}'.encode(), f'"{name}": {value + 1}'.encode())
    found.folder.evaluations.write_bytes(b"".join([*data[:place], wrong, *data[place + 1 :]]))
    with pytest.raises(DisagreementError, match="evaluated again"):
        search()


SCRIPT = """
import sys
from pathlib import Path
from bitloop.data.dataset import load
from bitloop.data.splits import Split
from bitloop.network.network import load_network
from bitloop.study.search.choices import choices_of
from bitloop.study.search.search import SearchOptions, run_search

if __name__ == "__main__":
    network, data = load_network("mlp-digits"), load("digits")
    weights = ("int2:mse", "int3", "int4", "int6", "int8")
    options = SearchOptions(choices=choices_of(network, weights=weights, biases=("int4", "fp16")), margin=0.05,
                            processes=1)
    run_search(network, data.split(Split.SEARCH), data.split(Split.CONFIRM), options, Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_going_on_after_a_signal(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SCRIPT)
    command = [sys.executable, str(tmp_path / "one.py")]
    out = tmp_path / "broken"
    kept: list[bytes] = []
    for name in ("SIGKILL", "SIGINT"):
        process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True)
        path = out / "evaluations.jsonl"
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") <= len(kept):
            assert time.monotonic() < deadline, "no evaluations came"
            time.sleep(0.002)
        if name == "SIGINT":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.kill()
        _, said = process.communicate(timeout=60)
        kept = path.read_bytes().splitlines()
        assert 0 < len(kept) < 1000
        assert not (out / "result.json").exists()
        if name == "SIGINT":
            assert f"Interrupted: interrupted after {len(kept):,} evaluations" in said
    subprocess.run([*command, str(out)], check=True, timeout=200)
    assert len(set((out / "evaluations.jsonl").read_bytes().splitlines())) == 1000
    assert (out / "evaluations.jsonl").read_bytes().splitlines()[: len(kept)] == kept
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=200)
    assert (out / "result.json").read_bytes() == (tmp_path / "whole/result.json").read_bytes()


# What is refused


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"weights": ("int4:output",)}, FormatError, "takes calibration images"),
        ({"biases": ("fp16:corrected",)}, FormatError, "takes calibration images"),
        ({"biases": ("int4:channel",)}, FormatError, "cannot have a scale per channel"),
        ({"pinned": ("dense3.weights=int4",)}, FormatError, "no tensor 'dense3.weights'; did you mean dense2.weights"),
        ({"pinned": ("dense1.weights",)}, FormatError, "expected TENSOR=SPEC"),
        ({"pinned": ("dense1.weights=int4", "dense1.weights=int5")}, FormatError, "set twice"),
        ({"weights": ()}, UsageError, "no spec to choose from"),
        ({"weights": ("int99",)}, FormatError, "int99"),
    ],
)
def test_choices_that_cannot_be(
    network: Network, given: dict[str, tuple[str, ...]], error: type[BitloopError], words: str
) -> None:
    with pytest.raises(error, match=words):
        choices_of(network, **given)


def test_choices_unless_said_otherwise(network: Network, deep: Callable[[int], Network]) -> None:
    assert choices_of(network).specs == (WEIGHTS, BIASES, WEIGHTS, BIASES)
    assert choices_of(deep(4)).specs[0] == FEW_WEIGHTS
    assert plan_search(deep(4), SearchOptions()).evaluations == (6 * 3) ** 4
    planned = plan_search(deep(5), SearchOptions())
    assert (planned.method, planned.evaluations) == ("sampled", 100)
    assert planned.choices.count == 24**5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_evaluations": 575}, r"576 assignments, more than the 575 .*--set TENSOR=SPEC.*--method sampled"),
        ({"objectives": ("speed",)}, "bytes, latency, ram"),
        ({"objectives": ("bytes", "bytes")}, "each once"),
        ({"objectives": ("latency",)}, "latency can be measured on a device only"),
        ({"margin": 0.0}, "below 100 points"),
        ({"method": "quick"}, "auto, exhaustive, sampled"),
        ({"trials": 0}, "1 or more"),
        ({"seed": -1}, "seed"),
    ],
)
def test_options_that_make_no_sense(network: Network, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        plan_search(network, replace(SearchOptions(), **options))


def test_the_splits_are_what_they_are_for(digits: Dataset, network: Network, tmp_path: Path) -> None:
    search, confirm = digits.split(Split.SEARCH), digits.split(Split.CONFIRM)
    for pair in ((confirm, search), (search, search), (search, replace(confirm, split=Split.TEST))):
        with pytest.raises(SealedSplitError):
            run_search(network, *pair, SearchOptions(), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_parts_cover_each_assignment_once() -> None:
    specs = tuple(tuple(f"int{n}" for n in range(count)) for count in (2, 3, 40, 41))
    choices = Choices(("a.weights", "a.biases", "b.weights", "c.weights"), specs)
    every = list(itertools.product(*(range(len(texts)) for texts in choices.specs)))
    parts = list(parts_of(every, choices))
    assert [chosen for part in parts for chosen in part.assignments] == every
    assert max(len(part.assignments) for part in parts) <= 1_024 < 40 * 41
    assert all(len({chosen[:2] for chosen in part.assignments}) == 1 for part in parts)
    assert len({part.key for part in parts}) == len(parts)


# On a device


def test_objectives_of_a_device(search: Callable[..., Search]) -> None:
    device = DeviceOptions(url="sim://native", images=5)
    found = search(margin=0.1, objectives=("bytes", "latency", "ram"), device=device, device_candidates=4)
    assert set(found.objective_front) <= set(found.device)
    assert {one.evaluation.key for one in found.candidates} <= set(found.device)
    values = {
        one.key: (one.total_bytes, cell.latency_median, cell.ram_measured)
        for one in found.evaluations
        if (cell := found.device.get(one.key)) is not None
    }
    assert found.objective_front
    for key, point in values.items():
        beaten = [o for o in values.values() if o != point and all(a <= b for a, b in zip(o, point, strict=True))]
        assert (key in found.objective_front) is not bool(beaten)
    again = search(margin=0.1, objectives=("bytes", "latency", "ram"), device=device, device_candidates=4)
    assert again.device == found.device  # nothing is measured twice
    document = json.loads(found.folder.result.read_text())
    assert len(document["device"]) == len(found.device)


def test_the_first_objective_ranks(search: Callable[..., Search]) -> None:
    device = DeviceOptions(url="sim://native", images=5)
    found = search(margin=0.1, objectives=("latency", "bytes"), device=device, device_candidates=6)
    medians = [found.device[one.evaluation.key].latency_median for one in found.candidates]
    assert medians == sorted(medians)


def test_a_wrong_device_ends_the_search(search: Callable[..., Search]) -> None:
    wrong = DeviceOptions(url="sim://native?fault=layer:1,ulp:1", images=5)
    with pytest.raises(DisagreementError, match=r"dense1\.weights=.* on sim://.*first diverging layer dense1"):
        search(margin=0.1, device=wrong)


def test_the_front_by_hand(search: Callable[..., Search]) -> None:
    front = accuracy_front(search().evaluations)
    sizes, correct = [one.total_bytes for one in front], [one.correct for one in front]
    assert sizes == sorted(set(sizes))
    assert correct == sorted(set(correct))


def test_images_that_a_network_does_not_take(digits: Dataset, network: Network, tmp_path: Path) -> None:
    images: Images = digits.split(Split.SEARCH)
    small = replace(images, pixels=images.pixels[:, :8, :8])
    with pytest.raises(BitloopError, match="takes images of"):
        run_search(network, small, digits.split(Split.CONFIRM), SearchOptions(), tmp_path / "s")
