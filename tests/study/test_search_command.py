"""``bitloop search`` as one types it, and its page in a browser."""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.data.dataset import Images
from bitloop.network.network import Network
from bitloop.report.search_page import render_search
from bitloop.study.device import DeviceOptions
from bitloop.study.search.choices import choices_of
from bitloop.study.search.search import Search, SearchOptions, run_search

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FEW = ("-w", "int4,int8:channel", "-b", "fp16", "--max-drop", "30", "-j", "1")


@pytest.fixture
def bitloop(
    command: Callable[..., Any],
    found_images: Callable[[Images, Images], None],
    tmp_path: Path,
    deep: Callable[[int], Network],
    labelled: Callable[[Network], tuple[Images, Images]],
) -> Callable[..., Any]:
    """Run ``bitloop search ARGUMENTS`` in a directory that holds ``two.npz`` and ``five.npz``, on images they get."""
    search, confirm = labelled(deep(2))
    found_images(confirm, search)
    deep(2).save_npz(tmp_path / "two.npz")
    deep(5).save_npz(tmp_path / "five.npz")
    return functools.partial(command, "search")


@pytest.fixture(scope="module")
def found(
    deep: Callable[[int], Network],
    labelled: Callable[[Network], tuple[Images, Images]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Search:
    """A search with a winner and a device."""
    network = deep(2)
    options = SearchOptions(
        choices=choices_of(network, weights=("int3", "int4", "int6:channel", "int8"), biases=("int4", "fp16")),
        margin=0.3,
        objectives=("bytes", "latency", "ram"),
        processes=1,
        device=DeviceOptions(url="sim://native", images=3),
        command="bitloop search <script>alert(1)</script>",
    )
    return run_search(network, *labelled(network), options, tmp_path_factory.mktemp("search") / "s")


def test_what_is_printed(bitloop: Callable[..., Any], tmp_path: Path) -> None:
    result = bitloop("two.npz", *FEW)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "4 of 4 assignments evaluated" in text
    assert "4 assignments of formats to 4 tensors: all are evaluated" in " ".join(result.stderr.split())
    assert re.search(r"1 [\d,]+ \d+\.\d % [+-]\d+\.\d\d \d+\.\d %", text)
    assert "Winner's curse" in text
    assert "Core and reference bit-identical: fp32 on 60 images, winner on 60 images" in text
    assert "dense1.weights = int4" in text
    names = {path.name for path in (tmp_path / "searches/two").iterdir()} - {".lock"}
    assert names == {
        "search.json",
        "evaluations.jsonl",
        "candidates.csv",
        "result.json",
        "search.html",
        "winner.blm",
    }
    ran = CliRunner().invoke(app, ["run", "searches/two/winner.blm", "-d", "sim://native", "-n", "5", "--json"])
    assert json.loads(ran.stdout)["verdict"] == "exact"


def test_json_is_the_result(bitloop: Callable[..., Any], tmp_path: Path) -> None:
    asked = ("two.npz", *FEW, "--json", "--out", "s", "--best", "2")
    document = json.loads(bitloop(*asked).stdout)
    assert document == json.loads((tmp_path / "s/result.json").read_text())
    assert len(document["candidates"]) == 2
    assert json.loads(bitloop(*asked).stdout) == document


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nosuch",), 5, "neither a network"),
        (("two.npz", "--objective", "latency"), 2, "--device URL"),
        (("two.npz", "--objective", "speed"), 2, "bytes, latency, ram"),
        (("two.npz", "--max-evaluations", "9"), 2, "--max-evaluations"),
        (("five.npz", "--method", "exhaustive"), 2, "7,962,624 assignments, more than the 200,000"),
        (("two.npz", "-w", "int4,,int8"), 2, "empty place"),
        (("two.npz", "-w", "int4:adaround"), 5, "calibration images"),
        (("two.npz", "--set", "dense9.weights=int4"), 5, "no tensor 'dense9.weights'"),
        (("two.npz", "--max-drop", "0"), 2, "above 0 and below 100 points"),
        (("two.npz", "--method", "fast"), 2, "auto, exhaustive, sampled"),
    ],
)
def test_what_makes_no_sense_has_its_exit_code(
    bitloop: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = bitloop(*arguments)
    assert result.exit_code == code
    assert words in " ".join(result.stderr.split())
    assert not (tmp_path / "searches").exists()


def test_a_wrong_device_exits_with_3(bitloop: Callable[..., Any], tmp_path: Path) -> None:
    result = bitloop("two.npz", *FEW, "-d", "sim://native?fault=layer:1,ulp:1", "--device-images", "3")
    assert result.exit_code == 3
    assert "DISAGREE" in result.stderr
    assert (tmp_path / "searches/two/evaluations.jsonl").read_bytes().count(b"\n") == 4


def test_the_page_holds_everything_and_nothing_from_outside(found: Search) -> None:
    page = render_search(found)
    assert page.count("<svg") == 1
    for candidate in found.candidates:
        assert f">{candidate.evaluation.key}<" in page
    assert found.winner is not None
    assert found.winner.model_sha256 in page
    assert "simulated device" in page
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page).replace("http-equiv", "")


def test_the_page_shows_well(found: Search, shows_well: Callable[[str], None]) -> None:
    shows_well(render_search(found))
