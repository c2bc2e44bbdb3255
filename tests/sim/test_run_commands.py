"""The commands that use a device, from the command line: run, report, demo, monitor."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest

from bitloop.bench.record import read_record
from bitloop.data.dataset import Dataset
from bitloop.link.urls import protocol_qemu
from bitloop.monitor import Monitor

from .conftest import Command


def test_run_writes_and_prints(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    outcome = bitloop("run", str(model_file), "--limit", "20", "--out", str(tmp_path / "run"))
    assert outcome.code == 0
    lines = outcome.out.splitlines()
    assert lines[0] == "EXACT: 20 of 20 logit vectors bit-identical"
    assert lines[-1] == f"Report: {tmp_path / 'run/report.html'}"
    assert "host nanoseconds (simulated device)" in outcome.out
    names = ["begun.json", "model.blm", "parts.json", "report.html", "run.json", "samples.jsonl"]
    assert sorted(path.name for path in (tmp_path / "run").glob("[!.]*")) == names


def test_run_has_a_directory_of_its_own_by_default(bitloop: Command, model_file: Path) -> None:
    for _ in range(2):
        assert bitloop("run", str(model_file), "--limit", "3").code == 0
    found = sorted(Path("runs").iterdir())
    assert len(found) == 2
    assert all("-mlp-sim-native" in path.name for path in found)


def test_run_quantizes_on_the_fly_and_prints_json(bitloop: Command, network_file: Path, tmp_path: Path) -> None:
    options = ("--weights", "int4:channel", "--biases", "fp16", "--set", "dense3.weights=fp32", "--mode", "throughput")
    outcome = bitloop("run", str(network_file), *options, "--json", "--out", str(tmp_path / "run"))
    document = json.loads(outcome.out)
    assert document == json.loads((tmp_path / "run/run.json").read_text())
    assert document["model"]["weights"] == "int4:channel"
    assert document["model"]["overrides"] == ["dense3.weights=fp32"]
    assert document["mode"] == "throughput"


def test_test_split_goes_through_the_vault(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    out = ("--limit", "5", "--json", "--out")
    closed = json.loads(bitloop("run", str(model_file), *out, str(tmp_path / "a")).out)
    assert (closed["dataset"]["split"], closed["vault"]) == ("confirm", [])
    opened = [
        json.loads(bitloop("run", str(model_file), "--split", "test", "--reason", why, *out, str(tmp_path / why)).out)
        for why in ("first", "second")
    ]
    counts = [document["vault"][0]["count"] for document in opened]
    assert [document["vault"][0]["reason"] for document in opened] == ["first", "second"]
    assert counts[1] == counts[0] + 1


def test_a_run_that_is_refused_leaves_the_vault_shut(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    test_split = ("run", str(model_file), "--split", "test", "--limit", "5", "--json", "--out")
    first = json.loads(bitloop(*test_split, str(tmp_path / "a")).out)
    assert bitloop(*test_split, str(tmp_path / "a")).code == 2
    second = json.loads(bitloop(*test_split, str(tmp_path / "b")).out)
    assert second["vault"][0]["count"] == first["vault"][0]["count"] + 1


def test_report_is_made_again_in_every_form(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = "sim://native?fault=layer:0,ulp:1"
    assert bitloop("run", str(model_file), "--device", fault, "--out", str(run)).code == 3
    (run / "report.html").unlink()
    samples, suite = tmp_path / "s.csv", tmp_path / "j.xml"
    outcome = bitloop("report", str(run), "--csv", str(samples), "--junit", str(suite), "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out) == read_record(run / "run.json").to_dict()
    assert (run / "report.html").exists()
    assert len(list(csv.reader(samples.open(newline="")))) == 121
    assert ElementTree.parse(suite).find(".//failure") is not None


def test_demo_does_the_main_job(bitloop: Command, tmp_path: Path) -> None:
    outcome = bitloop("demo", "--without-qemu", "--limit", "30", "--out", str(tmp_path / "demo"))
    assert outcome.code == 0
    assert outcome.out.count("EXACT: 30 of 30 logit vectors bit-identical") == 3
    assert "host nanoseconds (simulated device)" in outcome.out
    runs = sorted((tmp_path / "demo").iterdir())
    assert [path.name for path in runs] == ["cnn-int4-channel", "mlp-e4m3-pow2", "mlp-fp32"]
    for path in runs:
        record = read_record(path / "run.json")
        assert (path / "report.html").exists()
        assert [opening.reason for opening in record.vault] == ["demo"]
    assert bitloop("demo", "--without-qemu", "--limit", "30", "--out", str(tmp_path / "demo")).code == 2


def test_demo_without_an_emulator_says_how_to_get_one(
    bitloop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol_qemu, "shutil", SimpleNamespace(which=lambda name: None))
    outcome = bitloop("demo", "--limit", "5", "--out", str(tmp_path / "demo"))
    assert outcome.code == 0
    said = " ".join(outcome.err.split())
    assert "not in an emulator of a real chip (qemu://stm32f405 needs qemu-system-arm, which is not here;" in said
    assert "scripts/demo --with-qemu installs what qemu://stm32f405 needs" in said
    assert not (tmp_path / "demo" / "stm32f405").exists()
    wanted = bitloop("demo", "--with-qemu", "--limit", "5", "--out", str(tmp_path / "wanted"))
    assert wanted.code == 8
    assert "qemu-system-arm" in wanted.err
    assert not (tmp_path / "wanted").exists()
    other = bitloop("demo", "--device", "sim://native?arena=1M", "--limit", "5", "--out", str(tmp_path / "other"))
    assert other.code == 0
    assert "qemu" not in other.err  # with a device of one's own nobody asked for another


def test_demo_exits_with_3_when_the_device_is_wrong(bitloop: Command, tmp_path: Path) -> None:
    url = "sim://native?fault=layer:0,ulp:1"
    outcome = bitloop("demo", "--without-qemu", "--limit", "10", "--device", url, "--out", str(tmp_path / "demo"))
    assert outcome.code == 3
    assert "DISAGREE" in outcome.err


def test_demo_says_loudly_when_mnist_cannot_be_had(
    bitloop: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn, which brings the digits, is not installed")
    from bitloop.bench import select
    from bitloop.data.dataset import load
    from bitloop.errors import DataError

    def without_mnist(name: str = "mnist", directory: Path | None = None, *, progress: object = None) -> Dataset:
        if name == "mnist":
            raise DataError("no mirror answered")
        return load(name)

    monkeypatch.setattr(select, "load", without_mnist)
    outcome = bitloop("demo", "--without-qemu", "--limit", "20", "--out", str(tmp_path / "demo"))
    assert outcome.code == 0
    assert "warning: MNIST cannot be had: no mirror answered" in outcome.err
    assert "digits" in outcome.err
    assert "digits test" in outcome.out
    assert "mlp-digits" in outcome.out


def test_monitor_shows_log_raw_text_and_hello(bitloop: Command) -> None:
    outcome = bitloop("monitor", "sim://native?fault=log", "--hello", "--seconds", "1", "--json")
    assert outcome.code == 0
    events = [json.loads(line) for line in outcome.out.splitlines()]
    kinds = {event["kind"] for event in events}
    assert {"log", "raw", "frame"} <= kinds
    assert any(event["kind"] == "log" and event["level"] == "info" for event in events)
    assert any(event["text"].startswith("HELLO native") for event in events)
    times = [event["seconds"] for event in events]
    assert times == sorted(times)


def test_monitor_of_nothing(bitloop: Command) -> None:
    assert bitloop("monitor", "/dev/ttyNOPE9").code == 6
    assert bitloop("monitor", "sim://native?fault=crash", "--hello", "--seconds", "5").code == 6


class Line:
    """A transport that gives what a test wrote down."""

    description = "line"

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def read(self, timeout_s: float) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""

    def write(self, data: bytes) -> None:
        raise AssertionError("a monitor sends nothing by itself")

    def close(self) -> None:
        self.chunks = []


def test_monitor_shows_whatever_a_chip_prints() -> None:
    line = Line(b"rst:0x1 (POWERON)\r\nboot \x1b[31mred\0", b"\x05\x01\x02\x03\xff\0", b"panic at 0x4008")
    events = list(Monitor(line).events(seconds=0.2))
    assert [(event.kind, event.text) for event in events if event.kind == "raw"] == [
        ("raw", "rst:0x1 (POWERON)"),
        ("raw", "boot \ufffd[31mred"),
        ("raw", "panic at 0x4008"),
    ]
    assert [event.kind for event in events] == ["raw", "raw", "damaged", "raw"]


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as POSIX does")
def test_monitor_ends_cleanly_on_ctrl_c() -> None:
    code = "from bitloop.cli import main; main()"
    arguments = ["monitor", "sim://native?fault=log", "--json"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))}
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["text"]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert "ended" in err
