"""The page in a real browser: no error, no request, no sideways scrolling, readable in light and dark."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bitloop.bench.record import read_record

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: no browser to test pages in"
)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed: no browser to test pages in")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("name", ["exact", "disagree", "lying", "failed"])
@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_page_shows_well(browser: Any, runs: dict[str, Path], name: str, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    address = (runs[name] / "report.html").as_uri()
    page.goto(address)

    assert problems == []
    assert [url for url in requests if not url.startswith("data:")] == [address]
    heading = page.locator("h1, h2, h3").first
    assert heading.inner_text() == read_record(runs[name] / "run.json").headline
    assert heading.is_visible()
    assert heading.bounding_box()["y"] < 200
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter(image => !image.complete || image.naturalWidth !== 28).length"
    assert page.evaluate(broken) == 0
    assert page.evaluate("[...document.querySelectorAll('svg')].every(svg => svg.getBoundingClientRect().height > 20)")
    # Contrast of text to its page (WCAG 2.2, 1.4.3) in both schemes: at least 4.5.
    assert page.evaluate(_CONTRAST) >= 4.5
    page.close()


_CONTRAST = """() => {
  const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
  const luminance = colour => rgb(colour).map(c => c / 255)
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
  const texts = 'h1, h2, header p, .badge, .title, .value, .note, dt, dd, thead th';
  return Math.min(...[...document.querySelectorAll(texts)].map(ratio));
}"""


def test_page_prints_without_colour_behind_it(browser: Any, runs: dict[str, Path]) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto((runs["exact"] / "report.html").as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
    page.close()
