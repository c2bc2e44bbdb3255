"""Reset, freeze and death of an emulator, in the middle of an upload and of a run.

The session recovers, or ends with an error that names the cause, within its deadline; no result is wrong, and no
emulator is left behind.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from bitloop.data.dataset import Images
from bitloop.errors import BitloopError, DeviceTimeoutError, LinkError, TransportError
from bitloop.link.run import Result
from bitloop.link.session import Session
from bitloop.link.transport import SerialTransport
from bitloop.link.urls.emulation import Emulation
from bitloop.link.urls.protocol_qemu import Serial
from bitloop.plan.planner import Plan, plan
from bitloop.quantize.model import Model
from bitloop.simulate import simulate

from .conftest import TIMING, gone

Fault = Callable[["Bench"], None]

# The waits for progress, for an answer what is wrong and for the end of the run, with room for a busy machine.
DEADLINE_S = 15.0


class Bench:
    """A session with an emulator, its controls, and a model that takes about a second to upload."""

    def __init__(self, url: str, model: Model, images: Images, slots: int | None) -> None:
        self.transport = SerialTransport(url)
        self.session = Session(self.transport, timing=TIMING)
        self.info = self.session.connect()
        self.plan: Plan = plan(model, self.info, slots=slots)
        self.pixels = images.pixels[:40]
        self.expected = simulate(model, self.pixels)

    @property
    def port(self) -> Serial:
        port = self.transport.port
        assert isinstance(port, Serial)
        return port

    @property
    def emulation(self) -> Emulation:
        assert self.port.emulation is not None
        return self.port.emulation

    def upload(self, fault: Fault | None = None) -> None:
        """Upload the model; the fault strikes when half of it is there."""
        struck = fault is None

        def progress(done: int, total: int) -> None:
            nonlocal struck
            if not struck and done >= total // 2:
                struck = True
                assert fault is not None
                fault(self)

        planned = self.plan
        report = self.session.upload(planned.image, planned.memory.total_bytes, progress, weights=planned.streamed)
        assert struck
        assert report.device_sha256 == self.plan.sha256

    def run(self, fault: Fault | None = None) -> list[Result]:
        """Run the images; the fault strikes after the tenth result. Each result is held against the simulation."""
        results = []
        for result in self.session.run(self.pixels):
            assert result.logits is not None
            assert (result.logits.view(np.uint32) == self.expected[result.index].view(np.uint32)).all()
            results.append(result)
            if fault is not None and len(results) == 10:
                fault(self)
        return results


@pytest.fixture
def start_bench(
    url_of: Callable[[str], str], models: Callable[..., Model], drawn_images: Images
) -> Iterator[Callable[..., Bench]]:
    """Start a board with a model; see at the end that no emulator is left."""
    started: list[tuple[Bench, int]] = []

    def start(board: str, network: str, weights: str, slots: int | None = None) -> Bench:
        bench = Bench(url_of(board), models(network, weights, "fp16"), drawn_images, slots)
        started.append((bench, bench.emulation.process_id))
        return bench

    yield start
    for bench, process_id in started:
        bench.session.close()
        assert gone(process_id)


@pytest.fixture
def bench(start_bench: Callable[..., Bench]) -> Bench:
    return start_bench("stm32f405", "mlp", "int8:channel", slots=4)


def reset(bench: Bench) -> None:
    bench.port.control("system_reset")


def freeze(bench: Bench) -> None:
    bench.port.control("stop")


def freeze_for_a_while(bench: Bench) -> None:
    freeze(bench)
    threading.Timer(1.0, bench.port.control, ["cont"]).start()


def stop_process(bench: Bench) -> None:
    os.kill(bench.emulation.process_id, signal.SIGSTOP)


def kill(bench: Bench) -> None:
    os.kill(bench.emulation.process_id, signal.SIGKILL)


def leave(bench: Bench) -> None:
    bench.port.control("quit")


DURING = ("upload", "run")


def struck(bench: Bench, during: str, fault: Fault) -> tuple[BitloopError, float]:
    """Let a fault strike; give the error that follows, and how long that took."""
    if during == "run":
        bench.upload()
    began = time.monotonic()
    with pytest.raises(LinkError) as caught:
        bench.upload(fault) if during == "upload" else bench.run(fault)
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("during", DURING)
def test_a_reset_is_named_and_the_session_goes_on(bench: Bench, during: str) -> None:
    error, seconds = struck(bench, during, reset)
    assert f"the device restarted during the {during} (boot 1 → 2" in str(error)
    assert seconds < DEADLINE_S
    assert bench.session.connect().boot_count == 2
    bench.upload()
    assert len(bench.run()) == len(bench.pixels)


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize("fault", [freeze, stop_process])
def test_a_freeze_ends_at_the_deadline(bench: Bench, during: str, fault: Fault) -> None:
    error, seconds = struck(bench, during, fault)
    assert isinstance(error, DeviceTimeoutError)
    assert f"no progress of the {during}" in str(error)
    assert TIMING.timeout_s <= seconds < DEADLINE_S


@pytest.mark.parametrize("during", DURING)
def test_a_short_freeze_is_lived_through(bench: Bench, during: str) -> None:
    began = time.monotonic()
    bench.upload(freeze_for_a_while if during == "upload" else None)
    assert len(bench.run(freeze_for_a_while if during == "run" else None)) == len(bench.pixels)
    assert time.monotonic() - began > 1.0
    assert bench.session.stats()["boot_count"] == 1


@pytest.mark.parametrize("during", DURING)
@pytest.mark.parametrize(
    ("fault", "words"),
    [(kill, "the emulator was ended by signal 9"), (leave, "the emulator ended with exit code 0")],
)
def test_a_death_is_named_at_once(bench: Bench, during: str, fault: Fault, words: str) -> None:
    error, seconds = struck(bench, during, fault)
    assert isinstance(error, TransportError)
    assert words in str(error)
    assert seconds < DEADLINE_S


def test_a_reset_between_sessions_shows(bench: Bench) -> None:
    reset(bench)
    assert bench.session.connect().boot_count == 2
    bench.upload()
    assert len(bench.run()) == len(bench.pixels)


OTHERS = ("stm32f100", "rv32imc", "lx106", "mega2560")
STREAMED = "stm32f100 streamed"
"""mlp8k at 8 bits does not fit its 8 KB: a fault of the run strikes while weights travel."""


@pytest.fixture(params=[*OTHERS, STREAMED])
def other(request: pytest.FixtureRequest, start_bench: Callable[..., Bench]) -> Bench:
    board, _, streamed = str(request.param).partition(" ")
    bench = start_bench(board, "mlp8k", "int8:channel" if streamed else "int4:channel", slots=2)
    assert (bench.plan.streamed is not None) == bool(streamed)
    return bench


@pytest.mark.parametrize("during", DURING)
def test_a_reset_of_other_boards(other: Bench, during: str) -> None:
    """QEMU 7.2 resets an AVR's devices, not its processor: that board is silent then, and the session says so."""
    error, seconds = struck(other, during, reset)
    assert seconds < DEADLINE_S
    if other.info.board == "mega2560":
        assert isinstance(error, DeviceTimeoutError)
        return
    assert f"the device restarted during the {during} (boot 1 → 2" in str(error)
    assert other.session.connect().boot_count == 2
    other.upload()
    assert len(other.run()) == len(other.pixels)


@pytest.mark.parametrize("during", DURING)
def test_a_freeze_of_other_boards(other: Bench, during: str) -> None:
    error, seconds = struck(other, during, stop_process)
    assert isinstance(error, DeviceTimeoutError)
    # On a slow machine the upload may be over before it is struck.
    at_its_end = during == "upload" and "waiting for the device's verdict on the image" in str(error)
    assert f"no progress of the {during}" in str(error) or at_its_end
    assert seconds < DEADLINE_S


@pytest.mark.parametrize("during", DURING)
def test_a_death_of_other_boards(other: Bench, during: str) -> None:
    error, seconds = struck(other, during, kill)
    assert "the emulator was ended by signal 9" in str(error)
    assert seconds < DEADLINE_S
