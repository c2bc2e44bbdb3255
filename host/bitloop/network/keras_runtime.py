"""Keras on demand: importing it takes seconds, and only training and the exchange of files need it."""

from __future__ import annotations

import importlib
import os
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
        keras = importlib.import_module("keras")
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
        return importlib.import_module("tensorflow")
    except ImportError as error:
        raise UsageError(f"this needs TensorFlow, which cannot be imported ({error}); {INSTALL_HINT}") from error
