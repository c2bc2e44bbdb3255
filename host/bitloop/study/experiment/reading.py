"""From what a TOML file holds to dataclasses, strictly: what is unknown, missing or of another type is named."""

from __future__ import annotations

import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from bitloop.errors import UsageError
from bitloop.numeric.formats import close_matches

__all__ = ["read"]


def read(kind: Any, value: object, where: str) -> Any:
    """Turn parsed TOML into what the annotation ``kind`` says: a dataclass, tuple, optional, or plain type.

    A field with a default may be left out. A whole number serves as a float. A field that is a Python keyword with an
    underscore behind it is written without.

    Args:
        kind: the annotation.
        value: what the parser gave.
        where: the path of the value, for messages.

    Raises:
        UsageError: naming the first key that is missing, unknown, or of another type.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [item for item in typing.get_args(kind) if item is not type(None)]
        return read(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where} is {_shown(value)}; a list is expected")
        inner_kind = typing.get_args(kind)[0]
        return tuple(read(inner_kind, item, f"{where}[{number}]") for number, item in enumerate(value))
    if is_dataclass(kind):
        return _read_table(kind, value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
        raise UsageError(f"{where} is {_shown(value)}; {names.get(kind, 'something else')} is expected")
    return value


def _read_table(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise UsageError(f"{where} is {_shown(value)}; a table is expected")
    known = {field.name.rstrip("_"): field for field in fields(kind)}
    for key in value:
        if key not in known:
            hint = close_matches(key, tuple(known)) or f"; there are {', '.join(known)}"
            raise UsageError(f"{where} has an unknown key {key!r}{hint}")
    for key, field in known.items():
        if key not in value and field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"{where} lacks {key!r}")
    hints = typing.get_type_hints(kind)
    return kind(
        **{
            field.name: read(hints[field.name], value[key], f"{where}.{key}")
            for key, field in known.items()
            if key in value
        }
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
