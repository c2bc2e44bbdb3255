"""Networks and their .npz files: what is checked when one is built, and that no file can crash a reader."""

from __future__ import annotations

import io
import json
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitloop.errors import NetworkError
from bitloop.network import ZOO, Architecture, Conv2D, Dense, Network, ReLU, load_network

SMALL = Architecture("small", (4, 4, 1), (Conv2D("conv", 2, (3, 3)), ReLU("relu"), Dense("out", 3)))


def parameters() -> dict[str, Any]:
    generator = np.random.default_rng(3)
    return {key: generator.normal(size=shape).astype(np.float32) for key, shape in SMALL.parameter_shapes().items()}


def network() -> Network:
    return Network(SMALL, parameters(), "digits", {"seed": 3, "note": "é", "nested": {"a": [1.5, None]}})


def test_parameters_are_copied_ordered_and_read_only() -> None:
    given = parameters()
    built = Network(SMALL, dict(reversed(given.items())))
    assert list(built.parameters) == ["conv.weights", "conv.biases", "out.weights", "out.biases"]
    before = built.parameters["out.biases"].copy()
    given["out.biases"][:] = 9
    assert np.array_equal(built.parameters["out.biases"], before)
    with pytest.raises(ValueError, match="read-only"):
        built.parameters["out.biases"][0] = 1
    with pytest.raises(TypeError):
        built.parameters["x"] = before  # type: ignore[index]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_named(value: float) -> None:
    given = parameters()
    given["out.weights"][5, 2] = value
    with pytest.raises(NetworkError, match=r"'out\.weights' holds -?(nan|inf) at index \(5, 2\) \(1 such"):
        Network(SMALL, given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("out.biases"), r"lacks the tensors \['out\.biases'\]"),
        (lambda p: p.update(extra=p["out.biases"]), r"has \['extra'\]"),
        (lambda p: p.update({"out.biases": p["out.biases"][:2]}), r"shape \(2,\), but its layer needs \(3,\)"),
        (lambda p: p.update({"out.weights": p["out.weights"].T}), r"shape \(3, 8\)"),
        (lambda p: p.update({"out.biases": p["out.biases"].astype(np.float64)}), "float32 array, not float64"),
        (lambda p: p.update({"out.biases": [1.0, 2.0, 3.0]}), "float32 array, not list"),
    ],
)
def test_wrong_parameters_are_refused(change: Any, message: str) -> None:
    given = parameters()
    change(given)
    with pytest.raises(NetworkError, match=message):
        Network(SMALL, given)


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "small.npz"
    saved = network()
    saved.save_npz(path)
    loaded = load_network(path)
    assert loaded.architecture == saved.architecture
    assert (loaded.dataset, dict(loaded.metadata)) == (saved.dataset, dict(saved.metadata))
    for key, array in saved.parameters.items():
        assert loaded.parameters[key].tobytes() == array.tobytes()
    assert [entry.name for entry in path.parent.iterdir()] == ["small.npz"]
    again = tmp_path / "again.npz"
    loaded.save_npz(again)
    assert again.read_bytes() == path.read_bytes()


def test_a_file_holds_no_pickles(tmp_path: Path) -> None:
    network().save_npz(tmp_path / "small.npz")
    with np.load(tmp_path / "small.npz", allow_pickle=False) as file:
        assert json.loads(str(file["metadata"]))["seed"] == 3
        assert file["conv.weights"].dtype == np.float32


def test_metadata_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match="not JSON"):
        Network(SMALL, parameters(), "", {"x": object()}).save_npz(tmp_path / "small.npz")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "small.npz"
    network().save_npz(path)
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(NetworkError, match="disk full"):
        Network(SMALL, {key: array + 1 for key, array in parameters().items()}).save_npz(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# --- damaged files ------------------------------------------------------------------------------------------------


def archive(path: Path, **changes: Any) -> Path:
    """Write a file as save_npz does, with some members changed, added, or left out (None)."""
    members: dict[str, Any] = {
        "format": np.array("bitloop-network-1"),
        "architecture": np.array(json.dumps(SMALL.to_dict())),
        "dataset": np.array("digits"),
        "metadata": np.array("{}"),
        **parameters(),
        **changes,
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, value in members.items():
            if value is None:
                continue
            data = value
            if not isinstance(value, bytes):
                stream = io.BytesIO()
                np.lib.format.write_array(stream, value, allow_pickle=True)
                data = stream.getvalue()
            file.writestr(f"{name}.npy", data)
    return path


def npy(header: str, body: bytes) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body


HUGE = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }", b"")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": None}, "no text 'format'"),
        ({"format": np.array("bitloop-network-9")}, "format is 'bitloop-network-9'"),
        ({"architecture": np.array("{")}, "cannot read a network"),
        ({"architecture": np.array("[" * 100_000)}, "cannot read a network"),
        ({"architecture": np.array("{}")}, "lacks"),
        ({"metadata": np.array("[]")}, "metadata is no JSON object"),
        ({"dataset": np.array(["a", "b"])}, "no text 'dataset'"),
        ({"out.biases": None}, r"lacks the tensors \['out\.biases'\]"),
        ({"out.biases": np.array([1.0, np.nan, 0], np.float32)}, r"nan at index \(1,\)"),
        ({"out.biases": np.array([1, 2, 3], np.int32)}, "of type int32"),
        ({"out.biases": np.array([1, 2, 3], ">f4")}, "float32"),
        ({"out.biases": np.array([1, {}, 3], object)}, "of type object"),
        ({"out.biases": HUGE}, "0 bytes, but shape"),
        ({"out.biases": b"no array"}, "cannot read a network"),
        ({"out.biases": npy("{'descr': '<f4'}", b"")}, "cannot read a network"),
        ({"out.biases": npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,), }", b"")}, "cannot read"),
        ({"extra": np.zeros(3, np.float32)}, r"has \['extra'\]"),
    ],
)
def test_damaged_members_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "small.npz")
    assert load_network(path).name == "small"
    with pytest.raises(NetworkError, match=message):
        load_network(archive(path, **changes))


def test_a_zip_bomb_is_refused_unopened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archive(tmp_path / "small.npz")
    monkeypatch.setattr("bitloop.network.npz.MAX_MODEL_BYTES", 1000)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(NetworkError, match="unpacks to more than 1000"):
        load_network(path)


def test_no_damaged_byte_crashes_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "small.npz"
    network().save_npz(path)
    good = path.read_bytes()
    generator = random.Random(5)
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for _ in range(generator.choice((1, 1, 4))):
            data[generator.randrange(len(data))] = generator.randrange(256)
        if generator.random() < 0.3:
            del data[generator.randrange(len(data)) :]
        path.write_bytes(data)
        try:
            load_network(path)
        except NetworkError:
            refused += 1
    assert refused > 300  # a zip file has fields that nothing reads


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, entry in ZOO.items() if entry.committed])
def test_the_committed_networks_load(name: str) -> None:
    loaded = load_network(name)
    entry = ZOO[name]
    assert loaded.architecture == entry.architecture
    assert loaded.dataset == entry.dataset
    assert loaded.metadata["command"] == entry.train_command
    assert loaded.metadata["settings"]["seed"] == entry.settings.seed
    assert entry.weights_path.stat().st_size < 128 * 1024


def test_a_network_without_parameters_says_how_to_train_it() -> None:
    with pytest.raises(NetworkError, match=r"train it with: bitloop train bitopt2018 .*--epochs 15.*--out"):
        load_network("bitopt2018")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("resnet50", r"'resnet50' is neither .* \(mlp, .*\) nor a \.npz, \.keras or \.tflite file"),
        ("model.h5", "neither"),
        ("missing.npz", r"no file missing\.npz"),
        ("missing.keras", "no file"),
        ("missing.tflite", "no file"),
    ],
)
def test_unknown_sources_are_refused(source: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(source)
