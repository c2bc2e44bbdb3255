"""Sweeps: figures by hand, what is kept and gone on with, what is refused."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bitloop.bench.metrics import wilson
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.errors import BitloopError, DataError, ModelError, NetworkError, SealedSplitError, UsageError, WorkerError
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import labels, simulate
from bitloop.study import workers
from bitloop.study.grid import BASE, Grid
from bitloop.study.statistics import compare
from bitloop.study.sweep import Sweep, run_sweep, sweep_images
from bitloop.study.workers import Job, measure_all

Run = Callable[..., Sweep]
SMALL = Grid(exponents=None, formats=("fp32", "e4m3:pow2", "int3:channel", "e1m0:pow2"))


def lines(sweep: Sweep) -> list[str]:
    return sorted(sweep.folder.cells.read_text("ascii").splitlines())


def test_figures_are_those_of_the_simulation(
    sweep: Run, networks: Callable[[str], Network], drawn_images: Images
) -> None:
    found = sweep(SMALL)
    network, images = networks("mlp8k"), drawn_images.first(60)
    reference = labels(simulate(quantize(network, parse_recipe("fp32")), images.pixels)) == images.labels
    assert [row.cell for row in found.rows] == [
        "base=fp32",
        "weights=fp32",
        "weights=e4m3:pow2",
        "weights=int3:channel",
    ]
    for row in found.rows:
        model = quantize(network, parse_recipe(row.spec, "fp32"))
        right = labels(simulate(model, images.pixels)) == images.labels
        assert row.accuracy == wilson(int(right.sum()), 60)
        assert row.comparison == compare(reference, right)
        assert row.model_sha256 == model.sha256
        assert row.total_bytes == model.sizes.total
        measured = found.outcomes[row.cell].measured
        assert measured is not None
        np.testing.assert_array_equal(measured.right_images(60), right)
        assert measured.checked == 20
    # The whole of binary32 is the network itself.
    assert found.rows[1].accuracy == found.rows[0].accuracy
    assert found.rows[1].comparison.loss == 0
    assert found.rows[1].cross_entropy == found.rows[0].cross_entropy
    assert found.outcomes["weights=e1m0:pow2"].refused is not None
    assert "no element but zero" in str(found.outcomes["weights=e1m0:pow2"].refused)
    assert found.verified[BASE.key] == 60


def test_bytes_by_hand(sweep: Run) -> None:
    found = sweep(Grid(exponents=None, formats=("int4", "ternary"), of=("both",)), "mlp")
    weights, biases = (784 * 32, 32 * 16, 16 * 10), (32, 16, 10)
    int4, ternary = found.rows[1:]
    assert int4.weights_bytes == sum(weights) // 2
    assert int4.biases_bytes == sum(biases) // 2
    assert int4.scales_bytes == ternary.scales_bytes == 4 * 6
    assert ternary.weights_bytes == sum(-(-count // 5) for count in weights)


def test_layer_by_layer_is_the_same_as_by_hand(
    sweep: Run, networks: Callable[[str], Network], drawn_images: Images
) -> None:
    found = sweep(
        Grid(exponents=None, formats=("int2",), of=("weights", "biases"), per_layer=True, others="e5m2"),
        "cnn",
        images=25,
    )
    images = drawn_images.first(25)
    assert len(found.rows) == 1 + 6
    for row in found.rows[1:]:
        model = quantize(networks("cnn"), parse_recipe("e5m2", "e5m2", [f"{row.layer}.{row.of}=int2"]))
        assert row.model_sha256 == model.sha256
        assert row.accuracy.correct == int((labels(simulate(model, images.pixels)) == images.labels).sum())


def test_winner_and_best(sweep: Run) -> None:
    found = sweep(Grid(exponents=None, formats=("e8m7", "e5m10", "int8:channel", "int8", "int2")), margin=0.2)
    assert [row.bits for row in found.best] == [2, 8, 16]
    good = [row for row in found.rows[1:] if row.comparison.bound <= 0.2]
    assert good
    assert found.winner is not None
    assert found.winner.total_bytes == min(row.total_bytes for row in good)
    # No loss of none of 60 images can be known to be below a thousandth.
    assert sweep(SMALL, out=found.folder.path.with_name("other"), margin=0.001).winner is None


def test_the_same_sweep_twice_measures_once_and_writes_the_same(sweep: Run) -> None:
    first = sweep(SMALL)
    before = {path.name: path.read_bytes() for path in first.folder.path.iterdir()}
    again = sweep(SMALL)
    assert (first.measured_now, again.measured_now) == (5, 0)
    assert {path.name: path.read_bytes() for path in again.folder.path.iterdir()} == before


def test_half_a_line_is_measured_again(sweep: Run, tmp_path: Path) -> None:
    whole = sweep(SMALL, out=tmp_path / "whole")
    content = whole.folder.cells.read_bytes()
    for cut in (1, len(content) // 2, len(content) - 1):
        whole.folder.cells.write_bytes(content[:cut])
        again = sweep(SMALL, out=tmp_path / "whole", processes=1)
        assert lines(again) == sorted(content.decode().splitlines())


def test_figures_do_not_depend_on_processes(sweep: Run, tmp_path: Path) -> None:
    one = sweep(SMALL, out=tmp_path / "one", processes=1)
    three = sweep(SMALL, out=tmp_path / "three", processes=3)
    assert lines(one) == lines(three)
    assert one.folder.result.read_bytes() == three.folder.result.read_bytes()
    assert one.folder.table.read_bytes() == three.folder.table.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 50}, "images was 60, now it is 50"),
        ({"name": "mlp"}, "network was mlp8k, now it is mlp"),
        ({"checked_images": 21}, "checked was 20, now it is 21"),
        ({"grid": Grid(exponents=None, formats=("fp32", "int5"))}, "3 cells that this one lacks, and lacks 1"),
        ({"grid": dataclasses.replace(SMALL, others="e5m2")}, "others was fp32, now it is e5m2"),
    ],
)
def test_another_sweep_is_refused(sweep: Run, change: dict[str, object], words: str) -> None:
    first = sweep(SMALL)
    before = first.folder.cells.read_bytes()
    with pytest.raises(UsageError, match=words):
        sweep(**{"grid": SMALL, **change})
    assert first.folder.cells.read_bytes() == before


def test_a_larger_grid_keeps_what_was_measured(sweep: Run, tmp_path: Path) -> None:
    few = dataclasses.replace(SMALL, formats=SMALL.formats[1:])
    first = sweep(few, out=tmp_path / "grown")
    kept = first.folder.cells.read_bytes()
    grown = sweep(SMALL, out=tmp_path / "grown")
    assert grown.folder.cells.read_bytes().startswith(kept)
    assert grown.measured_now == 1
    assert grown.folder.result.read_bytes() == sweep(SMALL, out=tmp_path / "whole").folder.result.read_bytes()
    with pytest.raises(UsageError, match="1 cells that this one lacks, and lacks 0"):
        sweep(few, out=tmp_path / "grown")
    with pytest.raises(UsageError, match="others was fp32"):
        sweep(Grid(exponents=None, formats=(*SMALL.formats, "int7"), others="e5m2"), out=tmp_path / "grown")
    assert sweep(SMALL, out=tmp_path / "grown").measured_now == 0  # what was refused has left no trace


def test_a_changed_network_or_data_set_is_refused(
    sweep: Run, networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path
) -> None:
    sweep(SMALL)
    network = networks("mlp8k")
    parameters = {name: array.copy() for name, array in network.parameters.items()}
    next(iter(parameters.values()))[0, 0] += np.float32(1e-6)
    other = Network(network.architecture, parameters, "mnist", {})
    with pytest.raises(UsageError, match="network_sha256"):
        run_sweep(other, drawn_images.first(60), SMALL, tmp_path / "sweep")
    with pytest.raises(UsageError, match="dataset_sha256"):
        run_sweep(network, dataclasses.replace(drawn_images.first(60), sha256="cd" * 32), SMALL, tmp_path / "sweep")


def test_what_was_tampered_with_is_found(sweep: Run) -> None:
    found = sweep(SMALL)
    good = found.folder.cells.read_text()
    more = good.replace('"correct": ', '"correct": 1', 1)
    for text, words in (
        (more, "labels"),
        (good + good.splitlines()[0] + "\n", "twice"),
        (good.replace("base=fp32", "base=fp64"), "not of this sweep"),
        (good.replace('"spec"', '"speck"'), "missing"),
        ("{}\n", "missing"),
        ("hello\n", "JSON"),
    ):
        found.folder.cells.write_text(text)
        with pytest.raises(DataError, match=words):
            sweep(SMALL)


def test_no_sweep_reaches_the_test_split(
    networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path
) -> None:
    from bitloop.data.dataset import Dataset

    parts = dict.fromkeys(Split, (drawn_images.pixels, drawn_images.labels, drawn_images.index))
    dataset = Dataset.build("mnist", "ab" * 32, "drawn", parts)
    with pytest.raises(SealedSplitError, match="sealed"):
        sweep_images(dataset, "test", None)
    with pytest.raises(UsageError, match="search, confirm"):
        sweep_images(dataset, "train", None)
    assert sweep_images(dataset, "confirm", 7).split is Split.CONFIRM
    for split in (Split.TEST, Split.TRAIN):
        with pytest.raises(SealedSplitError):
            run_sweep(networks("mlp8k"), dataclasses.replace(drawn_images, split=split), SMALL, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_images_that_do_not_fit_are_refused(
    networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path
) -> None:
    small = dataclasses.replace(drawn_images, pixels=drawn_images.pixels[:, :14])
    with pytest.raises(NetworkError, match="takes images"):
        run_sweep(networks("mlp8k"), small, SMALL, tmp_path / "no")


def test_the_table_holds_every_cell(sweep: Run) -> None:
    found = sweep(SMALL)
    rows = list(csv.DictReader(found.folder.table.read_text().splitlines()))
    assert [row["cell"] for row in rows] == list(found.begun.asked.cells)
    e4m3 = rows[2]
    assert (e4m3["spec"], e4m3["exponent_bits"], e4m3["mantissa_bits"], e4m3["images"]) == ("e4m3:pow2", "4", "3", "60")
    assert float(e4m3["accuracy"]) == found.rows[2].accuracy.value
    assert "no element but zero" in rows[4]["refused"]
    assert rows[4]["correct"] == ""
    document = json.loads(found.folder.result.read_text())
    assert document["fp32"]["accuracy"]["total"] == 60
    assert list(document["refused"]) == ["weights=e1m0:pow2"]


def job(network: Network, images: Images) -> Job:
    return Job(
        architecture=network.architecture.to_dict(),
        parameters=dict(network.parameters),
        dataset="mnist",
        pixels=images.pixels,
        labels=images.labels,
        others="fp32",
        checked=5,
        uses=1,
    )


def test_a_process_that_crashes_is_an_error_with_the_cells_name(
    networks: Callable[[str], Network], drawn_images: Images
) -> None:
    network = networks("mlp8k")
    cells = Grid().cells(network)
    outcomes = measure_all(job(network, drawn_images), cells, processes=1)
    assert next(outcomes).cell == "base=fp32"
    (child,) = [p for p in workers.multiprocessing.active_children() if p.name == "bitloop-study"]
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match=r"cell weights=e\dm\d+ was ended by signal 9"):
        list(outcomes)
    assert not [p for p in workers.multiprocessing.active_children() if p.name == "bitloop-study"]


def test_an_error_in_a_process_names_the_cell(networks: Callable[[str], Network], drawn_images: Images) -> None:
    network = networks("mlp8k")
    cells = Grid().cells(network)[:1]
    broken = dataclasses.replace(job(network, drawn_images), pixels=drawn_images.pixels.astype(np.int32))
    with pytest.raises(BitloopError, match=r"cell base=fp32: .*int32") as caught:
        list(measure_all(broken, cells, processes=1))
    assert caught.type in {ModelError, UsageError}
    short = dataclasses.replace(job(network, drawn_images), labels=drawn_images.labels[:7])
    with pytest.raises(WorkerError, match=r"(?s)cell base=fp32: .*not expect.*Traceback"):
        list(measure_all(short, cells, processes=1))


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.network.network import Network
from bitloop.study.grid import Grid
from bitloop.study.sweep import SweepOptions, run_sweep

if __name__ == "__main__":
    data = np.load(sys.argv[1])
    images = Images(data["pixels"], data["labels"], data["index"], Split.SEARCH, "mnist", "ab" * 32)
    run_sweep(Network.load_npz(sys.argv[2]), images, Grid(exponents=(2, 5)), Path(sys.argv[3]),
              options=SweepOptions(processes=2))
"""


@pytest.fixture
def command(networks: Callable[[str], Network], drawn_images: Images, tmp_path: Path) -> list[str]:
    """A process of its own that sweeps 44 cells; the folder's path is to be added."""
    (tmp_path / "one.py").write_text(SCRIPT)
    np.savez(tmp_path / "data.npz", pixels=drawn_images.pixels, labels=drawn_images.labels, index=drawn_images.index)
    networks("mlp8k").save_npz(tmp_path / "net.npz")
    return [sys.executable, *(str(tmp_path / name) for name in ("one.py", "data.npz", "net.npz"))]


def wait_for_cells(path: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "no cells came"
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT"])
def test_going_on_after_a_signal_gives_the_same_cells(command: list[str], tmp_path: Path, name: str) -> None:
    subprocess.run([*command, str(tmp_path / "whole")], check=True, timeout=200)
    expected = sorted((tmp_path / "whole/cells.jsonl").read_bytes().splitlines())
    assert len(expected) == 45
    out = tmp_path / "broken"
    process = subprocess.Popen([*command, str(out)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_cells(out / "cells.jsonl", 3)
    if name == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does it: to the processes that measure as well
    else:
        process.kill()
    _, said = process.communicate(timeout=60)
    kept = (out / "cells.jsonl").read_bytes().splitlines()
    assert 3 <= len(kept) < 45
    assert not (out / "result.json").exists()
    if name == "SIGINT":
        assert f"Interrupted: interrupted after {len(kept)} of 45 cells" in said
        assert said.count("Traceback") == 2  # the parent's: the interrupt, and what became of it
    subprocess.run([*command, str(out)], check=True, timeout=200)
    assert sorted((out / "cells.jsonl").read_bytes().splitlines()) == expected
    assert (out / "cells.jsonl").read_bytes().splitlines()[: len(kept)] == kept
    assert (out / "result.json").read_bytes() == (tmp_path / "whole/result.json").read_bytes()
