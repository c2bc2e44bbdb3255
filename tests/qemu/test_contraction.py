"""A firmware that fuses multiply and add is caught by its own arithmetic probe, and the host refuses the word exact."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.quantize.model import Model
from proofs.contraction import build_contracted


@pytest.fixture(scope="module")
def contracted(tmp_path_factory: pytest.TempPathFactory, url_of: Callable[[str], str]) -> Path:
    """The firmware of the STM32F405 from sources without the guard, with contraction asked for."""
    url_of("stm32f405")
    return build_contracted(tmp_path_factory.mktemp("contracted"))


def test_forced_contraction_is_caught(
    contracted: Path, models: Callable[..., Model], drawn_images: Images, tmp_path: Path
) -> None:
    code = subprocess.run(
        ["arm-none-eabi-objdump", "-d", contracted], capture_output=True, text=True, check=True
    ).stdout
    assert "vfma" in code  # the compiler did as it was told
    url = f"qemu://stm32f405?elf={contracted}"
    options = RunOptions(warm_up_images=0)
    record = run(models("mlp8k", "int8"), url, drawn_images.first(4), out_dir=tmp_path / "run", options=options)
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert record.headline.startswith("DISAGREE")
    assert any("the arithmetic probe failed: fused multiply-add" in reason for reason in record.reasons)
    assert any("fused multiply-add" in failure for failure in record.device.probe_failures)
