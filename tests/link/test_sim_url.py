"""The options of sim:// URLs, and what the handler may import."""

import ast
import re
import sys
from pathlib import Path

import pytest
from serial import SerialException

import bitloop.link.urls.protocol_sim as sim


@pytest.mark.parametrize(
    ("text", "size"), [("8192", 8192), ("8k", 8192), ("8K", 8192), ("1M", 1 << 20), ("2g", 2 << 30), ("1", 1)]
)
def test_sizes(text, size):
    assert sim.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "0", "-1", "1.5k", "8kk", "8 k", "0x10", "٣"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size; write it as 8192, 8k or 1M"):
        sim.parse_size(text)


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("sim://native", []),
        ("SIM://native/", []),
        ("sim://native?arena=64k", ["--arena", "65536"]),
        ("sim://native?ram=8k&body=256&window=1k", ["--arena", "8192", "--body", "256", "--window", "1024"]),
        ("sim://native?boot_count=7&board=mine", ["--boot-count", "7", "--board", "mine"]),
        ("sim://native?send_body=64&ranges=7&codings=3", ["--send-body", "64", "--ranges", "7", "--codings", "3"]),
        ("sim://native?compute=10ms&delta=off", ["--compute-us", "10000", "--no-delta"]),
        ("sim://native?compute=250us&delta=on", ["--compute-us", "250"]),
        ("sim://native?baud=auto&boot_baud=9600&max_baud=1000000", ["--boot-baud", "9600", "--max-baud", "1000000"]),
        ("sim://native?baud=auto", []),
        ("sim://native?fault=layer:1,ulp:1", ["--fault", "layer:1,ulp:1"]),
        ("sim://native?fault=log;probe:2&fault=bias:1", ["--fault", "log", "--fault", "probe:2", "--fault", "bias:1"]),
        ("sim://native?fault=silent:after%3D5", ["--fault", "silent:after=5"]),
        ("sim://native?fault=silent:after=5", ["--fault", "silent:after=5"]),
    ],
)
def test_arguments(url, arguments):
    assert sim.arguments_of(url) == arguments


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("sim://", "no such simulated device"),
        ("sim://nativ", "sim://native is the one there is"),
        ("sim://native/x", "no such simulated device"),
        (
            "sim://native?arenas=8k",
            "unknown option 'arenas'; there are arena, ram, body, send_body, window, boot_count, ranges, codings, "
            "boot_baud, max_baud, board, compute, delta, baud, fault",
        ),
        ("sim://native?arena=8k&ram=8k", "option 'ram' is given twice"),
        ("sim://native?arena", "arena"),
        ("sim://native?arena=", "'' is no size"),
        ("sim://native?boot_count=x", "boot_count 'x' is no whole number"),
        ("sim://native?codings=-1", "codings '-1' is no whole number"),
        ("sim://native?max_baud=0&baud=auto", "max_baud '0' is no whole number of 1"),
        ("sim://native?max_baud=460800", "boot_baud and max_baud need baud=auto"),
        ("sim://native?baud=auto&max_baud=9600", "the rate at boot (boot_baud) is above"),
        ("sim://native?compute=10", "'10' is no time; write it as 5s, 16ms or 250us"),
        ("sim://native?compute=1ms&compute=2ms", "option 'compute' is given twice"),
        ("sim://native?delta=no", "delta 'no' is neither on nor off"),
        ("sim://native?baud=921600", "baud '921600' is not auto"),
    ],
)
def test_wrong_urls(url, what):
    with pytest.raises(SerialException, match=re.escape(what)):
        sim.arguments_of(url)


def test_the_handlers_import_the_standard_library_and_pyserial_only():
    """pyserial imports a handler to look whether it is the one; and takes an ImportError for an unknown protocol."""
    folder = Path(sim.__file__).parent
    for path in [*folder.glob("*.py"), folder.parent / "__init__.py"]:
        for node in ast.parse(path.read_text()).body:
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module]
            for name in names:
                top = name.split(".")[0]
                known = top == "serial" or top in sys.stdlib_module_names or name.startswith("bitloop.link.urls")
                assert known, f"{path.name} imports {name}"
