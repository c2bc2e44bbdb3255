"""Ctrl-C at a moment that suits: never between a result and its line in the journal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["InterruptGuard"]


class InterruptGuard:
    """Holds ``KeyboardInterrupt`` back while something is done that must be done whole.

    Used as a context manager, it takes over SIGINT; outside of the main thread, where Python delivers no signals, and
    where SIGINT is not Python's own, it does nothing.
    """

    def __init__(self) -> None:
        self._holding = False
        self._pending = False
        self._installed = False

    def __enter__(self) -> InterruptGuard:
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if own and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._take)
            self._installed = True
        return self

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._installed = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Do the block whole; an interrupt that comes meanwhile is raised behind it."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self._pending:
            self._pending = False
            raise KeyboardInterrupt

    def _take(self, _signal: int, _frame: FrameType | None) -> None:
        if self._holding:
            self._pending = True
        else:
            raise KeyboardInterrupt
