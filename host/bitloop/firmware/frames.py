"""What the compiler says of the stack that each function takes: the .su files that ``-fstack-usage`` writes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from bitloop.errors import ToolchainError

__all__ = ["Frame", "read_frames"]

_FRAME = re.compile(r"^(?P<file>.*):(?P<line>\d+):\d+:(?P<name>.+)\t(?P<bytes>\d+)\t(?P<kind>[a-z,]+)$")


@dataclass(frozen=True)
class Frame:
    """A line of a .su file; ``is_bounded`` is False where the function allocates what only running it tells."""

    file: str
    line: int
    name: str
    size: int
    is_bounded: bool


def read_frames(folder: Path) -> tuple[Frame, ...]:
    """Read all .su files of a build.

    Raises:
        ToolchainError: there is none, or one is not understood.
    """
    frames = []
    for path in sorted(folder.rglob("*.su")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = _FRAME.match(line)
            if found is None:
                raise ToolchainError(f"{path} has a line that is not understood: {line!r}; build the firmware again")
            kind = found["kind"].split(",")
            frames.append(
                Frame(
                    file=re.split(r"[/\\]", found["file"])[-1],
                    line=int(found["line"]),
                    name=found["name"],
                    size=int(found["bytes"]),
                    is_bounded="dynamic" not in kind or "bounded" in kind,
                )
            )
    if not frames:
        raise ToolchainError(f"there are no .su files below {folder}; compile with -fstack-usage")
    return tuple(frames)
