"""Where the firmware's sources and the compiled core lie."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from bitloop.errors import ToolchainError

_PACKAGE = Path(__file__).resolve().parent.parent


def device_dir() -> Path:
    """Return the directory of the firmware's sources: inside an installed wheel, else the checkout's ``device/``.

    Raises:
        ToolchainError: neither is there.
    """
    for candidate in (_PACKAGE / "_device", _PACKAGE.parent.parent / "device"):
        if (candidate / "core" / "bl_spec.h").is_file():
            return candidate
    message = (
        f"the firmware's sources were not found beside {_PACKAGE}; expected _device/ in an installed package or "
        "device/ in a checkout: reinstall bitloop"
    )
    raise ToolchainError(message)


def cache_dir() -> Path:
    """Return where compiled files are kept: ``$BITLOOP_CACHE``, else the user's cache directory."""
    override = os.environ.get("BITLOOP_CACHE")
    return Path(override) if override else Path(platformdirs.user_cache_dir("bitloop"))
