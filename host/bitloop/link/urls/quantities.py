"""Sizes and times as they are written in URLs."""

from __future__ import annotations

import math

_SIZES = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TIMES_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0}  # the longer endings first: "ms" ends in "s"
_LONGEST_S = 3600.0


def parse_size(text: str) -> int:
    """Read a size in bytes: ``8192``, ``8k``, ``1M`` (powers of 1024).

    Raises:
        ValueError: It is no positive whole number with an optional unit.
    """
    digits, unit = (text[:-1], text[-1:].lower()) if text[-1:].lower() in _SIZES else (text, "")
    if not (digits.isascii() and digits.isdigit()) or int(digits) == 0:
        raise ValueError(f"'{text}' is no size; write it as 8192, 8k or 1M")
    return int(digits) * _SIZES.get(unit, 1)


def parse_time_s(text: str) -> float:
    """Read a time: ``5s``, ``16ms``, ``250us``.

    Raises:
        ValueError: It is no number with a unit, negative, or more than an hour.
    """
    for unit, worth_s in _TIMES_S.items():
        if text.endswith(unit):
            try:
                seconds = parse_number(text[: -len(unit)]) * worth_s
            except ValueError:
                break
            if 0 <= seconds <= _LONGEST_S:
                return seconds
            break
    raise ValueError(f"'{text}' is no time; write it as 5s, 16ms or 250us")


def parse_number(text: str) -> float:
    """Read a finite number; ``float`` alone takes underscores, spaces, nan and other alphabets' digits as well.

    Raises:
        ValueError: It is none.
    """
    plain = text.isascii() and "_" not in text and text == text.strip()
    number = float(text) if plain else math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{text}' is no number")
    return number


def parse_whole(text: str, *, least: int = 0, most: int) -> int:
    """Read a whole number of ``least`` to ``most``.

    Raises:
        ValueError: It is none.
    """
    if not (text.isascii() and text.isdigit()) or len(text) > 20 or not least <= int(text) <= most:
        raise ValueError(f"'{text}' is no whole number of {least} to {most}")
    return int(text)
