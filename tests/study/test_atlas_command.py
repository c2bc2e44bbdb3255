"""``bitloop atlas`` as one types it, and its page in a browser."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitloop.data.dataset import Images
from bitloop.quantize import blm
from bitloop.quantize.model import Model
from bitloop.report.atlas_page import atlas_headline, device_headline, render_atlas
from bitloop.study.atlas import Atlas, AtlasOptions, run_atlas
from bitloop.study.bit_positions import flip
from bitloop.study.device import DeviceOptions

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def bitloop(drawn_command: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``bitloop ARGUMENTS`` in a directory that holds ``mine.npz``, on drawn images."""
    return drawn_command


@pytest.fixture
def atlas(models: Callable[..., Model], drawn_images: Images, tmp_path: Path) -> Callable[..., Atlas]:
    def run(*specs: str, url: str | None = None, **options: Any) -> Atlas:
        device = None if url is None else DeviceOptions(url=url, images=2)
        return run_atlas(
            models("mlp8k", *specs),
            drawn_images.first(20),
            tmp_path / "atlas",
            options=AtlasOptions(device=device, checked_images=2, **options),
        )

    return run


def test_a_point_is_the_simulation_of_its_model(
    bitloop: Callable[..., Any], models: Callable[..., Model], tmp_path: Path
) -> None:
    """The MODEL with the flip, written to a file and simulated by itself, has the accuracy and hash of its point."""
    asked = ("atlas", "mine.npz", "-w", "int3", "-b", "int4", "-n", "50", "--verify", "5", "-o", "a", "--json")
    document = json.loads(bitloop(*asked).stdout)
    assert len(document["ranking"]) == 2 * (3 + 4)
    for row in document["ranking"][::4]:
        flipped = flip(models("mlp8k", "int3", "int4"), row["tensor"], row["bit"]).model
        blm.save(flipped, tmp_path / "flipped.blm")
        alone = json.loads(bitloop("simulate", "flipped.blm", "--split", "search", "-n", "50", "--json").stdout)
        assert alone["accuracy"] == row["accuracy"]
        assert alone["model_sha256"] == row["model_sha256"]
    assert json.loads(bitloop(*asked).stdout) == document


def test_what_is_printed(bitloop: Callable[..., Any], models: Callable[..., Model], tmp_path: Path) -> None:
    blm.save(models("mlp8k", "ternary", "int2"), tmp_path / "mine.blm")
    options = ("-n", "30", "--share", "0.1", "--seed", "3", "--device", "sim://native", "--device-images", "3")
    found = bitloop("atlas", "mine.blm", *options)
    assert found.exit_code == 0
    text = " ".join(found.stdout.split())
    assert "8 points, 10 % of a tensor's codes flipped (seed 3)" in text
    assert re.search(r"dense\d\.weights (sign|magnitude 0) [+-]\d+\.\d\d", text)
    assert "Costliest bit: " in text
    assert "9 models bit-identical on native (simulated), 3 images each" in text
    assert "Core and reference bit-identical on 20 images of every point" in text
    assert "Page: atlases/mlp8k/atlas.html" in text
    names = {path.name for path in (tmp_path / "atlases/mlp8k").iterdir()} - {".lock"}
    assert names == {"atlas.json", "points.jsonl", "points.csv", "result.json", "atlas.html", "device.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nosuch",), 5, "neither a network"),
        (("nosuch.blm",), 5, "nosuch.blm"),
        (("mine.npz", "--split", "test"), 4, "sealed"),
        (("mine.npz", "--split", "train"), 2, "search, confirm"),
        (("mine.npz", "--share", "0"), 2, "at most 1"),
        (("mine.npz", "--seed", "-1"), 2, "32 bits"),
        (("mine.npz", "-w", "e9m9"), 5, "1 to 8 exponent bits"),
        (("mine.npz", "-w", "int2", "-b", "int2", "--limit", "5", "-d", "nosuch"), 6, "nosuch"),
    ],
)
def test_what_makes_no_sense_has_its_exit_code(
    bitloop: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found = bitloop("atlas", *arguments)
    assert found.exit_code == code
    assert words in " ".join(found.stderr.split())
    assert (tmp_path / "atlases").exists() == (code == 6)  # what the host measured stays


def test_a_wrong_device_exits_with_3(bitloop: Callable[..., Any]) -> None:
    url = "sim://native?fault=layer:1,ulp:1"
    found = bitloop("atlas", "mine.npz", "-w", "int2", "-b", "int2", "-n", "10", "-d", url, "--device-images", "5")
    assert found.exit_code == 3
    assert "DISAGREE" in found.stderr


def test_the_page_holds_everything_and_nothing_from_outside(atlas: Callable[..., Atlas]) -> None:
    found = atlas("e2m1", "int2", url="sim://native")
    page = render_atlas(found)
    assert page.count("<svg") == 4  # a heatmap and a plot for each of two formats
    for row in found.rows:
        assert f">{row.name}<" in page
    assert device_headline(found) in page
    assert atlas_headline(found) in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page).replace("http-equiv", "")
    assert "mathdefault" not in page


def test_a_place_where_nothing_can_be_flipped_is_a_dash(atlas: Callable[..., Atlas]) -> None:
    found = atlas("e1m1", "binary")
    heatmap = render_atlas(found).split("<svg")[1].split("</svg>")[0]
    assert heatmap.count(">–<") == 2


def test_a_name_is_no_markup(atlas: Callable[..., Atlas]) -> None:
    found = atlas("binary", "binary")
    object.__setattr__(found.begun, "command", "bitloop <script>alert(1)</script>")
    assert "<script" not in render_atlas(found)


def test_the_page_shows_well(atlas: Callable[..., Atlas], shows_well: Callable[[str], None]) -> None:
    shows_well(render_atlas(atlas("fp16", "int2")))
