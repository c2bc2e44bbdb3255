"""The line of ports: the ring between interrupt and program, and an STM32's USART, with its registers in RAM."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.native import device_dir
from bitloop.spec import MAX_BAUD_ERROR_PERMILLE

RING = r"""
#include "bl_ring.h"
static bl_ring ring;
void init(uint8_t *bytes, uint16_t size) { bl_ring_init(&ring, bytes, size); }
void put(uint8_t byte) { bl_ring_put(&ring, byte); }
int is_empty(void) { return bl_ring_empty(&ring); }
unsigned long get(uint8_t *data, unsigned long capacity) { return bl_ring_get(&ring, data, capacity); }
uint32_t lost(void) { return ring.lost; }
"""

# What stm32_usart.c has of a chip. TC comes when SR was read some times after a write, as a character takes its time.
CHIP = r"""
#ifndef CORTEX_M_H
#define CORTEX_M_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
volatile uint32_t *chip_register(uint32_t address);
#define CORTEX_M_REGISTER(address) (*chip_register(address))
static inline void cortex_m_interrupts_off(void) {}
static inline void cortex_m_interrupts_on(void) {}
static inline void cortex_m_interrupt_enable(unsigned number) { (void)number; }
static inline void cortex_m_sleep(void) {}
#endif
"""
BOARD = """
#include "bl_frame.h"
#define BOARD_RING_BYTES 64
#define STM32_USART_BASE 0u
#define STM32_USART_INTERRUPT 37
"""
USART = r"""
#include "stm32_usart.c"
static uint32_t registers[8];
static unsigned busy;
unsigned changed_while_busy;
volatile uint32_t *chip_register(uint32_t address)
{
    if (address == 0) {
        registers[0] = busy > 0 ? 1u << 7 : 1u << 7 | 1u << 6;
        busy -= busy > 0;
    } else if (address == 4) {
        busy = 5;
    } else if (address == 8 && busy > 0) {
        changed_while_busy++;
    }
    return &registers[address / 4];
}
uint32_t divisor(void) { return registers[2]; }
"""


def compiled(folder: Path, source: str, *flags: str) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    (folder / "all.c").write_text(source)
    includes = [f"-I{folder}", *(f"-I{device_dir() / part}" for part in ("ports/shared", "core"))]
    warnings = ("-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow")
    command = [compiler, "-std=c11", "-O2", *warnings, "-shared", "-fPIC", *includes, *flags]
    subprocess.run([*command, "-o", str(folder / "all.so"), str(folder / "all.c")], check=True, timeout=100)
    return ctypes.CDLL(str(folder / "all.so"))


@pytest.fixture(scope="module")
def ring(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return compiled(tmp_path_factory.mktemp("ring"), RING)


@given(
    size=st.integers(2, 40) | st.sampled_from([255, 256, 257, 423, 65535]),
    steps=st.lists(st.binary(min_size=1, max_size=50) | st.integers(0, 60), max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_a_ring_of_any_size_is_a_queue(ring: ctypes.CDLL, size: int, steps: list[bytes | int]) -> None:
    """Against a deque: bytes are put one by one, an integer gets so many; what finds it full is counted."""
    canary = bytes([0xC5] * 8)
    memory = (ctypes.c_uint8 * (size + 16)).from_buffer_copy(canary + bytes(size) + canary)
    ring.init(ctypes.byref(memory, 8), ctypes.c_uint16(size))
    model: deque[int] = deque()
    lost = 0
    for step in steps:
        if isinstance(step, int):
            data = (ctypes.c_uint8 * 60)()
            count = ring.get(data, ctypes.c_ulong(step))
            assert bytes(data[:count]) == bytes(model.popleft() for _ in range(min(step, len(model))))
        else:
            for byte in step:
                ring.put(ctypes.c_uint8(byte))
                if len(model) < size - 1:
                    model.append(byte)
                else:
                    lost += 1
        assert bool(ring.is_empty()) == (not model)
        assert ring.lost() == lost
    assert bytes(memory[:8]) == bytes(memory[size + 8 :]) == canary


def usart_of(folder: Path) -> ctypes.CDLL:
    (folder / "chip.h").write_text(CHIP)
    (folder / "stm32_board.h").write_text(BOARD)
    library = compiled(folder, USART, "-include", "chip.h")
    for name in ("stm32_usart_nearest_baud", "stm32_usart_max_baud", "divisor"):
        getattr(library, name).restype = ctypes.c_uint32
    return library


@pytest.fixture(scope="module")
def usart(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    return usart_of(tmp_path_factory.mktemp("usart"))


CLOCKS = [8_000_000, 16_000_000, 24_000_000, 42_000_000, 45_000_000, 64_000_000, 72_000_000, 84_000_000, 100_000_000]
"""Of the buses that the boards' USARTs are on, at their full clock and on the internal oscillator."""


RATES = st.sampled_from(CLOCKS).flatmap(
    lambda clock: st.tuples(
        st.just(clock),
        st.integers(0, 2_100_000)
        | st.integers(0, 0xFFFFFFFF)
        | st.floats(15, 40).map(lambda divisor: int(clock / divisor)),
    )
)
"""A clock, and any rate; among them many that lie between two divisors, where those are far apart."""


@given(RATES)
@settings(max_examples=1000, deadline=None)
def test_a_rate_is_the_nearest_that_a_divisor_makes(usart: ctypes.CDLL, rate: tuple[int, int]) -> None:
    """16 samples a bit: BRR is the bus clock over the rate, 16 to 65535 (RM0008 27.3.4)."""
    clock, baud = rate
    usart.stm32_usart_start(ctypes.c_uint32(clock), ctypes.c_uint32(115200))
    assert usart.stm32_usart_max_baud() == min(clock // 16, 2_000_000)
    real = usart.stm32_usart_nearest_baud(None, ctypes.c_uint32(baud))
    divisors = [each for each in ([clock // baud, clock // baud + 1] if baud else []) if 16 <= each <= 65535]
    best = min((abs(clock / each - baud) for each in divisors), default=float("inf"))
    allowed = baud * MAX_BAUD_ERROR_PERMILLE / 1000
    if real == 0:
        assert baud > min(clock // 16, 2_000_000) or best > allowed - 1
        return
    assert best <= allowed + 1
    usart.stm32_usart_set_baud(None, ctypes.c_uint32(baud))
    assert abs(clock / usart.divisor() - real) <= 0.5
    assert abs(clock / usart.divisor() - baud) <= best + baud / usart.divisor() / 50  # nearest in bits, not in hertz


@pytest.mark.parametrize(
    ("clock", "baud", "divisor", "real"),
    [
        (84_000_000, 115200, 729, 115226),  # 84,000,000 / 115,200 = 729.17; / 729 = 115,226.3
        (24_000_000, 921600, 26, 923077),
        (24_000_000, 1500000, 16, 1500000),
        (8_000_000, 230400, 35, 228571),
        (72_000_000, 2000000, 36, 2000000),
    ],
)
def test_rates_by_hand(usart: ctypes.CDLL, clock: int, baud: int, divisor: int, real: int) -> None:
    usart.stm32_usart_start(ctypes.c_uint32(clock), ctypes.c_uint32(115200))
    assert usart.stm32_usart_nearest_baud(None, ctypes.c_uint32(baud)) == real
    usart.stm32_usart_set_baud(None, ctypes.c_uint32(baud))
    assert usart.divisor() == divisor


def test_a_rate_changes_when_the_last_character_has_left(usart: ctypes.CDLL) -> None:
    usart.stm32_usart_start(ctypes.c_uint32(24_000_000), ctypes.c_uint32(115200))
    usart.stm32_usart_write(None, b"abc", ctypes.c_size_t(3))
    usart.stm32_usart_set_baud(None, ctypes.c_uint32(500000))
    assert usart.divisor() == 48
    assert ctypes.c_uint.in_dll(usart, "changed_while_busy").value == 0
