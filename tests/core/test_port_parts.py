"""What ports share (device/ports/shared): the boot record that outlives a reset, and the constant table of pixels."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bitloop.native import device_dir

SOURCE = r"""
#include "bl_boot.h"
#include "bl_pixel_table.h"
#include <stddef.h>

int begin(bl_boot_record *record) { return bl_boot_begin(record); }
void note_fault(bl_boot_record *record) { bl_boot_note_fault(record); }
const float *pixels(void) { return bl_pixel_table; }
"""


class BootRecord(ctypes.Structure):
    _fields_ = (("boots", ctypes.c_uint32), ("fault", ctypes.c_uint32), ("check", ctypes.c_uint32))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        pytest.skip("there is no C compiler")
    folder: Path = tmp_path_factory.mktemp("parts")
    (folder / "parts.c").write_text(SOURCE)
    subprocess.run(
        [
            *(compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow", "-shared", "-fPIC"),
            *(f"-I{device_dir() / 'ports' / 'shared'}", "-o", str(folder / "parts.so"), str(folder / "parts.c")),
        ],
        check=True,
        timeout=100,
    )
    library = ctypes.CDLL(str(folder / "parts.so"))
    library.pixels.restype = ctypes.POINTER(ctypes.c_float)
    return library


def test_pixel_table_is_the_quotient_rounded_once(parts: ctypes.CDLL) -> None:
    expected = np.arange(256, dtype=np.float32) / np.float32(255)
    table = np.ctypeslib.as_array(parts.pixels(), (256,))
    assert table.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "rubbish", [(0, 0, 0), (0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), (7, 0, 7), (7, 1, 0), (0, 2, 0x626C6F6F)]
)
def test_what_power_leaves_in_ram_is_no_record(parts: ctypes.CDLL, rubbish: tuple[int, int, int]) -> None:
    record = BootRecord(*rubbish)
    assert parts.begin(ctypes.byref(record)) == 0
    assert (record.boots, record.fault) == (1, 0)


def test_boots_are_counted_and_a_fault_is_told_once(parts: ctypes.CDLL) -> None:
    record = BootRecord(0, 0, 0)
    parts.begin(ctypes.byref(record))
    assert parts.begin(ctypes.byref(record)) == 0
    assert record.boots == 2
    parts.note_fault(ctypes.byref(record))
    assert parts.begin(ctypes.byref(record)) == 1
    assert parts.begin(ctypes.byref(record)) == 0
    assert record.boots == 4


@pytest.mark.parametrize("bit", range(96))
def test_no_flipped_bit_passes(parts: ctypes.CDLL, bit: int) -> None:
    record = BootRecord(0, 0, 0)
    parts.begin(ctypes.byref(record))
    raw = bytearray(bytes(record))
    raw[bit // 8] ^= 1 << bit % 8
    record = BootRecord.from_buffer(raw)
    assert parts.begin(ctypes.byref(record)) == 0
    assert record.boots == 1
