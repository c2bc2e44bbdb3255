"""Ctrl-C never falls between a result and its line."""

from __future__ import annotations

import signal
import threading

import pytest

from bitloop.bench.interrupt import InterruptGuard


def test_an_interrupt_waits_for_the_end_of_what_must_be_whole() -> None:
    done: list[str] = []
    with InterruptGuard() as guard:

        def whole() -> None:
            with guard.held():
                signal.raise_signal(signal.SIGINT)
                done.append("whole")

        with pytest.raises(KeyboardInterrupt):
            whole()
        assert done == ["whole"]
        with guard.held():
            done.append("the next is not interrupted")
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_handler_of_someone_else_is_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with InterruptGuard() as guard, guard.held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_may_use_it() -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            with InterruptGuard() as guard, guard.held():
                pass
        except BaseException as error:  # noqa: BLE001 - told to the test
            problems.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert problems == []
