"""The options of sim:// URLs, and what the handler may import."""

import ast
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
            "unknown option 'arenas'; there are arena, ram, body, window, boot_count, board, fault",
        ),
        ("sim://native?arena=8k&ram=8k", "option 'ram' is given twice"),
        ("sim://native?arena", "arena"),
        ("sim://native?arena=", "'' is no size"),
        ("sim://native?boot_count=x", "boot_count 'x' is no number"),
    ],
)
def test_wrong_urls(url, what):
    with pytest.raises(SerialException, match=what):
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
