"""The cells of a sweep on the simulated device: in one session, exact, and loud where they are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bitloop.bench.options import RunOptions
from bitloop.bench.run import run
from bitloop.data.dataset import Images
from bitloop.errors import DisagreementError, PortError, UsageError
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.study.device import DeviceCell, DeviceOptions
from bitloop.study.folder import read_lines
from bitloop.study.grid import Grid
from bitloop.study.results import from_line
from bitloop.study.sweep import Sweep, SweepOptions, run_sweep

GRID = Grid(exponents=None, formats=("e4m3:pow2", "int4", "e1m0:pow2"))
Start = Callable[..., Sweep]


@pytest.fixture
def start(networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path) -> Start:
    def start(url: str | None, *, grid: Grid = GRID, name: str = "mlp8k", images: int = 12) -> Sweep:
        device = None if url is None else DeviceOptions(url=url, images=images)
        options = SweepOptions(processes=1, device=device)
        return run_sweep(networks(name), drawn_images.first(30), grid, tmp_path / "sweep", options=options)

    return start


def test_cells_on_a_device(start: Start, networks: Callable[[str], Network], drawn_images: Images) -> None:
    found = start("sim://native")
    assert list(found.device) == ["base=fp32", "weights=e4m3:pow2", "weights=int4"]
    for cell in found.device.values():
        assert (cell.board, cell.simulated, cell.images, cell.refused) == ("native", True, 12, None)
        assert cell.latency_median is not None
        assert cell.latency_median > 0
        assert "host nanoseconds" in str(cell.latency_unit)
    # What a run of its own says of the same MODEL.
    model = quantize(networks("mlp8k"), parse_recipe("int4", "fp32"))
    record = run(model, "sim://native", drawn_images.first(12), options=RunOptions(per_layer=False))
    int4 = found.device["weights=int4"]
    assert (int4.image_sha256, int4.image_bytes) == (record.image.sha256, record.image.size)
    assert (int4.ram_predicted, int4.ram_measured) == (record.ram.predicted, record.ram.measured)
    lines = [from_line(DeviceCell, line, "") for line in read_lines(found.folder.device)]
    assert {line.cell: line for line in lines} == found.device


def test_what_stays_is_not_sent_again(start: Start) -> None:
    grid = Grid(exponents=None, formats=("int4", "int3"), of=("biases",), per_layer=True)
    found = start("sim://native", grid=grid)
    first, *others = found.device.values()
    assert first.upload_line_bytes is not None
    assert first.copied_bytes == 0
    saved = [
        cell for cell in others if cell.copied_bytes and (cell.upload_line_bytes or 0) < first.upload_line_bytes / 4
    ]
    assert len(saved) >= len(others) // 2


def test_a_wrong_device_ends_the_sweep_and_the_host_s_figures_stay(start: Start) -> None:
    with pytest.raises(
        DisagreementError, match=r"cell base=fp32 on sim://.*first diverging layer dense1, 1 ULP"
    ) as caught:
        start("sim://native?fault=layer:1,ulp:1")
    assert caught.value.exit_code == 3
    found = start(None)
    assert found.measured_now == 0
    assert found.device == {}
    assert found.folder.result.exists()
    assert read_lines(found.folder.device) == []


def test_going_on_on_the_device(start: Start) -> None:
    whole = start("sim://native")
    kept = whole.folder.device.read_bytes()
    whole.folder.device.write_bytes(kept[: kept.index(b"\n") + 10])
    again = start("sim://native")
    assert again.folder.device.read_bytes().startswith(kept[: kept.index(b"\n") + 1])
    assert list(again.device) == list(whole.device)
    with pytest.raises(UsageError, match="12 images, not 13"):
        start("sim://native", images=13)
    whole.folder.device.write_bytes(kept[: kept.index(b"\n") + 1].replace(b'"native"', b'"stm32f405"'))
    with pytest.raises(UsageError, match=r"measured on stm32f405 .* this device is native"):
        start("sim://native")
    whole.folder.device.write_bytes(kept.replace(b"weights=int4", b"weights=int5"))
    with pytest.raises(UsageError, match="another sweep"):
        start("sim://native")


def test_cells_that_do_not_fit_are_kept_as_refused(start: Start) -> None:
    found = start("sim://native?arena=1k", images=3)
    assert [cell.latency_median for cell in found.device.values()] == [None] * 3
    assert "3064 bytes" in str(found.device["base=fp32"].refused)
    assert "device_refused" in found.folder.table.read_text()
    assert "3064 bytes" in found.folder.table.read_text()


def test_weights_travel_where_they_do_not_fit(start: Start) -> None:
    found = start("sim://native?arena=8k", images=3)
    assert [cell.placement for cell in found.device.values()] == ["stream", "resident", "resident"]


def test_no_device_there_keeps_the_host_s_figures(start: Start, tmp_path: Path) -> None:
    with pytest.raises(PortError):
        start(str(tmp_path / "nosuch"))
    assert (tmp_path / "sweep/result.json").exists()
