"""The demo, and a run from the command line, on an emulated board: marked as simulated, in instructions, everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitloop.bench.record import read_record
from bitloop.cli.app import app


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mnist_dir: Path) -> None:
    monkeypatch.setenv("BITLOOP_DATA", str(mnist_dir))
    monkeypatch.chdir(tmp_path)


def test_the_demo_runs_on_the_emulated_board_as_well(f405: str) -> None:
    result = CliRunner().invoke(app, ["demo", "--limit", "15", "--out", "demo"])
    assert result.exit_code == 0, result.output
    assert result.stdout.count("EXACT: 15 of 15 logit vectors bit-identical") == 6
    assert "latency: median, instructions (simulated device)" in result.stdout
    assert "cycles" not in result.output
    for folder in ("mlp-fp32", "mlp-e4m3-pow2", "cnn-int4-channel"):
        record = read_record(Path("demo/stm32f405") / folder / "run.json")
        assert (record.device.url, record.device.board, record.verdict) == (f405, "stm32f405", "exact")
        assert read_record(Path("demo") / folder / "run.json").device.board == "native"


def test_a_run_says_everywhere_that_the_device_is_simulated(f405: str) -> None:
    arguments = ["run", "mlp8k", "--weights", "int4", "--device", f405, "--limit", "12", "--out", "run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "stm32f405 (simulated) at qemu://stm32f405" in result.stdout
    assert "instructions (simulated device)" in result.stdout
    page = Path("run/report.html").read_text(encoding="utf-8")
    assert page.count("instructions (simulated device)") >= 3
    assert "Emulated by" in page
    assert "qemu-system-arm" in page
    assert "a tick is 0.744 instructions" in page  # 1e9 / (168 MHz x 2^3)
    assert "cycles" not in page
    document = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert document["simulated"] is document["device"]["simulated"] is document["latency"]["simulated"] is True
    assert document["latency"]["units_per_tick"] == pytest.approx(1e9 / (168e6 * 8))
    journal = [json.loads(line) for line in Path("run/samples.jsonl").read_text(encoding="utf-8").splitlines()]
    ticks = sorted(sample["ticks"] for sample in journal)
    assert document["latency"]["max"] == round(ticks[-1] * 1e9 / (168e6 * 8))
