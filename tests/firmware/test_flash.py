"""Flashing, without a board: what the tools are told, one at a time, Ctrl-C, and whether the board is asked afterwards.

The tools are scripts that note their arguments; what real ones say is in test_diagnosis.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import serial
from fake_device import FakeDevice
from filelock import FileLock
from serial.tools.list_ports_common import ListPortInfo
from typer.testing import CliRunner, Result

from bitloop.boards import BOARDS, find_board
from bitloop.cli.app import app
from bitloop.errors import PortError, ToolchainError, UsageError
from bitloop.firmware import find, flash
from bitloop.firmware.build import firmware_elf, platform_module, run_platformio
from bitloop.native.build import firmware_hash

ROOT = Path(__file__).resolve().parents[2]
STLINK, ADAPTER = (0x0483, 0x374B), (0x0403, 0x6001)


class Tools:
    """A folder that comes first on the path, with scripts in place of flashing tools."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, *, output: str = "", code: int = 0, then: str = "") -> None:
        (self.folder / f"{name}.out").write_text(output, encoding="utf-8")
        lines = (
            "#!/bin/sh",
            f"printf '%s\\n' \"$@\" >{self.folder}/{name}.arguments",
            f"cat {self.folder}/{name}.out",
            then,
            f"exit {code}",
        )
        (self.folder / name).write_text("\n".join(lines), encoding="utf-8")
        (self.folder / name).chmod(0o755)

    def arguments(self, name: str) -> list[str] | None:
        """What it was told; None where it was not called."""
        file = self.folder / f"{name}.arguments"
        return file.read_text(encoding="utf-8").splitlines() if file.exists() else None


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tools:
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return Tools(folder)


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No port and no ST-LINK of this machine is seen or touched, and no lock of the user."""
    monkeypatch.setenv("BITLOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("serial.tools.list_ports.comports", list)
    monkeypatch.setattr(flash, "_USB_DEVICES", tmp_path / "no-usb")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A firmware that seems to be built: these tests look at what is done with it."""
    elf = tmp_path / "firmware.elf"
    elf.touch()
    monkeypatch.setattr(flash, "build_firmware", lambda environment, each_line=None: elf)
    return elf


def port(device: str, numbers: tuple[int, int], serial_number: str = "") -> ListPortInfo:
    info = ListPortInfo(device)
    info.vid, info.pid = numbers
    info.serial_number = serial_number
    return info


def plug_in(monkeypatch: pytest.MonkeyPatch, *ports: ListPortInfo) -> None:
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: list(ports))


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["firmware", "flash", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def openocd_arguments(target: str, elf: Path, adapter: str = "") -> list[str]:
    """As in OpenOCD's manual, section 12.4 "Flash programming"; each -f and -c with what belongs to it."""
    which = ["-c", f"adapter serial {adapter}"] if adapter else []
    return [
        *("-f", "interface/stlink.cfg", *which, "-f", f"target/{target}.cfg"),
        *("-c", f"program {{{elf}}} verify reset exit"),
    ]


def test_a_nucleo_is_written_through_its_stlink(tools: Tools, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.make("openocd", output="** Verified OK **\n")
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK, "066CFF"))
    result = invoke("nucleo_f446re", "--no-check")
    assert result.exit_code == 0
    assert tools.arguments("openocd") == openocd_arguments("stm32f4x", built)
    assert f"nucleo_f446re was flashed through an ST-LINK: {built}" in result.stdout
    assert "** Verified OK **" in result.stderr


def test_of_two_stlinks_one_is_named_by_its_port(tools: Tools, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.make("openocd")
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK, "AAA"), port("/dev/ttyACM1", STLINK, "BBB"))
    refused = invoke("nucleo_f446re", "--no-check")
    assert refused.exit_code == 2
    assert "/dev/ttyACM0, /dev/ttyACM1" in refused.stderr
    assert tools.arguments("openocd") is None
    assert invoke("nucleo_f446re", "--port", "/dev/ttyACM1", "--no-check").exit_code == 0
    assert tools.arguments("openocd") == openocd_arguments("stm32f4x", built, "BBB")


def test_stlinks_without_a_serial_port_are_counted(
    tools: Tools, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools.make("openocd")
    for name, vendor, product in (("1-1", "0483", "3748"), ("1-2", "0483", "374b"), ("1-3", "0483", "5740")):
        (tmp_path / "usb" / name).mkdir(parents=True)
        (tmp_path / "usb" / name / "idVendor").write_text(f"{vendor}\n")
        (tmp_path / "usb" / name / "idProduct").write_text(f"{product}\n")
    monkeypatch.setattr(flash, "_USB_DEVICES", tmp_path / "usb")
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK, "AAA"))
    assert "several ST-LINKs" in invoke("bluepill_f103c8", "--no-check").stderr
    assert tools.arguments("openocd") is None
    shutil.rmtree(tmp_path / "usb/1-1")
    assert invoke("bluepill_f103c8", "--no-check").exit_code == 0


def test_an_adapter_says_nothing_of_the_stlink(tools: Tools, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Discovery board's line goes over an adapter: that port is for asking, its serial number for nobody."""
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK, "AAA"), port("/dev/ttyUSB0", ADAPTER, "FTDI1"))
    tools.make("openocd")
    way = flash.choose_way(find_board("disco_f407vg"), port="/dev/ttyUSB0")
    assert (way.port, way.adapter, way.over_serial) == ("/dev/ttyUSB0", "", False)
    assert flash.choose_way(find_board("disco_f407vg")).port is None
    assert flash.choose_way(find_board("nucleo_f401re")).port == "/dev/ttyACM0"


@pytest.fixture
def terminal() -> Iterator[str]:
    """A port that can be opened."""
    host, device = os.openpty()
    yield os.ttyname(device)
    os.close(host)
    os.close(device)


def test_a_blue_pill_is_written_by_its_bootloader(tools: Tools, built: Path, terminal: str) -> None:
    tools.make("stm32flash")
    result = invoke("bluepill_f103c8", "--protocol", "serial", "--port", terminal, "--no-check")
    assert result.exit_code == 0
    image = str(built.with_suffix(".bin"))
    # stm32flash(1): "Write with verify and then start execution: stm32flash -w filename -v -g 0x0 /dev/ttyS0"
    assert tools.arguments("stm32flash") == ["-b", "115200", "-v", "-w", image, "-g", "0x08000000", terminal]


def test_a_port_in_use_is_told_before_the_tool_runs(tools: Tools, built: Path, terminal: str) -> None:
    tools.make("stm32flash")
    with serial.Serial(terminal, exclusive=True):
        result = invoke("bluepill_f103c8", "--protocol", "serial", "--port", terminal)
    assert result.exit_code == 6
    assert "busy" in result.stderr
    absent = invoke("bluepill_f103c8", "--protocol", "serial", "--port", "/dev/ttyNONE")
    assert absent.exit_code == 6
    assert "there is no port /dev/ttyNONE" in absent.stderr
    assert tools.arguments("stm32flash") is None


def test_the_only_port_that_may_be_it_is_taken(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.make("stm32flash")
    board = find_board("bluepill_f103c8")
    with pytest.raises(PortError, match="no serial port now"):
        flash.choose_way(board, protocol="serial")
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK), port("/dev/ttyUSB0", ADAPTER))
    assert flash.choose_way(board, protocol="serial").port == "/dev/ttyUSB0"
    plug_in(monkeypatch, port("/dev/ttyUSB1", ADAPTER), port("/dev/ttyUSB0", ADAPTER))
    with pytest.raises(UsageError, match="/dev/ttyUSB0, /dev/ttyUSB1 may each be bluepill_f103c8"):
        flash.choose_way(board, protocol="serial")
    plug_in(monkeypatch, port("/dev/ttyACM0", STLINK))
    with pytest.raises(PortError, match=r"no port looks like it \(/dev/ttyACM0 are there\)"):
        flash.choose_way(board, protocol="serial")


def test_avrdude_is_told_what_arduino_tells_it() -> None:
    """As tools.avrdude.upload.pattern of arduino-core-avr's platform.txt, with the mega's properties of boards.txt."""
    manifest = {"build": {"mcu": "atmega2560"}, "upload": {"protocol": "wiring", "speed": 115200}}
    upload = platform_module("upload")
    assert upload.images(manifest) == [".hex"]
    assert upload.command(manifest, "wiring", "firmware.hex", "/dev/ttyACM0") == [
        *("avrdude", "-p", "atmega2560", "-c", "wiring", "-P", "/dev/ttyACM0", "-b", "115200", "-D"),
        *("-U", "flash:w:firmware.hex:i"),
    ]


def test_every_chip_can_be_flashed() -> None:
    upload, identity = platform_module("upload"), platform_module("identity")
    for board in BOARDS:
        if find.is_local(board.environment) and board.environment in find.environments():
            protocols = upload.protocols(identity.board_manifest(board.environment))
            assert board.simulated or protocols
            assert set(protocols) <= set(upload.PROTOCOLS)


def test_what_cannot_be_flashed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"emulated, there is nothing to flash: --device qemu://stm32f405"):
        flash.choose_way(find_board("stm32f405"))
    with pytest.raises(UsageError, match="not flashed by 'serial'; there is stlink"):
        flash.choose_way(find_board("nucleo_f446re"), protocol="serial")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolchainError, match=r"openocd, which flashes nucleo_f446re .* apt install openocd"):
        flash.choose_way(find_board("nucleo_f446re"))


def test_never_two_at_once(tools: Tools, built: Path, tmp_path: Path) -> None:
    tools.make("openocd")
    (tmp_path / "cache").mkdir()
    with FileLock(tmp_path / "cache/flash.lock"):
        result = invoke("nucleo_f446re", "--no-check")
    assert result.exit_code == 6
    assert "another bitloop is flashing" in result.stderr
    assert tools.arguments("openocd") is None
    assert invoke("nucleo_f446re", "--no-check").exit_code == 0


def buildable(environment: str) -> str:
    missing = find.missing_to_build(environment)
    if missing:
        pytest.skip(f"{environment} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    firmware_elf(environment)
    return environment


@pytest.mark.parametrize(("presses", "stubborn"), [(1, False), (1, True), (2, True)])
def test_ctrl_c_ends_the_tool_and_says_what_is_left(tools: Tools, tmp_path: Path, presses: int, stubborn: bool) -> None:
    ignore = "trap '' INT\n" if stubborn else ""
    tools.make("openocd", then=f"{ignore}echo $$ >{tmp_path}/pid.part; mv {tmp_path}/pid.part {tmp_path}/pid\nsleep 60")
    buildable("nucleo_f446re")
    command = [sys.executable, "-m", "bitloop", "firmware", "flash", "nucleo_f446re", "--no-check"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "host")}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for((tmp_path / "pid").exists)
        for _ in range(presses):
            pressed = time.monotonic()
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        _, words = process.communicate(timeout=30)
    assert presses == 1 or time.monotonic() - pressed < 3  # sooner than the first one alone
    assert process.returncode == 130
    assert "may hold half a firmware" in words
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def wait_for(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_platformio_alone_flashes_it(tools: Tools) -> None:
    """`pio run -t upload`, as a person types it, builds the same command line."""
    tools.make("openocd")
    environment = buildable("nucleo_f446re")
    code, output = run_platformio(("run", "--environment", environment, "--target", "upload"))
    assert code == 0, output
    relative = Path(".pio/build/nucleo_f446re/firmware.elf")
    assert tools.arguments("openocd") == openocd_arguments("stm32f4x", relative)


PLATFORM = {
    "platform.json": json.dumps({"name": "public", "version": "1.0.0", "frameworks": {}, "packages": {}}),
    "platform.py": "from platformio.public import PlatformBase\nclass PublicPlatform(PlatformBase): pass\n",
    "boards/esp32dev.json": json.dumps({"name": "ESP32", "url": "", "vendor": "", "build": {}, "upload": {}}),
    "builder/main.py": """
from SCons.Script import DefaultEnvironment, Default
env = DefaultEnvironment()
elf = env.Command("$BUILD_DIR/firmware.elf", [], "touch $TARGET")
Default(env.Alias("buildprog", elf))
env.AddPlatformTarget("upload", elf, "esptool --port $UPLOAD_PORT write-flash 0x10000 $SOURCE", "Upload")
""",
}


def test_an_esp32_is_written_by_platformio(tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The public platform cannot be had in every place: one that stands for it calls the tool as that one does."""
    if find.missing_platformio():
        pytest.skip(f"needs {find.missing_platformio()[0]}; {find.SETUP} installs it")
    project = tmp_path / "project"
    for name, text in PLATFORM.items():
        (project / "public" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "public" / name).write_text(text, encoding="utf-8")
    ini = "[platformio]\ncore_dir = .pio/core\n[env:esp32dev]\nplatform = symlink://public\nboard = esp32dev\n"
    (project / "platformio.ini").write_text(ini, encoding="utf-8")
    monkeypatch.setattr(find, "project", lambda: find.Project(project, ROOT / "device"))
    tools.make("esptool", output="Connecting....\n", code=2)
    plug_in(monkeypatch, port("/dev/ttyUSB0", (0x10C4, 0xEA60)), port("/dev/ttyACM0", STLINK))
    way = flash.choose_way(find_board("esp32dev"))
    assert (way.protocol, way.port, way.over_serial) == ("platformio", "/dev/ttyUSB0", True)
    with pytest.raises(ToolchainError, match=r"(?s)exit code 1.*Connecting"):
        flash.flash(way)
    image = ".pio/build/esp32dev/firmware.elf"
    assert tools.arguments("esptool") == ["--port", "/dev/ttyUSB0", "write-flash", "0x10000", image]
    tools.make("esptool")
    assert flash.flash(way) == project / image


@pytest.fixture
def answering() -> Iterator[Callable[[str, str], str]]:
    """Put a device behind a port, that says it is some board with some firmware; gives the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    device: list[FakeDevice] = []

    def serve() -> None:
        while True:
            try:
                line, _ = listener.accept()
            except OSError:
                return
            with line:
                while device and (data := line.recv(4096)):
                    device[0].receive(data, 0.0)
                    device[0].poll(0.0)
                    line.sendall(b"".join(device[0].out))
                    device[0].out.clear()

    def answer(board: str, firmware: str) -> str:
        device[:] = [FakeDevice(board=board, extra_hello=[(3, bytes.fromhex(firmware))])]
        return f"socket://127.0.0.1:{listener.getsockname()[1]}"

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield answer
    listener.close()


@pytest.mark.parametrize(
    ("there", "code", "words"),
    [
        (("nucleo_f446re", firmware_hash("stm32f4")), 0, "it answers at socket://"),
        (("nucleo_f401re", firmware_hash("stm32f4")), 3, "answers nucleo_f401re"),
        (("nucleo_f446re", "ab" * 32), 3, f"with firmware {'ab' * 32}, flashed was nucleo_f446re"),
    ],
    ids=["itself", "another board", "another firmware"],
)
@pytest.mark.usefixtures("built")
def test_the_board_is_asked_what_it_runs(
    tools: Tools, answering: Callable[[str, str], str], there: tuple[str, str], code: int, words: str
) -> None:
    tools.make("openocd")
    result = invoke("nucleo_f446re", "--port", answering(*there))
    assert result.exit_code == code, result.stderr
    assert words in result.stdout + result.stderr


def test_a_board_that_does_not_answer_is_no_success(tools: Tools, built: Path, terminal: str) -> None:
    tools.make("openocd")
    result = invoke("nucleo_f446re", "--port", terminal)
    assert result.exit_code == 6
    assert f"nucleo_f446re was flashed, but does not answer at {terminal}" in result.stderr


def test_without_a_port_to_ask_at_it_is_said_that_nobody_was_asked(tools: Tools, built: Path) -> None:
    tools.make("openocd")
    result = invoke("nucleo_f446re")
    assert result.exit_code == 0
    assert "not checked" in result.stderr
