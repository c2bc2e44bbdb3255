"""Compiles the core for this machine at first use, and keeps what was compiled in the user's cache.

The key of the cache is made of the sources, the compiler and the flags, so a changed source is compiled anew and an
unchanged one never twice. Several processes may build at once: each builds in a directory of its own and moves the
result into place.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import logging
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import bitloop
from bitloop.errors import ToolchainError
from bitloop.native.paths import cache_dir, device_dir

log = logging.getLogger(__name__)

FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra")
"""Flags of every native build; never ``-march=native``: a cache may be shared between machines."""

_COMPILE_TIMEOUT_S = 300.0
_SIMULATOR = tuple(f"native_{part}.c" for part in ("sim", "line", "options", "limits", "faults", "faults_text"))
_SUFFIXES = {".c", ".cpp", ".S", ".h", ".hpp", ".ino", ".ld"}


def source_files(port: str) -> list[Path]:
    """Return the sources of a firmware: those of the core, of what ports share and of one port, sorted by their path.

    Args:
        port: name of a directory in ``device/ports``.
    """
    root = device_dir()
    files: list[Path] = []
    for folder in (root / "core", root / "ports" / "shared", root / "ports" / port):
        files.extend(path for path in folder.rglob("*") if path.suffix in _SUFFIXES)
    return sorted(files, key=lambda path: path.relative_to(root).as_posix())


@functools.cache
def firmware_hash(port: str = "native") -> str:
    """Return the SHA-256 (hexadecimal) over the sources a firmware is built from: :func:`source_files`.

    Each file counts as its path within ``device/``, a zero byte, its length (u64, little-endian) and its bytes.

    Args:
        port: name of a directory in ``device/ports``.
    """
    root = device_dir()
    digest = hashlib.sha256()
    for path in source_files(port):
        data = path.read_bytes()
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@functools.cache
def find_compiler() -> tuple[str, ...]:
    """Return the command of the first C compiler that works: ``$CC``, cc, clang, gcc, ``python -m ziglang cc``.

    Raises:
        ToolchainError: there is none.
    """
    candidates: list[tuple[str, ...]] = []
    named = os.environ.get("CC")
    if named:
        candidates.append(tuple(shlex.split(named)))
    candidates.extend((name,) for name in ("cc", "clang", "gcc"))
    if importlib.util.find_spec("ziglang") is not None:
        candidates.append((sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline"))  # zig's default is this machine's
    for command in candidates:
        if command and shutil.which(command[0]) is not None and _version(command) is not None:
            return command
    tried = ", ".join(" ".join(command) for command in candidates)
    message = (
        f"no C compiler was found (tried {tried}); install one (Debian/Ubuntu: apt install gcc), "
        'or one from PyPI with pip install "bitloop[cc]"'
    )
    raise ToolchainError(message)


def _version(command: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def shared_library() -> Path:
    """Return the core as a shared library for ctypes, compiled if it is not in the cache.

    Raises:
        ToolchainError: there is no compiler, or it refused the sources.
    """
    name = {"darwin": "libbitloop.dylib", "win32": "bitloop.dll"}.get(sys.platform, "libbitloop.so")
    return _build(name, sources=("native_library.c",), flags=("-shared", "-fPIC"))


def simulator_binary() -> Path:
    """Return the program of ``sim://native``, compiled if it is not in the cache.

    Raises:
        ToolchainError: there is no compiler, or it refused the sources.
    """
    name = "bitloop-sim.exe" if sys.platform == "win32" else "bitloop-sim"
    return _build(name, sources=_SIMULATOR, flags=())


@functools.cache
def _build(name: str, *, sources: tuple[str, ...], flags: tuple[str, ...]) -> Path:
    root = device_dir()
    compiler = find_compiler()
    hash_bytes = ",".join(f"0x{byte:02x}" for byte in bytes.fromhex(firmware_hash()))
    arguments = [*FLAGS, *flags, f"-DBL_FIRMWARE_HASH={hash_bytes}", f'-DBL_FIRMWARE_VERSION="{bitloop.__version__}"']
    key = hashlib.sha256("\0".join([name, *sources, *compiler, _version(compiler) or "", *arguments]).encode())
    target = cache_dir() / "native" / key.hexdigest()[:32] / name
    if target.is_file():
        return target
    files = sorted((root / "core").glob("*.c")) + [root / "ports" / "native" / source for source in sources]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as scratch:
        result = Path(scratch) / name
        _compile([*compiler, *arguments, *map(str, files), "-o", str(result)])
        result.replace(target)
    log.info("compiled %s", target)
    return target


def _compile(command: list[str]) -> None:
    log.debug("%s", shlex.join(command))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMPILE_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        message = f"the C compiler {command[0]} could not be run: {error}; set $CC to one that works"
        raise ToolchainError(message) from error
    if done.returncode != 0:
        message = f"the C compiler refused the core; set $CC to another one. Its words:\n{done.stderr.strip()[-4000:]}"
        raise ToolchainError(message)
    if done.stderr:
        log.warning("the C compiler said: %s", done.stderr.strip())
