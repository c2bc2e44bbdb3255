"""MNIST: where it is looked for, and how its files are checked.

Checked are the contents, after gunzip: they are the same everywhere, a gzip wrapper is not.
"""

from __future__ import annotations

import hashlib
import io
import logging
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from bitloop.data import idx
from bitloop.data.dataset import Dataset, Progress
from bitloop.data.download import download_files
from bitloop.data.splits import Split, mnist_indices
from bitloop.errors import DataError

U8 = npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)

ENVIRONMENT_VARIABLE = "BITLOOP_DATA"
NPZ_NAME = "mnist.npz"
MAX_NPZ_BYTES = 1 << 28


@dataclass(frozen=True)
class MnistFile:
    """One of the four files.

    Attributes:
        key: Name of the array in Keras's ``mnist.npz``.
        name: Name of the file without ``.gz``.
        shape: What it holds, unsigned bytes.
        sha256: SHA-256 of the contents after gunzip.
        gzip_md5: MD5 of the published gzip file, as the mirrors have it.
    """

    key: str
    name: str
    shape: tuple[int, ...]
    sha256: str
    gzip_md5: str

    @property
    def size_bytes(self) -> int:
        """Bytes of the contents."""
        return len(idx.header(self.shape)) + math.prod(self.shape)


FILES: tuple[MnistFile, ...] = (
    MnistFile(
        "x_train",
        "train-images-idx3-ubyte",
        (60_000, 28, 28),
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    MnistFile(
        "y_train",
        "train-labels-idx1-ubyte",
        (60_000,),
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "d53e105ee54ea40749a09fcbcd1e9432",
    ),
    MnistFile(
        "x_test",
        "t10k-images-idx3-ubyte",
        (10_000, 28, 28),
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "9fb629c4189551a2d022fa330f9573f3",
    ),
    MnistFile(
        "y_test",
        "t10k-labels-idx1-ubyte",
        (10_000,),
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)

DATASET_SHA256 = hashlib.sha256("".join(file.sha256 for file in FILES).encode("ascii")).hexdigest()
"""SHA-256 of the four contents' SHA-256 in hex, in the order of :data:`FILES`: what identifies MNIST in a record."""

_NPZ_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def cache_directory() -> Path:
    """Return where downloads go."""
    return Path(platformdirs.user_cache_dir("bitloop", appauthor=False)) / "mnist"


def load_mnist(directory: Path | None = None, *, download: bool = True, progress: Progress | None = None) -> Dataset:
    """Find, check and load MNIST; :func:`bitloop.data.dataset.load` has the arguments and the order of places.

    Raises:
        DataError: A named directory lacks the files or holds damaged ones; or MNIST is nowhere and cannot be had.
    """
    if directory is not None:
        return _load_named(directory, "it was named explicitly")
    named = os.environ.get(ENVIRONMENT_VARIABLE)
    if named:
        return _load_named(Path(named), f"${ENVIRONMENT_VARIABLE} names it")
    tried: list[str] = []
    for place in (Path("data") / "mnist", cache_directory(), Path.home() / ".keras" / "datasets"):
        dataset = _try_place(place, tried)
        if dataset is not None:
            return dataset
    advice = (
        f"put the four files of MNIST (.gz or not) into a directory and name it with --data or ${ENVIRONMENT_VARIABLE},"
        " or use the data set 'digits'"
    )
    if not download:
        raise DataError(f"MNIST was not found ({'; '.join(tried)}); {advice}")
    try:
        download_files({f"{file.name}.gz": file.gzip_md5 for file in FILES}, cache_directory(), progress=progress)
        return _load_place(cache_directory())
    except (DataError, OSError) as error:
        raise DataError(
            f"MNIST was not found ({'; '.join(tried)}) and cannot be downloaded: {error}; {advice}"
        ) from error


def _try_place(place: Path, tried: list[str]) -> Dataset | None:
    try:
        return _load_place(place)
    except FileNotFoundError:
        tried.append(f"{place}: nothing")
    except (DataError, OSError) as error:
        logger.warning("MNIST in %s is passed over: %s", place, error)
        tried.append(f"{place}: {error}")
    return None


def _load_named(directory: Path, why: str) -> Dataset:
    expected = f"{', '.join(file.name for file in FILES)} (each raw or .gz), or {NPZ_NAME}"
    try:
        return _load_place(directory)
    except FileNotFoundError as error:
        raise DataError(
            f"no complete MNIST in {directory} ({why}, so nothing else is tried): {error}; expected {expected}"
        ) from error
    except (DataError, OSError) as error:
        raise DataError(f"MNIST in {directory} cannot be used ({why}, so nothing else is tried): {error}") from error


def _load_place(directory: Path) -> Dataset:
    """Load MNIST from one directory.

    Raises:
        FileNotFoundError: Nothing, or not all of it, lies there.
        DataError: What lies there is damaged.
    """
    if not directory.is_dir():
        raise FileNotFoundError("there is no such directory")
    found = {file.key: path for file in FILES if (path := _find(directory, file.name)) is not None}
    if len(found) == len(FILES):
        return _build({file.key: _read_idx(found[file.key], file) for file in FILES}, str(directory))
    npz = directory / NPZ_NAME
    if npz.is_file():
        return _build(_read_npz(npz), str(npz))
    missing = [file.name for file in FILES if file.key not in found]
    raise FileNotFoundError(f"it lacks {', '.join(missing)}")


def _find(directory: Path, name: str) -> Path | None:
    return next((path for end in ("", ".gz") if (path := directory / f"{name}{end}").is_file()), None)


def _read_idx(path: Path, file: MnistFile) -> U8:
    try:
        contents = idx.unwrap(path.read_bytes(), most_bytes=file.size_bytes)
        array = idx.parse(contents, file.shape)
        _check_contents(contents, array, file)
    except (DataError, OSError) as error:
        raise DataError(f"{path.name} is damaged: {error}; delete it and get it again") from error
    return array


def _read_npz(path: Path) -> dict[str, U8]:
    arrays: dict[str, U8] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_NPZ_BYTES:
                raise DataError(f"it unpacks to more than {MAX_NPZ_BYTES} bytes")
            for file in FILES:
                stream = io.BytesIO(archive.read(f"{file.key}.npy"))
                array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
                if array.shape != file.shape or array.dtype != np.uint8:
                    raise DataError(f"{file.key} is {array.dtype} {array.shape}, expected uint8 {file.shape}")
                contents = idx.header(file.shape) + array.tobytes()
                _check_contents(contents, array, file)
                arrays[file.key] = array
    except (DataError, *_NPZ_DAMAGE) as error:
        raise DataError(f"{path.name} is damaged: {error}; delete it and get it again") from error
    return arrays


def _check_contents(contents: bytes, array: U8, file: MnistFile) -> None:
    if len(file.shape) == 1 and int(array.max()) > 9:
        raise DataError(f"it holds the label {int(array.max())}, expected 0 to 9")
    digest = hashlib.sha256(contents).hexdigest()
    if digest != file.sha256:
        raise DataError(f"the SHA-256 of its contents is {digest}, expected {file.sha256}")


def _build(arrays: Mapping[str, U8], origin: str) -> Dataset:
    parts = {}
    for split in Split:
        part = "test" if split is Split.TEST else "train"
        index = mnist_indices(split)
        parts[split] = (arrays[f"x_{part}"][index][..., np.newaxis], arrays[f"y_{part}"][index], index)
    return Dataset.build("mnist", DATASET_SHA256, origin, parts)
