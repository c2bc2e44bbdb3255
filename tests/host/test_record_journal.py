"""The journal: lines that survive a crash, and a reader that trusts none of them."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.bench.journal import (
    Journal,
    Sample,
    logits_from_hex,
    logits_to_hex,
    pack_pixels,
    read_samples,
    unpack_pixels,
    whole_bytes,
)
from bitloop.errors import DataError, UsageError

SAMPLE = Sample(
    index=3,
    label=7,
    device=7,
    host=7,
    match=True,
    ulp=0,
    ticks=2**40,
    logits=("3f800000", "bf800000"),
    layer_ticks=(1, 2),
)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12))
def test_logits_round_trip_bit_for_bit(patterns: list[int]) -> None:
    logits = np.array(patterns, np.uint32).view(np.float32)
    assert logits_from_hex(logits_to_hex(logits)).view(np.uint32).tolist() == patterns


def test_hex_is_the_bit_pattern() -> None:
    # IEEE 754: 1 is 3f800000, -2 is c0000000, the least subnormal is 00000001.
    assert logits_to_hex(np.array([1.0, -2.0, 2.0**-149], np.float32)) == ("3f800000", "c0000000", "00000001")


def test_journal_is_on_disk_after_each_append(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    with Journal(path) as journal:
        journal.append([SAMPLE])
        assert path.read_text().count("\n") == 1
        journal.append([SAMPLE, SAMPLE])
        assert list(read_samples(path)) == [SAMPLE] * 3


def test_journal_refuses_to_write_over_another(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        Journal(tmp_path / "samples.jsonl")


@given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
def test_whole_lines_are_counted(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], large: bool) -> None:
    path = tmp_path_factory.mktemp("journal") / "samples.jsonl"
    data = b"\n".join(pieces) + (b"x" * 200_000 if large else b"")
    path.write_bytes(data)
    expected = 0
    for number, byte in enumerate(data):
        if byte == 10:
            expected = number + 1
    assert whole_bytes(path) == expected
    assert whole_bytes(path.with_name("missing")) == 0


def test_a_journal_that_is_gone_on_with_keeps_what_it_is_told_to(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    line = SAMPLE.to_json() + "\n"
    path.write_text(line + line[:30])
    with Journal(path, keep_bytes=len(line)) as journal:
        assert path.read_text() == line
        journal.append([SAMPLE])
    assert path.read_text() == 2 * line


def test_a_line_that_cannot_be_written_whole_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource", reason="limits of file sizes are POSIX's")
    path = tmp_path / "samples.jsonl"
    line = SAMPLE.to_json() + "\n"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with Journal(path) as journal:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(line) + 20, hard))
        try:
            journal.append([SAMPLE, SAMPLE])
            with pytest.raises(UsageError, match=r"File too large; make room, then go on with bitloop run --resume"):
                journal.append([SAMPLE])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
    assert path.read_text() == 2 * line


def test_the_disk_is_asked_once_for_what_was_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("os.fsync", asked.append)
    with Journal(tmp_path / "samples.jsonl") as journal:
        journal.sync()
        assert asked == []
        journal.append([SAMPLE])
        journal.append([SAMPLE])
        journal.sync()
        journal.sync()
        assert len(asked) == 1


def test_a_line_that_was_cut_off_is_left_out_loudly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "samples.jsonl"
    line = SAMPLE.to_json()
    path.write_text(f"{line}\n{line[:-4]}")
    logging.getLogger("bitloop").propagate = True
    with caplog.at_level(logging.WARNING):
        assert list(read_samples(path)) == [SAMPLE]
    assert "line 2 was cut off" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"index": "3"},
        {"match": 1},
        {"logits": ["3f80000"]},
        {"logits": ["zzzzzzzz"]},
        {"logits": 5},
        {"layer_ticks": ["1"]},
        {"pixels": 5},
        {"more": 1},
    ],
)
def test_a_line_that_is_no_sample_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "samples.jsonl"
    document = json.loads(SAMPLE.to_json()) | change
    path.write_text(f"{SAMPLE.to_json()}\n{json.dumps(document)}\n")
    with pytest.raises(DataError, match="line 2"):
        list(read_samples(path))


@pytest.mark.parametrize("text", ["[]\n", "{}\n", "{\n", "[" * 100_000 + "\n", "\xff\n"])
def test_what_is_no_journal_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "samples.jsonl"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError):
        list(read_samples(path))


def test_a_missing_journal_is_a_data_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(read_samples(tmp_path / "samples.jsonl"))


def test_pixels_round_trip() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28, 1)).astype(np.uint8)
    assert (unpack_pixels(pack_pixels(pixels), (28, 28, 1)) == pixels).all()


@pytest.mark.parametrize("text", ["", "!!", "AAAA", pack_pixels(np.zeros((2, 2, 1), np.uint8))])
def test_damaged_pixels_are_refused(text: str) -> None:
    with pytest.raises(DataError):
        unpack_pixels(text, (28, 28, 1))
