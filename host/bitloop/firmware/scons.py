"""SCons from PyPI as the package that PlatformIO would load from its registry.

PlatformIO looks for ``tool-scons`` among the packages of its core directory and downloads it where it is missing. Laid
down here is one that runs the SCons installed beside PlatformIO: the same program, without the registry.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
from pathlib import Path

from bitloop.errors import ToolchainError
from bitloop.files import write_atomically

ADVICE = "scripts/setup-firmware (or pip install 'bitloop[firmware]') installs it"

_SCONS_PY = """\
import sys

from SCons.Script.Main import main

sys.exit(main())
"""


def required_scons() -> tuple[str, str]:
    """Return what the installed PlatformIO asks for: the version of SCons, and that of its package ``tool-scons``.

    PlatformIO writes SCons 4.11.1 as ``~4.41101.0``: the middle number is the version without its points.

    Raises:
        ToolchainError: there is no PlatformIO, or it asks in words that are not understood.
    """
    try:
        from platformio.dependencies import get_core_dependencies  # noqa: PLC0415 - an extra, and slow
    except ImportError as error:
        raise ToolchainError(f"PlatformIO was not found in {sys.prefix}; {ADVICE}") from error
    requirement = str(get_core_dependencies()["tool-scons"])
    found = re.fullmatch(r"~(\d+\.(\d+)(\d\d)(\d\d)\.\d+)", requirement)
    if found is None:
        message = (
            f"PlatformIO {importlib.metadata.version('platformio')} asks for tool-scons {requirement!r}, expected "
            f"something like '~4.41101.0'; {ADVICE}"
        )
        raise ToolchainError(message)
    return f"{found[2]}.{int(found[3])}.{int(found[4])}", found[1]


def missing_scons() -> str | None:
    """Say what is wrong with SCons, or None where the one that PlatformIO asks for is there.

    Raises:
        ToolchainError: as of :func:`required_scons`.
    """
    wanted, _ = required_scons()
    try:
        found = importlib.metadata.version("scons")
    except importlib.metadata.PackageNotFoundError:
        return f"SCons {wanted} was not found in {sys.prefix}; {ADVICE}"
    if found != wanted:
        return f"SCons {wanted} is what PlatformIO asks for, but {found} is installed; pip install scons=={wanted}"
    return None


def lay_scons(core_dir: Path) -> Path:
    """Make ``packages/tool-scons`` in a core directory of PlatformIO; quick when it is there already.

    Returns:
        The folder of the package.

    Raises:
        ToolchainError: PlatformIO or the version of SCons it asks for is missing.
    """
    wrong = missing_scons()
    if wrong is not None:
        raise ToolchainError(wrong)
    _, version = required_scons()
    spec = {"owner": "platformio", "id": 8192, "name": "tool-scons", "requirements": None, "uri": None}
    files = {
        "scons.py": _SCONS_PY,
        "package.json": json.dumps({"name": "tool-scons", "version": version}),
        ".piopm": json.dumps({"type": "tool", "name": "tool-scons", "version": version, "spec": spec}),
    }
    folder = core_dir / "packages" / "tool-scons"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text.encode())
    return folder
