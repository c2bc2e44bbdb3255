"""Bad input and broken devices, from the command line: a clear message, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import serial

from bitloop.bench.journal import read_samples
from bitloop.bench.record import read_record, schema_path
from bitloop.data.dataset import Images
from bitloop.network.network import Network

from .conftest import Command


def nothing_written(tmp_path: Path) -> bool:
    left = {path.name for path in (tmp_path / "cwd").rglob("*")} | {path.name for path in (tmp_path / "run").glob("*")}
    return not left and not (tmp_path / "run").exists()


def run_into(tmp_path: Path) -> tuple[str, str]:
    return "--out", str(tmp_path / "run")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("mlp", "--weights", "float8x"), 5, "float8x"),
        (("mlp", "--weights", "int8:chanel"), 5, "chanel"),
        (("mlp", "--set", "dense9.weights=int4"), 5, "dense9.weights"),
        (("mlp", "--set", "int4"), 5, "int4"),
        (("nosuch",), 5, "nosuch"),
        (("nosuch.blm",), 5, "nosuch.blm"),
        (("nosuch.npz",), 5, "nosuch.npz"),
        (("mlp", "--data", "/nonexistent"), 4, "/nonexistent"),
        (("mlp", "--split", "exam"), 2, "exam"),
        (("mlp", "--mode", "fast"), 2, "fast"),
        (("mlp", "--limit", "0"), 2, "--limit"),
        (("mlp", "--device", "/dev/ttyNOPE9"), 6, "/dev/ttyNOPE9"),
        (("mlp", "--device", "socket://127.0.0.1:1"), 6, "127.0.0.1"),
        (("mlp", "--device", "nope://x"), 6, "nope://x"),
        (("mlp", "--device", "sim://native?nope=1"), 6, "nope"),
        (("mlp", "--device", "sim://native?fault=silent", "--timeout", "0.6"), 6, "sim://native"),
        (("mlp", "--device", "sim://native?fault=garbage", "--timeout", "0.6"), 6, "not bitloop firmware"),
        (("mlp", "--device", "sim://native?fault=crash", "--timeout", "0.6"), 6, "ended"),
        (("mlp", "--device", "sim://native?fault=without:1"), 5, "does not run layers of kind DENSE"),
        (("mlp", "--device", "sim://native?fault=version:9", "--timeout", "0.6"), 6, "speaks protocol 9.0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_refused_before_anything_is_written(  # noqa: PLR0917 - fixtures and cases
    bitloop: Command, network_file: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    arguments = tuple(str(network_file) if argument == "mlp" else argument for argument in arguments)
    outcome = bitloop("run", *arguments, *run_into(tmp_path))
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""
    assert nothing_written(tmp_path)


def test_unknown_format_suggests(bitloop: Command, network_file: Path, tmp_path: Path) -> None:
    outcome = bitloop("quantize", str(network_file), "--weights", "e4m3nf", "--out", str(tmp_path / "x.blm"))
    assert outcome.code == 5
    assert "e4m3fn" in outcome.err
    assert not (tmp_path / "x.blm").exists()


def test_too_large_a_model_names_the_missing_bytes(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    outcome = bitloop("run", str(model_file), "--device", "sim://native?arena=1k", *run_into(tmp_path))
    assert outcome.code == 7
    assert "1024" in outcome.err
    assert "missing" in outcome.err
    assert nothing_written(tmp_path)


def test_non_finite_weights_are_named(
    bitloop: Command, networks: Callable[[str], Network], network_file: Path, tmp_path: Path
) -> None:
    with np.load(network_file) as archive:
        members = {name: archive[name].copy() for name in archive.files}
    members["dense2.weights"][3, 7] = np.nan
    np.savez_compressed(tmp_path / "bad.npz", **members)
    for command in (("run", *run_into(tmp_path)), ("quantize", "--out", str(tmp_path / "x.blm"))):
        outcome = bitloop(command[0], str(tmp_path / "bad.npz"), *command[1:])
        assert outcome.code == 5
        assert "dense2.weights" in outcome.err
        assert "(3, 7)" in outcome.err
    assert nothing_written(tmp_path)
    assert not (tmp_path / "x.blm").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_model_is_refused(bitloop: Command, model_file: Path, tmp_path: Path, damage: str) -> None:
    data = bytearray(model_file.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0x10
    model_file.write_bytes({"truncated": bytes(data[:-20]), "flipped": bytes(data), "empty": b""}[damage])
    for command in (("run", *run_into(tmp_path)), ("inspect",), ("simulate",)):
        outcome = bitloop(command[0], str(model_file), *command[1:])
        assert outcome.code == 5
        assert str(model_file) in outcome.err.replace("\n", "")
    assert nothing_written(tmp_path)


def test_damaged_data_file_is_refused(bitloop: Command, model_file: Path, tmp_path: Path, mnist_dir: Path) -> None:
    (tmp_path / "data").mkdir()
    for path in mnist_dir.iterdir():
        (tmp_path / "data" / path.name).write_bytes(path.read_bytes())
    labels = tmp_path / "data" / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-100])
    outcome = bitloop("run", str(model_file), "--data", str(tmp_path / "data"), *run_into(tmp_path))
    assert outcome.code == 4
    assert "t10k-labels" in outcome.err
    labels.unlink()
    outcome = bitloop("run", str(model_file), "--data", str(tmp_path / "data"), *run_into(tmp_path))
    assert outcome.code == 4
    assert nothing_written(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="pseudo terminals are there on POSIX systems only")
def test_a_busy_port_is_refused(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    name = os.ttyname(terminal)
    try:
        with serial.Serial(name, exclusive=True):
            outcome = bitloop("run", str(model_file), "--device", name, *run_into(tmp_path))
        assert outcome.code == 6
        assert "busy" in outcome.err
        assert nothing_written(tmp_path)
        silent = bitloop("run", str(model_file), "--device", name, "--timeout", "0.5", *run_into(tmp_path))
        assert silent.code == 6
        assert "no answer to HELLO_REQUEST" in silent.err
    finally:
        os.close(controller)
        os.close(terminal)


@pytest.mark.parametrize(
    ("fault", "words"),
    [("crash", "broke"), ("silent", "no progress"), ("garbage", "garbage"), ("reset", "restarted")],
)
def test_a_device_that_dies_in_mid_run_leaves_what_was_measured(
    bitloop: Command, model_file: Path, tmp_path: Path, fault: str, words: str
) -> None:
    url = f"sim://native?fault={fault},after:40"
    waits = ("--timeout", "0.6", "--reconnect", "0" if fault == "reset" else "0.5")
    outcome = bitloop("run", str(model_file), "--device", url, "--slots", "4", *waits, *run_into(tmp_path))
    assert outcome.code == 6
    assert words in outcome.err
    document = json.loads((tmp_path / "run/run.json").read_text())
    jsonschema.validate(document, json.loads(schema_path().read_text()))
    record = read_record(tmp_path / "run/run.json")
    samples = list(read_samples(tmp_path / "run/samples.jsonl"))
    assert (record.status, record.verdict) == ("failed", "failed")
    assert record.error is not None
    assert words in record.error.message
    assert 0 < len(samples) == record.dataset.measured == record.exact.matching < record.dataset.requested == 120
    assert record.headline.startswith(f"FAILED after {len(samples)} of 120 images: ")
    assert record.headline.split(":")[0] in (tmp_path / "run/report.html").read_text()


_SCRIPT = """
import pickle, sys
from pathlib import Path
from bitloop.bench import select
from bitloop.cli import main
from bitloop.data.dataset import Dataset
from bitloop.data.splits import Split
pixels, labels, index, sha256 = pickle.loads(Path(sys.argv.pop(1)).read_bytes())
parts = {split: (pixels.copy(), labels.copy(), index.copy()) for split in Split}
select.load = lambda name, *, progress=None: Dataset.build(name, sha256, "drawn", parts)
main()
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGINT is sent as POSIX does")
def test_ctrl_c_in_mid_run_keeps_what_was_measured(model_file: Path, tmp_path: Path, drawn_images: Images) -> None:
    data = tmp_path / "images.pickle"
    data.write_bytes(pickle.dumps((drawn_images.pixels, drawn_images.labels, drawn_images.index, drawn_images.sha256)))
    # The device falls silent in mid-run, so that the interrupt cannot come too late.
    url = "sim://native?fault=silent,after:40"
    command = ["run", str(model_file), "--device", url, "--slots", "4", "--timeout", "60", *run_into(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(data), *command],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path)))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = tmp_path / "run/samples.jsonl"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (journal.exists() and journal.stat().st_size):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "INTERRUPTED" in err
    document = json.loads((tmp_path / "run/run.json").read_text())
    jsonschema.validate(document, json.loads(schema_path().read_text()))
    samples = list(read_samples(journal))
    assert document["status"] == document["verdict"] == "interrupted"
    assert 0 < len(samples) == document["dataset"]["measured"] < 120
    assert document["error"]["exit_code"] == 130
    assert "INTERRUPTED after" in (tmp_path / "run/report.html").read_text()
    names = ["begun.json", "model.blm", "parts.json", "report.html", "run.json", "samples.jsonl"]
    assert sorted(path.name for path in (tmp_path / "run").glob("[!.]*")) == names
