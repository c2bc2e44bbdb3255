"""A declared study from training to the device, on real digits and the real core; its figures are computed again."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.data.dataset import load
from bitloop.data.splits import Split
from bitloop.data.vault import Vault, read_log
from bitloop.errors import DataError, DisagreementError, UsageError
from bitloop.network.network import Network, load_network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import Recipe, parse_recipe
from bitloop.report.experiment_page import render_study, write_study_page
from bitloop.simulate.reference import labels, simulate
from bitloop.study.experiment.comparisons import words_of
from bitloop.study.experiment.experiment import Study, StudyOptions, run_study
from bitloop.study.experiment.file import read_study
from bitloop.study.experiment.tables import to_markdown
from bitloop.study.statistics import compare

pytest.importorskip("tensorflow", reason="a study that trains needs TensorFlow")

FILE = """
title = "A <quick> study"
question = "Does it all work?"
dataset = "digits"
margins = [8, 2]

[[network]]
name = "zoo"
source = "mlp8k-digits"

[[network]]
name = "small"
architecture = "avg2-dense12-dense10"
seeds = [1, 2]
train = { epochs = 2, batch_size = 16, learning_rate = 0.01 }

[[network]]
name = "trained"
architecture = "avg2-dense12-dense10"
seeds = [1]
train = { epochs = 2, batch_size = 16, learning_rate = 0.01 }
qat = { weights = "int4", biases = "e4m3" }

[[sweep]]
name = "grid"
networks = ["small"]
formats = ["e3m2:pow2", "int8", "binary"]

[[sweep]]
name = "cut"
networks = ["zoo"]
of = ["both"]
formats = ["e8m1", "e8m2"]
roundings = ["toward_zero"]
prune = [0, 0.1]
confirm = "all"

[[search]]
name = "mixed"
networks = ["zoo"]
weights = ["int4", "int8"]
biases = ["e4m3", "fp32"]

[[comparison]]
name = "bits"
question = "Four bits, trained for or not"
entries = [{ network = "small", weights = "int4", biases = "e4m3" }, { network = "trained" }]

[test]
reason = "the quick study"
sections = ["grid", "bits"]

[[device]]
url = "sim://native"
images = 30
split = "test"
sections = ["grid"]
"""
OTHER = FILE.replace('weights = "int4", biases = "e4m3" }, {', 'weights = "int3", biases = "e4m3" }, {')
"""The same, but for one MODEL that the test set is opened for."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the file of a study; the vault logs there."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "quick.toml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        yield folder


@pytest.fixture(scope="module")
def study(home: Path) -> Study:
    """The study, done once."""
    return run_study(read_study(home / "quick.toml"), home / "out", options=StudyOptions(processes=2))


def table(study: Study, name: str) -> list[dict[str, str]]:
    with (study.folder / "tables" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def correct(network: Path | str, weights: str, biases: str, split: Split | None) -> int:
    """Return how many images a network with formats labels right, by the numpy reference; None is the test split."""
    dataset = load("digits")
    images = Vault(dataset).open("a test computes again") if split is None else dataset.split(split)
    model = quantize(load_network(network), parse_recipe(weights, biases))
    return int((labels(simulate(model, images.pixels)) == images.labels).sum())


def test_a_sweeps_figures_are_those_of_the_simulation(study: Study) -> None:
    rows = table(study, "grid-small-weights")
    assert len(rows) == 8  # fp32 and three formats, two seeds
    for row in rows:
        network = study.folder / "networks" / f"{row['network']}.npz"
        spec = "fp32" if row["cell"] == "base=fp32" else row["spec"]
        assert int(row["correct"]) == correct(network, spec, "fp32", Split.SEARCH)


def test_a_winner_holds_with_every_seed_on_both_splits(study: Study) -> None:
    (group,) = [group for group in study.groups if group.section == "grid"]
    rows = table(study, "grid-small-weights")
    for winner in group.winners:
        admitted = {
            row["spec"]
            for row in rows
            if row["cell"] != "base=fp32"
            and all(100 * float(r["loss_bound"]) <= winner.margin for r in rows if r["cell"] == row["cell"])
        }
        assert winner.admissible == len(admitted)
        if winner.confirm is not None:
            assert winner.confirm.rows[0].spec in admitted
            assert all(100 * row.comparison.bound <= winner.margin for row in winner.confirm.rows)
            smaller = [cell for cell in group.pooled if cell.total_bytes < winner.confirm.total_bytes]
            assert len([cell for cell in smaller if cell.rows[0].spec in admitted]) <= winner.tried - 1
    assert group.winners[0].confirm is not None  # 8 points: int8 at least


def test_the_test_set_is_opened_once_for_what_was_registered(study: Study, home: Path) -> None:
    registered = json.loads((study.folder / "registered.json").read_text())
    tested = table(study, "test")
    assert [model["model_sha256"] for model in registered["models"]] == [row["model_sha256"] for row in tested]
    winner = next(choice for choice in study.choices if choice.section == "grid")
    assert winner.model.sha256 in {row["model_sha256"] for row in tested}
    # fp32 of the networks whose formats are measured, but not of one that was trained for formats, nor of others.
    assert [row["network"] for row in tested if row["section"] == "fp32"] == ["small-seed1", "small-seed2"]
    openings = (study.folder / "openings.jsonl").read_text().splitlines()
    assert len(openings) == 1
    assert json.loads(openings[0])["reason"] == "the quick study"
    for row in tested:
        network = study.folder / "networks" / f"{row['network']}.npz"
        weights, biases = {"fp32": ("fp32", "fp32"), "bits": ("int4", "e4m3")}.get(
            row["section"], (row["formats"].removeprefix("weights="), "fp32")
        )
        assert int(row["correct"]) == correct(network, weights, biases, None)


def test_what_was_chosen_ran_on_the_device(study: Study) -> None:
    (choices,) = [[choice for choice in study.choices if choice.section == "grid"]]
    first = {choice.model.sha256 for choice in choices if choice.instance.label == "small-seed1"}
    rows = table(study, "devices")
    assert {row["model_sha256"] for row in rows} == first
    assert {(row["images"], row["exact"], row["split"]) for row in rows} == {("30", "30", "test")}
    for one in study.on_devices:
        assert one.record is not None
        assert [opening.reason for opening in one.record.vault] == ["the quick study"]


def test_sides_are_measured_as_they_were_trained_for(study: Study) -> None:
    plain, trained = study.sides["bits"]
    assert len(plain.choices) == 2
    assert len(trained.choices) == 1
    assert trained.choices[0].words == "int4, biases e4m3"
    network = study.folder / "networks" / "trained-seed1.npz"
    assert trained.confirm[0].measured.correct == correct(network, "int4", "e4m3", Split.CONFIRM)
    metadata = load_network(network).metadata
    assert trained.confirm[0].accuracy.value == metadata["confirm_accuracy"]
    row = table(study, "bits")[1]
    assert float(row["difference"]) == pytest.approx(
        trained.confirm_accuracies[0] - np.mean(plain.confirm_accuracies), abs=1e-12
    )
    assert row["difference_half_width_95"] == ""  # one seed alone has no interval


def test_a_cut_of_bits_is_a_matrix_with_its_optimism(study: Study) -> None:
    rows = table(study, "cut-zoo-both-matrix1")
    assert [(row["format"], row["threshold"]) for row in rows] == [
        ("e8m1", "0.0"),
        ("e8m1", "0.1"),
        ("e8m2", "0.0"),
        ("e8m2", "0.1"),
    ]
    hits = correct("mlp8k-digits", "e8m1:toward_zero:prune=0.1", "e8m1:toward_zero", Split.SEARCH)
    assert float(rows[1]["accuracy"]) == hits / 200
    (optimism,) = table(study, "cut-zoo-both-optimism")
    assert (optimism["cells"], optimism["images_of_a_half"]) == ("4", "200")


def test_the_same_again_measures_nothing_again(study: Study, home: Path) -> None:
    def state() -> dict[str, tuple[int, bytes]]:
        kept = [*study.folder.rglob("*.npz"), *study.folder.rglob("*.jsonl"), *study.folder.rglob("run.json")]
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}

    before, opened = state(), len(read_log(home / "state" / "bitloop" / "vault.jsonl"))
    again = run_study(read_study(home / "quick.toml"), home / "out", options=StudyOptions(processes=2))
    assert state() == before
    assert len(read_log(home / "state" / "bitloop" / "vault.jsonl")) == opened
    assert [to_markdown(one) for one in again.tables] == [to_markdown(one) for one in study.tables]


def test_once_opened_nothing_else_can_be_registered(study: Study, home: Path, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    assert OTHER != FILE
    (tmp_path / "other.toml").write_text(OTHER)
    with pytest.raises(UsageError, match=r"test set was opened for what .* registers"):
        run_study(read_study(tmp_path / "other.toml"), tmp_path / "out")


def test_a_network_that_was_trained_otherwise_is_refused(study: Study, home: Path, tmp_path: Path) -> None:
    (tmp_path / "networks").mkdir()
    for path in (study.folder / "networks").glob("*.npz"):
        shutil.copy(path, tmp_path / "networks")
    (tmp_path / "other.toml").write_text(
        FILE.replace("epochs = 2, batch_size = 16, learning_rate = 0.01 }\nqat", "epochs = 3 }\nqat")
    )
    with pytest.raises(UsageError, match=r"trained-seed1.npz was trained otherwise .* epochs was 2, now it is 3"):
        run_study(read_study(tmp_path / "other.toml"), tmp_path)


def test_a_device_that_answers_wrong_ends_the_study(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    wrong = FILE[: FILE.index("[test]")] + '[[device]]\nurl = "sim://native?fault=layer:1,ulp:1"\nimages = 20\n'
    (tmp_path / "wrong.toml").write_text(wrong)
    with pytest.raises(DisagreementError, match="sim://native"):
        run_study(read_study(tmp_path / "wrong.toml"), tmp_path / "out")


def test_without_an_opening_the_vault_stays_shut(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    text = FILE[: FILE.index('[[network]]\nname = "small"')]
    text += '[[sweep]]\nname = "grid"\nnetworks = ["zoo"]\nformats = ["int8"]\n'
    (tmp_path / "sealed.toml").write_text(text)
    result = CliRunner().invoke(app, ["study", str(tmp_path / "sealed.toml"), "--jobs", "1", "--json"])
    assert result.exit_code == 0, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    assert [one["name"] for one in document["tables"]] == ["grid-zoo-weights", "grid-winners"]
    # Nobody looks, so a line says when a stage begins.
    assert len(re.findall(r"^\d\d:\d\d:\d\d grid: zoo-weights-search, .+ \(\d+\)$", result.stderr, re.M)) >= 1
    assert not (tmp_path / "state").exists()
    assert not (tmp_path / "sealed.out" / "registered.json").exists()
    assert (tmp_path / "sealed.out" / "study.html").exists()


def test_the_page_holds_every_table_and_nothing_from_outside(study: Study) -> None:
    html = render_study(study)
    assert "A &lt;quick&gt; study" in html
    assert "<quick>" not in html
    for one in study.tables:
        assert escape(one.title).replace("&#x27;", "&#39;") in html
    for word in ("http://", "https://", "<script", "src="):
        assert word not in html.replace('xmlns="http://www.w3.org/2000/svg"', "").replace(
            'xmlns:xlink="http://www.w3.org/1999/xlink"', ""
        )
    assert write_study_page(study).read_text() == html


def test_the_page_shows_well(study: Study, shows_well: Callable[[str], None]) -> None:
    shows_well(render_study(study))


def test_what_is_simulated_is_said_of_each_device(study: Study) -> None:
    """Of a chip and a simulated device neither may be taken for the other."""
    assert "simulated devices" in render_study(study)
    one = study.on_devices[0]
    assert one.record is not None
    chip = replace(one, record=replace(one.record, simulated=False))
    assert "chips and simulated devices" in render_study(replace(study, on_devices=(one, chip)))
    alone = render_study(replace(study, on_devices=(chip,)))
    assert '<div class="note">chips</div>' in alone


def test_once_the_vault_was_opened_nothing_else_can_be_registered_even_without_a_figure(
    study: Study, home: Path, tmp_path: Path
) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    (tmp_path / "out" / "test.jsonl").unlink()
    (tmp_path / "other.toml").write_text(OTHER)
    with pytest.raises(UsageError, match=r"test set was opened for what .* registers"):
        run_study(read_study(tmp_path / "other.toml"), tmp_path / "out")


@pytest.mark.parametrize("content", ["", "[]", '{"models": [3]}', '{"models": 3}'])
def test_a_registration_that_cannot_be_read_is_named(study: Study, home: Path, tmp_path: Path, content: str) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    (tmp_path / "out" / "registered.json").write_text(content)
    with pytest.raises(DataError, match=r"test set was opened, but .*registered\.json cannot be read"):
        run_study(read_study(home / "quick.toml"), tmp_path / "out")


def test_a_registration_holds_whatever_the_words_for_its_formats(study: Study, home: Path, tmp_path: Path) -> None:
    shutil.copytree(study.folder, tmp_path / "out")
    path = tmp_path / "out" / "registered.json"
    document = json.loads(path.read_text())
    for model in document["models"]:
        model["formats"] = "in other words"
    path.write_text(json.dumps(document))
    run_study(read_study(home / "quick.toml"), tmp_path / "out")
    document["models"][0]["model_sha256"] = "ab" * 32
    path.write_text(json.dumps(document))
    with pytest.raises(UsageError, match="other MODELs are chosen"):
        run_study(read_study(home / "quick.toml"), tmp_path / "out")


def test_checking_a_file_does_nothing(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["study", str(home / "quick.toml"), "--check"])
    assert result.exit_code == 0, result.output
    assert "small-seed2" in result.stdout
    assert "bits: small, trained" in result.stdout
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = CliRunner().invoke(app, ["study", str(home / "quick.toml"), "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert "is a file" in result.output


def test_a_search_chooses_the_smallest_candidate_that_holds_with_every_seed(study: Study, tmp_path: Path) -> None:
    shutil.copytree(study.folder / "networks", tmp_path / "out" / "networks")
    text = FILE[: FILE.index('[[network]]\nname = "trained"')].replace("margins = [8, 2]", "margins = [4.5, 3]")
    text += (
        '[[search]]\nname = "mixed"\nnetworks = ["small"]\nweights = ["int2", "int3", "e2m1", "int4", "e3m2", "int8"]\n'
    )
    text += 'biases = ["int4"]\ncandidates = 12\n'
    (tmp_path / "mixed.toml").write_text(text)
    found = run_study(read_study(tmp_path / "mixed.toml"), tmp_path / "out").found["mixed"]
    images = load("digits").split(Split.CONFIRM)
    networks = [load_network(tmp_path / "out" / "networks" / f"small-seed{seed}.npz") for seed in (1, 2)]

    def right(network: Network, recipe: Recipe) -> npt.NDArray[np.bool_]:
        return labels(simulate(quantize(network, recipe), images.pixels)) == images.labels

    for one in found:
        held = [
            [
                100 * compare(right(network, parse_recipe("fp32")), right(network, candidate.recipe)).bound
                <= one.margin
                for network in networks
            ]
            for candidate in one.search.candidates
        ]
        expected = next((number for number, each in enumerate(held) if all(each)), None)
        if expected is None:
            assert (one.choices, one.tried) == ((), len(held))
        else:
            recipe = one.search.candidates[expected].recipe
            assert one.tried == expected + 1
            assert [choice.recipe for choice in one.choices] == [recipe, recipe]


@pytest.mark.parametrize(
    ("weights", "biases", "overrides", "words"),
    [
        ("int4", "e4m3", [], "int4, biases e4m3"),
        ("int4", "e4m3", ["b.weights=int8"], "int4, b.weights int8, biases e4m3"),
        ("fp32", "fp32", ["b.weights=int8", "a.weights=int4"], "a.weights int4, b.weights int8, biases fp32"),
        (
            "fp32",
            "e4m3",
            ["b.weights=int8", "a.weights=int4", "a.biases=int2"],
            "a.weights int4, b.weights int8, a.biases int2",
        ),
    ],
)
def test_formats_in_words(weights: str, biases: str, overrides: list[str], words: str) -> None:
    assert words_of(parse_recipe(weights, biases, overrides), ["a.weights", "a.biases", "b.weights"]) == words
