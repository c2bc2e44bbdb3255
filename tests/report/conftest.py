"""Finished runs to report on: an exact one, one that disagrees, one that broke off at once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.quantize.model import Model
from bitloop.report.page import write_report

DEVICES = {
    "exact": "sim://native",
    "disagree": "sim://native?fault=layer:0,ulp:1",
    "lying": "sim://native?fault=hash:image",
    "failed": "sim://native?fault=crash,after:19",
}


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, models: Callable[..., Model], drawn_images: Images
) -> dict[str, Path]:
    """Directories of runs, each with its report; for reading only."""
    root = tmp_path_factory.mktemp("runs")
    for name, url in DEVICES.items():
        run(
            models("cnn", "int4:channel", "fp16"),
            url,
            drawn_images,
            out_dir=root / name,
            options=RunOptions(command=f"bitloop run --device '{url}'"),
        )
        write_report(root / name)
    return {name: root / name for name in DEVICES}


@pytest.fixture
def copy_of(runs: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Give a copy of a run, to be changed."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(runs[name], tmp_path / name))

    return copy
