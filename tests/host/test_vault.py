"""The vault: nothing else hands out test images, and no opening goes unlogged."""

from __future__ import annotations

import ast
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import bitloop
from bitloop.data import DataError, Dataset, Split, Vault
from bitloop.data import vault as vault_module
from bitloop.data.vault import default_log_path, read_log

PACKAGE = Path(bitloop.__file__).parent


def make(name: str = "mnist") -> Dataset:
    parts = {
        split: (np.full((3, 28, 28, 1), number, np.uint8), np.full(3, number, np.uint8), np.arange(3))
        for number, split in enumerate(Split)
    }
    return Dataset.build(name, "ab" * 32, "here", parts)


def test_an_opening_is_logged_and_gives_the_test_images(tmp_path: Path) -> None:
    log = tmp_path / "state" / "vault.jsonl"
    vault = Vault(make(), log)
    assert vault.openings == ()
    before = datetime.now(timezone.utc)
    images = vault.open("final figures\n of the winners")
    assert images.split is Split.TEST
    assert set(images.labels.tolist()) == {3}
    entry = json.loads(log.read_text())
    assert entry["dataset"] == "mnist"
    assert entry["sha256"] == "ab" * 32
    assert entry["reason"] == "final figures of the winners"
    assert entry["count"] == 1
    assert before <= datetime.fromisoformat(entry["time"]) <= datetime.now(timezone.utc)
    assert [opening.reason for opening in vault.openings] == [entry["reason"]]


def test_openings_are_counted_for_each_data_set_over_all_vaults(tmp_path: Path) -> None:
    log = tmp_path / "vault.jsonl"
    for name in ("mnist", "digits", "mnist", "mnist"):
        Vault(make(name), log).open("a reason")
    assert [(opening.dataset, opening.count) for opening in read_log(log)] == [
        ("mnist", 1),
        ("digits", 1),
        ("mnist", 2),
        ("mnist", 3),
    ]


@pytest.mark.parametrize("reason", ["", " \n", "x" * 1001])
def test_a_reason_is_needed(reason: str, tmp_path: Path) -> None:
    vault = Vault(make(), tmp_path / "vault.jsonl")
    with pytest.raises(DataError, match="reason"):
        vault.open(reason)
    assert not (tmp_path / "vault.jsonl").exists()
    assert vault.openings == ()


def test_without_a_log_it_stays_shut(tmp_path: Path) -> None:
    vault = Vault(make(), tmp_path)  # a directory cannot be written as a file
    with pytest.raises(DataError, match="stays shut"):
        vault.open("a reason")
    assert vault.openings == ()


def test_a_line_cut_short_spoils_neither_count_nor_the_next_line(tmp_path: Path) -> None:
    log = tmp_path / "vault.jsonl"
    Vault(make(), log).open("one")
    with log.open("a") as stream:
        stream.write('{"dataset": "mni')
    assert Vault(make(), log).open("two").split is Split.TEST
    assert [(opening.reason, opening.count) for opening in read_log(log)] == [("one", 1), ("two", 2)]


def test_openings_at_once_are_all_logged_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fcntl", reason="without POSIX locks two openings at once may get one number")
    log = tmp_path / "vault.jsonl"
    count = vault_module._count

    def slow_count(data: bytes, dataset: str) -> int:
        number = count(data, dataset)
        time.sleep(0.01)  # long enough for another opening to read the same log, were it not locked
        return number

    monkeypatch.setattr(vault_module, "_count", slow_count)

    def open_some(number: int) -> None:
        for k in range(5):
            Vault(make(), log).open(f"{number}-{k}")

    # Locks belong to an open file, and each opening opens the log anew: threads exclude one another as processes do.
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(open_some, range(4)))
    openings = read_log(log)
    assert [opening.count for opening in openings] == list(range(1, 21))
    assert {opening.reason for opening in openings} == {f"{p}-{k}" for p in range(4) for k in range(5)}


def test_the_log_lies_in_the_users_state_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("the state directory is set by XDG_STATE_HOME on Linux only")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert default_log_path() == tmp_path / "bitloop" / "vault.jsonl"
    Vault(make()).open("a reason")
    assert len(read_log(default_log_path())) == 1


def test_a_missing_log_is_an_error_to_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_log(tmp_path / "none")


def test_nothing_but_the_vault_reaches_the_sealed_images() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = {
                ast.Name: lambda n: n.id,
                ast.Attribute: lambda n: n.attr,
                ast.alias: lambda n: n.name.rpartition(".")[2],
            }
            found = names[type(node)](node) if type(node) in names else ""
            if found in ("sealed_images", "_splits"):
                users.add((path.relative_to(PACKAGE).as_posix(), found))
    assert users == {("data/dataset.py", "_splits"), ("data/vault.py", "sealed_images")}
