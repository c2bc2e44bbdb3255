"""LiteRT's interpreter as an oracle from outside: a float .tflite file, run by somebody else's kernels.

It agrees on labels, and its reference kernels often to the bit; nothing promises that they sum in our order.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bitloop.errors import NetworkError, UsageError

_PACKAGES = ("ai_edge_litert.interpreter", "tflite_runtime.interpreter", "tensorflow")
INSTALL_HINT = "pip install 'bitloop[litert]'"


def run_tflite(model: Path | str | bytes, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Run a float .tflite file with LiteRT's reference kernels (XNNPACK's differ from them in the last bits).

    Args:
        model: the file, or its bytes.
        pixels: uint8 [N, H, W, C]; the model is given ``pixels / 255`` in float32, image by image.

    Returns:
        float32 [N, outputs]: what the file's last operation gives, be it logits or probabilities.

    Raises:
        UsageError: no LiteRT is installed, or the pixels do not have the size the model takes.
        NetworkError: the file cannot be read or run, or is no network from one float32 image to one float32 vector.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4:
        raise UsageError(f"pixels are {pixels.dtype} {list(pixels.shape)}, expected uint8 [N, H, W, C]")
    package = _package()
    content = model if isinstance(model, bytes) else _read(Path(model))
    try:
        interpreter = package.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=_reference_kernels(package),
        )
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise NetworkError(f"LiteRT cannot read the model: {error}") from error
    source = _only(interpreter.get_input_details(), "input")
    target = _only(interpreter.get_output_details(), "output")
    shape = tuple(int(size) for size in source["shape"])
    if int(np.prod(shape)) != int(np.prod(pixels.shape[1:])):
        raise UsageError(f"images of {list(pixels.shape[1:])} pixels do not fit the model's input {list(shape)}")
    x = np.divide(pixels, np.float32(255.0), dtype=np.float32)
    outputs = np.empty((len(x), int(np.prod(target["shape"]))), np.float32)
    try:
        for index, image in enumerate(x):
            interpreter.set_tensor(source["index"], image.reshape(shape))
            interpreter.invoke()
            outputs[index] = interpreter.get_tensor(target["index"]).reshape(-1)
    except (ValueError, RuntimeError) as error:
        raise NetworkError(f"LiteRT cannot run the model: {error}") from error
    return outputs


def _package() -> Any:
    for name in _PACKAGES:
        if _is_installed(name):
            package = importlib.import_module(name)
            return package.lite if name == "tensorflow" else package
    raise UsageError(f"LiteRT's interpreter is not installed (looked for {', '.join(_PACKAGES)}); {INSTALL_HINT}")


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package that ``name`` is a part of
        return False


def _reference_kernels(package: Any) -> Any:
    """The interpreter's modules and ``tf.lite`` keep the same enumeration in different places."""
    kinds = package.OpResolverType if hasattr(package, "OpResolverType") else package.experimental.OpResolverType
    return kinds.BUILTIN_REF


def _only(details: list[dict[str, Any]], what: str) -> dict[str, Any]:
    if len(details) != 1 or details[0]["dtype"] is not np.float32:
        found = [f"{entry['dtype'].__name__} {list(entry['shape'])}" for entry in details]
        raise NetworkError(f"the model's {what}s are {found}, expected one of float32")
    return details[0]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"the model {path} cannot be read: {error}") from error
