"""Runs on the simulated device that are recorded, and what a replay without it makes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bitloop.bench.record import RunRecord
from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.errors import DataError
from bitloop.link.channel import Timing
from bitloop.link.recording.events import Kind
from bitloop.link.recording.file import Reader
from bitloop.monitor import Monitor
from bitloop.quantize.model import Model

Models = Callable[..., Model]
Command = Callable[..., Any]
NOISE = "sim://native?body=256&window=1024&fault=drop=0.001,seed=3;flip=0.0005,seed=5"
REPLAYED = "Replay of a recorded session, not measured now: "
OF_THIS_TIME = ("headline", "started", "seconds")


def measured(record: RunRecord) -> dict[str, Any]:
    """All that was measured: the device's URL, and why its build is not known, are another's."""
    document = record.to_dict()
    for name in OF_THIS_TIME:
        del document[name]
    del document["device"]["url"], document["link"]["url"], document["ram"]["build_note"]
    return document


@pytest.mark.parametrize("mode", ["timing", "throughput"])
def test_a_noisy_run_is_replayed_to_the_last_figure(
    mode: str, models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    model, file = models("mlp8k", "int8:channel", "fp16"), tmp_path / "a.rec"
    options = RunOptions(mode=mode)
    there = run(model, NOISE, drawn_images, out_dir=tmp_path / "there", options=options, recording=file)
    assert there.link.retransmissions > 0
    assert there.verdict == "exact"
    again = run(model, f"replay://{file}", drawn_images, out_dir=tmp_path / "again", options=options)
    assert measured(again) == measured(there)
    assert again.headline == REPLAYED + there.headline
    assert (again.device.url, again.link.url) == (f"replay://{file}",) * 2
    assert again.simulated
    journals = [(tmp_path / name / "samples.jsonl").read_bytes() for name in ("there", "again")]
    assert journals[0] == journals[1]
    line_bytes = there.link.bytes_up + there.link.bytes_down
    assert file.stat().st_size < 1.5 * line_bytes


def test_another_model_departs_at_its_upload(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    run(models("mlp8k", "int8:channel", "fp16"), "sim://native", drawn_images, recording=file)
    other = models("mlp8k", "int4:channel", "fp16")
    with pytest.raises(
        DataError, match=r"departs .*in UPLOAD_BEGIN.*What differs: model SHA-256 '\w{64}' then, '"
    ) as e:
        run(other, f"replay://{file}", drawn_images)
    assert other.sha256 in str(e.value)
    with pytest.raises(DataError, match=r"in RUN_BEGIN.*What differs: warm_up_images '8' then, '3' now"):
        run(
            models("mlp8k", "int8:channel", "fp16"),
            f"replay://{file}",
            drawn_images,
            options=RunOptions(warm_up_images=3),
        )


def test_a_failure_is_replayed_with_what_was_measured_until_then(
    models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    model, file = models("mlp8k", "int8:channel", "fp16"), tmp_path / "a.rec"
    options = RunOptions(slots=8)
    there = run(model, "sim://native?fault=crash:after=40", drawn_images, recording=file, options=options)
    assert there.status == "failed"
    assert there.error is not None
    again = run(model, f"replay://{file}", drawn_images, options=options)
    assert again.error == there.error
    assert again.exact == there.exact
    assert 0 < again.exact.total < 120


@pytest.mark.parametrize("fault", ["reset:after=40", "silent:after=40"])
def test_a_run_that_was_interrupted_goes_on_in_its_replay_or_ends_as_it_did(
    fault: str, models: Models, drawn_images: Images, tmp_path: Path
) -> None:
    """How long a lost device is waited for depends on its URL, in a replay on that of the recorded device."""
    model, file = models("mlp8k", "int8:channel", "fp16"), tmp_path / "a.rec"
    patience_s = 2.0 if fault.startswith("reset") else 0.3  # a device that comes back has to be given the time
    timing = Timing(timeout_s=patience_s, connect_timeout_s=patience_s, image_timeout_s=patience_s)
    options = RunOptions(slots=8, timing=timing)
    there = run(model, f"sim://native?fault={fault}", drawn_images, options=options, recording=file)
    assert (there.status, bool(there.interruptions)) == (
        ("complete", True) if fault.startswith("reset") else ("failed", False)
    )
    began = time.monotonic()
    again = run(model, f"replay://{file}", drawn_images, options=options)
    assert time.monotonic() - began < 5.0
    told = json.dumps(measured(again)).replace(f"replay://{file}", "URL")
    expected = json.dumps(measured(there)).replace(f"sim://native?fault={fault}", "URL")
    assert told == expected


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from bitloop.bench.run import run
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.quantize import blm
n = 100000
pixels = np.zeros((n, 28, 28, 1), np.uint8)
images = Images(pixels, np.zeros(n, np.uint8), np.arange(n), Split.CONFIRM, "mnist", 64 * "0")
run(blm.load(sys.argv[1]), "sim://native", images, recording=Path(sys.argv[2]),
    progress=lambda stage, done, total: print(stage, done, flush=True))
"""


@pytest.mark.skipif(os.name != "posix", reason="kills a process the way POSIX does")
def test_a_host_that_was_killed_leaves_a_recording(model_file: Path, drawn_images: Images, tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(model_file), str(file)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("images"):
            break
    time.sleep(1.5)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    reader = Reader(file)
    kinds = [event.kind for event in iter(reader.next, None)]
    reader.close()
    assert not reader.complete
    assert kinds.count(Kind.WRITE) > 20
    assert reader.header.facts["images"] == "100000"


def test_record_on_the_command_line(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.rec"
    first = bitloop("run", str(model_file), "-n", "30", "--record", str(file), "-o", "first", "--json")
    assert first.code == 0
    refused = bitloop("run", str(model_file), "-n", "30", "--record", str(file), "-o", "second")
    assert (refused.code, Path("second").exists()) == (2, False)
    assert "is there already; name another file for the recording, or say --force" in " ".join(refused.err.split())
    again = bitloop("run", str(model_file), "-n", "30", "--device", f"replay://{file}", "-o", "third", "--json")
    assert again.code == 0
    there, here = json.loads(first.out), json.loads(again.out)
    assert here["headline"] == REPLAYED + there["headline"]
    assert here["latency"] == there["latency"]
    assert (Path("third") / "report.html").read_text().count(REPLAYED) >= 1
    file.write_bytes(file.read_bytes()[:2000])
    cut = bitloop("run", str(model_file), "-n", "30", "--device", f"replay://{file}", "-o", "fourth")
    assert cut.code == 4
    assert "was cut off" in cut.err
    assert not Path("fourth").exists()
    assert bitloop("run", str(model_file), "-n", "30", "--record", str(file), "-o", "fifth", "--force").code == 0


def test_what_a_monitor_shows_is_recorded_too(tmp_path: Path, bitloop: Command) -> None:
    file = tmp_path / "a.rec"
    with Monitor("sim://native?fault=log", record=file) as monitor:
        monitor.say_hello()
        there = list(monitor.events(seconds=0.5))
    assert [event for event in there if event.text.startswith("HELLO ")]
    with Monitor(f"replay://{file}") as monitor:
        monitor.say_hello()
        assert list(monitor.events(seconds=0.5)) == there
    outcome = bitloop("monitor", "sim://native", "--hello", "--seconds", "0.5", "--record", str(tmp_path / "b.rec"))
    assert outcome.code == 0
    again = bitloop("monitor", f"replay://{tmp_path}/b.rec", "--hello", "--seconds", "0.5")
    assert (again.code, again.out) == (0, outcome.out)
    assert "HELLO native" in again.out
