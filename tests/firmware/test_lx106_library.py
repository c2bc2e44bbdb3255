"""What the LX106's port brings instead of a library: divisions and memory functions, compiled for this machine."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import ToolchainError
from bitloop.native import device_dir
from bitloop.native.build import find_compiler

PORT = device_dir() / "ports" / "lx106_sim"
INTEGER = ("udivsi3", "umodsi3", "divsi3", "modsi3", "muldi3")
MEMORY = ("memcpy", "memmove", "memset", "memcmp")
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow", "-ffreestanding")

U32 = st.integers(0, 2**32 - 1) | st.integers(0, 40) | st.sampled_from([2**31 - 1, 2**31, 2**32 - 1])
S32 = U32.map(lambda value: value - 2**32 if value >= 2**31 else value)
U64 = st.integers(0, 2**64 - 1) | U32


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The port's functions, under the names soft_udivsi3, soft_memcpy and so on."""
    try:
        compiler = find_compiler()
    except ToolchainError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("library")
    names = [f"-D__{name}=soft_{name}" for name in INTEGER] + [f"-D{name}=soft_{name}" for name in MEMORY]
    sources = [str(PORT / name) for name in ("soft_integer.c", "memory.c")]
    optimize = ["-Wno-unknown-pragmas"]  # one of memory.c is GCC's
    command = [*compiler, *FLAGS, *optimize, *names, "-shared", "-fPIC", *sources, "-o", str(folder / "library.so")]
    subprocess.run(command, check=True, timeout=100)
    found = ctypes.CDLL(str(folder / "library.so"))
    for name, kind in zip(INTEGER, ("uint32", "uint32", "int32", "int32", "uint64"), strict=True):
        function, type_ = getattr(found, f"soft_{name}"), getattr(ctypes, f"c_{kind}")
        function.restype, function.argtypes = type_, [type_, type_]
    for name in MEMORY:
        function = getattr(found, f"soft_{name}")
        second = ctypes.c_int if name == "memset" else ctypes.c_void_p
        function.restype = ctypes.c_int if name == "memcmp" else ctypes.c_void_p
        function.argtypes = [ctypes.c_void_p, second, ctypes.c_size_t]
    return found


@settings(max_examples=2000, deadline=None)
@given(U32, U32.filter(bool))
def test_unsigned_division(library: ctypes.CDLL, a: int, b: int) -> None:
    assert (library.soft_udivsi3(a, b), library.soft_umodsi3(a, b)) == divmod(a, b)


@settings(max_examples=2000, deadline=None)
@given(S32, S32.filter(bool))
def test_signed_division_is_toward_zero(library: ctypes.CDLL, a: int, b: int) -> None:
    quotient = abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    wrapped = (quotient + 2**31) % 2**32 - 2**31  # of -2^31 / -1
    assert library.soft_divsi3(a, b) == wrapped
    assert library.soft_modsi3(a, b) == a - quotient * b


@settings(max_examples=2000, deadline=None)
@given(U64, U64)
def test_product_of_64_bits(library: ctypes.CDLL, a: int, b: int) -> None:
    assert library.soft_muldi3(a, b) == a * b % 2**64


def test_divisions_at_the_edges(library: ctypes.CDLL) -> None:
    edges = sorted({max(0, min(2**32 - 1, 2**bit + offset)) for bit in range(33) for offset in (-1, 0, 1)})
    for a in edges:
        for b in edges[1:]:
            assert (library.soft_udivsi3(a, b), library.soft_umodsi3(a, b)) == divmod(a, b)


BYTES = bytes(range(1, 65))


@pytest.mark.parametrize("to", range(16, 25))
@pytest.mark.parametrize("start", range(16, 25))
def test_copies_of_any_length_and_alignment(library: ctypes.CDLL, to: int, start: int) -> None:
    """memmove within one buffer, overlapping both ways; memcpy into another; nothing around them changes."""
    for count in range(24):
        moved = (ctypes.c_uint32 * 16).from_buffer_copy(BYTES)
        address = ctypes.addressof(moved)
        assert library.soft_memmove(address + to, address + start, count) == address + to
        expected = bytearray(BYTES)
        expected[to : to + count] = BYTES[start : start + count]
        assert bytes(moved) == expected

        copied = (ctypes.c_uint32 * 16)()
        address = ctypes.addressof(copied)
        source = (ctypes.c_uint32 * 16).from_buffer_copy(BYTES)
        assert library.soft_memcpy(address + to, ctypes.addressof(source) + start, count) == address + to
        expected = bytearray(64)
        expected[to : to + count] = BYTES[start : start + count]
        assert bytes(copied) == expected


@pytest.mark.parametrize("to", range(16, 21))
@pytest.mark.parametrize("byte", [0, 0xC5, 0x1FF, -1])
def test_fill_of_any_length_and_alignment(library: ctypes.CDLL, to: int, byte: int) -> None:
    for count in range(24):
        filled = (ctypes.c_uint32 * 16).from_buffer_copy(BYTES)
        address = ctypes.addressof(filled)
        assert library.soft_memset(address + to, byte, count) == address + to
        expected = bytearray(BYTES)
        expected[to : to + count] = bytes([byte & 0xFF]) * count
        assert bytes(filled) == expected


@given(st.binary(max_size=9), st.binary(max_size=9))
def test_comparison_is_of_unsigned_bytes(library: ctypes.CDLL, a: bytes, b: bytes) -> None:
    count = min(len(a), len(b))
    sign = library.soft_memcmp(a, b, count)
    assert (sign > 0) - (sign < 0) == (a[:count] > b[:count]) - (a[:count] < b[:count])


@pytest.mark.parametrize("optimize", ["-O1", "-O2", "-O3", "-Os"])
def test_no_function_calls_itself(optimize: str, tmp_path: Path) -> None:
    """A compiler knows a copy, a division or a product when it sees one, and may call the function it is in."""
    if shutil.which("xtensa-lx106-elf-gcc") is None:
        pytest.skip("xtensa-lx106-elf-gcc is not installed; scripts/setup-firmware installs it")
    calls = set()
    for name in ("soft_float", "soft_integer", "memory"):
        assembly = tmp_path / f"{name}.s"
        flags = ("-std=c11", optimize, "-ffreestanding", "-fbuiltin", f"-I{device_dir() / 'core'}", f"-I{PORT}")
        command = ["xtensa-lx106-elf-gcc", *flags, "-S", str(PORT / f"{name}.c"), "-o", str(assembly)]
        subprocess.run(command, check=True, timeout=100)
        caller = ""
        for line in assembly.read_text().splitlines():
            if label := re.match(r"([A-Za-z_]\w*):", line):
                caller = label[1]
            elif call := re.match(r"\s+call(?:x?0)\s+(\S+)", line):
                calls.add((caller, call[1]))
    assert ("__mulsf3", "multiply_special") in calls  # calls are seen at all
    assert not [caller for caller, callee in calls if caller == callee]
    # The division, product and memory functions of the compiler's choice: only where they are written.
    callees = {callee for caller, callee in calls if (caller, callee) != ("memmove", "memcpy")}
    assert not callees & {*(f"__{name}" for name in INTEGER), *MEMORY}
