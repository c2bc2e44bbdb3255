"""The vault: nothing else hands out test images, and no opening goes unlogged."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import bitloop
from bitloop.data import DataError, Dataset, Split, Vault
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


def test_openings_at_once_are_all_logged_and_counted(tmp_path: Path) -> None:
    log = tmp_path / "vault.jsonl"
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2]); from test_vault import make;"
        "from bitloop.data import Vault\n"
        "for k in range(25): Vault(make(), Path(sys.argv[1])).open(f'{sys.argv[3]}-{k}')"
    )
    command = [sys.executable, "-c", script, str(log), str(Path(__file__).parent)]
    path = str(PACKAGE.parent)
    processes = [
        subprocess.Popen([*command, str(number)], env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin"})
        for number in range(3)
    ]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    openings = read_log(log)
    assert [opening.count for opening in openings] == list(range(1, 76))
    assert {opening.reason for opening in openings} == {f"{p}-{k}" for p in range(3) for k in range(25)}


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
