"""A network: an architecture, its binary32 parameters, and where they came from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError
from bitloop.files import write_atomically
from bitloop.network.architecture import Architecture
from bitloop.network.npz import DAMAGE, pop_text, read_members
from bitloop.network.zoo import ZOO

F32 = npt.NDArray[np.float32]

NPZ_FORMAT = "bitloop-network-1"
NPZ_SUFFIX = ".npz"
_TEXTS = ("format", "architecture", "dataset", "metadata")


@dataclass(frozen=True, eq=False)
class Network:
    """An architecture with its parameters in binary32; read-only once built.

    Attributes:
        architecture: The layers.
        parameters: One float32 array for each entry of ``architecture.parameter_shapes()``, in that order. They are
            copied and made read-only.
        dataset: Name of the data set it was trained on, "" when unknown.
        metadata: What made it (command, seed, versions, accuracies), as JSON can hold it.

    Raises:
        NetworkError: A tensor is missing, unknown, of another shape or type, or holds NaN or infinity.
    """

    architecture: Architecture
    parameters: Mapping[str, F32]
    dataset: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shapes = self.architecture.parameter_shapes()
        missing, unknown = sorted(set(shapes) - set(self.parameters)), sorted(set(self.parameters) - set(shapes))
        if missing or unknown:
            raise NetworkError(
                f"network {self.name!r} lacks the tensors {missing} and has {unknown}, which its layers do not use"
            )
        frozen: dict[str, F32] = {}
        for name, shape in shapes.items():
            frozen[name] = _checked(name, self.parameters[name], shape)
        object.__setattr__(self, "parameters", MappingProxyType(frozen))
        object.__setattr__(self, "metadata", MappingProxyType(dict(self.metadata)))

    @property
    def name(self) -> str:
        """The architecture's name."""
        return self.architecture.name

    @property
    def sha256(self) -> str:
        """SHA-256 of the parameters' bytes, little-endian, in the layers' order; in hex."""
        digest = hashlib.sha256()
        for array in self.parameters.values():
            digest.update(array.astype("<f4").tobytes())
        return digest.hexdigest()

    def save_npz(self, path: Path | str) -> None:
        """Write architecture, parameters and metadata as one compressed ``.npz`` without pickles, atomically.

        The same network gives the same bytes.

        Raises:
            NetworkError: The metadata is not JSON, or the file cannot be written.
        """
        target = Path(path)
        try:
            texts = {
                "format": NPZ_FORMAT,
                "architecture": json.dumps(self.architecture.to_dict(), sort_keys=True),
                "dataset": self.dataset,
                "metadata": json.dumps(dict(self.metadata), sort_keys=True),
            }
        except (TypeError, ValueError) as error:
            raise NetworkError(f"the metadata of {self.name!r} is not JSON: {error}") from error
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**{key: np.array(text) for key, text in texts.items()}, **self.parameters}
        np.savez_compressed(buffer, **arrays)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, buffer.getvalue())
        except OSError as error:
            raise NetworkError(f"cannot write the network to {target}: {error}") from error

    @classmethod
    def load_npz(cls, path: Path | str) -> Network:
        """Read what :meth:`save_npz` wrote; nothing in the file is trusted and no pickle is opened.

        Raises:
            NetworkError: The file is missing, damaged, or no network of bitloop's.
        """
        source = Path(path)
        try:
            return cls._from_members(read_members(source))
        except NetworkError as error:
            raise type(error)(f"cannot read a network from {source}: {error}") from error
        except DAMAGE as error:
            reason = str(error) or type(error).__name__
            raise NetworkError(f"cannot read a network from {source}: {reason}; expected a .npz of bitloop") from error

    @classmethod
    def _from_members(cls, members: dict[str, npt.NDArray[Any]]) -> Network:
        texts = {key: pop_text(members, key) for key in _TEXTS}
        if texts["format"] != NPZ_FORMAT:
            raise NetworkError(f"the file's format is {texts['format']!r}, but this version reads {NPZ_FORMAT!r}")
        metadata = json.loads(texts["metadata"])
        if not isinstance(metadata, dict):
            raise NetworkError("the file's metadata is no JSON object")
        architecture = Architecture.from_dict(json.loads(texts["architecture"]))
        return cls(architecture, members, texts["dataset"], metadata)


def load_network(source: Path | str, *, pixel_range: int = 1) -> Network:
    """Load a network from the zoo or from a file.

    Args:
        source: A name of the zoo, or the path of a ``.npz`` (bitloop's own), ``.keras`` or ``.tflite`` file. A name of
            the zoo wins over a file of the same name without a suffix.
        pixel_range: What white is to the model in a ``.keras`` or ``.tflite`` file: 1, or 255 for one that takes bytes
            as they are. Of no meaning where it rescales by 1/255 itself, and for bitloop's own.

    Raises:
        NetworkError: There is no such network, it has no committed parameters, or its file cannot be read.
        UnsupportedLayerError: The file has a layer that bitloop does not know.
    """
    entry = ZOO.get(str(source))
    if entry is not None:
        if not entry.weights_path.is_file():
            raise NetworkError(
                f"{entry.name!r} comes without trained parameters; train it with: {entry.train_command} "
                f"--out {entry.name}.npz, then name that file"
            )
        return Network.load_npz(entry.weights_path)
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix not in (NPZ_SUFFIX, ".keras", ".tflite"):
        raise NetworkError(
            f"{str(source)!r} is neither a network of the zoo ({', '.join(ZOO)}) nor a .npz, .keras or .tflite file"
        )
    if not path.is_file():
        raise NetworkError(f"there is no file {path}; name one, or a network of the zoo ({', '.join(ZOO)})")
    if suffix == ".keras":
        from bitloop.network.keras_import import import_keras  # noqa: PLC0415 - it builds on this module

        return import_keras(path, pixel_range=pixel_range)
    if suffix == ".tflite":
        from bitloop.network.tflite_import import import_tflite  # noqa: PLC0415 - it builds on this module

        return import_tflite(path, pixel_range=pixel_range)
    return Network.load_npz(path)


def _checked(name: str, array: object, shape: tuple[int, ...]) -> F32:
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise NetworkError(f"tensor {name!r} must be a float32 array, not {found}")
    if array.shape != shape:
        raise NetworkError(f"tensor {name!r} has shape {array.shape}, but its layer needs {shape}")
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(axis) for axis in np.argwhere(~finite)[0])
        raise NetworkError(
            f"tensor {name!r} holds {array[index]} at index {index} ({int((~finite).sum())} such elements in all); "
            "all weights and biases must be finite: train again with a smaller learning rate"
        )
    copy: F32 = np.array(array, dtype=np.float32, order="C")
    copy.setflags(write=False)
    return copy
