"""Runs that break off and go on: killed hosts, lost devices, damaged directories; held against an undisturbed run."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitloop import api
from bitloop.bench import line
from bitloop.bench.comparable import comparable
from bitloop.bench.files import RunDirectory
from bitloop.bench.journal import Sample, pack_pixels, read_samples
from bitloop.bench.metrics import summarize
from bitloop.bench.options import RunOptions
from bitloop.bench.record import RunRecord, read_record
from bitloop.bench.resume import KILLED, resume
from bitloop.bench.run import run
from bitloop.data.dataset import Dataset, Images
from bitloop.data.splits import Split
from bitloop.errors import (
    Cause,
    DataError,
    DeviceError,
    DeviceResetError,
    DeviceTimeoutError,
    LinkError,
    PortError,
    ProtocolError,
    TransportError,
    UsageError,
)
from bitloop.link.channel import Timing
from bitloop.link.session import Session
from bitloop.quantize import blm
from bitloop.quantize.model import Model

from .conftest import Command, dataset_of

Models = Callable[..., Model]

# A real process, whose data set is drawn; it kills itself at one exact moment, or is slow, or may not write much.
_SCRIPT = """
import os, pickle, resource, signal, sys, time
from pathlib import Path
from bitloop.bench import select
from bitloop.bench.begun import Begun
from bitloop.bench.journal import Journal
from bitloop.bench.record import RunRecord
from bitloop.cli import main
from bitloop.data.dataset import Dataset
from bitloop.data.splits import Split

def load(name, directory=None, *, progress=None):
    pixels, labels, index, sha256 = pickle.loads(Path(os.environ["DRAWN"]).read_bytes())
    parts = {split: (pixels.copy(), labels.copy(), index.copy()) for split in Split}
    return Dataset.build("mnist", sha256, "drawn", parts)

select.load = load
where, number = os.environ.get("DIES", "never:0").split(":")
calls = 0

def dying(before, work, after=False):
    def call(*arguments):
        global calls
        calls += 1
        if not after and calls == before:
            os.kill(os.getpid(), signal.SIGKILL)
        work(*arguments)
        if after and calls == before:
            os.kill(os.getpid(), signal.SIGKILL)
    return call

def slow(work):
    def call(*arguments):
        time.sleep(0.01)
        work(*arguments)
    return call

if where == "begun":
    Begun.write = dying(1, Begun.write)
elif where == "sample":
    Journal.append = dying(int(number), Journal.append)
elif where == "written":
    Journal.append = dying(int(number), Journal.append, after=True)
elif where == "record":
    RunRecord.write = dying(1, RunRecord.write)
elif where == "slow":
    Journal.append = slow(Journal.append)
if "FILE_BYTES" in os.environ:
    most = int(os.environ["FILE_BYTES"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
main()
"""

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits are POSIX's")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, drawn_images: Images) -> Path:
    path = tmp_path_factory.mktemp("drawn") / "images.pickle"
    path.write_bytes(pickle.dumps((drawn_images.pixels, drawn_images.labels, drawn_images.index, drawn_images.sha256)))
    return path


@pytest.fixture(scope="module")
def undisturbed(models: Models, drawn_images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of all images that nothing disturbed."""
    path = tmp_path_factory.mktemp("undisturbed") / "run"
    model = models("mlp", "int8:channel", "fp16")
    run(model, "sim://native", images_of(drawn_images), out_dir=path, options=RunOptions(command="bitloop run"))
    return path


def waiting(seconds: float) -> Timing:
    return Timing(seconds, max(seconds, 2.0), seconds)


def images_of(images: Images) -> Images:
    """The images as the data set of the tests gives them: of the split confirm."""
    return dataclasses.replace(images, split=Split.CONFIRM)


def loading(images: Images) -> Callable[[str], Dataset]:
    return lambda _: dataset_of(images)


Process = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def process(drawn: Path, tmp_path: Path) -> Iterator[Process]:
    """Start ``bitloop ARGUMENTS`` as a process of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, dies: str = "never:0", file_bytes: int | None = None) -> subprocess.Popen[str]:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, map(os.path.abspath, sys.path))),
            "DRAWN": str(drawn),
            "DIES": dies,
            **({} if file_bytes is None else {"FILE_BYTES": str(file_bytes)}),
        }
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", _SCRIPT, *arguments],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def ended(process: subprocess.Popen[str], code: int) -> str:
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err


def measured(directory: Path) -> list[Sample]:
    """The journal without times, of which no two runs have the same."""
    return [dataclasses.replace(s, ticks=0, layer_ticks=None) for s in read_samples(directory / "samples.jsonl")]


def assert_as_undisturbed(directory: Path, undisturbed: Path) -> RunRecord:
    """See that a run that went on ended as the one that nothing disturbed; give its record."""
    record = read_record(directory / "run.json")
    assert comparable(record) == comparable(read_record(undisturbed / "run.json"))
    assert measured(directory) == measured(undisturbed)
    # All samples are in the figures of the latency, those from before the interruption too.
    assert record.latency is not None
    ticks = summarize(np.array([s.ticks for s in read_samples(directory / "samples.jsonl")], np.uint64))
    assert (record.latency.min, record.latency.median, record.latency.mean) == (ticks.min, ticks.median, ticks.mean)
    assert (record.latency.p95, record.latency.p99, record.latency.max) == (ticks.p95, ticks.p99, ticks.max)
    assert record.interruptions
    assert record.headline.startswith("EXACT: 120 of 120 logit vectors bit-identical; interrupted ")
    return record


@posix
@pytest.mark.parametrize(("dies", "lines"), [("sample:1", 0), ("sample:58", 57), ("written:58", 58), ("record:0", 120)])
def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_been(  # noqa: PLR0917 - fixtures and cases
    process: Process, bitloop: Command, model_file: Path, tmp_path: Path, undisturbed: Path, dies: str, lines: int
) -> None:
    out = tmp_path / "run"
    ended(process("run", str(model_file), "--out", str(out), dies=dies), -signal.SIGKILL)
    assert not (out / "run.json").exists()
    assert len(list(read_samples(out / "samples.jsonl"))) == lines
    before = (out / "samples.jsonl").read_bytes()
    model_file.unlink()  # the directory holds all that is needed
    outcome = bitloop("run", "--resume", str(out))
    assert outcome.code == 0, outcome.err
    assert (out / "samples.jsonl").read_bytes().startswith(before)
    record = assert_as_undisturbed(out, undisturbed)
    (interruption,) = record.interruptions
    assert (interruption.images, interruption.resumed, interruption.reason) == (lines, True, KILLED)
    assert f"after {lines} images" in outcome.out
    assert KILLED in (out / "report.html").read_text()


@posix
def test_killed_from_outside_at_any_moment(
    process: Process, bitloop: Command, model_file: Path, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    running = process("run", str(model_file), "--out", str(out), dies="slow:0")
    while running.poll() is None and len(tail(out)) < 20_000:
        pass
    running.send_signal(signal.SIGKILL)
    ended(running, -signal.SIGKILL)
    assert bitloop("run", "--resume", str(out)).code == 0
    assert_as_undisturbed(out, undisturbed)


def tail(out: Path) -> bytes:
    try:
        return (out / "samples.jsonl").read_bytes()
    except OSError:
        return b""


@posix
def test_killed_before_it_was_begun_there_is_nothing_to_go_on_with(
    process: Process, bitloop: Command, model_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended(process("run", str(model_file), "--out", str(out), dies="begun:0"), -signal.SIGKILL)
    outcome = bitloop("run", "--resume", str(out))
    assert outcome.code == 2
    assert "begun.json is missing" in outcome.err.replace("\n", " ")
    nothing = bitloop("run", "--resume", str(tmp_path / "nothing"))
    assert nothing.code == 2
    assert not (tmp_path / "nothing").exists()


@posix
def test_killed_again_and_again(
    process: Process, bitloop: Command, model_file: Path, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    ended(process("run", str(model_file), "--out", str(out), dies="written:20"), -signal.SIGKILL)
    ended(process("run", "--resume", str(out), dies="written:30"), -signal.SIGKILL)
    ended(process("run", "--resume", str(out), dies="record:0"), -signal.SIGKILL)
    assert bitloop("run", "--resume", str(out)).code == 0
    record = assert_as_undisturbed(out, undisturbed)
    assert [i.images for i in record.interruptions] == [20, 50, 120]
    assert "interrupted 3 times" in record.headline


def cut(undisturbed: Path, out: Path, length: int) -> None:
    """Make of a whole run's directory that of a run that was killed when its journal was so long."""
    shutil.copytree(undisturbed, out)
    (out / "run.json").unlink()
    parts = json.loads((out / "parts.json").read_text())
    parts["parts"][0]["ended"] = None
    (out / "parts.json").write_text(json.dumps(parts))
    os.truncate(out / "samples.jsonl", length)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 1))
def test_a_journal_cut_off_at_any_byte(
    undisturbed: Path, drawn_images: Images, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    out = tmp_path_factory.mktemp("cut") / "run"
    cut(undisturbed, out, int(share * (undisturbed / "samples.jsonl").stat().st_size))
    resume(out, load=loading(drawn_images))
    assert_as_undisturbed(out, undisturbed)


@pytest.mark.parametrize("rest", [b"", b"\0" * 700, b'{"index":10'])
def test_what_is_behind_the_last_whole_line_is_cut_off(
    undisturbed: Path, drawn_images: Images, tmp_path: Path, rest: bytes
) -> None:
    lines = (undisturbed / "samples.jsonl").read_bytes().splitlines(keepends=True)
    cut(undisturbed, tmp_path / "run", 0)
    (tmp_path / "run/samples.jsonl").write_bytes(b"".join(lines[:33]) + rest)
    record = resume(tmp_path / "run", load=loading(drawn_images))
    assert record.interruptions[0].images == 33
    assert_as_undisturbed(tmp_path / "run", undisturbed)


def test_a_run_whose_device_died_goes_on_at_another_port(
    bitloop: Command, model_file: Path, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    url = "sim://native?fault=crash:after=40"
    assert bitloop("run", str(model_file), "--device", url, "--slots", "4", "--out", str(out)).code == 6
    before = read_record(out / "run.json")
    assert (before.status, before.interruptions) == ("failed", ())
    again = bitloop("run", "--resume", str(out), "--device", "sim://native?boot_count=7", "--timeout", "5", "--json")
    assert again.code == 0
    document = json.loads(again.out)
    assert document == json.loads((out / "run.json").read_text())
    # Four slots make another image of the same model, whose arena is smaller; all that is measured is the same.
    same = comparable(read_record(undisturbed / "run.json"))
    record = read_record(out / "run.json")
    for key in ("exact", "labels", "accuracy", "confusion", "dataset", "model", "verdict", "status"):
        assert comparable(record)[key] == same[key]
    (interruption,) = record.interruptions
    assert before.error is not None
    assert interruption.reason == before.error.message
    assert (interruption.images, interruption.boot_count_after) == (before.dataset.measured, 7)
    assert document["device"]["url"] == "sim://native?boot_count=7"
    # Figures of the line are those of both parts.
    assert record.link.stream_bytes_up > before.link.stream_bytes_up > 0
    assert record.link.upload_seconds > before.link.upload_seconds > 0


def test_an_interrupted_run_goes_on(models: Models, drawn_images: Images, tmp_path: Path, undisturbed: Path) -> None:
    def press(stage: str, done: int, total: int) -> None:
        if stage == "images" and done == 30:
            signal.raise_signal(signal.SIGINT)

    out, images = tmp_path / "run", images_of(drawn_images)
    options = RunOptions(command="bitloop run")
    record = run(
        models("mlp", "int8:channel", "fp16"), "sim://native", images, out_dir=out, options=options, progress=press
    )
    assert (record.status, record.dataset.measured) == ("interrupted", 30)
    resume(out, load=loading(drawn_images))
    assert "Ctrl-C" in assert_as_undisturbed(out, undisturbed).interruptions[0].reason


def test_a_complete_run_is_refused(bitloop: Command, undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed, tmp_path / "run")
    before = contents(tmp_path / "run")
    outcome = bitloop("run", "--resume", str(tmp_path / "run"))
    assert outcome.code == 2
    assert "is complete" in outcome.err.replace("\n", " ")
    assert contents(tmp_path / "run") == before


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("[!.]*")}


def test_another_model_is_refused(bitloop: Command, models: Models, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    other, own = models("mlp", "int4:channel", "fp16"), json.loads((out / "begun.json").read_text())["model_sha256"]
    blm.save(other, out / "model.blm")
    refused(bitloop, out, 5, own, other.sha256)


def test_other_data_is_refused(bitloop: Command, undisturbed: Path, tmp_path: Path, drawn_images: Images) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    other = dataclasses.replace(drawn_images, sha256="cd" * 32)
    with pytest.raises(DataError, match=f"{'cd' * 32}.*{drawn_images.sha256}"):
        resume(out, load=loading(other))
    changed = drawn_images.pixels.copy()
    changed[100, 3, 3, 0] ^= 1
    with pytest.raises(DataError, match="not the same images"):
        resume(out, load=loading(dataclasses.replace(drawn_images, pixels=changed)))
    with pytest.raises(DataError, match="not the same images"):
        resume(out, load=loading(drawn_images.first(119)))


def test_another_firmware_is_refused(bitloop: Command, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    own = json.loads((out / "begun.json").read_text())["device"]["firmware"]["hash"]
    refused(bitloop, out, 6, own, "flash that again", device="sim://native?fault=hash:firmware")
    refused(bitloop, out, 6, "'native'", "'other'", device="sim://native?board=other")
    refused(bitloop, out, 6, "has 1,048,576 bytes for a model", device="sim://native?arena=1M")


def refused(bitloop: Command, out: Path, code: int, *words: str, device: str | None = None) -> None:
    before = contents(out)
    outcome = bitloop("run", "--resume", str(out), *(() if device is None else ("--device", device)))
    assert outcome.code == code, outcome.err
    said = outcome.err.replace("\n", "")
    assert all(word in said for word in words), outcome.err
    assert contents(out) == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("mlp",), "MODEL"),
        (("--mode", "throughput"), "--mode"),
        (("--limit", "5"), "--limit"),
        (("--out", "elsewhere"), "--out"),
        (("--no-per-layer",), "--per-layer"),
        (("--pixel-bits", "2"), "--pixel-bits"),
        (("--force",), "--force"),
        (("--weights", "int4", "--slots", "4"), "--weights, --slots"),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    bitloop: Command, undisturbed: Path, tmp_path: Path, arguments: tuple[str, ...], named: str
) -> None:
    cut(undisturbed, tmp_path / "run", 9000)
    before = contents(tmp_path / "run")
    outcome = bitloop("run", *arguments, "--resume", str(tmp_path / "run"))
    assert outcome.code == 2
    assert f"error: {named} cannot be said with --resume" in outcome.err
    assert contents(tmp_path / "run") == before


def test_run_wants_a_model_or_a_run(bitloop: Command) -> None:
    outcome = bitloop("run")
    assert outcome.code == 2
    assert "--resume DIR" in outcome.err


@pytest.mark.parametrize(
    "change",
    [
        {"index": 999},
        {"label": 11},
        {"host": 3},
        {"match": False},
        {"ulp": 1},
        {"logits": ["3f800000"] * 10},
        {"logits": ["3f800000"] * 9},
        {"ticks": -1},
        {"ticks": 2**64},
        {"layer_ticks": [1, 2]},
        {"layer_ticks": [1, 2, 2**32]},
        {"host_logits": ["3f800000"] * 10},
        {"pixels": "eJwDAAAAAAE="},
        {"pixels": pack_pixels(np.zeros((28, 28, 1), np.uint8))},
    ],
)
def test_a_line_that_was_changed_is_named(
    undisturbed: Path, drawn_images: Images, tmp_path: Path, change: dict[str, object]
) -> None:
    cut(undisturbed, tmp_path / "run", 20_000)
    journal = tmp_path / "run/samples.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    lines[6] = json.dumps({**json.loads(lines[6]), **change}) + "\n"
    journal.write_text("".join(lines))
    with pytest.raises(DataError, match=r"line 7|pixels of a sample"):
        resume(tmp_path / "run", load=loading(drawn_images))


def test_lines_beyond_the_images_are_refused(undisturbed: Path, drawn_images: Images, tmp_path: Path) -> None:
    cut(undisturbed, tmp_path / "run", 0)
    text = (undisturbed / "samples.jsonl").read_text()
    (tmp_path / "run/samples.jsonl").write_text(text + text.splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="121 lines"):
        resume(tmp_path / "run", load=loading(drawn_images))


@posix
def test_two_resumes_at_once(
    process: Process, bitloop: Command, undisturbed: Path, tmp_path: Path, drawn_images: Images
) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    pair = [process("run", "--resume", str(out), dies="slow:0") for _ in range(2)]
    said = {each.communicate(timeout=60)[1]: each.returncode for each in pair}
    assert sorted(said.values()) == [0, 2]
    assert "another process is writing" in next(err for err, code in said.items() if code == 2).replace("\n", " ")
    assert_as_undisturbed(out, undisturbed)


def test_a_run_under_way_is_not_written_over(
    models: Models, drawn_images: Images, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    before = contents(out)
    with RunDirectory(out).locked():
        with pytest.raises(UsageError, match="another process"):
            resume(out, load=loading(drawn_images))
        with pytest.raises(UsageError, match="another process"):
            run(models("mlp"), "sim://native", drawn_images, out_dir=out, options=RunOptions(force=True))
    assert contents(out) == before


@posix
def test_a_full_disk_while_resuming_loses_nothing(
    process: Process, bitloop: Command, model_file: Path, tmp_path: Path, undisturbed: Path
) -> None:
    out = tmp_path / "run"
    cut(undisturbed, out, 9000)
    room = 30_000
    assert room < (undisturbed / "samples.jsonl").stat().st_size
    err = ended(process("run", "--resume", str(out), file_bytes=room), 2)
    assert "File too large" in err
    assert (out / "samples.jsonl").read_bytes().endswith(b"\n")
    lines = len(list(read_samples(out / "samples.jsonl")))
    assert 20 < lines < 120
    record = read_record(out / "run.json")
    assert (record.status, record.dataset.measured) == ("failed", lines)
    assert bitloop("run", "--resume", str(out)).code == 0
    record = assert_as_undisturbed(out, undisturbed)
    assert [i.images for i in record.interruptions][1] == lines


def test_the_test_split_stays_in_the_vault(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = ("--split", "test", "--reason", "final", "--device", "sim://native?fault=crash:after=40", "--slots", "4")
    assert bitloop("run", str(model_file), *first, "--out", str(out)).code == 6
    assert bitloop("run", "--resume", str(out), "--device", "sim://native?fault=crash:after=45").code == 6
    assert bitloop("run", "--resume", str(out), "--device", "sim://native").code == 0
    record = read_record(out / "run.json")
    assert (record.dataset.split, record.exact.total) == ("test", 120)
    assert [opening.reason for opening in record.vault] == ["final", "resume of: final", "resume of: final"]
    assert [opening.count - record.vault[0].count for opening in record.vault] == [0, 1, 2]


def test_python_api_resumes(bitloop: Command, models: Models, tmp_path: Path) -> None:
    out = tmp_path / "run"
    broken = "sim://native?fault=crash:after=40"
    first = api.run(models("mlp"), broken, limit=90, out=out, options=RunOptions(slots=4))
    assert first.status == "failed"
    record = api.resume(out, device="sim://native")
    assert (record.verdict, record.exact.total, len(record.interruptions)) == ("exact", 90, 1)
    assert record.headline in (out / "report.html").read_text()


# --- without a restart


@pytest.mark.parametrize("mode", ["timing", "throughput"])
def test_a_device_that_was_reset_is_picked_up(
    models: Models, drawn_images: Images, tmp_path: Path, undisturbed: Path, mode: str
) -> None:
    model, images = models("mlp", "int8:channel", "fp16"), images_of(drawn_images)
    options = RunOptions(mode=mode, warm_up_images=2, slots=4, timing=waiting(0.4), coded=False)
    url = "sim://native?body=1k&window=4k"
    plain = run(model, url, images, options=options)
    # Of the frames of either mode some number falls into the images.
    for after in (200, 150, 100, 70, 50):
        options = dataclasses.replace(options, force=True)
        record = run(model, f"{url}&fault=reset:after={after}", images, out_dir=tmp_path / "run", options=options)
        if any(interruption.images for interruption in record.interruptions):
            break
    (interruption,) = record.interruptions
    assert 0 < interruption.images < 120
    assert not interruption.resumed
    assert (interruption.boot_count_before, interruption.boot_count_after) == (1, 2)
    assert "restarted" in interruption.reason
    assert record.headline == "EXACT: 120 of 120 logit vectors bit-identical; interrupted once, and gone on with"
    assert comparable(record) == comparable(plain)
    assert measured(tmp_path / "run") == measured(undisturbed)


def test_a_reset_is_picked_up_wherever_it_falls(models: Models, drawn_images: Images) -> None:
    images = drawn_images.first(12)
    places = set()
    for after in range(2, 90, 4):
        url = f"sim://native?body=256&window=1k&fault=reset:after={after}"
        options = RunOptions(warm_up_images=1, slots=1, timing=waiting(0.2))
        record = run(models("mlp8k", "int4:channel"), url, images, options=options)
        assert (record.verdict, record.exact.total) == ("exact", 12)
        assert record.ram.measured == record.ram.predicted
        assert record.exact.audited == 1
        places |= {i.images for i in record.interruptions}
    assert {0} < places


def lost_state() -> LinkError:
    error = LinkError("the device lost its state", cause=Cause.SHARED)
    error.__cause__ = DeviceError("no model is loaded")
    return error


def dead() -> LinkError:
    return DeviceTimeoutError("the line went dead")


class Breaking:
    """Lets runs break off after a few results, again and again; warm-ups and traces do not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, after: list[int], error: Callable[[], LinkError]) -> None:
        self.calls = 0
        whole = line.stream

        def broken(session: Session, pixels: np.ndarray, *arguments: object, **progress: object) -> Iterator[object]:
            if progress:  # a warm-up
                yield from whole(session, pixels, *arguments)  # type: ignore[arg-type]
                return
            gained = after[self.calls % len(after)]
            self.calls += 1
            results = whole(session, pixels, *arguments)  # type: ignore[arg-type]
            for _ in range(min(gained, len(pixels))):
                yield next(results)
            if gained >= len(pixels):
                yield from results
                return
            raise error()

        monkeypatch.setattr(line, "stream", broken)


def test_a_line_that_breaks_again_and_again_costs_no_image(
    models: Models, drawn_images: Images, tmp_path: Path, undisturbed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = models("mlp", "int8:channel", "fp16"), tmp_path / "run"
    options = RunOptions(command="bitloop run", reconnect_s=5.0)
    Breaking(monkeypatch, [11, 0, 0, 30], dead)
    run(model, "sim://native", images_of(drawn_images), out_dir=out, options=options)
    record = assert_as_undisturbed(out, undisturbed)
    assert [i.images for i in record.interruptions] == [11, 11, 11, 41, 52, 52, 52, 82, 93, 93, 93]
    assert {i.reason for i in record.interruptions} == {"the line went dead"}
    assert "interrupted 11 times" in record.headline


@pytest.mark.parametrize(
    ("error", "picked_up"),
    [
        (lambda: ProtocolError("a frame too long; its firmware is faulty"), False),
        (lambda: ProtocolError("garbage", cause=Cause.GARBAGE), True),
        (lambda: ProtocolError("a banner", cause=Cause.BOOT_ROM), True),
        (lambda: LinkError("frames of another session", cause=Cause.SHARED), False),
        (lost_state, True),
        (lambda: TransportError("the port has vanished"), True),
        (lambda: TransportError("the process has ended", cause=Cause.ENDED), False),
        (lambda: PortError("no such port", cause=Cause.NO_PORT), False),
        (lambda: DeviceTimeoutError("it hangs", cause=Cause.HANG), True),
        (lambda: DeviceResetError("it was reset", boots=(1, 2), reset_cause=3), True),
    ],
)
def test_what_a_device_may_come_back_from(
    models: Models,
    drawn_images: Images,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[], LinkError],
    picked_up: bool,
) -> None:
    Breaking(monkeypatch, [7, 200], error)
    record = run(models("mlp"), "sim://native", drawn_images, options=RunOptions(reconnect_s=5.0))
    assert (record.status, record.exact.total) == (("complete", 120) if picked_up else ("failed", 7))
    assert len(record.interruptions) == picked_up


def test_without_progress_there_is_an_end(
    models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaking = Breaking(monkeypatch, [0], dead)
    record = run(models("mlp"), "sim://native", drawn_images, options=RunOptions(reconnect_s=5.0))
    assert (record.status, record.exit_code, record.exact.total) == ("failed", 6, 0)
    assert breaking.calls == 4
    assert record.error is not None
    assert record.error.kind == "DeviceTimeoutError"
    assert "no image was gained after 3 reconnections" in record.error.message
    assert len(record.interruptions) == 3
    assert record.headline.endswith("interrupted 3 times, and gone on with")


@pytest.mark.parametrize("mode", ["timing", "throughput"])
@pytest.mark.parametrize("share", [0, 0.002, 0.1, 0.7, 0.95])
def test_a_port_that_vanishes_and_comes_back_is_picked_up(  # noqa: PLR0917 - fixtures and cases
    models: Models, drawn_images: Images, tmp_path: Path, undisturbed: Path, share: float, mode: str
) -> None:
    out, images = tmp_path / "run", images_of(drawn_images)
    model, options = models("mlp", "int8:channel", "fp16"), RunOptions(mode=mode, coded=False)
    plain = run(model, "sim://native", images, options=options)
    url = f"sim://native?vanish={int(share * plain.link.bytes_up)}:0.3s"
    record = run(model, url, images, out_dir=out, options=options)
    (interruption,) = record.interruptions
    assert share != 0.7 or interruption.images > 0
    assert "vanished" in interruption.reason
    assert 0.2 < interruption.seconds < 3.0
    assert measured(out) == measured(undisturbed)
    for key in ("exact", "labels", "accuracy", "ram", "dataset", "image"):
        assert comparable(record)[key] == comparable(plain)[key]


def test_a_port_that_does_not_come_back_in_time_is_an_error(models: Models, drawn_images: Images) -> None:
    # The images alone are 94,080 bytes.
    options = RunOptions(reconnect_s=0.5, coded=False)
    record = run(models("mlp8k"), "sim://native?vanish=100000:30s", drawn_images, options=options)
    assert (record.status, record.exit_code) == ("failed", 6)
    assert record.error is not None
    assert record.error.kind == "TransportError"
    assert record.error.message.endswith("it could not be reached again within 0.5 s")
    assert record.seconds < 15


def test_nobody_waits_where_nobody_is_to(models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    breaking = Breaking(monkeypatch, [5], dead)
    record = run(models("mlp"), "sim://native", drawn_images, options=RunOptions(reconnect_s=0.0))
    assert (record.status, record.exact.total, breaking.calls) == ("failed", 5, 1)
    assert record.interruptions == ()
    with pytest.raises(UsageError, match="make no sense"):
        run(models("mlp"), "sim://native", drawn_images, options=RunOptions(reconnect_s=-1.0))


def test_a_link_that_breaks_behind_the_last_image_is_picked_up(
    models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    stats, calls = Session.stats, []

    def breaking(session: Session) -> dict[str, int]:
        calls.append(1)
        if len(calls) == 1:
            raise TransportError("the port has vanished")
        return stats(session)

    monkeypatch.setattr(Session, "stats", breaking)
    record = run(models("mlp"), "sim://native", drawn_images)
    assert [i.images for i in record.interruptions] == [120]
    assert (record.verdict, record.exact.audited) == ("exact", 1)
    assert record.ram.measured == record.ram.predicted


@pytest.mark.parametrize("shaped", ["", "&rtt=1ms"])
def test_a_device_that_has_ended_is_an_error_at_once(models: Models, drawn_images: Images, shaped: str) -> None:
    options = RunOptions(slots=4, reconnect_s=60.0)
    record = run(models("mlp"), f"sim://native?fault=crash:after=40{shaped}", drawn_images, options=options)
    assert (record.status, record.exit_code) == ("failed", 6)
    assert record.seconds < 20
    assert record.error is not None
    assert record.error.kind == "TransportError"


def test_another_device_that_comes_back_is_refused(
    models: Models, drawn_images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    Breaking(monkeypatch, [5], dead)
    recover = Session.recover

    def swapped(session: Session, timeout_s: float) -> object:
        return dataclasses.replace(recover(session, timeout_s), firmware_hash="ee" * 32)

    monkeypatch.setattr(Session, "recover", swapped)
    record = run(models("mlp"), "sim://native", drawn_images, options=RunOptions(reconnect_s=5.0))
    assert (record.status, record.exact.total) == ("failed", 5)
    assert record.error is not None
    assert "ee" * 32 in record.error.message
    assert "the run was begun with" in record.error.message


def test_a_device_that_never_answers_again_is_an_error_that_says_so(models: Models, drawn_images: Images) -> None:
    url = "sim://native?fault=silent:after=40"
    record = run(models("mlp"), url, drawn_images, options=RunOptions(slots=4, timing=waiting(0.4), reconnect_s=0.5))
    assert (record.status, record.exit_code) == ("failed", 6)
    assert record.error is not None
    assert record.error.kind == "DeviceTimeoutError"
    assert record.error.message.endswith("it could not be reached again within 0.5 s")


# --- pixels of fewer bits


def test_pixels_of_fewer_bits_are_those_of_both_sides(
    bitloop: Command, model_file: Path, models: Models, tmp_path: Path, drawn_images: Images
) -> None:
    out = tmp_path / "run"
    outcome = bitloop("run", str(model_file), "--pixel-bits", "2", "--out", str(out))
    assert outcome.code == 0
    assert "of 2 bits" in outcome.out
    assert "pixels of 2 bits" in (out / "report.html").read_text()
    record = read_record(out / "run.json")
    assert record.dataset.pixel_bits == 2
    assert record.dataset.sha256 == drawn_images.sha256
    # Thresholds between the levels 0, 85, 170 and 255, by hand.
    levels = np.select(
        [drawn_images.pixels < 43, drawn_images.pixels < 128, drawn_images.pixels < 213], [0, 85, 170], 255
    )
    sent = dataclasses.replace(drawn_images, pixels=levels.astype(np.uint8))
    assert record.dataset.sent_sha256 == sha256(sent.pixels)
    plain = run(blm.load(model_file), "sim://native", sent, options=RunOptions())
    assert plain.accuracy == record.accuracy
    assert [s.logits for s in read_samples(out / "samples.jsonl")] != []
    whole = run(blm.load(model_file), "sim://native", drawn_images)
    assert whole.dataset.sent_sha256 == sha256(drawn_images.pixels) != record.dataset.sent_sha256


def sha256(pixels: np.ndarray) -> str:
    import hashlib

    return hashlib.sha256(pixels.tobytes()).hexdigest()


def test_a_run_of_fewer_bits_is_resumed_with_them(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    broken = ("--device", "sim://native?fault=crash:after=40", "--slots", "4", "--pixel-bits", "1")
    assert bitloop("run", str(model_file), *broken, "--out", str(out)).code == 6
    assert bitloop("run", "--resume", str(out), "--device", "sim://native").code == 0
    record = read_record(out / "run.json")
    assert (record.dataset.pixel_bits, record.exact.matching) == (1, 120)


def test_reconnect_times_are_those_of_ports_and_processes() -> None:
    from bitloop.bench.options import reconnect_seconds

    assert reconnect_seconds(RunOptions(), "/dev/ttyACM0") == 10.0
    assert reconnect_seconds(RunOptions(), "sim://native") == 3.0
    assert reconnect_seconds(RunOptions(reconnect_s=1.5), "sim://native") == 1.5


# --- options of the line


def test_a_greatest_rate_is_climbed_to_and_recorded(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    cases = (
        ("a", "", ("--max-baud", "0"), 115200),
        ("b", "", (), 921600),
        ("c", "", ("--max-baud", "2000000"), 2000000),
        ("d", "&cable=460800", (), 460800),
    )
    for name, cable, options, expected in cases:
        url = f"sim://native?baud=auto{cable}"
        out = tmp_path / name
        assert bitloop("run", str(model_file), "-n", "5", "--device", url, "--out", str(out), *options).code == 0
        assert read_record(out / "run.json").link.baud == expected


def test_bytes_are_coded_unless_they_shall_not_be(bitloop: Command, model_file: Path, tmp_path: Path) -> None:
    links = []
    for name in ("--coded", "--no-coded"):
        assert bitloop("run", str(model_file), name, "--out", str(tmp_path / name)).code == 0
        links.append(read_record(tmp_path / name / "run.json").link)
    coded, plain = links
    assert plain.codings == ("model: plain", "pixels: plain")
    assert plain.stream_bytes_up > 120 * 784
    assert coded.codings[0].startswith("model: ")
    assert coded.codings[1] in {"pixels: runs", "pixels: codes", "pixels: runs and codes"}
    assert coded.stream_bytes_up < 0.5 * plain.stream_bytes_up
    assert coded.upload_line_bytes is not None
    assert plain.upload_line_bytes is not None
    assert coded.upload_line_bytes < plain.upload_line_bytes
    assert (coded.copied_bytes, plain.copied_bytes) == (0, 0)


def test_lines_that_make_no_sense_are_refused(models: Models, drawn_images: Images) -> None:
    for options in (RunOptions(max_baud=-1), RunOptions(reconnect_s=float("inf")), RunOptions(pixel_bits=9)):
        with pytest.raises(UsageError, match="sense"):
            run(models("mlp"), "sim://native", drawn_images, options=options)
