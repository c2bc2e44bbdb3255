"""Records of older versions, brought to the keys of the newest: what was not recorded then is null, or empty."""

from __future__ import annotations

from typing import Any

__all__ = ["upgraded"]


def upgraded(document: object) -> object:
    """Return a parsed ``run.json`` of any version with the keys of the newest; what is no record stays what it is."""
    if not isinstance(document, dict) or document.get("version") != 1:
        return document
    # Version 1 knew no interruptions: a run that was interrupted ended.
    return {
        **document,
        "version": 2,
        "interruptions": [],
        "link": _with(document.get("link"), upload_line_bytes=None, copied_bytes=None, codings=[], baud=None),
        "dataset": _with(document.get("dataset"), pixel_bits=None, sent_sha256=None),
    }


def _with(value: object, **more: Any) -> object:
    return {**value, **more} if isinstance(value, dict) else value
