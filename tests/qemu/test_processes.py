"""Starting and ending emulators: no orphan, whatever the host ends of, a CPU for each, control that ends in time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serial import serial_for_url

from bitloop.bench.record import read_record
from bitloop.errors import TransportError
from bitloop.firmware.build import firmware_elf
from bitloop.link.session import Session
from bitloop.quantize import blm
from bitloop.quantize.model import Model

from .conftest import TIMING, alive, gone

START_S = 20.0

HOLD = """
import json, os, sys, time
from pathlib import Path
import bitloop
from bitloop.firmware.build import firmware_elf
from bitloop.link.session import Session
session = Session(sys.argv[1])
session.connect()
emulator = session._transport.port.emulation.process_id
keeper = int(Path(f"/proc/{emulator}/stat").read_text().rpartition(")")[2].split()[1])
print(json.dumps([emulator, keeper]), flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def host(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start Python in a process group of its own, as a terminal does."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_S)
    assert readable, "the host said nothing"
    return process.stdout.readline()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV])
def test_no_emulator_outlives_its_host(f405: str, end: signal.Signals) -> None:
    with host("-c", HOLD, f405) as process:
        emulator, keeper = json.loads(first_line(process))
        assert alive(emulator)
        assert alive(keeper)
        os.killpg(process.pid, end)
        process.wait(START_S)
        assert gone(emulator, keeper)


def test_no_emulator_outlives_its_keeper(f405: str) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux ends a process with its parent")
    with host("-c", HOLD, f405) as process:
        emulator, keeper = json.loads(first_line(process))
        os.kill(keeper, signal.SIGKILL)
        assert gone(emulator)


def test_ctrl_c_in_a_run_keeps_what_was_measured_and_leaves_no_emulator(
    f405: str, models: Callable[..., Model], tmp_path: Path
) -> None:
    """The signal goes to the whole group, as from a terminal; the emulator has a session of its own."""
    blm.save(models("mlp8k", "int4:channel"), tmp_path / "model.blm")
    code = RUN.format(url=f405, folder=tmp_path)
    with host("-c", code) as process:
        samples = tmp_path / "run" / "samples.jsonl"
        deadline = time.monotonic() + START_S
        while not samples.exists() or samples.read_bytes().count(b"\n") < 20:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        emulators = children_of(process.pid)
        sessions = [os.getsid(each) for each in emulators]
        os.killpg(process.pid, signal.SIGINT)
        process.wait(START_S)
        assert emulators
        assert process.pid not in sessions  # nor is it in the group that the signal went to
        assert gone(*emulators)
    record = read_record(tmp_path / "run" / "run.json")
    assert (record.status, record.exit_code) == ("interrupted", 130)
    assert record.exact.matching == record.exact.total == record.dataset.measured >= 20


RUN = """
import numpy as np
from pathlib import Path
from bitloop.bench.run import run
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.quantize import blm
folder = Path("{folder}")
pixels = np.random.default_rng(3).integers(0, 256, (5000, 28, 28, 1), dtype=np.uint8)
images = Images(pixels, np.zeros(5000, np.uint8), np.arange(5000), Split.SEARCH, "mnist", "ab" * 32)
run(blm.load(folder / "model.blm"), "{url}", images, out_dir=folder / "run")
"""


def children_of(process_id: int) -> list[int]:
    """Give a process's children, and theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == process_id:
                    found += [int(entry.name), *children_of(int(entry.name))]
    return found


def test_closing_ends_the_emulator(f405: str) -> None:
    port = serial_for_url(f405)
    process_id = port.emulation.process_id
    assert alive(process_id)
    port.close()
    assert port.emulation is None
    assert gone(process_id, within_s=0.0)
    port.close()
    port.open()
    assert port.emulation.process_id != process_id
    port.close()


def test_a_frozen_emulator_is_ended_too(f405: str) -> None:
    port = serial_for_url(f405)
    process_id = port.emulation.process_id
    os.kill(process_id, signal.SIGSTOP)
    began = time.monotonic()
    port.close()
    assert gone(process_id, within_s=0.0)
    assert time.monotonic() - began < 5


def test_an_emulator_starts_within_a_second(f405: str) -> None:
    best_s = 10.0
    for _ in range(3):
        began = time.monotonic()
        with Session(f405, timing=TIMING) as session:
            session.connect()
            best_s = min(best_s, time.monotonic() - began)
    assert best_s < 1.0


def test_two_emulators_have_a_cpu_each(f405: str) -> None:
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("this process may use one CPU only")
    with contextlib.closing(serial_for_url(f405)) as one, contextlib.closing(serial_for_url(f405)) as other:
        sets = [os.sched_getaffinity(port.emulation.process_id) for port in (one, other)]
    assert [len(cpus) for cpus in sets] == [1, 1]
    assert sets[0] != sets[1]


def test_the_url_chooses_the_firmware_and_the_shift(f405: str) -> None:
    elf = firmware_elf("qemu_stm32f405")
    with Session(f"{f405}?elf={elf}&icount=5", timing=TIMING) as session:
        info = session.connect()
    assert info.emulator.endswith(", netduinoplus2, icount shift 5")
    assert info.instructions_per_tick == pytest.approx(1e9 / (info.ticks_per_second * 32))


def test_what_the_emulator_is_told(f405: str) -> None:
    with contextlib.closing(serial_for_url(f405)) as port:
        assert port.control("info status") == "VM status: running"
        port.control("stop")
        assert port.control("info status") == "VM status: paused"
        port.control("cont")
        assert port.control("info status") == "VM status: running"
        with pytest.raises(OSError, match="the emulator refuses 'stp': unknown command: 'stp'"):
            port.control("stp")
        with pytest.raises(OSError, match="is no command"):
            port.control("stop\nquit")
        os.kill(port.emulation.process_id, signal.SIGKILL)
        with pytest.raises(OSError, match=r"the emulator has ended|takes no 'stop'"):
            port.control("stop")


def test_a_frozen_emulator_does_not_hold_its_control_for_ever(f405: str) -> None:
    with contextlib.closing(serial_for_url(f405)) as port:
        port._monitor.timeout_s = 0.5
        os.kill(port.emulation.process_id, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(OSError, match=r"did not send an answer to 'stop' in 0\.5 s"):
            port.control("stop")
        assert time.monotonic() - began < 3


def test_words_of_a_death_have_no_cable_in_them(f405: str) -> None:
    with Session(f405, timing=TIMING) as session:
        session.connect()
        port = session._transport.port
        os.kill(port.emulation.process_id, signal.SIGTERM)
        with pytest.raises(
            TransportError, match=r"the emulator ended with exit code 0|was ended by signal 15"
        ) as caught:
            session.connect()
        assert "cable" not in str(caught.value)
