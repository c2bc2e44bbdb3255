"""Fixtures that all tests share: MNIST, networks and images that need no data set, a state directory apart."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bitloop.data.dataset import Dataset, Images, load
from bitloop.data.splits import Split
from bitloop.network.network import Network
from bitloop.network.zoo import zoo_architecture
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _apart_from_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's vault log, and none is coloured because the terminal is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("COLUMNS", "120")
        for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS", "CLICOLOR_FORCE"):
            patch.delenv(name, raising=False)
        patch.setenv("NO_COLOR", "1")
        yield


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """The command line configures the package's logger; the next test starts anew."""
    logger = logging.getLogger("bitloop")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The directory that holds MNIST's files, or a skip."""
    named = os.environ.get("BITLOOP_DATA")
    candidates = [Path(named)] if named else [ROOT.parent / "shared/mnist", ROOT / "data/mnist"]
    for candidate in candidates:
        if any(candidate.glob("t10k-images*")):
            return candidate.resolve()
    pytest.skip(f"MNIST is in none of {', '.join(map(str, candidates))}; name its directory in BITLOOP_DATA")


@pytest.fixture(scope="session")
def mnist(mnist_dir: Path) -> Dataset:
    """MNIST, loaded once."""
    return load("mnist", mnist_dir)


@pytest.fixture(scope="session")
def drawn_images() -> Images:
    """120 pictures of soft strokes on black, labelled at random: they stand in where the data does not matter."""
    generator = np.random.default_rng(20)
    y, x = np.mgrid[0:28, 0:28]
    pixels = np.zeros((120, 28, 28, 1), np.uint8)
    for picture in pixels:
        for _ in range(4):
            cy, cx, sy, sx = generator.uniform((4, 4, 1, 1), (24, 24, 5, 5))
            blob = 255 * np.exp(-(((y - cy) / sy) ** 2) - ((x - cx) / sx) ** 2)
            picture[..., 0] = np.maximum(picture[..., 0], np.where(blob < 20, 0, blob).astype(np.uint8))
    labels = generator.integers(0, 10, len(pixels)).astype(np.uint8)
    return Images(pixels, labels, np.arange(1000, 1120, dtype=np.int64), Split.SEARCH, "mnist", "ab" * 32)


@pytest.fixture(scope="session")
def networks() -> Callable[[str], Network]:
    """Give a network of the zoo's architectures with weights drawn at random, the same each time."""

    def network(name: str) -> Network:
        architecture = zoo_architecture(name)
        generator = np.random.default_rng(7)
        parameters = {
            tensor: (0.1 * generator.normal(size=shape)).astype(np.float32)
            for tensor, shape in architecture.parameter_shapes().items()
        }
        return Network(architecture, parameters, "mnist", {})

    return network


@pytest.fixture(scope="session")
def models(networks: Callable[[str], Network]) -> Callable[..., Model]:
    """Give a MODEL of such a network: ``models("mlp", "int8:channel", "fp16")``."""

    def model(name: str, weights: str = "fp32", biases: str | None = None) -> Model:
        return quantize(networks(name), parse_recipe(weights, biases))

    return model
