"""What tests of runs share: an in-process command line whose data set is drawn, so that none needs MNIST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitloop.bench import select
from bitloop.cli.app import app
from bitloop.data.dataset import Dataset, Images
from bitloop.data.splits import Split
from bitloop.network.network import Network
from bitloop.quantize import blm
from bitloop.quantize.model import Model


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def dataset_of(images: Images) -> Dataset:
    parts = {split: (images.pixels.copy(), images.labels.copy(), images.index.copy()) for split in Split}
    return Dataset.build("mnist", images.sha256, "drawn by a test", parts)


@pytest.fixture
def bitloop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, drawn_images: Images) -> Command:
    """Run ``bitloop ARGUMENTS`` in an empty directory."""
    real_load = select.load

    def load(name: str = "mnist", directory: Path | None = None, *, progress: object = None) -> Dataset:
        if directory is not None or name != "mnist":
            return real_load(name, directory, download=False)
        return dataset_of(drawn_images)

    monkeypatch.setattr(select, "load", load)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    def command(*arguments: str) -> Outcome:
        result = CliRunner().invoke(app, list(arguments))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return command


@pytest.fixture
def model_file(models: Callable[..., Model], tmp_path: Path) -> Path:
    """A MODEL on disk: mlp with weights in int8 a channel, biases in fp16."""
    path = tmp_path / "mlp.blm"
    blm.save(models("mlp", "int8:channel", "fp16"), path)
    return path


@pytest.fixture
def network_file(networks: Callable[[str], Network], tmp_path: Path) -> Path:
    """A network on disk."""
    path = tmp_path / "mine.npz"
    networks("mlp").save_npz(path)
    return path
