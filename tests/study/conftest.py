"""What tests of studies share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from bitloop.bench import select
from bitloop.cli.app import app
from bitloop.data.dataset import Dataset, Images
from bitloop.data.splits import Split
from bitloop.network.architecture import Architecture, Dense, Flatten, ReLU
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import labels, simulate
from bitloop.study.grid import Grid
from bitloop.study.sweep import Sweep, SweepOptions, run_sweep

Run = Callable[..., Sweep]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def command() -> Callable[..., Any]:
    """Run ``bitloop ARGUMENTS``; what is raised besides an exit fails the test."""

    def run(*arguments: str) -> Any:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def found_images(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Images, Images], None]:
    """Let commands find these images as MNIST's: of the confirm split, and of all others; go to a new directory."""

    def found(confirm: Images, others: Images) -> None:
        def load(name: str = "mnist", directory: Path | None = None, *, progress: object = None) -> Dataset:
            parts = {
                split: (images.pixels.copy(), images.labels.copy(), images.index.copy())
                for split, images in ((each, confirm if each is Split.CONFIRM else others) for each in Split)
            }
            return Dataset.build("mnist", others.sha256, "drawn by a test", parts)

        monkeypatch.setattr(select, "load", load)
        monkeypatch.chdir(tmp_path)

    return found


@pytest.fixture
def drawn_command(
    command: Callable[..., Any],
    found_images: Callable[[Images, Images], None],
    tmp_path: Path,
    drawn_images: Images,
    networks: Callable[[str], Network],
) -> Callable[..., Any]:
    """Run ``bitloop ARGUMENTS`` in a directory that holds ``mine.npz``, on drawn images."""
    found_images(drawn_images, drawn_images)
    networks("mlp8k").save_npz(tmp_path / "mine.npz")
    return command


@pytest.fixture
def shows_well(tmp_path: Path) -> Callable[[str], None]:
    """See that a page shows on a narrow and on a wide screen: no error, nothing too wide, no flat drawing."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: no browser to test pages in")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

    def see(html: str) -> None:
        (tmp_path / "page.html").write_text(html)
        with playwright.sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            for width, scheme in ((390, "light"), (1280, "dark")):
                page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
                problems: list[str] = []
                page.on("console", lambda message, problems=problems: problems.append(message.text))
                page.goto((tmp_path / "page.html").as_uri())
                assert problems == []
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                heights = "[...document.querySelectorAll('svg')].every(svg => svg.getBoundingClientRect().height > 20)"
                assert page.evaluate(heights)
            browser.close()

    return see


@pytest.fixture
def sweep(networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path) -> Run:
    """Sweep a network with weights drawn at random: ``sweep(Grid(...), "mlp8k", out=..., checked_images=...)``."""

    def run(
        grid: Grid,
        name: str = "mlp8k",
        *,
        images: int = 60,
        out: Path | None = None,
        checked_images: int = 20,
        processes: int = 2,
        margin: float = 0.003,
    ) -> Sweep:
        return run_sweep(
            networks(name),
            drawn_images.first(images),
            grid,
            out or tmp_path / "sweep",
            options=SweepOptions(checked_images=checked_images, processes=processes, margin=margin),
        )

    return run


@pytest.fixture(scope="session")
def deep() -> Callable[[int], Network]:
    """Give a network of so many dense layers of 12 outputs, the last of 10, with weights drawn at random."""

    def network(count: int) -> Network:
        layers = [Flatten("flatten")]
        for number in range(1, count):
            layers += [Dense(f"dense{number}", 12), ReLU(f"relu{number}")]
        architecture = Architecture(f"deep{count}", (28, 28, 1), (*layers, Dense(f"dense{count}", 10)))
        generator = np.random.default_rng(3)
        parameters = {
            name: (generator.normal(size=shape) * (0.9 / np.sqrt(shape[0]) if len(shape) > 1 else 0.1)).astype(
                np.float32
            )
            for name, shape in architecture.parameter_shapes().items()
        }
        return Network(architecture, parameters, "mnist", {})

    return network


@pytest.fixture(scope="session")
def labelled(drawn_images: Images) -> Callable[[Network], tuple[Images, Images]]:
    """Give drawn images for search and for confirm, labelled as a network labels them: binary32 loses nothing."""

    def images(network: Network) -> tuple[Images, Images]:
        base = quantize(network, parse_recipe("fp32", "fp32"))
        true = labels(simulate(base, drawn_images.pixels)).astype(np.uint8)
        every = replace(drawn_images, labels=true)
        parts = []
        for part, split in ((slice(0, 60), Split.SEARCH), (slice(60, None), Split.CONFIRM)):
            arrays = {name: getattr(every, name)[part] for name in ("pixels", "labels", "index")}
            parts.append(replace(every, **arrays, split=split))
        return parts[0], parts[1]

    return images
