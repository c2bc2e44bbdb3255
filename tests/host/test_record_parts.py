"""The parts of a run: their figures on the disk, without anybody waiting for it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from bitloop.bench import parts
from bitloop.bench.journal import Journal
from bitloop.bench.parts import Keeper, Part, Traffic, read_parts, seconds_between, write_parts
from bitloop.bench.record import Interruption
from bitloop.errors import DataError, UsageError

from .test_record_journal import SAMPLE

FIRST = Part(
    started="2026-01-02T03:04:05.000006+00:00",
    updated="2026-01-02T03:05:05.000006+00:00",
    device_url="sim://native",
    boot_count=3,
    first=0,
    seconds=60.0,
    traffic=Traffic(bytes_up=5, images=7, stream_seconds=0.5),
    interruptions=(Interruption(4, False, "reset", 1.5, 2, 3),),
    ended=None,
)


def test_parts_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "parts.json"
    assert read_parts(path) == ()
    write_parts(path, (FIRST, FIRST))
    assert read_parts(path) == (FIRST, FIRST)


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "parts": []}', '{"version": 1, "parts": [5]}'])
def test_damaged_parts_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "parts.json").write_text(text)
    with pytest.raises(DataError):
        read_parts(tmp_path / "parts.json")


def test_traffic_adds_up() -> None:
    both = Traffic(bytes_up=1, stream_seconds=0.25) + Traffic(bytes_up=2, stream_seconds=0.5, images=3)
    assert (both.bytes_up, both.stream_seconds, both.images, both.bytes_down) == (3, 0.75, 3, 0)


def test_seconds_between_times() -> None:
    assert seconds_between(FIRST.started, FIRST.updated) == 60.0
    assert seconds_between(FIRST.updated, FIRST.started) == 0.0  # the clock was set back
    with pytest.raises(DataError, match="no time"):
        seconds_between("yesterday", FIRST.started)
    assert seconds_between(FIRST.started, parts.timestamp()) > 0 or parts.timestamp() < FIRST.started


def test_journal_and_figures_are_on_the_disk_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "KEEP_S", 0.02)
    synced: list[str] = []
    fsync = os.fsync

    def watched(handle: int) -> None:
        synced.append(threading.current_thread().name)
        fsync(handle)

    monkeypatch.setattr("os.fsync", watched)
    with Journal(tmp_path / "samples.jsonl") as journal:
        keeper = Keeper(journal, tmp_path / "parts.json", (FIRST,))
        journal.append([SAMPLE])
        keeper.offer(FIRST)
        deadline = time.monotonic() + 10
        while not (tmp_path / "parts.json").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_parts(tmp_path / "parts.json") == (FIRST, FIRST)
        assert set(synced) == {"keeper"}
        assert len(synced) == 2
        keeper.close(None)
    assert len(synced) == 2  # what is there already is not asked for again


def test_what_cannot_be_kept_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "KEEP_S", 0.02)
    with Journal(tmp_path / "samples.jsonl") as journal:
        keeper = Keeper(journal, tmp_path / "nowhere" / "parts.json", ())
        with pytest.raises(UsageError, match="cannot be written"):
            offer_for_a_while(keeper)
        keeper.close(FIRST)  # told in the log by now
    assert not (tmp_path / "nowhere").exists()


def offer_for_a_while(keeper: Keeper) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        keeper.offer(FIRST)
        time.sleep(0.01)
