"""Short versions of ``scripts/bench-link``: the same code with fewer seeds and images, and nothing timed."""

from __future__ import annotations

from pathlib import Path

import pytest

from proofs.link import images, noise, survival
from proofs.link.setting import mnist

SEEDS = (100, 101)  # one in each mode


@pytest.fixture(autouse=True)
def _data(mnist_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BITLOOP_DATA", str(mnist_dir))
    survival.images.cache_clear()
    survival.undisturbed.cache_clear()
    monkeypatch.setattr(survival, "RECONNECT_S", 8.0)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.name.replace(" ", "_")) for fault in survival.FAULTS])
def test_a_run_survives_or_names_what_ended_it(fault: survival.Fault, seed: int) -> None:
    row = survival.Row(fault, (survival.survive(fault, seed),))
    assert [why for why in row.failures if why != "nothing was disturbed"] == []


def test_a_wrong_figure_is_seen() -> None:
    wrong = survival.Fault("ulp", lambda _: "fault=layer:1,ulp:1")
    assert survival.Row(wrong, (survival.survive(wrong, 0),)).failures[0] == "wrong"


def test_results_that_are_not_the_undisturbed_ones_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    others = survival.undisturbed()[1:]
    monkeypatch.setattr(survival, "undisturbed", lambda: others)
    good = survival.Fault("none", lambda _: "rtt=1ms")
    assert survival.survive(good, 0).ended == "wrong"


def test_a_hang_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survival, "HANG_S", 2)
    slow = survival.Fault("slow", lambda _: "compute=20s")
    assert survival.Row(slow, (survival.survive(slow, 0),)).failures[0] == "hang"


def test_an_error_that_does_not_name_the_fault_is_seen() -> None:
    dead = survival.Fault("dead", lambda _: "fault=crash:after=30", errors=("DeviceTimeoutError",))
    assert survival.Row(dead, (survival.survive(dead, 0),)).failures[0] == "TransportError"


def test_a_row_that_disturbs_nothing_proves_nothing() -> None:
    good = survival.Fault("none", lambda _: "rtt=1ms")
    assert survival.Row(good, (survival.survive(good, 1),)).failures == ["nothing was disturbed"]


def test_images_travel_in_a_third_of_their_bytes() -> None:
    made = images.run("compute-bound", mnist(300), 1000)
    assert made.bytes_an_image <= images.MOST_BYTES
    assert made.images == 300


def test_what_noise_damages_is_sent_again() -> None:
    share, repeated = noise.upload("&rtt=1ms&flip=1e-5&seed=1")
    assert 0 < share < 1
    assert repeated > 0
