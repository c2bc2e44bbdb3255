"""Builds a board's firmware with PlatformIO, unless what was built is up to date.

Beside each firmware.elf of the local platform lies firmware.json: the hash of the sources it was built from, and one of
all else that the outcome follows from (device/platforms/bitloop/identity.py). Where both still hold nothing is run.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from filelock import FileLock, Timeout

from bitloop.errors import ToolchainError
from bitloop.firmware import find
from bitloop.firmware.scons import lay_scons
from bitloop.firmware.tool import Line, run_tool

log = logging.getLogger(__name__)

ELF = "firmware.elf"
STAMP = "firmware.json"

_LOCK_TIMEOUT_S = 900.0

# What PlatformIO 6.2 prints where its registry does not answer.
_OFFLINE = ("HTTPClientError", "not connected to the Internet", "Could not find the package")


def firmware_elf(environment: str, *, build: bool = True) -> Path:
    """Return the firmware of an environment of platformio.ini, up to date; other processes that build are waited for.

    Args:
        environment: e.g. ``qemu_stm32f405``.
        build: build where it is not up to date.

    Returns:
        The ELF file; the linker's map lies beside it.

    Raises:
        ToolchainError: it is not built and must not be, something is missing for it, or the build failed.
    """
    elf = find.project().build_dir(environment) / ELF
    if is_current(environment):
        return elf
    if not build:
        message = f"the firmware {environment} is {state(environment)}; bitloop firmware build {environment} builds it"
        raise ToolchainError(message)
    return build_firmware(environment)


def build_firmware(environment: str, *, each_line: Line | None = None) -> Path:
    """Build the firmware of an environment; what is up to date stays.

    Args:
        environment: e.g. ``qemu_stm32f405``.
        each_line: called with each line that PlatformIO prints.

    Returns:
        The ELF file.

    Raises:
        ToolchainError: something is missing for it, or the build failed; the message holds the compiler's words.
    """
    project = find.project()
    elf = project.build_dir(environment) / ELF
    refuse_if_missing(environment)
    with _locked(project):
        if is_current(environment):  # someone else was at it meanwhile
            return elf
        code, output = run_platformio(("run", "--environment", environment), each_line=each_line)
    if code != 0 or not elf.is_file():
        message = f"PlatformIO could not build {environment} (exit code {code}). Its last words:\n{last_words(output)}"
        raise ToolchainError(message + advice(environment, output))
    log.info("built %s", elf)
    return elf


def is_current(environment: str) -> bool:
    """Tell whether the firmware that lies there is what a build would make.

    Only of the local platform's environments that is known without running PlatformIO; False for the others.
    """
    if not find.is_local(environment):
        return False
    project = find.project()
    folder = project.build_dir(environment)
    try:
        found = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        wanted = platform_module("identity").stamp(project.device, project.folder, environment)
    except (OSError, ValueError):
        return False
    return (folder / ELF).is_file() and bool(found == wanted)


def state(environment: str) -> str:
    """Say in words whether a firmware of the local platform is there: built, out of date, or not built."""
    if is_current(environment):
        return "built"
    return "out of date" if (find.project().build_dir(environment) / ELF).is_file() else "not built"


def refuse_if_missing(environment: str) -> None:
    """Raise ToolchainError, with all that is missing to build an environment, if anything is."""
    there = find.environments()
    if environment not in there:
        raise ToolchainError(f"{environment} has no firmware yet; there is one for {', '.join(there)}")
    missing = find.missing_to_build(environment)
    if missing:
        listed = "; ".join(map(str, missing))
        raise ToolchainError(f"{environment} cannot be built, missing: {listed}. {find.SETUP} installs what is missing")


def run_platformio(arguments: Sequence[str], *, each_line: Line | None = None) -> tuple[int, str]:
    """Run PlatformIO on the project, apart from the user's own: its packages, settings and telemetry are not touched.

    Args:
        arguments: e.g. ``("run", "-e", "qemu_stm32f405")``.
        each_line: called with each line it prints.

    Returns:
        Its exit code, and all that it printed.

    Raises:
        ToolchainError: it cannot be started.
    """
    project = find.project()
    lay_scons(project.core_dir)
    command = [sys.executable, "-m", "platformio", *arguments]
    log.debug("%s in %s", " ".join(command), project.folder)
    try:
        return run_tool(command, folder=project.folder, environment=_environment(project), each_line=each_line)
    except OSError as error:
        raise ToolchainError(f"PlatformIO could not be started: {error}; {find.SETUP} installs it") from error


def _environment(project: find.Project) -> dict[str, str]:
    """The environment without what would send PlatformIO elsewhere, e.g. PLATFORMIO_BUILD_DIR."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PLATFORMIO_")}
    return {
        **kept,
        "PLATFORMIO_CORE_DIR": str(project.core_dir),
        "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
        "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
        "PLATFORMIO_NO_ANSI": "true",
        "PYTHONDONTWRITEBYTECODE": "1",  # nothing but sources lies in device/: the wheel carries all of it
    }


@contextlib.contextmanager
def _locked(project: find.Project) -> Iterator[None]:
    lock = FileLock(project.lock, timeout=_LOCK_TIMEOUT_S)
    try:
        project.lock.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        message = f"another process has been building for {_LOCK_TIMEOUT_S:.0f} s: it holds {project.lock}; end it"
        raise ToolchainError(message) from error
    except OSError as error:
        raise ToolchainError(
            f"{project.lock} cannot be written: {error}; firmware is built below that folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def last_words(output: str) -> str:
    """Give the lines from the first error on, or the last ones where none is called so."""
    lines = output.strip().splitlines()
    first = next((number for number, line in enumerate(lines) if "error:" in line.lower()), len(lines))
    return "\n".join(lines[max(0, min(first - 3, len(lines) - 15)) :][:60])


def advice(environment: str, output: str) -> str:
    """Say what to do about a failed build, where its words tell; else ""."""
    if find.is_local(environment) or not any(word in output for word in _OFFLINE):
        return ""
    return (
        f"\n{environment} is built by a platform of PlatformIO's registry, which could not be reached: "
        "see to the network, or to a proxy in $HTTPS_PROXY"
    )


def platform_module(name: str) -> ModuleType:
    """Give a module of the local platform, the very one that the build uses: both then mean the same.

    Args:
        name: ``identity`` or ``upload``.

    Raises:
        ToolchainError: it is not there.
    """
    return _load(find.project().device / "platforms" / "bitloop" / f"{name}.py")


@functools.cache
def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bitloop_firmware_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ToolchainError(f"{path} was not found; reinstall bitloop, or clone the repository again")
    module = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module
