"""Dataclasses to JSON and back, strictly."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import fields, is_dataclass
from typing import Any

from bitloop.errors import DataError

__all__ = ["build", "plain"]


def plain(value: object) -> object:
    """Return nested dicts, tuples and numbers as JSON takes them.

    Raises:
        ValueError: for an infinity or NaN, which JSON cannot hold.
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a record holds finite numbers only")
    return value


def build(kind: Any, value: object, where: str) -> object:
    """Turn parsed JSON into what the annotation ``kind`` says: a dataclass, tuple, optional, or plain type.

    Args:
        kind: the annotation.
        value: what ``json.loads`` gave.
        where: the path of the value, for messages.

    Raises:
        DataError: naming the first key that is missing, unknown, or of another type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = [item for item in typing.get_args(kind) if item is not type(None)]
        return build(inner[0], value, where)
    if origin is tuple:
        return _build_tuple(typing.get_args(kind), value, where)
    if is_dataclass(kind):
        return _build_object(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise DataError(f"{where} is {value!r}, expected {kind.__name__}")
    return value


def _build_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise DataError(f"{where} is {value!r}, expected a list")
    kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(kinds) != len(value):
        raise DataError(f"{where} has {len(value)} entries, expected {len(kinds)}")
    return tuple(build(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _build_object(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise DataError(f"{where} is {value!r}, expected an object")
    names = [field.name for field in fields(kind)]
    missing, unknown = [n for n in names if n not in value], [n for n in value if n not in names]
    if missing or unknown:
        found = f"{where}.{missing[0]} is missing" if missing else f"{where}.{unknown[0]} is no key of a run"
        raise DataError(f"{found}; was this written by another version of bitloop?")
    hints = typing.get_type_hints(kind)
    return kind(**{name: build(hints[name], value[name], f"{where}.{name}") for name in names})
