"""Runs a program that builds or flashes: its lines as they come, and no part of it left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Line = Callable[[str], None]

_END_S = 5.0


def run_tool(
    command: Sequence[str],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    each_line: Line | None = None,
) -> tuple[int, str]:
    """Run a program to its end; if that is not waited for (Ctrl-C), it and all it has started are ended first.

    Args:
        command: program and arguments.
        folder: working directory.
        environment: variables, instead of this process's own.
        each_line: called with each line it prints; of a line that was written over, what is left of it.

    Returns:
        Its exit code, and all that it printed.

    Raises:
        OSError: it cannot be started.
    """
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a group of its own, which can be ended as a whole
    ) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.decode(errors="replace")
                lines.append(line)
                if each_line is not None:
                    each_line(line.rstrip("\r\n").rsplit("\r", 1)[-1])
        except BaseException:
            _end(process)
            raise
    return process.returncode, "".join(lines)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the whole group to end, as Ctrl-C in a terminal would; make it end if it does not, or at a second Ctrl-C."""
    for sign in (signal.SIGINT, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(_END_S)
    if process.stdout is not None:
        process.stdout.close()
