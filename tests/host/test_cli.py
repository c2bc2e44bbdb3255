"""The command line: help, codes, tables and JSON of the commands that need no device."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from serial.tools.list_ports_common import ListPortInfo
from typer.testing import CliRunner, Result

import bitloop
from bitloop import errors
from bitloop.bench.options import LineOptions, RunOptions
from bitloop.bench.record import schema_path
from bitloop.cli import console
from bitloop.cli.app import EXIT_CODES, app
from bitloop.cli.commands.run import run
from bitloop.data.dataset import Dataset
from bitloop.network.network import Network
from bitloop.quantize import blm

COMMANDS = (
    "demo",
    "devices",
    "train",
    "quantize",
    "inspect",
    "simulate",
    "run",
    "sweep",
    "report",
    "monitor",
    "firmware",
)


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def plain(text: str) -> str:
    """Take the frames and line ends of help pages away."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_is_given_what_the_options_of_python_are() -> None:
    """The command's defaults stand there as numbers, since what they are of takes long to import."""
    given = {name: parameter.default for name, parameter in inspect.signature(run).parameters.items()}
    line = LineOptions()
    assert (given["baud"], given["max_baud"], given["coded"]) == (line.baud, line.max_baud, line.coded)
    options = RunOptions()
    assert (given["mode"], given["warm_up"], given["audit"]) == (
        options.mode, options.warm_up_images, options.audit_images,
    )  # fmt: skip


def test_version() -> None:
    assert invoke("--version").stdout.split() == ["bitloop", bitloop.__version__]


def test_help_lists_commands_and_exit_codes() -> None:
    text = plain(invoke("--help").stdout)
    for command in COMMANDS:
        assert f" {command} " in text
    for code, meaning in EXIT_CODES:
        assert f"{code} {meaning}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f" {command} " in plain(result.stdout)
    assert "--help" in result.stdout


def all_errors(kind: type[errors.BitloopError] = errors.BitloopError) -> Iterator[type[errors.BitloopError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from all_errors(child)


def test_the_help_knows_the_code_of_every_error() -> None:
    assert {kind.exit_code for kind in all_errors()} | {0} == {code for code, _ in EXIT_CODES}


def test_start_is_light() -> None:
    code = (
        "import sys; from bitloop.cli.app import app; "
        "print([m for m in ('numpy', 'matplotlib', 'jinja2', 'tensorflow', 'keras') if m in sys.modules])"
    )
    path = {"PYTHONPATH": str(Path(bitloop.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=path)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", [errors.FormatError, errors.PortError, errors.ToolchainError, errors.SealedSplitError])
def test_errors_become_a_message_and_a_code(
    here: Path, monkeypatch: pytest.MonkeyPatch, kind: type[errors.BitloopError]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise kind("found [bold]that[/bold], expected this")

    monkeypatch.setattr("bitloop.network.network.load_network", broken)
    result = invoke("quantize", "mlp")
    assert result.exit_code == kind.exit_code
    assert result.stderr == "error: found [bold]that[/bold], expected this\n"
    assert result.stdout == ""
    debugged = CliRunner().invoke(app, ["--debug", "quantize", "mlp"])
    assert isinstance(debugged.exception, kind)
    console.configure(verbose=0, debug=False)


def test_interrupt_is_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitloop.network.network.load_network", interrupted)
    result = invoke("quantize", "mlp")
    assert (result.exit_code, result.stderr) == (130, "error: interrupted\n")


def test_unknown_commands_and_options_are_2() -> None:
    assert invoke("nosuch").exit_code == 2
    assert invoke("run", "mlp", "--nosuch").exit_code == 2
    assert invoke("run").exit_code == 2


def test_quantize_writes_what_inspect_reads(here: Path) -> None:
    arguments = ("--weights", "e4m3:pow2", "--biases", "e5m2", "--set", "dense1.weights=int4:channel")
    made = invoke("quantize", "mlp", *arguments, "--out", "m.blm", "--json")
    assert made.exit_code == 0
    document = json.loads(made.stdout)
    inspected = json.loads(invoke("inspect", "m.blm", "--json").stdout)
    assert {key: inspected[key] for key in document} == document
    tensors = {tensor["name"]: tensor for tensor in document["sizes"]["tensors"]}
    # 784 × 32 codes of 4 bits, 32 scales of 4 bytes; 32 × 16 codes of 8 bits, one scale; biases of 8 bits.
    assert (tensors["dense1.weights"]["codes"], tensors["dense1.weights"]["scales"]) == (12544, 128)
    assert (tensors["dense2.weights"]["codes"], tensors["dense2.weights"]["scales"]) == (512, 4)
    assert (tensors["dense3.biases"]["codes"], tensors["dense3.biases"]["scales"]) == (10, 0)
    assert document["sizes"]["fp32"] == 4 * (784 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10)
    assert document["overrides"] == ["dense1.weights=int4:channel"]
    table = invoke("inspect", "m.blm")
    for text in ("dense1.weights", "12,544", "103,272", document["sha256"]):
        assert text in table.stdout
    assert table.stderr == ""


def test_quantize_never_writes_over_a_file_unasked(here: Path) -> None:
    assert invoke("quantize", "mlp", "--weights", "int8").exit_code == 0
    before = Path("mlp.blm").read_bytes()
    refused = invoke("quantize", "mlp", "--weights", "int4")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert Path("mlp.blm").read_bytes() == before
    assert invoke("quantize", "mlp", "--weights", "int4", "--force").exit_code == 0
    assert Path("mlp.blm").read_bytes() != before


def test_a_model_is_not_quantized_again(here: Path) -> None:
    invoke("quantize", "mlp", "--weights", "int8")
    assert invoke("quantize", "mlp.blm", "--weights", "int4", "--out", "x.blm").exit_code == 2
    assert invoke("simulate", "mlp.blm", "--weights", "int4").exit_code == 2
    assert invoke("quantize", "mlp", "--out", "mlp.bin").exit_code == 2
    assert sorted(path.name for path in here.iterdir()) == ["mlp.blm"]


def test_a_network_that_takes_bytes_is_brought_to_one(here: Path) -> None:
    file = Path(__file__).parent / "fixtures/vector.tflite"
    for out, options in (("one.blm", ()), ("bytes.blm", ("--pixel-range", "255"))):
        assert invoke("quantize", file, *options, "--out", out).exit_code == 0
    one, of_bytes = (blm.load(here / name).tensors for name in ("one.blm", "bytes.blm"))
    first, *others = (name for name in one if name.endswith(".weights"))
    assert np.allclose(of_bytes[first].values(), 255 * one[first].values().astype(np.float64), rtol=1e-7)
    assert all(np.array_equal(of_bytes[name].values(), one[name].values()) for name in others)
    refused = invoke("quantize", "mlp", "--pixel-range", "255", "--out", "x.blm")
    assert refused.exit_code == 2
    assert "--pixel-range" in refused.stderr
    assert invoke("quantize", file, "--pixel-range", "7", "--out", "x.blm").exit_code == 2
    assert not Path("x.blm").exists()


def test_simulate_counts_right_labels(here: Path, mnist: Dataset, mnist_dir: Path, networks: object) -> None:
    result = invoke("simulate", "mlp", "--data", mnist_dir, "--split", "search", "--limit", "200", "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    network = Network.load_npz(Path(bitloop.__file__).parent / "network/weights/mlp.npz")
    from bitloop.data.splits import Split

    images = mnist.split(Split.SEARCH).first(200)
    x = images.pixels.reshape(200, -1) / 255.0
    for number in (1, 2, 3):
        x = x @ network.parameters[f"dense{number}.weights"] + network.parameters[f"dense{number}.biases"]
        x = np_relu(x) if number < 3 else x
    assert document["accuracy"]["correct"] == int((x.argmax(axis=1) == images.labels).sum())
    assert (document["dataset"], document["split"], document["accuracy"]["total"]) == ("mnist", "search", 200)
    assert document["vault"] == []
    opened = invoke("simulate", "mlp", "--data", mnist_dir, "--split", "test", "--limit", "10", "--json")
    assert json.loads(opened.stdout)["vault"] != []


def np_relu(x: object) -> object:
    import numpy as np

    return np.maximum(x, 0)


def usb_port(device: str, vendor: int, product: int, name: str) -> ListPortInfo:
    info = ListPortInfo(device)
    info.vid, info.pid, info.product, info.description, info.serial_number = vendor, product, name, name, "066CFF"
    info.apply_usb_info()
    return info


def test_devices_tells_what_hangs_on_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    ports = [
        usb_port("/dev/ttyUSB0", 0x10C4, 0xEA60, "a [red]bridge[/red]"),
        usb_port("/dev/ttyACM0", 0x0483, 0x374B, "STM32 STLink"),
        usb_port("/dev/ttyUSB1", 0x1234, 0x0001, "mystery"),
        ListPortInfo("/dev/ttyS0"),
    ]
    monkeypatch.setattr("serial.tools.list_ports.comports", lambda: ports)
    found = {each["url"]: each for each in json.loads(invoke("devices", "--json").stdout)}
    assert list(found)[:5] == ["/dev/ttyACM0", "/dev/ttyS0", "/dev/ttyUSB0", "/dev/ttyUSB1", "sim://native"]
    assert [each["simulated"] for each in found.values()][:5] == [False] * 4 + [True]
    probe = found["/dev/ttyACM0"]
    assert (probe["usb_vendor"], probe["usb_product"], probe["serial_number"]) == (0x0483, 0x374B, "066CFF")
    assert (probe["usb_name"], probe["any_board"]) == ("ST-LINK/V2-1", False)
    assert probe["boards"] == ["nucleo_f446re", "nucleo_f401re", "nucleo_f411re"]
    assert (found["/dev/ttyUSB1"]["usb_name"], found["/dev/ttyUSB1"]["any_board"]) == (None, True)
    assert found["/dev/ttyS0"]["usb_vendor"] is None
    table = invoke("devices").stdout
    for words in ("a [red]bridge[/red]", "10c4:ea60", "Silicon Labs CP210x", "0483:374b", "nucleo_f401re"):
        assert words in table


def test_devices_says_what_is_missing_for_an_emulated_board(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        return None

    monkeypatch.setattr("bitloop.firmware.find.shutil.which", nothing)
    monkeypatch.setattr("bitloop.firmware.build.is_current", lambda environment: False)
    found = {each["url"]: each for each in json.loads(invoke("devices", "--json").stdout)}
    assert "the emulator qemu-system-arm (apt install qemu-system-arm)" in found["qemu://stm32f405"]["missing"]
    missing = "the compiler arm-none-eabi-gcc (apt install gcc-arm-none-eabi)"
    assert missing in found["qemu://stm32f405"]["missing"]
    monkeypatch.setattr("bitloop.firmware.build.is_current", lambda environment: True)
    found = {each["url"]: each for each in json.loads(invoke("devices", "--json").stdout)}
    assert found["qemu://stm32f405"]["missing"] == ["the emulator qemu-system-arm (apt install qemu-system-arm)"]
    assert "missing: the emulator qemu-system-arm" in invoke("devices").stdout


def test_train_refuses_before_it_loads_anything(here: Path) -> None:
    assert invoke("train", "nosuch").exit_code == 5
    assert invoke("train", "mlp", "--out", "mlp.bin").exit_code == 2
    assert invoke("train", "mlp", "--loss", "hinge").exit_code == 2
    (here / "mlp.npz").write_text("mine")
    assert invoke("train", "mlp").exit_code == 2
    assert (here / "mlp.npz").read_text() == "mine"


def test_report_refuses_what_is_no_run(here: Path) -> None:
    result = invoke("report", here)
    assert result.exit_code == 4
    assert "run.json" in result.stderr
    assert list(here.iterdir()) == []


def test_the_page_on_the_command_line_is_complete() -> None:
    page = (Path(__file__).parents[2] / "docs/cli.md").read_text(encoding="utf-8")
    for code, meaning in EXIT_CODES:
        assert f"| {code} | {meaning} |" in page
    for command in COMMANDS:
        assert re.search(rf"^\| `{command}\b", page, flags=re.MULTILINE)
    schema = json.loads(schema_path().read_text(encoding="utf-8"))
    for key in schema["properties"]:
        assert f"`{key}`" in page
    for key in schema["$defs"]["Exact"]["properties"]:
        assert key in page
