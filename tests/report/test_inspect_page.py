"""``bitloop inspect`` with the network that a MODEL was quantized from: table, JSON, and the page, in a browser too."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from bitloop.cli.app import app
from bitloop.errors import UsageError
from bitloop.network.network import Network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.histogram import value_histogram
from bitloop.quantize.inspection import Inspection, inspect_model
from bitloop.quantize.model import Model
from bitloop.quantize.quality import TensorError, tensor_error
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.spec import parse_tensor_spec
from bitloop.report.inspect_page import codes_words, render_inspection, share_words, write_inspect_page
from bitloop.report.tensor_plots import decibel_words, sqnr_bars, tensor_histogram

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SATURATED = "var(--series-2)"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: Callable[[str], Network]) -> Path:
    """A directory with ``mine.npz`` and the MODEL ``mine.blm`` of it, in int3 with a scale of least squares."""
    monkeypatch.chdir(tmp_path)
    network = networks("mlp8k")
    network.save_npz(tmp_path / "mine.npz")
    blm.save(quantize(network, parse_recipe("int3:channel:mse", "e4m3")), tmp_path / "mine.blm")
    return tmp_path


@pytest.fixture(scope="module", params=["e3m1:pow2", "int4:channel", "ternary", "alone"])
def shown(request: pytest.FixtureRequest, networks: Callable[[str], Network]) -> tuple[Inspection, str]:
    """Measures of such a network in several formats, and their page; one of its MODEL alone."""
    network = networks("mlp8k")
    alone = request.param == "alone"
    model = quantize(network, parse_recipe("int2" if alone else request.param))
    found = inspect_model(model, None if alone else network)
    return found, render_inspection(found, source="mine.blm")


def invoke(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["inspect", *(str(argument) for argument in arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_table_and_json_say_the_same(here: Path) -> None:
    document = json.loads(invoke("mine.blm", "--network", "mine.npz", "--json").stdout)["quality"]
    table = invoke("mine.blm", "--network", "mine.npz").stdout
    assert document["network"] == "mlp8k"
    assert f"{document['sqnr_db']:.1f} dB signal to quantization noise" in table
    lines = {line.split()[0]: line for line in table.partition("What quantization did")[2].splitlines() if line.strip()}
    for tensor in document["tensors"]:
        error = tensor["error"]
        line = lines[tensor["name"]]
        assert f"{error['sqnr_db']:.1f} dB" in line
        assert f"{error['max_error']:.3g}" in line
        assert share_words(error["saturated"], error["elements"]) in line
        assert share_words(error["zeroed"], error["elements"]) in line
        assert f"{tensor['used_codes']} of {tensor['codes']}" in line
    # int3 with a scale of least squares clips; e4m3 without a scale does not.
    weights, biases = document["tensors"][:2]
    assert weights["error"]["saturated"] > 0
    assert weights["error"]["saturated"] == weights["histogram"]["below"] + weights["histogram"]["above"]
    assert (biases["error"]["saturated"], biases["histogram"]["below"]) == (0, 0)


def test_quantized_on_the_fly_the_network_is_known(here: Path) -> None:
    asked = ("-w", "int3:channel:mse", "-b", "e4m3", "--json")
    on_the_fly = json.loads(invoke("mine.npz", *asked).stdout)
    from_files = json.loads(invoke("mine.blm", "--network", "mine.npz", "--json").stdout)
    assert on_the_fly["sha256"] == from_files["sha256"]
    assert on_the_fly["quality"] == from_files["quality"]


def test_a_model_alone_shows_its_codes(here: Path) -> None:
    document = json.loads(invoke("mine.blm", "--json").stdout)["quality"]
    assert (document["network"], document["sqnr_db"], document["exact"]) == (None, None, None)
    assert all(tensor["error"] is None for tensor in document["tensors"])
    text = invoke("mine.blm", "--page", "a.html").stdout
    assert "SQNR" not in text
    assert "Page: a.html" in text
    page = Path("a.html").read_text(encoding="utf-8")
    assert "Signal to quantization noise" not in page
    assert "Saturated" not in page
    assert page.count("<svg") == 4


def test_an_exact_model_says_so(here: Path) -> None:
    document = json.loads(invoke("mine.npz", "-w", "fp32", "--json").stdout)["quality"]
    assert (document["sqnr_db"], document["exact"]) == (None, True)
    assert all(tensor["error"]["exact"] for tensor in document["tensors"])
    table = invoke("mine.npz", "-w", "fp32").stdout
    assert "What quantization did: exact" in table
    assert "dB" not in table


def test_what_cannot_be_is_refused(here: Path, networks: Callable[[str], Network]) -> None:
    networks("mlp").save_npz(here / "other.npz")
    before = sorted(here.iterdir())
    for code, words, arguments in (
        (2, "quantized already", ("mine.blm", "-w", "int4")),
        (2, "leave it out", ("mine.blm", "--pixel-range", "255")),
        (2, "a network itself", ("mine.npz", "-w", "int4", "--network", "mine.npz")),
        (2, "--weights, --biases or --set", ("mine.npz",)),
        (2, "does not end with .html", ("mine.blm", "--page", "page.txt")),
        (2, "does not end with .html", ("nosuch.blm", "--page", "mine.npz")),
        (2, "cannot be written", ("mine.blm", "--page", "no/such/directory.html")),
        (5, "was not quantized from mlp", ("mine.blm", "--network", "other.npz", "--page", "page.html")),
        (5, "there is no file", ("mine.blm", "--network", "nosuch.npz")),
        (5, "calibration images", ("mine.npz", "-w", "int4:adaround")),
        (5, "nosuch.blm", ("nosuch.blm",)),
    ):
        refused = invoke(*arguments)
        assert (refused.exit_code, refused.stdout) == (code, ""), (arguments, refused.output)
        assert words in " ".join(refused.stderr.split())
    assert sorted(here.iterdir()) == before


def test_a_network_that_it_cannot_be_made_from_is_doubted(here: Path, networks: Callable[[str], Network]) -> None:
    network = networks("mlp8k")
    other = {name: np.ascontiguousarray(-values) for name, values in network.parameters.items()}
    Network(network.architecture, other).save_npz(here / "other.npz")
    assert "more noise than signal" in invoke("mine.blm", "--network", "other.npz").stderr
    assert invoke("mine.blm", "--network", "mine.npz").stderr == ""


class Page(HTMLParser):
    """Tags with their attributes, and the text of the body."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += "" if self._inside in {"style", "title"} else data


def test_the_page_holds_everything_and_nothing_from_outside(shown: tuple[Inspection, str]) -> None:
    found, text = shown
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for attribute in ("src", "href", "xlink:href", "data", "poster"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    assert "@import" not in text
    assert not re.search(r"url\((?!#|\"?data:)", text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert (headings[0], headings.count(1)) == (1, 1)
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))
    assert sum(tag == "svg" for tag, _ in page.tags) == len(found.codes) + bool(found.errors)
    assert found.model.sha256 in page.text
    for tensor in found.codes:
        assert tensor.name in page.text
        assert codes_words(tensor) in page.text
    for error in found.errors:
        assert decibel_words(error.sqnr_db) in page.text
        assert f"{error.max_error:.3g}" in page.text
        assert share_words(error.zeroed, error.elements) in page.text


def test_text_from_outside_is_escaped(networks: Callable[[str], Network]) -> None:
    poison = "<script>alert(1)</script>\"'><img src=x onerror=y>&amp;$x^2$"
    network = networks("mlp8k")
    architecture = replace(network.architecture, name=poison)
    made = quantize(Network(architecture, network.parameters), parse_recipe("int4"))
    model = Model(poison, poison, architecture, {**made.recipe, "weights": poison}, made.tensors)
    text = render_inspection(
        inspect_model(model, Network(architecture, network.parameters)), source=poison, command=poison
    )
    page = Page(text)
    assert all(tag not in {"script", "img"} and "onerror" not in attributes for tag, attributes in page.tags)
    assert page.text.count(poison) >= 4


def test_a_page_has_the_name_of_a_page(shown: tuple[Inspection, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"page\.npz does not end with \.html"):
        write_inspect_page(shown[0], tmp_path / "page.npz", source="mine.blm")
    assert not list(tmp_path.iterdir())


def test_saturation_and_reach_are_drawn() -> None:
    values = np.array([[0.25, 3.0], [-0.5, -1.0]] * 30, np.float32)

    def drawn(spec: str) -> str:
        tensor = quantize_tensor("a.weights", values, parse_tensor_spec(spec))
        return tensor_histogram(value_histogram(tensor, values), name="t", title=f"a.weights, {spec}")

    assert SATURATED in drawn("q0.3")
    assert "30 saturated" in drawn("q0.3")  # the threes; −1 is its least element
    assert SATURATED not in drawn("int4:channel")
    assert "value / scale of its channel" in drawn("int4:channel")
    assert "to 5.734e+04 →" in drawn("e5m2")
    assert "→" not in drawn("e3m1:pow2")
    for spec in ("binary", "e4m0:away", "uint8:affine:channel"):
        assert "aria-label" in drawn(spec)


@pytest.mark.parametrize("spec", ["int4", "fp32", "binary", "e1m0"])
def test_all_zeros_can_be_drawn(spec: str) -> None:
    values = np.zeros((3, 2), np.float32)
    tensor = quantize_tensor("a.weights", values, parse_tensor_spec(spec))
    assert "6 values" in tensor_histogram(value_histogram(tensor, values), name="t", title="a.weights")
    assert "a.weights" in sqnr_bars([tensor_error(tensor, values)])


def test_bars_say_what_has_no_length() -> None:
    def error(signal: float, noise: float) -> TensorError:
        found = tensor_error(quantize_tensor("a.b", np.ones(1, np.float32), parse_tensor_spec("fp32")), np.ones(1))
        return replace(found, signal=signal, noise=noise)

    text = sqnr_bars([error(1, 0), error(0, 1), error(1, 10), error(1000, 1)])
    assert "a.b exact, a.b all noise, a.b -10.0 dB, a.b 30.0 dB" in text


def test_shares_of_little_are_not_told_as_none() -> None:
    assert (share_words(0, 10), share_words(1, 1_000_000), share_words(1, 8)) == ("0", "< 0.01 %", "12.50 %")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no browser to test pages in")
    playwright: Any = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


def test_the_page_shows_well(browser: Any, shown: tuple[Inspection, str], tmp_path: Path) -> None:
    address = tmp_path / "page.html"
    address.write_text(shown[1], "utf-8")
    for width, scheme in ((390, "light"), (1280, "dark")):
        page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
        problems: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message, problems=problems: problems.append(message.text))
        page.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
        page.on("request", lambda request, requests=requests: requests.append(request.url))
        page.goto(address.as_uri())
        assert problems == []
        assert [url for url in requests if not url.startswith("data:")] == [address.as_uri()]
        assert page.locator("h1").bounding_box()["y"] < 200
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("[...document.querySelectorAll('svg')].every(s => s.getBoundingClientRect().height > 20)")
        assert page.evaluate(_CONTRAST) >= 4.5
        page.close()


_CONTRAST = """() => {
  const luminance = colour => colour.match(/[\\d.]+/g).slice(0, 3).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    const colour = getComputedStyle(element).backgroundColor;
    return /rgba\\(.*, 0\\)/.test(colour) ? ground(element.parentElement) : colour;
  };
  const ratio = element => {
    const [low, high] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const texts = 'h1, h2, h3, h3 span, header p, .title, .value, .note, .muted, dt, dd, th, td';
  return Math.min(...[...document.querySelectorAll(texts)].map(ratio));
}"""
"""The least contrast of text to what is behind it (WCAG 2.2, 1.4.3)."""
