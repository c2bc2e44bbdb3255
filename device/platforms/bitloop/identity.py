"""What goes into a firmware, and who it then is: its sources, their hash, the flags that every build has in common.

Used by builder/main.py, and by the host to tell whether what was built is up to date. Only the standard library: PlatformIO runs it with a Python that may not have bitloop. The hash is the one of
bitloop.native.build.firmware_hash, which the host holds HELLO against; a test keeps the two the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PLATFORM = Path(__file__).resolve().parent

SOURCE_SUFFIXES = (".c", ".cpp", ".S")
HASHED_SUFFIXES = (*SOURCE_SUFFIXES, ".h", ".ld")

WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow")
"""For our own sources: there are no others."""

COMPILE_FLAGS = ("-gdwarf-4", "-ffunction-sections", "-fdata-sections", "-ffp-contract=off", "-fstack-usage")
LINK_FLAGS = ("-Wl,--gc-sections", "-Wl,--print-memory-usage")


def board_manifest(environment: str, boards: Path = PLATFORM / "boards") -> dict[str, Any]:
    """Return what ``boards/<environment>.json`` says (builder/main.py tells the keys)."""
    manifest: dict[str, Any] = json.loads((boards / f"{environment}.json").read_text(encoding="utf-8"))
    return manifest


def folders(device: Path, port: str) -> tuple[Path, ...]:
    """Return the folders a firmware is made from, those that are there."""
    wanted = (device / "core", device / "ports" / "shared", device / "ports" / port)
    return tuple(folder for folder in wanted if folder.is_dir())


def _files(device: Path, port: str, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for folder in folders(device, port):
        yield from (path for path in folder.rglob("*") if path.suffix in suffixes)


def sources(device: Path, port: str) -> list[Path]:
    """Return the files that are compiled, sorted by their path within ``device``."""
    return sorted(_files(device, port, SOURCE_SUFFIXES), key=lambda path: path.relative_to(device).as_posix())


def firmware_hash(device: Path, port: str) -> bytes:
    """Return the SHA-256 over all sources: of each its path within ``device``, a zero byte, its length (u64), its bytes."""
    digest = hashlib.sha256()
    files = _files(device, port, HASHED_SUFFIXES)
    for path in sorted(files, key=lambda path: path.relative_to(device).as_posix()):
        data = path.read_bytes()
        digest.update(path.relative_to(device).as_posix().encode() + b"\0" + len(data).to_bytes(8, "little") + data)
    return digest.digest()


def firmware_version(device: Path) -> str:
    """Return bitloop's version: ``device`` lies in a checkout, or in the installed package."""
    real = device.resolve()
    for package in (real.parent / "host" / "bitloop", real.parent):
        file = package / "__init__.py"
        if file.is_file():
            found = re.search(r'^__version__ = "([^"]+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
            if found:
                return found[1]
    raise FileNotFoundError(f"no __init__.py of bitloop that says its version was found beside {real}")


def identity_defines(device: Path, port: str) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return name and value of the two macros that tell a firmware who it is."""
    numbers = ",".join(f"0x{byte:02x}" for byte in firmware_hash(device, port))
    return (("BL_FIRMWARE_HASH", numbers), ("BL_FIRMWARE_VERSION", firmware_version(device)))


def stamp(device: Path, project: Path, environment: str) -> dict[str, str]:
    """Return what the outcome of a build on the local platform follows from, for ``firmware.json`` beside the ELF.

    Args:
        device: folder of the sources.
        project: folder of platformio.ini.
        environment: one of the local platform's.

    Returns:
        The environment, the hash of the sources (what HELLO tells), and a hash of everything else: how they are built.
    """
    manifest = board_manifest(environment)
    compiler = shutil.which(manifest["build"]["toolchain"] + "gcc")
    how = hashlib.sha256(firmware_version(device).encode())
    for path in (
        project / "platformio.ini",
        PLATFORM / "boards" / f"{environment}.json",
        *sorted(PLATFORM.rglob("*.py")),
    ):
        how.update(path.name.encode() + b"\0" + path.read_bytes())
    if compiler:
        status = Path(compiler).stat()
        how.update(f"{compiler} {status.st_size} {status.st_mtime_ns}".encode())
    return {
        "environment": environment,
        "firmware_sha256": firmware_hash(device, manifest["build"]["port"]).hex(),
        "build_sha256": how.hexdigest(),
    }


def include_dirs(device: Path, port: str) -> list[Path]:
    """Return where our headers lie."""
    return list(folders(device, port))
