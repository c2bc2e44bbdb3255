"""The committed networks reach what docs/networks.md says, as this project's own arithmetic computes them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

from bitloop.data import DataError, Dataset, Split, load
from bitloop.network import ZOO, load_network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import labels, simulate

PAGE = Path(__file__).resolve().parents[2] / "docs" / "networks.md"
COMMITTED = [name for name, entry in ZOO.items() if entry.committed]


@pytest.fixture(scope="module")
def datasets() -> dict[str, Dataset]:
    def find(name: str) -> dict[str, Dataset]:
        try:
            return {name: load(name, download=False)}
        except DataError:
            return {}

    return {**find("mnist"), **find("digits")}


def accuracy(name: str, dataset: Dataset, split: Split, count: int) -> tuple[int, int]:
    """Return how many images are right: in binary32, or in the formats that a network was trained for."""
    images, texts = dataset.split(split).first(count), ZOO[name].recipe
    recipe = parse_recipe("fp32") if texts is None else parse_recipe(texts.weights, texts.biases, texts.overrides)
    model = quantize(load_network(name), recipe)
    return int(np.count_nonzero(labels(simulate(model, images.pixels)) == images.labels)), len(images)


@pytest.mark.parametrize("split", [Split.SEARCH, Split.CONFIRM])
@pytest.mark.parametrize("name", COMMITTED)
def test_the_recorded_accuracy_is_what_bitloop_computes(name: str, split: Split, datasets: dict[str, Dataset]) -> None:
    network = load_network(name)
    if network.dataset not in datasets:
        pytest.skip(f"the data set {network.dataset} is not on this machine")
    dataset = datasets[network.dataset]
    assert network.metadata["dataset_sha256"] == dataset.sha256
    recorded = network.metadata[f"{split.value}_accuracy"]
    if name in ("cnn", "cnn2k", "cnn6k") and not os.environ.get("BITLOOP_TEST_SLOW"):
        right, count = accuracy(name, dataset, split, 1000)
        assert abs(right / count - recorded) < 0.012  # three standard errors of 1,000 images
    else:
        right, count = accuracy(name, dataset, split, 5000)
        assert abs(right / count - recorded) <= 1 / count + 1e-9  # a near-tie may fall the other way


def test_the_page_has_the_recorded_figures() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, entry in ZOO.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` "))
        architecture = entry.architecture
        assert f"| {architecture.parameter_count():,} | {architecture.macs():,} |" in row
        assert f"`{entry.train_command}`" in text
        if entry.committed:
            metadata = load_network(name).metadata
            figures = [f"{100 * metadata[f'{split}_accuracy']:.2f} %" for split in ("search", "confirm")]
            assert row.endswith(f"| {' | '.join(figures)} |")
    assert load_network("cnn").metadata["search_accuracy"] >= 0.988
    assert load_network("cnn").metadata["confirm_accuracy"] >= 0.988
    assert load_network("cnn2k").metadata["confirm_accuracy"] >= 0.988
    assert load_network("cnn6k").metadata["confirm_accuracy"] >= 0.99


def test_the_page_names_no_network_that_is_not_there() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(ZOO)


def test_a_recipe_of_the_zoo_is_what_the_network_was_trained_for() -> None:
    for name, entry in ZOO.items():
        found = load_network(name).metadata.get("qat") if entry.committed else None
        texts = entry.recipe
        expected = None if texts is None else parse_recipe(texts.weights, texts.biases, texts.overrides).to_dict()
        assert found == expected, name
