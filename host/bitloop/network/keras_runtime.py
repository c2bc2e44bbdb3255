"""Keras on demand: importing it takes seconds, and only training and the exchange of files need it."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

from bitloop.errors import UsageError

INSTALL_HINT = "pip install 'bitloop[tensorflow]'"


def import_keras_package() -> Any:
    """Import Keras 3, on TensorFlow unless $KERAS_BACKEND names another backend.

    Raises:
        UsageError: Keras or its backend is not installed, or it is Keras 2.
    """
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _without_greetings():
            keras = importlib.import_module("keras")
            if os.environ["KERAS_BACKEND"] == "tensorflow":
                _find_devices(importlib.import_module("tensorflow"))
    except ImportError as error:
        raise UsageError(
            f"training, and reading and writing of .keras files, needs Keras 3 on {os.environ['KERAS_BACKEND']}, "
            f"which cannot be imported ({error}); {INSTALL_HINT}"
        ) from error
    if not str(keras.__version__).startswith("3."):
        raise UsageError(f"Keras {keras.__version__} is installed, but Keras 3 is needed; {INSTALL_HINT}")
    return keras


def import_tensorflow() -> Any:
    """Import TensorFlow.

    Raises:
        UsageError: It is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _without_greetings():
            tensorflow = importlib.import_module("tensorflow")
            _find_devices(tensorflow)
    except ImportError as error:
        raise UsageError(f"this needs TensorFlow, which cannot be imported ({error}); {INSTALL_HINT}") from error
    return tensorflow


def _find_devices(tensorflow: Any) -> None:
    """Let TensorFlow look for GPUs now: where there is none, it says so at length."""
    tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def _without_greetings() -> Iterator[None]:
    """Keep back what TensorFlow's C++ code writes to stderr before its log can be set; if it fails, show it.

    Python's own stderr goes on as it is.
    """
    try:
        kept = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    own = sys.stderr
    with (
        tempfile.TemporaryFile() as greetings,
        os.fdopen(kept, "w", encoding="utf-8", errors="backslashreplace") as terminal,
    ):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if own.fileno() == 2:
                own.flush()
                sys.stderr = terminal
        os.dup2(greetings.fileno(), 2)
        try:
            yield
        except BaseException:
            greetings.seek(0)
            os.write(kept, greetings.read())
            raise
        finally:
            os.dup2(kept, 2)
            sys.stderr = own
