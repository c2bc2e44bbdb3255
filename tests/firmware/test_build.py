"""Firmware built by the local platform of PlatformIO: who it is, what memory it leaves, what is said where it fails."""

from __future__ import annotations

import configparser
import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from elftools.elf.elffile import ELFFile
from typer.testing import CliRunner

from bitloop.boards import BOARDS
from bitloop.cli.app import app
from bitloop.errors import ToolchainError
from bitloop.firmware import build, find
from bitloop.firmware.build import firmware_elf
from bitloop.firmware.memory import static_memory
from bitloop.native.build import firmware_hash

ROOT = Path(__file__).resolve().parents[2]
PLATFORM = ROOT / "device/platforms/bitloop"
MANIFESTS = sorted(path.stem for path in (PLATFORM / "boards").glob("*.json"))


@pytest.fixture(scope="module")
def identity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("identity_of_the_platform", PLATFORM / "identity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=MANIFESTS)
def environment(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    missing = find.missing_to_build(name)
    if missing:
        pytest.skip(f"{name} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    return name


def symbols(elf: Path) -> dict[str, int]:
    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def test_every_environment_has_a_manifest_and_a_board() -> None:
    """A manifest of the local platform, that is; a public platform has those of its boards."""
    ini = configparser.ConfigParser()
    ini.read(ROOT / "platformio.ini")
    environments = {name.removeprefix("env:") for name in ini.sections() if name.startswith("env:")}
    assert sorted(filter(find.is_local, environments)) == MANIFESTS
    assert environments - set(MANIFESTS) <= {"esp32dev", "esp32-s3-devkitc-1", "esp32-c3-devkitm-1"}
    assert environments <= {board.environment for board in BOARDS}


def test_the_build_and_the_host_mean_the_same_firmware(identity: ModuleType) -> None:
    for port in {identity.board_manifest(name)["build"]["port"] for name in MANIFESTS}:
        assert identity.firmware_hash(ROOT / "device", port).hex() == firmware_hash(port)


def test_memory_is_divided_without_rest(environment: str, identity: ModuleType) -> None:
    """Stack, statics and arena fill the chip's RAM, and the code its flash at most; no call is left that contracts."""
    elf = firmware_elf(environment)
    manifest = identity.board_manifest(environment)
    at = symbols(elf)
    stack = (at["__bl_stack_low"], at["__bl_stack_top"])
    static = (at["__bl_static_start"], at["__bl_static_end"])
    arena = (at["__bl_arena_start"], at["__bl_arena_end"])
    # An Arduino core has the stack at the end of the RAM; elsewhere one that overflows leaves the RAM, and faults.
    parts = (static, arena, stack) if "arduino" in manifest["build"] else (stack, static, arena)
    assert all(0 <= after[0] - before[1] < 8 for before, after in itertools.pairwise(parts))
    ram = manifest["upload"]["maximum_ram_size"]
    assert parts[-1][1] - parts[0][0] == ram
    board = next(board for board in BOARDS if board.environment == environment)
    assert (board.ram_bytes, board.flash_bytes) == (ram, manifest["upload"]["maximum_size"])
    with elf.open("rb") as file:
        flash = sum(segment["p_filesz"] for segment in ELFFile(file).iter_segments() if segment["p_type"] == "PT_LOAD")
    assert flash <= board.flash_bytes
    if board.ram_bytes == 8192:
        assert at["__bl_arena_end"] - at["__bl_arena_start"] >= 5 * 1024
    tools = manifest["build"]["toolchain"]
    code = subprocess.run([f"{tools}objdump", "-d", elf], capture_output=True, text=True, check=True).stdout
    assert "vfma" not in code
    assert "vfms" not in code


def test_a_second_build_is_none(environment: str) -> None:
    elf = firmware_elf(environment)
    before = elf.stat().st_mtime_ns
    assert firmware_elf(environment).stat().st_mtime_ns == before


def test_platformio_alone_builds_it() -> None:
    """`pio run`, as a person types it: no registry is asked."""
    missing = find.missing_to_build("qemu_stm32f100")
    if missing:
        pytest.skip(f"needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    firmware_elf("qemu_stm32f100")  # lays SCons down, as scripts/setup-firmware does
    command = [sys.executable, "-m", "platformio", "run", "-e", "qemu_stm32f100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[SUCCESS]" in done.stdout


def test_the_command_shows_what_a_firmware_takes(environment: str) -> None:
    board = next(board for board in BOARDS if board.environment == environment)
    memory = static_memory(firmware_elf(environment))
    result = CliRunner().invoke(app, ["firmware", "build", board.name])
    assert result.exit_code == 0
    for size in (memory.flash_bytes, memory.static_bytes, memory.stack_bytes, memory.arena_bytes):
        assert f" {size:,} " in result.stdout
    (document,) = json.loads(CliRunner().invoke(app, ["firmware", "build", environment, "--json"]).stdout)
    assert Path(document["elf"]) == firmware_elf(environment)
    assert (document["flash_bytes"], document["static_bytes"]) == (memory.flash_bytes, memory.static_bytes)


def test_an_image_holds_what_is_loaded() -> None:
    """firmware.bin, which a serial bootloader takes, is the flash from its first byte on."""
    missing = find.missing_to_build("bluepill_f103c8")
    if missing:
        pytest.skip(f"needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    elf = firmware_elf("bluepill_f103c8")
    assert elf.with_suffix(".bin").stat().st_size == static_memory(elf).flash_bytes


def test_all_leaves_out_what_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find.shutil, "which", lambda name: None)
    result = CliRunner().invoke(app, ["firmware", "build", "--all", "--json"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "nucleo_f446re is left out, missing: the compiler arm-none-eabi-gcc" in result.stderr
    named = CliRunner().invoke(app, ["firmware", "build", "nucleo_f446re"])
    assert named.exit_code == 8
    assert "apt install gcc-arm-none-eabi" in named.stderr
    assert "scripts/setup-firmware" in named.stderr
    assert CliRunner().invoke(app, ["firmware", "build"]).exit_code == 2
    assert CliRunner().invoke(app, ["firmware", "build", "--all", "nucleo_f446re"]).exit_code == 2


def test_a_registry_out_of_reach_is_told() -> None:
    """PlatformIO's words where no network is, taken from `pio run` of an ESP32 environment."""
    words = "Processing esp32dev (platform: espressif32)\nPlatform Manager: Installing espressif32\nHTTPClientError: \n"
    assert "see to the network" in build.advice("esp32dev", words)
    assert build.advice("esp32dev", "main.c:1: error: no\n") == ""
    assert build.advice("nucleo_f446re", words) == ""


def test_a_board_without_a_port_is_refused() -> None:
    with pytest.raises(ToolchainError, match=r"qemu_none has no firmware yet; there is one for .*qemu_stm32f405"):
        firmware_elf("qemu_none")


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find.shutil, "which", lambda name: None)
    listed = [str(missing) for missing in find.missing_to_build("qemu_stm32f405")]
    assert "the compiler arm-none-eabi-gcc (apt install gcc-arm-none-eabi)" in listed
