"""Where the firmware's project lies, and what is missing on this machine to build it or to start it in an emulator."""

from __future__ import annotations

import configparser
import contextlib
import hashlib
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bitloop.boards.catalogue import BOARDS, Board
from bitloop.boards.toolchains import toolchain_of
from bitloop.errors import ToolchainError, UsageError
from bitloop.files import write_atomically
from bitloop.firmware.scons import missing_scons
from bitloop.native.paths import cache_dir, device_dir

SETUP = "scripts/setup-firmware"

_ASK_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Project:
    """The project that PlatformIO builds.

    Attributes:
        folder: Holds platformio.ini; what PlatformIO writes goes to its ``.pio``.
        device: Folder of the sources.
    """

    folder: Path
    device: Path

    @property
    def core_dir(self) -> Path:
        """PlatformIO's own directory: never the user's ~/.platformio, so that neither can spoil the other."""
        return self.folder / ".pio" / "core"

    @property
    def lock(self) -> Path:
        """File that whoever builds holds locked."""
        return self.folder / ".pio" / "bitloop.lock"

    def build_dir(self, environment: str) -> Path:
        """Return where the firmware of an environment comes to lie."""
        return self.folder / ".pio" / "build" / environment


@dataclass(frozen=True)
class Missing:
    """Something that is not on this machine.

    Attributes:
        what: In words.
        source: What brings it: ``apt install …`` or ``pip install …``.
    """

    what: str
    source: str

    def __str__(self) -> str:
        return f"{self.what} ({self.source})"


def project() -> Project:
    """Return the checkout, or for an installed package a project in the user's cache that points to its sources.

    Raises:
        ToolchainError: sources or platformio.ini are not there, or the cache cannot be written.
    """
    device = device_dir()
    if device.name == "device":
        folder = device.parent
        if not (folder / "platformio.ini").is_file():
            raise ToolchainError(f"platformio.ini was not found in {folder}; clone the repository again")
        return Project(folder, device)
    configuration = device.parent / "platformio.ini"
    if not configuration.is_file():
        raise ToolchainError(f"platformio.ini was not found beside {device}; reinstall bitloop")
    folder = cache_dir() / "firmware" / hashlib.sha256(str(device).encode()).hexdigest()[:16]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        wanted = configuration.read_bytes()
        target = folder / configuration.name
        if not target.is_file() or target.read_bytes() != wanted:
            write_atomically(target, wanted)
        with contextlib.suppress(FileExistsError):
            (folder / "device").symlink_to(device, target_is_directory=True)
    except OSError as error:
        raise ToolchainError(f"{folder} cannot be written: {error}; name another place in $BITLOOP_CACHE") from error
    return Project(folder, folder / "device")


def find_firmware_board(name: str) -> Board:
    """Give the board of a name, or of an environment of platformio.ini, that a firmware is built for.

    Raises:
        UsageError: there is none.
    """
    boards = [board for board in BOARDS if board.environment]
    for board in boards:
        if name in (board.name, board.environment):
            return board
    names = ", ".join(board.name for board in boards)
    if any(name == board.name for board in BOARDS):
        raise UsageError(f"board '{name}' needs no firmware of its own; those that do are {names}")
    raise UsageError(f"there is no board '{name}'; there are {names}")


def environments() -> list[str]:
    """Return the environments of platformio.ini, in its order: what firmware there is."""
    ini = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", "#"))
    path = project().folder / "platformio.ini"
    try:
        ini.read_string(path.read_text(encoding="utf-8"))
    except (OSError, configparser.Error) as error:
        raise ToolchainError(f"{path} cannot be read: {error}") from error
    return [name.removeprefix("env:") for name in ini.sections() if name.startswith("env:")]


def is_local(environment: str) -> bool:
    """Tell whether an environment is built by the local platform, without PlatformIO's registry."""
    return toolchain_of(environment) is not None


def missing_platformio() -> list[Missing]:
    """List what is missing of PlatformIO, SCons included."""
    if importlib.util.find_spec("platformio") is None:
        return [Missing("PlatformIO", "pip install 'bitloop[firmware]'")]
    wrong = missing_scons()
    return [] if wrong is None else [Missing(wrong.split(";")[0], "pip install 'bitloop[firmware]'")]


def missing_to_build(environment: str) -> list[Missing]:
    """List what is missing to build an environment; for real boards PlatformIO loads compilers itself."""
    missing = missing_platformio()
    toolchain = toolchain_of(environment)
    if toolchain is None:
        return missing
    compiler = toolchain.prefix + "gcc"
    if shutil.which(compiler) is None:
        missing.append(Missing(f"the compiler {compiler}", f"apt install {toolchain.packages[0]}"))
    else:
        missing += [
            Missing(f"{file} of {compiler}", f"apt install {package}")
            for file, package in toolchain.files
            if not _compiler_finds(compiler, file)
        ]
    missing += [
        Missing(f"the folder {folder}", f"apt install {package}")
        for folder, package in toolchain.folders
        if not Path(folder).is_dir()
    ]
    return missing


def missing_to_emulate(board: Board) -> list[Missing]:
    """List what is missing to start a board's firmware in its emulator, once it is built."""
    if board.emulator is None or shutil.which(board.emulator.program) is not None:
        return []
    return [Missing(f"the emulator {board.emulator.program}", f"apt install {board.emulator.package}")]


def _compiler_finds(compiler: str, file: str) -> bool:
    """A compiler prints the path of what it finds, and the bare name of what it does not."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            [compiler, f"-print-file-name={file}"],
            capture_output=True,
            text=True,
            timeout=_ASK_TIMEOUT_S,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.stdout.strip() not in ("", file)
