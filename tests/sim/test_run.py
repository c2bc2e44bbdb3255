"""Runs on the simulated device, the real one of ``sim://native``: what they measure, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bitloop import api
from bitloop.bench import beside
from bitloop.bench.journal import logits_from_hex, read_samples
from bitloop.bench.record import read_record, schema_path
from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.errors import LinkError, ModelError, NetworkError, UsageError
from bitloop.quantize.model import Model
from bitloop.simulate import simulate

Models = Callable[..., Model]
URL = "sim://native"


@pytest.mark.parametrize(
    ("name", "weights", "biases"),
    [
        ("mlp", "fp32", "fp32"),
        ("mlp", "e3m1:pow2", "e5m2"),
        ("mlp8k", "ternary", "fp16"),
        ("cnn", "int4:channel", None),
    ],
)
def test_device_and_host_agree(
    models: Models, drawn_images: Images, name: str, weights: str, biases: str | None
) -> None:
    record = run(models(name, weights, biases), URL, drawn_images)
    assert record.headline == "EXACT: 120 of 120 logit vectors bit-identical"
    assert (record.verdict, record.status, record.exit_code) == ("exact", "complete", 0)
    assert (record.exact.matching, record.exact.total, record.exact.max_ulp) == (120, 120, 0)
    assert (record.labels.agreeing, record.labels.impossible) == (120, 0)


def test_a_run_directory_holds_what_is_needed_to_believe_it(
    models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    model = models("mlp", "int8:channel", "fp16")
    record = run(model, URL, drawn_images, out_dir=tmp_path / "run", options=RunOptions(command="bitloop run x"))
    document = json.loads((tmp_path / "run/run.json").read_text())
    jsonschema.validate(document, json.loads(schema_path().read_text()))
    assert read_record(tmp_path / "run/run.json") == record
    samples = list(read_samples(tmp_path / "run/samples.jsonl"))
    expected = simulate(model, drawn_images.pixels)
    assert [sample.index for sample in samples] == drawn_images.index.tolist()
    assert [sample.label for sample in samples] == drawn_images.labels.tolist()
    for sample, logits in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(logits_from_hex(sample.logits).view(np.uint32), logits.view(np.uint32))
        assert sample.device == sample.host == int(logits.argmax())
    # Figures of the record follow from the journal.
    assert record.accuracy is not None
    assert record.latency is not None
    right = sum(sample.device == sample.label for sample in samples)
    assert record.accuracy.device.correct == right
    assert record.accuracy.device == record.accuracy.host
    ticks = sorted(sample.ticks for sample in samples)
    assert record.latency.median == ticks[59]
    assert (record.latency.min, record.latency.p99, record.latency.max) == (ticks[0], ticks[118], ticks[119])
    assert sum(map(sum, record.confusion or ())) == 120
    assert record.model.sha256 == model.sha256
    assert record.image.sha256 == record.image.device_sha256
    assert record.command == "bitloop run x"


def test_memory_is_predicted_to_the_byte(models: Models, drawn_images: Images) -> None:
    ram = run(models("cnn", "int8"), URL, drawn_images).ram
    assert ram.predicted == ram.reserved == ram.measured
    arena = ram.arena
    assert arena.weights + arena.activations + arena.buffers == ram.predicted
    assert arena.buffers == arena.tables + arena.queue
    assert ram.stack_peak is None
    assert "host process" in (ram.stack_note or "")
    assert ram.static is not None
    assert ram.build is None
    assert "without a build of its own" in (ram.build_note or "")


def test_a_simulated_device_says_so_wherever_time_is_shown(models: Models, drawn_images: Images) -> None:
    record = run(models("mlp"), URL, drawn_images.first(10))
    assert record.simulated
    assert record.device.simulated
    assert record.latency is not None
    assert record.latency.simulated
    assert record.latency.unit == "host nanoseconds (simulated device)"


def test_layers_are_timed(models: Models, drawn_images: Images) -> None:
    latency = run(models("cnn"), URL, drawn_images.first(20)).latency
    assert latency is not None
    assert latency.per_layer is not None
    assert [layer.name for layer in latency.per_layer] == ["conv1", "conv2", "dense1"]
    assert latency.per_layer[0].layers == ("conv1", "relu1", "pool1")
    assert sum(layer.mean for layer in latency.per_layer) <= latency.mean
    without = run(models("cnn"), URL, drawn_images.first(5), options=RunOptions(per_layer=False)).latency
    assert without is not None
    assert without.per_layer is None


def test_throughput_mode_is_marked(models: Models, drawn_images: Images) -> None:
    record = run(models("mlp"), URL, drawn_images, options=RunOptions(mode="throughput", slots=3, warm_up_images=0))
    assert record.verdict == "exact"
    assert record.mode == "throughput"
    assert record.latency is not None
    assert record.latency.overlapped
    assert record.latency.warm_up_images == 0


def test_link_figures(models: Models, drawn_images: Images) -> None:
    link = run(models("mlp"), URL, drawn_images).link
    # Pixels are coded, and most of them are zero: each other one takes a bit at least. Every logit crosses the line.
    assert np.count_nonzero(drawn_images.pixels) / 8 < link.stream_bytes_up < drawn_images.pixels.size / 2
    assert link.stream_bytes_down >= 120 * 10 * 4
    assert link.bytes_up > link.stream_bytes_up
    assert link.share is not None
    assert sum((link.share.line, link.share.queue, link.share.compute)) == pytest.approx(1.0)
    assert min(link.share.line, link.share.queue, link.share.compute) >= 0.0


def test_results_are_on_disk_as_they_arrive(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    def look(stage: str, done: int, total: int) -> None:
        if stage == "images":
            seen.append((done, (tmp_path / "run/samples.jsonl").read_text().count("\n")))
            assert not (tmp_path / "run/run.json").exists()

    run(models("mlp"), URL, drawn_images, out_dir=tmp_path / "run", progress=look)
    assert seen == [(n, n) for n in range(1, 121)]


def test_directory_with_a_run_is_refused_before_anything_happens(
    models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    model, images = models("mlp"), drawn_images.first(5)
    first = run(model, URL, images, out_dir=tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(UsageError, match="already holds a run"):
        run(model, "sim://native", images, out_dir=tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    second = run(model, URL, images.first(3), out_dir=tmp_path / "run", options=RunOptions(force=True))
    assert first.exact.total == 5
    assert second.exact.total == read_record(tmp_path / "run/run.json").exact.total == 3


def test_images_that_do_not_fit_are_refused(models: Models, drawn_images: Images) -> None:
    small = Images(
        drawn_images.pixels[:, :14], drawn_images.labels, drawn_images.index, drawn_images.split, "mnist", "0"
    )
    with pytest.raises(NetworkError, match="takes images of"):
        run(models("mlp"), URL, small)
    with pytest.raises(UsageError, match="unknown mode"):
        run(models("mlp"), URL, drawn_images, options=RunOptions(mode="fast"))


def test_a_failing_host_simulation_keeps_what_was_measured(
    models: Models, drawn_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks: list[int] = []

    def failing(model: Model, pixels: np.ndarray) -> np.ndarray:
        blocks.append(len(pixels))
        if len(blocks) > 1:
            raise ModelError("a scale is not finite")
        return simulate(model, pixels)

    monkeypatch.setattr(beside, "simulate", failing)
    monkeypatch.setattr(beside.HostSimulation.__init__, "__kwdefaults__", {"block_images": 50})
    record = run(models("mlp"), URL, drawn_images, out_dir=tmp_path / "run")
    assert (record.status, record.verdict, record.exit_code) == ("failed", "failed", ModelError.exit_code)
    assert record.exact.total == 50 == len(list(read_samples(tmp_path / "run/samples.jsonl")))


def test_lost_before_the_first_image_writes_nothing(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    with pytest.raises(LinkError):
        run(models("mlp"), "sim://native?fault=crash,after:4", drawn_images, out_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class _Heading(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.inside = False
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.inside = tag == "h1"

    def handle_endtag(self, tag: str) -> None:
        self.inside = False

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.text += data


def test_python_api_in_ten_lines(
    models: Models, drawn_images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bitloop: object
) -> None:
    model = models("mlp", "int8", "fp16")
    api.save(model, tmp_path / "m.blm")
    again = api.load_model(tmp_path / "m.blm")
    assert again.sha256 == model.sha256
    images = api.images(split="search", limit=7)
    assert api.simulate(again, images.pixels).shape == (7, 10)
    record = api.run(again, split="confirm", limit=7, out=tmp_path / "run")
    assert record.verdict == "exact"
    heading = _Heading()
    heading.feed((tmp_path / "run/report.html").read_text())
    assert heading.text == record.headline
    with pytest.raises(UsageError, match="sealed"):
        api.images(split="test")
    with pytest.raises(UsageError, match="reason"):
        api.run(again, split="test")
    opened = api.run(again, split="test", limit=3, reason="a test of the interface")
    assert [opening.reason for opening in opened.vault] == ["a test of the interface"]
    assert opened.dataset.split == "test"
