"""Devices made to be wrong: each injected fault is found, placed and counted as a damaged host model predicts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from bitloop.bench.journal import read_samples
from bitloop.bench.record import RunRecord, read_record
from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.link.session import Session
from bitloop.network.architecture import Architecture, Conv2D, Dense, Flatten, MaxPool2D, ReLU, Softmax
from bitloop.network.network import Network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate import activations, simulate
from bitloop.spec import PROBE_CASES

from .conftest import Command

Models = Callable[..., Model]

# A pixel that most drawn images light up, and a unit that most of them wake: a weight that matters.
CENTRE = (14 * 28 + 14) * 32 + 1


def damaged(model: Model, tensor: str, change: Callable[[QuantizedTensor], QuantizedTensor]) -> Model:
    tensors = {name: change(t) if name == tensor else t for name, t in model.tensors.items()}
    return Model(model.name, model.dataset, model.architecture, dict(model.recipe), tensors)


def flipped(element: int, bit: int) -> Callable[[QuantizedTensor], QuantizedTensor]:
    def change(tensor: QuantizedTensor) -> QuantizedTensor:
        codes = tensor.codes.copy()
        codes.reshape(-1)[element] ^= np.uint32(1 << bit)
        return dataclasses.replace(tensor, codes=codes)

    return change


def next_scales(tensor: QuantizedTensor) -> QuantizedTensor:
    assert tensor.scales is not None
    return dataclasses.replace(tensor, scales=(tensor.scales.view(np.uint32) + np.uint32(1)).view(np.float32))


def steps_between(a: np.ndarray, b: np.ndarray) -> int:
    """Greatest distance of two arrays of numbers above zero, where bit patterns are in the order of the numbers."""
    assert (a >= 0).all()
    assert (b >= 0).all()
    return int(np.abs(a.view(np.int32).astype(np.int64) - b.view(np.int32).astype(np.int64)).max())


DAMAGES = [
    pytest.param(f"code:0,element:{CENTRE},bit:2", "dense1.weights", flipped(CENTRE, 2), id="a-flipped-weight-code"),
    pytest.param("code:2,element:37,bit:6", "dense2.weights", flipped(37, 6), id="a-flipped-weight-code-further-in"),
    pytest.param("bias:1,element:5,bit:9", "dense1.biases", flipped(5, 9), id="a-wrong-bias"),
    pytest.param("scale:0", "dense1.weights", next_scales, id="wrong-scales"),
    pytest.param("scale:2", "dense2.weights", next_scales, id="wrong-scales-further-in"),
]


@pytest.mark.parametrize(("fault", "tensor", "change"), DAMAGES)
def test_damage_is_found_and_counted(
    models: Models,
    drawn_images: Images,
    fault: str,
    tensor: str,
    change: Callable[[QuantizedTensor], QuantizedTensor],
) -> None:
    model = models("mlp", "int8:channel", "fp16")
    wrong = damaged(model, tensor, change)
    good_logits, wrong_logits = simulate(model, drawn_images.pixels), simulate(wrong, drawn_images.pixels)
    rows = np.flatnonzero((good_logits.view(np.uint32) != wrong_logits.view(np.uint32)).any(axis=1))
    assert len(rows) > 0, "a fault that changes nothing proves nothing"

    record = run(model, f"sim://native?fault={fault}", drawn_images)

    layer = tensor.partition(".")[0]
    relu = layer.replace("dense", "relu")
    traced = slice(int(rows[0]), int(rows[0]) + 1)
    here = activations(model, drawn_images.pixels[traced])[relu]
    there = activations(wrong, drawn_images.pixels[traced])[relu]
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert record.exact.failing == tuple(drawn_images.index[rows].tolist())
    assert record.exact.failing_count == len(rows) == record.exact.total - record.exact.matching
    assert record.exact.first_diverging_layer == layer
    found = record.exact.divergence
    assert found is not None
    assert found.image_index == drawn_images.index[rows[0]]
    assert found.ulp == steps_between(here, there)
    first = int(np.flatnonzero(here.view(np.uint32) != there.view(np.uint32))[0])
    assert found.element == first
    assert found.device_bits == f"{there.view(np.uint32).reshape(-1)[first]:08x}"
    assert found.host_bits == f"{here.view(np.uint32).reshape(-1)[first]:08x}"


@pytest.mark.parametrize(("number", "layer"), list(enumerate(["conv1", "conv2", "dense1"])))
@pytest.mark.parametrize("ulp", [1, -3])
def test_a_layer_off_by_some_ulp_is_named(
    models: Models, drawn_images: Images, number: int, layer: str, ulp: int
) -> None:
    record = run(models("cnn", "e4m3:pow2"), f"sim://native?fault=layer:{number},ulp:{ulp}", drawn_images.first(40))
    assert record.exit_code == 3
    assert record.exact.failing_count > 0
    assert record.exact.first_diverging_layer == layer
    assert record.exact.divergence is not None
    assert record.exact.divergence.ulp == abs(ulp)
    assert record.exact.divergence.operation == number
    assert f"first diverging layer {layer}, {abs(ulp)} ULP" in record.headline
    if layer == "dense1":
        assert record.exact.max_ulp == abs(ulp)


def test_a_single_image_off_by_one_ulp_is_not_lost(models: Models, drawn_images: Images) -> None:
    record = run(models("mlp"), "sim://native?fault=layer:2,ulp:1,image:77", drawn_images)
    assert record.exact.failing == (drawn_images.index[77],)
    assert (record.exact.matching, record.exact.max_ulp) == (119, 1)
    # Traced again it is the first image of its run, and the fault does not repeat itself: said, not guessed.
    assert record.exact.first_diverging_layer is None
    assert "no layer diverged when traced again" in record.headline
    assert record.exit_code == 3


def test_an_error_that_pooling_hides_is_found_by_the_audit(drawn_images: Images) -> None:
    # The windows share elements, so that the pooling is an operation of its own.
    pooled = Architecture(
        "pooled",
        (28, 28, 1),
        (
            *(Conv2D("conv1", 4, (3, 3)), ReLU("relu1"), MaxPool2D("pool1", (2, 2), (2, 1))),
            *(Flatten("flatten"), Dense("dense1", 10), Softmax("softmax")),
        ),
    )
    generator = np.random.default_rng(7)
    parameters = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in pooled.parameter_shapes().items()
    }
    model = quantize(Network(pooled, parameters, "mnist", {}), parse_recipe("int8", "fp32"))
    images = drawn_images.first(1)
    found = activations(model, images.pixels)
    values, greatest = found["relu1"].reshape(26, 26, 4), found["pool1"].reshape(13, 25, 4)
    # Above zero, but below the maximum of both windows it is in: the pool lets no ULP of it through.
    rows, columns = np.arange(26)[:, None] // 2, np.arange(26)[None, :]
    least = np.minimum(greatest[rows, np.minimum(columns, 24)], greatest[rows, np.maximum(columns - 1, 0)])
    element = int(np.flatnonzero((values > 0) & (values < 0.9 * least))[0])
    url = f"sim://native?fault=layer:0,ulp:1,element:{element}"

    record = run(model, url, images)
    assert record.exact.failing_count == 0
    assert record.exit_code == 3
    assert record.exact.first_diverging_layer == "conv1"
    assert record.exact.divergence is not None
    assert (record.exact.divergence.ulp, record.exact.divergence.element) == (1, element)
    assert record.headline.startswith("DISAGREE: layer conv1 differs by 1 ULP on image 1,000; 1 of 1 logit vectors")
    # Without the audit nothing could show it.
    assert run(model, url, images, options=RunOptions(audit_images=0)).verdict == "exact"


def test_as_many_images_are_audited_as_the_record_says(
    models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[int] = []
    trace = Session.trace

    def counted(session: Session, pixels: np.ndarray, layer: int) -> np.ndarray:
        traced.append(layer)
        return trace(session, pixels, layer)

    monkeypatch.setattr(Session, "trace", counted)
    record = run(models("mlp"), "sim://native", drawn_images, options=RunOptions(audit_images=5))
    assert record.exact.audited == 5
    assert traced == [0, 1, 2] * 5


def test_a_lying_hash_is_shown(models: Models, drawn_images: Images) -> None:
    record = run(models("mlp"), "sim://native?fault=hash:image", drawn_images.first(10))
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert record.image.device_sha256 != record.image.sha256
    assert record.headline.startswith("DISAGREE: the device reports image hash ")
    assert str(record.image.device_sha256) in record.headline
    assert record.image.sha256 in record.headline
    assert (record.exact.matching, record.exact.failing_count) == (10, 0)


def test_a_lying_firmware_hash_is_shown(models: Models, drawn_images: Images) -> None:
    record = run(models("mlp"), "sim://native?fault=hash:firmware", drawn_images.first(10))
    assert record.exit_code == 3
    assert "reports firmware hash" in record.headline


@pytest.mark.parametrize("case", range(len(PROBE_CASES)))
def test_a_wrong_probe_refuses_the_word_exact(models: Models, drawn_images: Images, case: int) -> None:
    record = run(models("mlp"), f"sim://native?fault=probe:{case}", drawn_images.first(5))
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert PROBE_CASES[case][0] in record.headline
    assert "the word exact is refused" in record.headline
    assert record.exact.matching == 5


def test_without_a_fault_nothing_is_found(models: Models, drawn_images: Images) -> None:
    assert run(models("mlp", "int8:channel", "fp16"), "sim://native", drawn_images).exit_code == 0


class FirstHeading(HTMLParser):
    """The text of the first heading of a page, and whether anything visible stood before it."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.before = ""
        self.done = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self.done = self.done or tag == "h1"
        self.open = self.open[: len(self.open) - 1 - self.open[::-1].index(tag)] if tag in self.open else self.open

    def handle_data(self, data: str) -> None:
        if self.done or "head" in self.open:
            return
        if "h1" in self.open:
            self.text += data
        else:
            self.before += data.strip()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("layer:1,ulp:1", "first diverging layer dense2, 1 ULP"),
        (f"code:0,element:{CENTRE},bit:2", "first diverging layer dense1"),
        ("bias:1,element:5,bit:9", "first diverging layer dense1"),
        ("scale:2", "first diverging layer dense2"),
        ("hash:image", "reports image hash"),
        ("probe:0", "arithmetic probe failed"),
    ],
)
def test_command_exits_with_3_and_says_so_first(
    bitloop: Command, model_file: Path, tmp_path: Path, fault: str, words: str
) -> None:
    out = tmp_path / "run"
    outcome = bitloop("run", str(model_file), "--device", f"sim://native?fault={fault}", "--out", str(out))
    assert outcome.code == 3
    record = read_record(out / "run.json")
    assert outcome.out.splitlines()[0] == record.headline
    assert record.headline.startswith("DISAGREE: ")
    assert words in record.headline
    assert record.headline in outcome.err.replace("\n", " ")
    page = FirstHeading()
    page.feed((out / "report.html").read_text())
    assert (page.before, page.text) == ("", record.headline)
    failing = sum(not sample.match for sample in read_samples(out / "samples.jsonl"))
    assert failing == record.exact.failing_count == json.loads((out / "run.json").read_text())["exact"]["failing_count"]


def test_mismatches_keep_both_sides_logits(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    model = models("mlp")
    run(model, "sim://native?fault=layer:2,ulp:2,element:4", drawn_images.first(8), out_dir=tmp_path / "run")
    expected = simulate(model, drawn_images.pixels[:8])
    for sample, logits in zip(read_samples(tmp_path / "run/samples.jsonl"), expected, strict=True):
        assert not sample.match
        assert sample.ulp == 2
        assert sample.host_logits == tuple(f"{pattern:08x}" for pattern in logits.view(np.uint32))
        assert [a == b for a, b in zip(sample.logits, sample.host_logits, strict=True)].count(False) == 1
        assert sample.logits[4] != sample.host_logits[4]
        assert sample.pixels is not None


def test_a_disagreement_stands_though_the_run_broke_off(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    url = "sim://native?fault=layer:2,ulp:1&fault=crash,after:40"
    record: RunRecord = run(models("mlp"), url, drawn_images, out_dir=tmp_path / "run", options=RunOptions(slots=4))
    assert (record.status, record.verdict, record.exit_code) == ("failed", "disagree", 3)
    assert record.error is not None
    assert 0 < record.exact.failing_count == record.exact.total < 120


def test_blm_file_reaches_the_device_unchanged(models: Models, drawn_images: Images, model_file: Path) -> None:
    assert run(blm.load(model_file), "sim://native", drawn_images.first(5)).model.sha256 == blm.load(model_file).sha256
