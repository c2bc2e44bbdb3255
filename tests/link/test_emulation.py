"""What ticks of an emulated device are worth, and that a session knows it from its transport. Worked out by hand."""

from dataclasses import replace

import fake_device as fd
import pytest

from bitloop.link.session import Session
from bitloop.link.urls.emulation import Emulation

F100 = Emulation("qemu-system-arm", "7.2.22", "stm32vldiscovery", 5, 4711)


@pytest.mark.parametrize(
    ("shift", "ticks_per_second", "instructions"),
    [
        (5, 24_000_000, 1.3020833),  # 41.667 ns a tick, 32 ns an instruction
        (3, 168_000_000, 0.7440476),  # 5.952 ns a tick, 8 ns an instruction
        (0, 1_000_000_000, 1.0),
        (6, 1_000_000, 15.625),
    ],
)
def test_instructions_of_a_tick(shift, ticks_per_second, instructions):
    emulation = replace(F100, icount_shift=shift)
    assert emulation.instructions_per_tick(ticks_per_second) == pytest.approx(instructions, abs=1e-7)


def test_the_loop_of_the_platform_notes():
    """1,000 turns of a loop of 5 instructions read 3,844 ticks of the F100's SysTick at shift 5."""
    assert round(3844 * F100.instructions_per_tick(24_000_000)) == 5005


def test_a_timer_without_a_rate_gives_no_instructions():
    assert F100.instructions_per_tick(0) is None


def test_a_session_marks_an_emulated_device():
    device = fd.FakeDevice()
    transport = fd.FakeTransport(device)
    plain = Session(transport, clock=transport.clock).connect()
    assert (plain.emulator, plain.instructions_per_tick) == ("", None)
    transport.emulation = F100
    session = Session(transport, clock=transport.clock)
    info = session.connect()
    assert info.simulated
    assert info.emulator == "qemu-system-arm 7.2.22, stm32vldiscovery, icount shift 5"
    assert info.instructions_per_tick == F100.instructions_per_tick(plain.ticks_per_second)
    assert replace(info, simulated=plain.simulated, emulator="", instructions_per_tick=None) == plain
