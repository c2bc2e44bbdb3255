"""Atlases: figures of each point, what is kept and gone on with, a device that agrees and one that does not."""

from __future__ import annotations

import base64
import csv
import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from bitloop.bench.metrics import wilson
from bitloop.bench.options import RunOptions
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.errors import DataError, DisagreementError, NetworkError, SealedSplitError, UsageError
from bitloop.quantize.model import Model
from bitloop.simulate.reference import labels, simulate
from bitloop.study.atlas import Atlas, AtlasOptions, run_atlas
from bitloop.study.atlas_summary import rank_correlation, ranked
from bitloop.study.device import DeviceOptions
from bitloop.study.folder import read_lines
from bitloop.study.statistics import compare

Start = Callable[..., Atlas]


@pytest.fixture
def start(models: Callable[..., Model], drawn_images: Images, tmp_path: Path) -> Start:
    def start(
        url: str | None = None,
        *,
        specs: tuple[str, ...] = ("e2m1", "int3"),
        images: int = 40,
        device_images: int = 4,
        out: str = "atlas",
        **options: object,
    ) -> Atlas:
        run = RunOptions(per_layer=False, warm_up_images=0)
        device = DeviceOptions(url=url, images=device_images, run=run) if url else None
        return run_atlas(
            models("mlp8k", *specs),
            drawn_images.first(images),
            tmp_path / out,
            options=AtlasOptions(device=device, **options),  # type: ignore[arg-type]
        )

    return start


def test_figures_are_those_of_the_simulation(start: Start, models: Callable[..., Model], drawn_images: Images) -> None:
    found = start()
    model, images = models("mlp8k", "e2m1", "int3"), drawn_images.first(40)
    reference = labels(simulate(model, images.pixels)) == images.labels
    assert found.base == wilson(int(reference.sum()), 40)
    assert [row.key for row in found.rows] == [
        f"{layer}.{of}[{bit}]"
        for layer in ("dense1", "dense2")
        for of, bits in (("weights", 4), ("biases", 3))
        for bit in reversed(range(bits))
    ]
    for row in found.rows:
        tensor = model.tensors[row.tensor]
        codes = tensor.codes ^ np.uint32(1 << row.position.bit)
        if tensor.format.is_float:  # e2m1: s ee m, and no number where ee = 11
            bad = codes & 0b0110 == 0b0110
            assert row.left == bad.sum()
            codes = np.where(bad, tensor.codes, codes)
        else:
            assert row.left == 0
        other = dataclasses.replace(
            model, tensors={**model.tensors, row.tensor: dataclasses.replace(tensor, codes=codes)}
        )
        right = labels(simulate(other, images.pixels)) == images.labels
        assert row.accuracy == wilson(int(right.sum()), 40)
        assert row.comparison == compare(reference, right)
        assert row.model_sha256 == other.sha256
        assert row.changed + row.left == tensor.codes.size
    assert {row.model_sha256 for row in found.rows}.isdisjoint({model.sha256})


def test_ranking_and_sums_by_hand(start: Start) -> None:
    found = start(images=100)
    losses = [row.comparison.loss for row in found.ranking]
    assert losses == sorted(losses, reverse=True)
    assert sorted(row.key for row in found.ranking) == sorted(row.key for row in found.rows)
    assert [(group.of, group.name, group.points) for group in found.kinds] == [
        ("weights", "sign", 2),
        ("weights", "exponent", 4),
        ("weights", "mantissa", 2),
        ("biases", "sign", 2),
        ("biases", "magnitude", 4),
    ]
    assert [(group.name, group.points) for group in found.tensors] == [
        ("dense1.weights", 4),
        ("dense1.biases", 3),
        ("dense2.weights", 4),
        ("dense2.biases", 3),
    ]
    for group in found.tensors:
        rows = [row for row in found.rows if row.tensor == group.name]
        assert group.mean_loss == pytest.approx(sum(row.comparison.loss for row in rows) / len(rows))
        assert group.worst.comparison.loss == max(row.comparison.loss for row in rows)
        changes = [row.mean_change for row in rows]
        assert group.mean_change == pytest.approx(math.prod(map(float, changes)) ** (1 / len(rows)))  # type: ignore[arg-type]
    pairs = [(row.mean_change, row.comparison.loss) for row in found.rows]
    assert found.correlation == pytest.approx(spearmanr(*zip(*pairs, strict=True)).statistic)
    assert rank_correlation(found.rows[:2]) is None


def test_points_where_nothing_can_be_flipped_come_last(start: Start) -> None:
    # e1m1 with IEEE top codes has subnormals only: its exponent bit flipped is infinity or NaN, whatever the code.
    found = start("sim://native", specs=("e1m1", "int2"), images=20)
    dead = [row for row in found.rows if not row.changed]
    assert [row.key for row in dead] == ["dense1.weights[1]", "dense2.weights[1]"]
    assert [row.left for row in dead] == [3920, 200]
    assert found.ranking[-2:] == dead == ranked(dead)
    assert all(row.comparison.loss == 0 and row.mean_change is None for row in dead)
    assert {row.model_sha256 for row in dead} == {found.begun.asked.model_sha256}
    assert [group.name for group in found.kinds if group.of == "weights"] == ["sign", "mantissa"]
    assert not {row.key for row in dead} & set(found.device)  # nothing to run: it is the MODEL without a flip


def test_a_share_is_drawn_by_the_seed(start: Start) -> None:
    found = [start(share=0.05, seed=seed, out=f"s{seed}") for seed in (1, 2)]
    for atlas in found:
        assert {row.changed + row.left for row in atlas.rows if row.tensor == "dense1.weights"} == {196}
        assert {row.changed + row.left for row in atlas.rows if row.tensor == "dense1.biases"} == {1}
    assert {row.model_sha256 for row in found[0].rows}.isdisjoint({row.model_sha256 for row in found[1].rows})
    # With all codes the seed decides nothing.
    whole = start(seed=1)
    assert start(seed=2).measured_now == 0
    assert whole.begun.asked.seed == 0


@pytest.mark.parametrize(("share", "seed"), [(0.0, 0), (1.5, 0), (0.5, -1), (0.5, 2**32)])
def test_a_share_that_makes_no_sense(start: Start, tmp_path: Path, share: float, seed: int) -> None:
    with pytest.raises(UsageError):
        start(share=share, seed=seed)
    assert not (tmp_path / "atlas").exists()


def test_every_point_is_exact_on_a_device(start: Start) -> None:
    found = start("sim://native")
    assert list(found.device) == ["base", *(row.key for row in found.rows)]
    for key, line in found.device.items():
        assert (line.board, line.simulated, line.images, line.refused) == ("native", True, 4, None)
        outcome = found.begun.asked.points.index(key)
        measured = json.loads(read_lines(found.folder.lines)[outcome])["measured"]
        right = np.unpackbits(np.frombuffer(base64.b64decode(measured["right"]), np.uint8))[:4]
        assert line.correct == int(right.sum())
    first, *others = found.device.values()
    assert first.copied_bytes == 0
    assert len({line.image_sha256 for line in found.device.values()}) == len(found.rows) + 1
    assert all(line.copied_bytes for line in others)


def test_only_the_tensor_that_is_flipped_travels(start: Start) -> None:
    found = start("sim://native", specs=("int8", "int2"), images=8, device_images=1)
    whole = found.device["base"].upload_line_bytes or 0
    assert whole > 4000  # 4,120 weights of eight bits
    for key in ("dense1.biases[0]", "dense2.weights[3]", "dense2.biases[0]"):
        line = found.device[key]
        assert (line.upload_line_bytes or 0) < whole / 4
        assert (line.copied_bytes or 0) >= 3920


def test_a_wrong_device_ends_the_atlas_and_the_host_s_figures_stay(start: Start) -> None:
    with pytest.raises(DisagreementError, match=r"point base on sim://.*first diverging layer dense1, 1 ULP") as caught:
        start("sim://native?fault=layer:1,ulp:1")
    assert caught.value.exit_code == 3
    found = start()
    assert (found.measured_now, found.device) == (0, {})
    assert found.folder.result.exists()
    assert read_lines(found.folder.device) == []


def test_a_device_that_holds_another_bit(start: Start) -> None:
    with pytest.raises(DisagreementError, match=r"point base .*first diverging layer dense2"):
        start("sim://native?fault=code:2,element:0,bit:6", specs=("int8",), images=8)


def test_what_does_not_fit_is_refused(start: Start) -> None:
    found = start("sim://native?arena=1k", device_images=2)
    assert {line.correct for line in found.device.values()} == {None}
    assert "bytes" in str(found.device["base"].refused)
    assert "bytes" in found.folder.table.read_text()


def test_the_same_atlas_twice_measures_once_and_writes_the_same(start: Start) -> None:
    first = start()
    before = {path.name: path.read_bytes() for path in first.folder.path.iterdir()}
    again = start()
    assert (first.measured_now, again.measured_now) == (15, 0)
    assert {path.name: path.read_bytes() for path in again.folder.path.iterdir()} == before
    start("sim://native", device_images=2)
    assert list(start().device) == list(first.begun.asked.points)  # what a device said stays


def test_half_a_line_is_measured_again(start: Start) -> None:
    whole = start("sim://native", device_images=2)
    content, device = whole.folder.lines.read_bytes(), read_lines(whole.folder.device)
    for cut in (1, len(content) // 2, len(content) - 1):
        whole.folder.lines.write_bytes(content[:cut])
        start()
        assert whole.folder.lines.read_bytes() == content
    kept = "".join(f"{line}\n" for line in device[:3])
    whole.folder.device.write_text(f"{kept}{device[3][:20]}")
    again = start("sim://native", device_images=2)
    assert read_lines(again.folder.device)[:3] == device[:3]
    assert list(again.device) == list(whole.device)
    with pytest.raises(UsageError, match="2 images, not 3"):
        start("sim://native", device_images=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 30}, "images was 40, now it is 30"),
        ({"checked_images": 3}, "checked was 20, now it is 3"),
        ({"specs": ("e2m1", "int4")}, "lacks 2"),
        ({"specs": ("e2m1:pow2", "int3")}, "model_sha256 was"),
        ({"share": 0.5}, "share was 1.0, now it is 0.5"),
    ],
)
def test_another_atlas_is_refused(start: Start, change: dict[str, object], words: str) -> None:
    first = start()
    before = first.folder.lines.read_bytes()
    with pytest.raises(UsageError, match=f"another atlas: .*{words}"):
        start(**change)
    assert first.folder.lines.read_bytes() == before


def test_a_line_that_was_changed_is_found(start: Start) -> None:
    found = start()
    lines = read_lines(found.folder.lines)
    for old, new, words in (
        ('"changed": 200', '"changed": 199', "counts other codes"),
        ("dense1.weights[3]", "dense1.weights[2]", "twice"),
        ("dense1.weights[3]", "dense9.weights[3]", "not of this atlas"),
        ('"correct": ', '"correct": 1', "right"),
    ):
        place = next(i for i, line in enumerate(lines) if old in line)
        damaged = [*lines[:place], lines[place].replace(old, new), *lines[place + 1 :]]
        found.folder.lines.write_text("".join(f"{line}\n" for line in damaged))
        with pytest.raises(DataError, match=words):
            start()


def test_only_images_for_choosing(models: Callable[..., Model], drawn_images: Images, tmp_path: Path) -> None:
    for split in (Split.TEST, Split.TRAIN):
        images = dataclasses.replace(drawn_images, split=split)
        with pytest.raises(SealedSplitError) as caught:
            run_atlas(models("mlp8k"), images, tmp_path / "atlas")
        assert caught.value.exit_code == 4
    assert not (tmp_path / "atlas").exists()
    small = dataclasses.replace(drawn_images, pixels=drawn_images.pixels[:, :14])
    with pytest.raises(NetworkError, match="takes images of"):
        run_atlas(models("mlp8k"), small, tmp_path / "atlas")


def test_result_and_table_hold_the_same(start: Start) -> None:
    found = start("sim://native", device_images=3)
    document = json.loads(found.folder.result.read_text())
    assert document == json.loads(json.dumps(found.document()))
    with found.folder.table.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["point"] for row in table] == [row["point"] for row in document["ranking"]]
    for line, row, point in zip(table, document["ranking"], found.ranking, strict=True):
        assert float(line["loss"]) == row["against_base"]["loss"] == point.comparison.loss
        assert float(line["mcnemar_p"]) == point.comparison.p
        assert int(line["changed"]) == row["changed"]
        assert int(line["device_correct"]) == row["device"]["correct"]
        assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]


def test_an_exponent_may_make_infinities_of_logits(start: Start) -> None:
    found = start("sim://native", specs=("e8m0", "int2"), images=8, device_images=2)
    worst = next(row for row in found.rows if row.key == "dense1.weights[7]")
    assert worst.mean_change is not None
    assert worst.mean_change > 1e37
    assert worst.cross_entropy is None
    assert len(found.device) == 1 + 2 * (9 + 2)
