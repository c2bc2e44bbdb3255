"""What tests of studies share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.network.architecture import Architecture, Dense, Flatten, ReLU
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import labels, simulate
from bitloop.study.grid import Grid
from bitloop.study.sweep import Sweep, SweepOptions, run_sweep

Run = Callable[..., Sweep]


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
