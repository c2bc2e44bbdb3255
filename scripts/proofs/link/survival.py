"""Faults of line, device, port and host: every run ends with the undisturbed results, or with an error that fits."""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import FrameType

from bitloop.bench.journal import read_samples
from bitloop.bench.run import RunOptions, run
from bitloop.data import dataset
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from proofs.link.setting import zoo_model
from proofs.page import Section, cells

SEEDS = 50
IMAGES = 60
NETWORK, WEIGHTS = "mlp8k", "int4:channel"
HANG_S = 90
"""Longer than any deadline of a session and its reconnections together."""
RECONNECT_S = 20.0
AT_ONCE = 8
"""Most of these runs wait most of the time."""
_DEVICE = "body=256&window=1024"
_IMAGE = "compute=10ms"

Results = tuple[tuple[int, int, int, int, bool, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        name: What it is called.
        options: Makes the options of the URL from a generator of the seed's own; None: the host's process is killed.
        errors: Names of the errors with which a run may end instead of with the results.
        needs_repair: Whether anything has to be sent again or connected again; what arrives twice is just ignored.
    """

    name: str
    options: Callable[[random.Random], str] | None
    errors: tuple[str, ...] = ()
    needs_repair: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a run ended: "identical", "wrong", "hang", or the name of an error. ``repaired`` counts what it took."""

    ended: str
    repaired: int
    seconds: float


def _rate(option: str, low: float, high: float, more: str = "") -> Callable[[random.Random], str]:
    return lambda source: f"{option}={source.uniform(low, high):.3g}{more}"


def _moment(option: str, most: int, more: str) -> Callable[[random.Random], str]:
    return lambda source: f"{option}={source.randrange(most)}{more}"


def _device(kind: str, most: int, more: str = "") -> Callable[[random.Random], str]:
    return lambda source: f"fault={kind}:after={source.randrange(1, most)}{more}"


FAULTS = (
    Fault("byte drop", _rate("drop", 5e-5, 5e-4)),
    Fault("bit flip", _rate("flip", 1e-5, 1e-4)),
    Fault("byte duplication", _rate("dup", 5e-5, 5e-4)),
    Fault("frame duplication", _rate("frame_dup", 0.02, 0.2), needs_repair=False),
    Fault("truncation", _rate("frame_cut", 0.01, 0.1)),
    Fault("burst", _rate("burst", 2e-5, 2e-4)),
    Fault("reordering of acknowledgements", _rate("frame_swap", 0.05, 0.3, "&only=down")),
    Fault("silence of 5 s", _moment("silence", 12_000, ":5s")),
    Fault("device reset", _device("reset", 60)),
    Fault("device freeze", _device("freeze", 60), ("DeviceTimeoutError",)),
    Fault("port vanishes for 1 s", _moment("vanish", 12_000, ":1s")),
    Fault("port vanishes for 1 s, and power with it", _moment("vanish", 12_000, ":1s:power")),
    Fault("host killed and resumed", None),
)


@cache
def images(count: int = IMAGES) -> Images:
    """The images of every run."""
    return dataset.load("mnist").split(Split.SEARCH).first(count)


def results_in(directory: Path) -> Results:
    """Read what a run's journal holds, without times."""
    return tuple(
        (s.index, s.label, s.device, s.host, s.match, s.logits) for s in read_samples(directory / "samples.jsonl")
    )


@cache
def undisturbed() -> Results:
    """What every run must end with."""
    with tempfile.TemporaryDirectory() as name:
        record = run(zoo_model(NETWORK, WEIGHTS), "sim://native", images(), out_dir=Path(name) / "run")
        if record.verdict != "exact":
            raise AssertionError(record.headline)
        return results_in(Path(name) / "run")


class _HangError(Exception):
    pass


def _hang(_number: int, _frame: FrameType | None) -> None:
    raise _HangError


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, _hang)
    signal.alarm(HANG_S)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def survive(fault: Fault, seed: int) -> Outcome:
    """Run once under a fault, in timing mode for even seeds, in throughput mode for odd ones."""
    source = random.Random(f"{fault.name} {seed}")
    if fault.options is None:
        return _killed(source, seed)
    url = f"sim://native?{_DEVICE}&{fault.options(source)}&seed={seed}"
    options = RunOptions(mode=("timing", "throughput")[seed % 2], warm_up_images=2, reconnect_s=RECONNECT_S)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "run"
        repaired = 0
        try:
            with _limited():
                record = run(zoo_model(NETWORK, WEIGHTS), url, images(), out_dir=directory, options=options)
        except _HangError:
            return Outcome("hang", 0, time.monotonic() - started)
        except Exception as error:  # noqa: BLE001 - its name is the outcome
            return Outcome(type(error).__name__, 0, time.monotonic() - started)
        repaired = record.link.retransmissions + record.link.crc_errors + len(record.interruptions)
        seconds = time.monotonic() - started
        if record.error is not None:
            return Outcome(record.error.kind, repaired, seconds)
        good = record.verdict == "exact" and results_in(directory) == undisturbed()
        return Outcome("identical" if good else "wrong", repaired, seconds)


def _killed(source: random.Random, seed: int) -> Outcome:
    """Kill the host's process at some image, then resume."""
    at = source.randrange(1, IMAGES)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "run"
        command = [sys.executable, "-m", "bitloop", "run"]
        begin = [NETWORK, "--weights", WEIGHTS, "--device", f"sim://native?{_DEVICE}&{_IMAGE}", "--split", "search"]
        begin += ["--limit", str(IMAGES), "--mode", ("timing", "throughput")[seed % 2], "--out", str(directory)]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*command, *begin], **quiet) as process:
            while process.poll() is None and _lines(directory) < at and time.monotonic() - started < HANG_S:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        caught = process.returncode == -signal.SIGKILL
        try:
            done = subprocess.run(
                [*command, "--resume", str(directory)], check=False, timeout=HANG_S, capture_output=True, text=True
            )
        except subprocess.TimeoutExpired:
            return Outcome("hang", 0, time.monotonic() - started)
        seconds = time.monotonic() - started
        if done.returncode != 0:
            return Outcome(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}", 0, seconds)
        record = json.loads((directory / "run.json").read_text(encoding="utf-8"))
        good = record["verdict"] == "exact" and results_in(directory) == undisturbed()
        return Outcome("identical" if good else "wrong", int(caught), seconds)


def _lines(directory: Path) -> int:
    try:
        return (directory / "samples.jsonl").read_bytes().count(b"\n")
    except OSError:
        return 0


@dataclass(frozen=True)
class Row:
    """All runs under one kind of fault."""

    fault: Fault
    outcomes: tuple[Outcome, ...]

    @property
    def errors(self) -> list[str]:
        """How the runs ended that did not end with the results."""
        return [o.ended for o in self.outcomes if o.ended != "identical"]

    @property
    def failures(self) -> list[str]:
        """What must not be."""
        found = [ended for ended in self.errors if ended not in self.fault.errors]
        if self.fault.needs_repair and not any(o.repaired for o in self.outcomes):
            found.append("nothing was disturbed")
        return found


def _survive(index: int, seed: int) -> Outcome:
    return survive(FAULTS[index], seed)  # what makes options does not travel to another process


def measure(seeds: Sequence[int] = range(SEEDS), at_once: int = AT_ONCE) -> list[Row]:
    """Run every fault with every seed."""
    undisturbed()
    with ProcessPoolExecutor(at_once, get_context("spawn")) as pool:
        rows = []
        for index, fault in enumerate(FAULTS):
            row = Row(fault, tuple(pool.map(partial(_survive, index), seeds)))
            ends = dict(Counter(o.ended for o in row.outcomes))
            print(
                f"{fault.name}: {ends}, longest {max(o.seconds for o in row.outcomes):.1f} s",
                file=sys.stderr,
                flush=True,
            )
            rows.append(row)
    return rows


def prove() -> Section:
    """Run everything."""
    rows = measure()
    table = [
        (
            row.fault.name,
            len(row.outcomes),
            sum(o.ended == "identical" for o in row.outcomes),
            ", ".join(f"{name}: {n}" for name, n in Counter(row.errors).items()) or "–",
            sum(o.repaired > 0 for o in row.outcomes) if row.fault.needs_repair else "needs none",
            len(row.failures),
            f"{max(o.seconds for o in row.outcomes):.1f} s",
        )
        for row in rows
    ]
    return Section(
        "Survival",
        f"{NETWORK} {WEIGHTS}, {IMAGES} images, {SEEDS} seeds a row, half of them in each mode. *Identical*: every "
        "label and logit is that of the undisturbed run, and the verdict is exact. *Repaired*: something was sent "
        "again, or connected again. *Failures*: a wrong figure, a hang, or an error that does not name the fault.",
        ("fault", "runs", "identical", "ended with an error", "repaired", "failures", "longest"),
        cells(table),
        not any(row.failures for row in rows),
    )
