"""Compiling at first use: what is cached, what is not, and what is said where it cannot be done."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bitloop.errors import ToolchainError
from bitloop.native import build, device_dir, paths

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses shell scripts as compilers")


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache, and nothing remembered."""
    monkeypatch.setenv("BITLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    for function in (build.find_compiler, build._build):
        function.cache_clear()
    yield tmp_path
    for function in (build.find_compiler, build._build):
        function.cache_clear()


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


def test_second_time_nothing_is_compiled(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = fresh / "log"
    compiler = program(fresh / "compiler", f'echo "$@" >> {log}\nexec {shutil.which("cc")} "$@"')
    monkeypatch.setenv("CC", str(compiler))
    first = build.simulator_binary()
    assert first.is_relative_to(fresh / "cache")
    assert os.access(first, os.X_OK)
    compiled = log.read_text().count("native_sim.c")
    build._build.cache_clear()
    assert build.simulator_binary() == first
    assert log.read_text().count("native_sim.c") == compiled == 1
    assert [path.name for path in first.parent.iterdir()] == ["bitloop-sim"]  # no scratch is left
    assert "-march" not in log.read_text()
    assert "-ffp-contract=off" in log.read_text()


def test_another_source_compiler_or_flag_is_another_file(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_compile", lambda command: Path(command[-1]).touch())
    seen = {build.simulator_binary(), build.shared_library()}
    for change in ("source", "compiler", "flags"):
        build._build.cache_clear()
        if change == "source":
            monkeypatch.setattr(build, "firmware_hash", lambda: "00" * 32)
        elif change == "compiler":
            monkeypatch.setattr(build, "_version", lambda command: "another")
        else:
            monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-g"))
        seen.add(build.simulator_binary())
    assert len(seen) == 5


def test_no_compiler_at_all(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolchainError, match=r"cc, clang, gcc.*apt install gcc.*bitloop\[cc\]"):
        build.shared_library()


def test_named_compiler_comes_first_and_may_have_arguments(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = program(fresh / "my cc", f'exec {shutil.which("cc")} "$@"')
    monkeypatch.setenv("CC", f"'{compiler}' -DANYTHING=1")
    assert build.find_compiler() == (str(compiler), "-DANYTHING=1")
    assert build.shared_library().is_file()


def test_a_broken_compiler_is_passed_over(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", str(program(fresh / "broken", "exit 1")))
    assert build.find_compiler() != (str(fresh / "broken"),)


def test_what_the_compiler_says_is_told(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '[ "$1" = --version ] && exit 0\necho "no such luck" >&2\nexit 1'
    monkeypatch.setenv("CC", str(program(fresh / "refuses", text)))
    with pytest.raises(ToolchainError, match="no such luck"):
        build.simulator_binary()
    assert not any(path.is_file() for path in (fresh / "cache").rglob("*"))


def test_builds_at_the_same_time(fresh: Path) -> None:
    """Three processes build into one empty cache; each gets the same whole file."""
    code = (
        "from bitloop.native import shared_library; import ctypes; p = shared_library(); ctypes.CDLL(str(p)); print(p)"
    )
    environment = {**os.environ, "BITLOOP_CACHE": str(fresh / "cache"), "PYTHONPATH": str(device_dir().parent / "host")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = {process.communicate(timeout=120)[0] for process in processes}
    assert all(process.returncode == 0 for process in processes)
    assert len(outputs) == 1
    assert [path.name for path in Path(outputs.pop().strip()).parent.iterdir()] == ["libbitloop.so"]


def test_firmware_hash_is_over_core_shared_parts_and_port() -> None:
    root = device_dir()
    digest = hashlib.sha256()
    names = sorted(
        path.relative_to(root).as_posix()
        for folder in ("core", "ports/shared", "ports/native")
        for path in (root / folder).iterdir()
        if path.suffix in (".c", ".h", ".ld")
    )
    assert "ports/shared/stm32.ld" in names
    assert "core/bl_spec.h" in names
    assert "ports/native/native_sim.c" in names
    for name in names:
        data = (root / name).read_bytes()
        digest.update(name.encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    assert build.firmware_hash() == digest.hexdigest()


def test_sources_in_a_wheel_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "site" / "host" / "bitloop")
    with pytest.raises(ToolchainError, match="reinstall bitloop"):
        paths.device_dir()
    for folder in ("site/device/core", "site/host/bitloop/_device/core"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "bl_spec.h").touch()
        assert paths.device_dir() == (tmp_path / folder).parent


def test_ziglang_is_the_last_resort(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(fresh))
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(build, "_version", lambda command: "zig")
    # Without -mcpu zig compiles for the very processor it runs on; a cache may be shared between machines.
    assert build.find_compiler() == (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline")
