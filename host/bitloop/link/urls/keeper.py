"""Keeps a program from outliving its host: run as a script, it starts the program and ends it when standard input ends.

    python keeper.py CPU DESCRIPTORS PROGRAM ARGUMENT...

CPU is the one that the program may use, or ``-``; DESCRIPTORS, apart by commas, are the program's alone. The first line
of standard output is the program's process id; the keeper then ends as the program does, by the same code or signal.

A process of its own, because the system closes a dead process's pipes whatever it died of, SIGKILL included. Asking
Linux for a signal at the parent's death would not do in the host itself: that signal follows the *thread* that started
the program. The keeper has one thread, so it asks for just that, and is not needed for the program to end either.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import sys
from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_NOT_STARTED = 127


def main(arguments: list[str]) -> None:
    """Start the program, wait for its end or the host's, and end likewise."""
    cpu, descriptors, *command = arguments
    ended, ended_in_program = os.pipe()  # reads as ended when the program, the last to hold the other end, has ended
    os.set_inheritable(ended_in_program, True)
    keeper = os.getpid()
    program = os.fork()
    if program == 0:
        _become(command, cpu, keeper)
    os.close(ended_in_program)
    for descriptor in filter(None, descriptors.split(",")):
        os.close(int(descriptor))  # or the host would not see the program's end
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), b"%d\n" % program)
    readable, _, _ = select.select([sys.stdin.fileno(), ended], [], [])
    if ended not in readable:
        os.kill(program, signal.SIGKILL)
    _, status = os.waitpid(program, 0)
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if -code not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(keeper, -code)


def _become(command: list[str], cpu: str, keeper: int) -> NoReturn:
    try:
        if sys.platform.startswith("linux"):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != keeper:
                os._exit(_NOT_STARTED)
        if cpu != "-":
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, {int(cpu)})
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, sys.stdin.fileno())
        os.dup2(null, sys.stdout.fileno())
        os.execvp(command[0], command)
    except OSError as error:
        os.write(sys.stderr.fileno(), f"{command[0]}: {error}\n".encode())
    finally:
        os._exit(_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
