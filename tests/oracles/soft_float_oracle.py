"""Proofs that device/ports/lx106_sim computes floats as IEEE 754 says, against numpy's binary32: this machine's own.

Used in a short version by tests/firmware; a long one is ``prove_random(build(folder), 1_000_000_000)``. Each returns
how many results it compared, and raises AssertionError at the first difference, with operands.

The very source that the firmware is built from is compiled for this machine, its functions renamed: a compiler calls
them by their own names where it needs them.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bitloop.native import device_dir
from bitloop.native.build import find_compiler

U32 = npt.NDArray[np.uint32]
F32 = npt.NDArray[np.float32]

NAN = 0x7FC00000
BINARY: dict[str, Callable[[F32, F32], F32]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
}
COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "unord")
TO_FLOAT: dict[str, type] = {"floatsi": np.int32, "floatunsi": np.uint32}
TO_INTEGER: dict[str, type] = {"fixsf": np.int32, "fixunssf": np.uint32}

FUNCTIONS = (
    *(f"__{name}sf3" for name in BINARY),
    *(f"__{name}sf2" for name in COMPARISONS),
    *(f"__{name}sf" for name in TO_FLOAT),
    *(f"__{name}si" for name in TO_INTEGER),
)

LOOPS = """
#include "soft_float.h"
#include "bl_base.h"
#define F bl_float_from_bits
#define LOOP(name, result) \\
    void name(const uint32_t *a, const uint32_t *b, uint32_t *out, uint32_t count) \\
    { for (uint32_t i = 0; i < count; i++) { (void)b; out[i] = (uint32_t)(result); } }
"""

CHUNK = 1 << 20


def build(folder: Path, change: tuple[str, str] | None = None) -> ctypes.CDLL:
    """Compile soft_float.c for this machine.

    Args:
        folder: for what is compiled; must not hold another one.
        change: a text that the source holds once, and another for it, to see that a proof finds a wrong source.
    """
    port = device_dir() / "ports" / "lx106_sim"
    source = (port / "soft_float.c").read_text(encoding="utf-8")
    if change is not None:
        assert source.count(change[0]) == 1, change[0]
        source = source.replace(*change)
    loops = [f"LOOP({name}_n, bl_float_bits(__{name}sf3(F(a[i]), F(b[i]))))" for name in BINARY]
    loops += [f"LOOP({name}_n, __{name}sf2(F(a[i]), F(b[i])))" for name in COMPARISONS]
    loops += ["LOOP(floatsi_n, bl_float_bits(__floatsisf((int32_t)a[i])))"]
    loops += ["LOOP(floatunsi_n, bl_float_bits(__floatunsisf(a[i])))"]
    loops += [f"LOOP({name}_n, __{name}si(F(a[i])))" for name in TO_INTEGER]
    (folder / "soft_float.c").write_text(source, encoding="utf-8")
    (folder / "loops.c").write_text(LOOPS + "\n".join(loops) + "\n", encoding="utf-8")
    library = folder / "soft_float.so"
    subprocess.run(
        [
            *(*find_compiler(), "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow"),
            *(f"-D{name}=soft{name}" for name in FUNCTIONS),
            *("-shared", "-fPIC", f"-I{device_dir() / 'core'}", f"-I{port}"),
            *(str(folder / "soft_float.c"), str(folder / "loops.c"), "-o", str(library)),
        ],
        check=True,
        timeout=100,
    )
    return ctypes.CDLL(str(library))


def results(library: ctypes.CDLL, name: str, a: U32, b: U32 | None = None) -> U32:
    """Give what the function computes of each pair of bits."""
    a = np.ascontiguousarray(a)
    b = a if b is None else np.ascontiguousarray(b)
    out = np.empty_like(a)
    pointers = (ctypes.c_void_p(array.ctypes.data) for array in (a, b, out))
    getattr(library, f"{name}_n")(*pointers, ctypes.c_uint32(a.size))
    return out


def hold(name: str, got: U32, wanted: U32, a: U32, b: U32 | None = None) -> int:
    """Compare, and give how many results were."""
    wrong = np.flatnonzero(got != wanted)
    if wrong.size:
        i = wrong[0]
        operands = f"{a[i]:08x}" if b is None else f"{a[i]:08x}, {b[i]:08x}"
        raise AssertionError(
            f"{name}({operands}) is {got[i]:08x}, not {wanted[i]:08x}; {wrong.size} of {got.size} are wrong"
        )
    return got.size


def prove_pairs(library: ctypes.CDLL, a: U32, b: U32) -> int:
    """Compare arithmetic and comparisons of pairs of bits."""
    compared = 0
    x, y = a.view(np.float32), b.view(np.float32)
    with np.errstate(all="ignore"):
        for name, operation in BINARY.items():
            exact = operation(x, y)
            wanted = np.where(np.isnan(exact), np.uint32(NAN), exact.view(np.uint32))
            compared += hold(name, results(library, name, a, b), wanted, a, b)
        # In GCC's contract the sign of the result is what counts; here it is one of -1, 0, 1.
        order = np.where(x < y, -1, np.where(x > y, 1, 0))
        unordered = np.isnan(x) | np.isnan(y)
        for name in COMPARISONS:
            if name == "unord":
                signs = unordered.astype(np.int32)
            else:
                signs = np.where(unordered, -1 if name in ("gt", "ge") else 1, order).astype(np.int32)
            compared += hold(name, results(library, name, a, b), signs.view(np.uint32), a, b)
    return compared


def prove_conversions(library: ctypes.CDLL, a: U32) -> int:
    """Compare conversions of words, taken as integers and as floats."""
    compared = 0
    for name, kind in TO_FLOAT.items():
        wanted = a.view(kind).astype(np.float32).view(np.uint32)
        compared += hold(name, results(library, name, a), wanted, a)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        exact = np.nan_to_num(np.trunc(a.view(np.float32).astype(np.float64)), nan=0.0)
    for name, kind in TO_INTEGER.items():
        bounds = np.iinfo(kind)
        wanted = np.clip(exact, bounds.min, bounds.max).astype(np.int64).astype(np.uint32)
        compared += hold(name, results(library, name, a), wanted, a)
    return compared


def edge_values() -> U32:
    """Every exponent with mantissas at the edges, both signs: zeros, subnormals, infinities and NaNs are among them."""
    mantissas = np.array([0, 1, 2, 0x2AAAAA, 0x3FFFFF, 0x400000, 0x7FFFFE, 0x7FFFFF], np.uint32)
    exponents = np.arange(256, dtype=np.uint32) << np.uint32(23)
    signs = np.array([0, 0x80000000], np.uint32)
    return (signs[:, None, None] | exponents[:, None] | mantissas).reshape(-1)


def prove_edges(library: ctypes.CDLL) -> int:
    """Compare every pair of edge values, and conversions of them and of numbers beside the powers of two."""
    edges = edge_values()
    compared = 0
    for rows in np.array_split(edges, 16):
        compared += prove_pairs(library, np.repeat(rows, edges.size), np.tile(edges, rows.size))
    beside = (np.uint64(1) << np.arange(33, dtype=np.uint64))[:, None] + np.arange(-300, 301).astype(np.uint64)
    return compared + prove_conversions(library, np.concatenate([edges, beside.astype(np.uint32).reshape(-1)]))


def prove_random(library: ctypes.CDLL, count: int, seed: int = 0) -> int:
    """Compare pairs of bits drawn at random: half of them any, half with exponents near each other's, where sums round.

    Args:
        library: what build() gives.
        count: pairs.
        seed: of the generator.
    """
    generator = np.random.default_rng(seed)
    compared = 0
    while count > 0:
        size = min(count, CHUNK)
        a, b = generator.integers(0, 1 << 32, (2, size), dtype=np.uint32)
        near = generator.integers(-30, 31, size).astype(np.uint32) + (a >> np.uint32(23))
        near = b & np.uint32(0x807FFFFF) | (near & np.uint32(0xFF)) << np.uint32(23)
        b = np.where(generator.integers(0, 2, size, dtype=np.uint8) == 0, b, near)
        compared += prove_pairs(library, a, b) + prove_conversions(library, a)
        count -= size
    return compared
