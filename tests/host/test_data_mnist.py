"""MNIST: where it is looked for, what is refused, and how quickly a machine without a network learns so."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bitloop.data import DataError, SealedSplitError, Split, download, idx, load, mnist, splits
from bitloop.data.dataset import Dataset, Images

REAL = os.environ.get("BITLOOP_DATA", "")
SHAPES = {file.key: file.shape for file in mnist.FILES}


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home, a cache and a working directory without MNIST."""
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.delenv(mnist.ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.chdir(work)
    return home


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    """Four IDX files of MNIST's shapes with pixels and labels of our own: image i starts with i, big-endian."""
    made: dict[str, bytes] = {}
    for key, shape in SHAPES.items():
        array = np.zeros(shape, np.uint8)
        if len(shape) == 3:
            array.reshape(shape[0], -1)[:, :4] = np.arange(shape[0], dtype=">u4").view(np.uint8).reshape(-1, 4)
        else:
            array[:] = np.arange(shape[0]) % 10
        made[key] = b"\x00\x00\x08" + bytes([len(shape)]) + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()
    return made


@pytest.fixture(scope="module")
def zipped(contents: dict[str, bytes]) -> dict[str, bytes]:
    return {key: gzip.compress(data, 1, mtime=0) for key, data in contents.items()}


@pytest.fixture
def ours(contents: dict[str, bytes], zipped: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect the contents made here in place of the real ones."""
    files = tuple(
        replace(
            file,
            sha256=hashlib.sha256(contents[file.key]).hexdigest(),
            gzip_md5=hashlib.md5(zipped[file.key]).hexdigest(),
        )
        for file in mnist.FILES
    )
    monkeypatch.setattr(mnist, "FILES", files)


def put(directory: Path, files: dict[str, bytes], end: str = "") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for file in mnist.FILES:
        (directory / f"{file.name}{end}").write_bytes(files[file.key])
    return directory


def first_bytes(images: Images) -> np.ndarray:
    return np.ascontiguousarray(images.pixels.reshape(len(images), -1)[:, :4]).view(">u4")[:, 0].astype(np.int64)


# --- splits -------------------------------------------------------------------------------------------------------


def test_split_rules_are_the_documented_ones() -> None:
    def digest(index: list[int]) -> str:
        return hashlib.sha256(struct.pack(f"<{len(index)}q", *index)).hexdigest()

    rest = {(i // 2) % 12: [] for i in range(24)}
    for i in range(60_000):
        rest[(i // 2) % 12].append(i)
    train = sorted(i for remainder, index in rest.items() if remainder < 10 for i in index)
    digits = {
        Split.TRAIN: [i for i in range(1797) if i % 9 not in (3, 4, 5)],
        Split.SEARCH: [i for i in range(1797) if i % 9 == 3],
        Split.CONFIRM: [i for i in range(1797) if i % 9 == 4],
        Split.TEST: [i for i in range(1797) if i % 9 == 5],
    }
    whole = {Split.TRAIN: train, Split.SEARCH: rest[10], Split.CONFIRM: rest[11], Split.TEST: list(range(10_000))}
    for name, rule, expected in (("mnist", splits.mnist_indices, whole), ("digits", splits.digits_indices, digits)):
        for split, index in expected.items():
            assert rule(split).tolist() == index
            assert splits.INDEX_SHA256[name][split] == digest(index) == splits.index_sha256(rule(split))
    assert [len(index) for index in whole.values()] == [50_000, 5_000, 5_000, 10_000]
    assert [len(index) for index in digits.values()] == [1_197, 200, 200, 200]


def test_splits_are_disjoint_and_hold_as_many_even_as_odd_indices() -> None:
    held = [splits.mnist_indices(split) for split in (Split.TRAIN, Split.SEARCH, Split.CONFIRM)]
    assert sorted(np.concatenate(held).tolist()) == list(range(60_000))
    for index in held:
        assert np.count_nonzero(index % 2) * 2 == len(index)
    parts = [splits.digits_indices(split) for split in Split]
    assert sorted(np.concatenate(parts).tolist()) == list(range(1797))


# --- the real one -------------------------------------------------------------------------------------------------


def test_real_mnist_has_the_published_contents() -> None:
    if not REAL:
        pytest.skip("no MNIST on this machine: set BITLOOP_DATA")
    dataset = load("mnist", REAL)
    # Label counts and the mean pixel as published for the 60,000 and 10,000 images (mean 0.1307 of 255).
    open_splits = [dataset.split(split) for split in (Split.TRAIN, Split.SEARCH, Split.CONFIRM)]
    counts = sum(np.bincount(images.labels, minlength=10) for images in open_splits)
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    mean = sum(images.pixels.sum(dtype=np.int64) for images in open_splits) / (60_000 * 784 * 255)
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert dataset.counts() == {Split.TRAIN: 50_000, Split.SEARCH: 5_000, Split.CONFIRM: 5_000, Split.TEST: 10_000}
    assert dataset.sha256 == mnist.DATASET_SHA256


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("ours")
def test_splits_hold_the_images_of_their_indices(contents: dict[str, bytes], tmp_path: Path) -> None:
    dataset = load("mnist", put(tmp_path / "idx", contents))
    for split in (Split.TRAIN, Split.SEARCH, Split.CONFIRM):
        images = dataset.split(split)
        assert images.pixels.shape == (len(images), 28, 28, 1)
        assert images.pixels.dtype == images.labels.dtype == np.uint8
        assert np.array_equal(first_bytes(images), images.index)
        assert np.array_equal(images.labels, images.index % 10)
        assert (images.split, images.dataset, images.sha256) == (split, "mnist", dataset.sha256)
        with pytest.raises(ValueError, match="read-only"):
            images.pixels[0, 0, 0, 0] = 1
    with pytest.raises(SealedSplitError, match="Vault"):
        dataset.split(Split.TEST)
    few = dataset.split(Split.SEARCH).first(7)
    assert (len(few), len(few.pixels), few.index.tolist()) == (7, 7, [20, 21, 44, 45, 68, 69, 92])
    with pytest.raises(DataError, match="0 images"):
        few.first(0)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("place", ["argument", "environment", "data/mnist", "cache", "keras"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_place_is_looked_into(
    place: str,
    end: str,
    request: pytest.FixtureRequest,
    nowhere: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    contents = request.getfixturevalue("contents")
    zipped = request.getfixturevalue("zipped")
    files = zipped if end else contents
    directory: Path | None = None
    match place:
        case "argument":
            directory = put(nowhere / "named", files, end)
        case "environment":
            monkeypatch.setenv("BITLOOP_DATA", str(put(nowhere / "environment", files, end)))
        case "data/mnist":
            put(Path("data/mnist"), files, end)
        case "cache":
            put(nowhere / "cache/bitloop/mnist", files, end)
        case "keras":
            if end:
                pytest.skip("Keras keeps one .npz, not .gz files")
            folder = nowhere / ".keras/datasets"
            folder.mkdir(parents=True)
            arrays = {key: np.frombuffer(data, np.uint8)[-np.prod(SHAPES[key]) :] for key, data in contents.items()}
            np.savez(folder / "mnist.npz", **{key: array.reshape(SHAPES[key]) for key, array in arrays.items()})
    dataset = load("mnist", directory, download=False)
    assert np.array_equal(first_bytes(dataset.split(Split.CONFIRM)), splits.mnist_indices(Split.CONFIRM))


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_named_directory_never_falls_through(
    how: str, contents: dict[str, bytes], nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(Path("data/mnist"), contents)
    named = nowhere / "named"
    directory = named if how == "argument" else None
    if how == "environment":
        monkeypatch.setenv("BITLOOP_DATA", str(named))
    with pytest.raises(DataError, match="no such directory"):
        load("mnist", directory)
    put(named, contents)
    (named / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-labels-idx1-ubyte"):
        load("mnist", directory)


@pytest.mark.usefixtures("ours")
def test_the_argument_wins_over_the_environment(
    contents: dict[str, bytes], nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BITLOOP_DATA", str(nowhere / "missing"))
    assert load("mnist", put(nowhere / "named", contents)).origin == str(nowhere / "named")


def damage(kind: str, data: bytes, compressed: bytes) -> bytes:
    match kind:
        case "magic":
            return b"\x00\x00\x0d" + data[3:]
        case "dimensions":
            return data[:8] + struct.pack(">I", 27) + data[12:]
        case "truncated":
            return data[:-1]
        case "longer":
            return data + b"\x00"
        case "one pixel":
            return data[:5000] + bytes([data[5000] ^ 1]) + data[5001:]
        case "empty":
            return b""
        case "gzip truncated":
            return compressed[:-9]
        case "gzip hole":
            middle = len(compressed) // 2
            # Not one bit: in a run of zeros another distance copies zeros too.
            return compressed[:middle] + bytes(64) + compressed[middle + 64 :]
        case "gzip bomb":
            return gzip.compress(bytes(60_000 * 784 * 2), 1)
    raise AssertionError(kind)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("magic", "starts with 00 00 0d 03, but .* 00 00 08 03"),
        ("dimensions", r"dimensions are \(60000, 27, 28\), expected \(60000, 28, 28\)"),
        ("truncated", "47039999 elements.*47040000"),
        ("longer", "more than the 47040016 bytes"),
        ("one pixel", "SHA-256 of its contents"),
        ("empty", "starts with"),
        ("gzip truncated", "gzip stream is damaged"),
        ("gzip hole", ""),
        ("gzip bomb", "more than the 47040016 bytes"),
    ],
)
def test_damaged_files_are_refused(
    kind: str, message: str, contents: dict[str, bytes], zipped: dict[str, bytes], tmp_path: Path
) -> None:
    directory = put(tmp_path / "damaged", contents)
    broken = damage(kind, contents["x_train"], zipped["x_train"])
    (directory / "train-images-idx3-ubyte").write_bytes(broken)
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte is damaged: .*{message}"):
        load("mnist", directory)


@pytest.mark.usefixtures("ours")
def test_a_label_beyond_nine_is_refused(contents: dict[str, bytes], tmp_path: Path) -> None:
    directory = put(tmp_path / "damaged", contents)
    (directory / "t10k-labels-idx1-ubyte").write_bytes(contents["y_test"][:-1] + b"\x0a")
    with pytest.raises(DataError, match="label 10, expected 0 to 9"):
        load("mnist", directory)


@pytest.mark.usefixtures("ours")
@pytest.mark.parametrize("data", [b"", b"no zip file at all", b"PK\x03\x04" + bytes(40)])
def test_a_damaged_npz_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "mnist.npz").write_bytes(data)
    with pytest.raises(DataError, match=r"mnist\.npz is damaged"):
        load("mnist", tmp_path)


@pytest.mark.usefixtures("ours")
def test_damaged_files_in_a_cache_are_passed_over_with_a_warning(
    contents: dict[str, bytes], nowhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(Path("data/mnist"), {**contents, "y_test": b"damaged"})
    put(nowhere / "cache/bitloop/mnist", contents)
    assert load("mnist", download=False).origin == str(nowhere / "cache/bitloop/mnist")
    assert "t10k-labels-idx1-ubyte is damaged" in caplog.text


def test_an_unknown_data_set_is_refused() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'cifar'.*mnist, digits"):
        load("cifar")


def test_a_data_set_with_wrong_arrays_is_refused() -> None:
    pixels, labels, index = np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.uint8), np.arange(2)
    good = dict.fromkeys(Split, (pixels, labels, index))
    assert Dataset.build("x", "", "", good).counts()[Split.TEST] == 2
    with pytest.raises(DataError, match="no split 'test'"):
        Dataset.build("x", "", "", {split: good[split] for split in Split if split is not Split.TEST})
    with pytest.raises(DataError, match="0 to 9"):
        Dataset.build("x", "", "", {**good, Split.TRAIN: (pixels, np.array([0, 10], np.uint8), index)})
    with pytest.raises(DataError, match="pixels are float32"):
        Dataset.build("x", "", "", {**good, Split.TRAIN: (pixels.astype(np.float32), labels, index)})


def test_idx_header_is_that_of_the_specification() -> None:
    # The example of the specification: magic 0x00000803 (2051), 60000, 28, 28.
    assert idx.header((60_000, 28, 28)).hex() == "000008030000ea600000001c0000001c"
    assert idx.header((10_000,)).hex() == "0000080100002710"


# --- download -----------------------------------------------------------------------------------------------------


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    files: dict[str, bytes]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        self.send_response(404 if data is None else 200)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server(("127.0.0.1", 0), _Handler) as instance:
        instance.files = {}
        thread = threading.Thread(target=instance.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def refused() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"http://127.0.0.1:{port}/"


@pytest.mark.usefixtures("ours")
def test_a_download_tries_the_mirrors_and_lands_in_the_cache(
    zipped: dict[str, bytes], server: _Server, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in mnist.FILES:
        server.files[f"/good/{file.name}.gz"] = zipped[file.key]
        server.files[f"/bad/{file.name}.gz"] = b"a captive portal"
    base = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(download, "MIRRORS", (refused(), f"{base}/missing/", f"{base}/bad/", f"{base}/good/"))
    seen: dict[str, tuple[int, int]] = {}
    dataset = load("mnist", progress=lambda name, done, total: seen.update({name: (done, total)}))
    assert np.array_equal(first_bytes(dataset.split(Split.SEARCH)), splits.mnist_indices(Split.SEARCH))
    assert seen == {f"{file.name}.gz": (len(zipped[file.key]),) * 2 for file in mnist.FILES}
    cache = nowhere / "cache/bitloop/mnist"
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{file.name}.gz" for file in mnist.FILES)
    monkeypatch.setattr(download, "MIRRORS", (refused(),))
    assert load("mnist").origin == str(cache)


@pytest.mark.usefixtures("ours")
def test_a_download_with_a_wrong_checksum_keeps_nothing(
    server: _Server, nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in mnist.FILES:
        server.files[f"/{file.name}.gz"] = b"a captive portal"
    monkeypatch.setattr(download, "MIRRORS", (f"http://127.0.0.1:{server.server_address[1]}/",))
    with pytest.raises(DataError, match=r"no mirror gave train-images-idx3-ubyte\.gz.*'digits'"):
        load("mnist")
    assert list((nowhere / "cache/bitloop/mnist").iterdir()) == []


def test_without_a_network_it_fails_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MIRRORS", (refused(), refused(), refused()))
    start = time.monotonic()
    with pytest.raises(DataError, match=r"not found \(data/mnist: nothing.*cannot be downloaded.*--data"):
        load("mnist")
    assert time.monotonic() - start < 3


def test_a_silent_mirror_is_given_up(silent: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=r"nothing of x\.gz arrived for 0\.3 s.*is there a network"):
        download.download_files({"x.gz": "0" * 32}, tmp_path, mirrors=(silent,), stall_timeout_s=0.3)
    assert time.monotonic() - start < 2


def test_the_whole_wait_without_a_network_is_below_fifteen_seconds() -> None:
    assert download.STALL_TIMEOUT_S + 1 < 15


def test_nothing_is_downloaded_when_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise AssertionError("downloaded")

    monkeypatch.setattr(mnist, "download_files", fail)
    with pytest.raises(DataError, match="was not found"):
        load("mnist", download=False)
