"""What tests of studies share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bitloop.data.dataset import Images
from bitloop.network.network import Network
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
