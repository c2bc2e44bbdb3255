"""``bitloop sweep`` as one types it, and its page in a browser."""

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
from bitloop.report.study_page import render_sweep
from bitloop.report.study_plots import front_of
from bitloop.study.grid import Grid
from bitloop.study.sweep import Sweep

Run = Callable[..., Sweep]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def bitloop(drawn_command: Callable[..., Any]) -> Callable[..., Any]:
    """Run ``bitloop sweep ARGUMENTS`` in a directory that holds ``mine.npz``, on drawn images."""
    return functools.partial(drawn_command, "sweep")


def test_a_sweep_is_two_simulations(bitloop: Callable[..., Any]) -> None:
    asked = ("mine.npz", "--limit", "50", "--formats", "e4m3:pow2,int3:channel", "--out", "s", "-j", "1", "--json")
    document = json.loads(bitloop(*asked).stdout)
    assert [row["spec"] for row in document["best"]] == ["int3:channel", "e4m3:pow2"]
    for row in document["best"]:
        alone = CliRunner().invoke(
            app,
            ["simulate", "mine.npz", "-w", row["spec"], "-b", "fp32", "--split", "search", "-n", "50", "--json"],
        )
        simulated = json.loads(alone.stdout)
        assert simulated["accuracy"] == row["accuracy"]
        assert simulated["model_sha256"] == row["model_sha256"]
    again = bitloop(*asked)
    assert json.loads(again.stdout) == document


def test_what_is_printed(bitloop: Callable[..., Any], tmp_path: Path) -> None:
    found = bitloop("mine.npz", "--limit", "40", "--ints", "2-3", "--of", "weights,biases", "-j", "1", "--margin", "40")
    assert found.exit_code == 0
    text = " ".join(found.stdout.split())
    assert "4 cells, the best of each width" in text
    assert re.search(r"weights 3 int3 \d+\.\d % \d+\.\d–\d+\.\d % \d", text)
    assert "Core and reference bit-identical: base=fp32 on 40 images" in text
    assert "Page: sweeps/mine/sweep.html" in text
    names = {path.name for path in (tmp_path / "sweeps/mine").iterdir()} - {".lock"}
    assert names == {"sweep.json", "cells.jsonl", "cells.csv", "result.json", "sweep.html"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nosuch",), 5, "neither a network"),
        (("mine.npz", "--split", "test"), 4, "sealed"),
        (("mine.npz", "--split", "train"), 2, "search, confirm"),
        (("mine.npz", "--exponents", "0-9"), 2, "1 to 8"),
        (("mine.npz", "--formats", "e4m3,,int4"), 2, "empty place"),
        (("mine.npz", "--formats", "e9m9"), 5, "1 to 8 exponent bits"),
        (("mine.npz", "--of", "all"), 2, "weights, biases, both"),
        (("mine.npz", "--margin", "0", "--ints", "2"), 2, "margin"),
    ],
)
def test_what_makes_no_sense_has_its_exit_code(
    bitloop: Callable[..., Any], tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    found = bitloop(*arguments)
    assert found.exit_code == code
    assert words in " ".join(found.stderr.split())
    assert not (tmp_path / "sweeps").exists()


def test_a_wrong_device_exits_with_3(bitloop: Callable[..., Any]) -> None:
    url = "sim://native?fault=layer:1,ulp:1"
    found = bitloop("mine.npz", "-n", "20", "--ints", "4", "-j", "1", "--on", url, "--device-images", "5")
    assert found.exit_code == 3
    assert "DISAGREE" in found.stderr


def test_the_front_by_hand(sweep: Run) -> None:
    rows = sweep(Grid(exponents=(3, 4), mantissas=(0, 3)), margin=0.1).rows[1:]
    front = front_of(rows)
    for row in front:
        assert not [r for r in rows if r.total_bytes < row.total_bytes and r.accuracy.value >= row.accuracy.value]
    for row in rows:
        assert [r for r in front if r.total_bytes <= row.total_bytes and r.accuracy.value >= row.accuracy.value]


def test_the_page_holds_everything_and_nothing_from_outside(sweep: Run) -> None:
    found = sweep(Grid(exponents=(1, 3), mantissas=(0, 2), of=("weights", "biases"), scales=("pow2",)))
    page = render_sweep(found)
    assert page.count("<svg") == 2
    for row in found.rows:
        assert f">{row.cell}<" in page
    assert "e1m0 has no element but zero" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    assert "http" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", page).replace("http-equiv", "")
    layered = sweep(
        Grid(exponents=None, formats=("int4", "int2"), per_layer=True), out=found.folder.path.with_name("layers")
    )
    assert 'aria-labelledby="layers"' in render_sweep(layered)


def test_a_name_is_no_markup(sweep: Run) -> None:
    found = sweep(Grid(exponents=None, formats=("int4",)))
    object.__setattr__(found.begun, "command", "bitloop <script>alert(1)</script>")
    assert "<script" not in render_sweep(found)


def test_the_page_shows_well(sweep: Run, shows_well: Callable[[str], None]) -> None:
    shows_well(render_sweep(sweep(Grid(exponents=(2, 4), mantissas=(0, 3), of=("weights", "biases"), per_layer=True))))
