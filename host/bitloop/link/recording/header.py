"""What stands at the beginning of a recording: who recorded what."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from bitloop.hello import printable

__all__ = ["Header", "without_user"]

_USER = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True)
class Header:
    """Who recorded what, in words; nothing of it is needed to replay but what is said of the rate, and ``emulation``.

    Attributes:
        bitloop: Version of the program.
        protocol: Version of the protocol that it speaks.
        url: Of the device, without what stands before an ``@``.
        command: The command line, "" if there was none.
        started: Date and time, UTC, ISO 8601.
        python: Version.
        platform: Operating system and machine.
        baud: The line's first rate, 0 if it has none.
        has_fixed_baud: Whether the line keeps it whatever the port is set to.
        emulation: What emulates the device (:class:`bitloop.link.urls.emulation.Emulation`), None for a real one.
        facts: What the session was about: model, options.
    """

    bitloop: str
    protocol: str
    url: str
    command: str
    started: str
    python: str
    platform: str
    baud: int
    has_fixed_baud: bool = False
    emulation: Mapping[str, str | int] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Give the header's line."""
        return json.dumps(asdict(self), ensure_ascii=False).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Header:
        """Read the header's line.

        Raises:
            ValueError: It is none.
        """
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("no JSON") from None
        if not isinstance(document, dict):
            raise ValueError("no object")
        texts = {}
        for name in ("bitloop", "protocol", "url", "command", "started", "python", "platform"):
            if not isinstance(document.get(name), str):
                raise ValueError(f"no text {name!r}")
            texts[name] = _shown(document[name])
        baud = document.get("baud")
        if type(baud) is not int or not 0 <= baud < 1 << 32:
            raise ValueError("no number 'baud'")
        has_fixed_baud = document.get("has_fixed_baud")
        if not isinstance(has_fixed_baud, bool):
            raise ValueError("no truth value 'has_fixed_baud'")
        facts = document.get("facts")
        if not isinstance(facts, dict) or not all(isinstance(value, str) for value in facts.values()):
            raise ValueError("no texts in 'facts'")
        emulation = document.get("emulation")
        if emulation is not None:
            if not isinstance(emulation, dict):
                raise ValueError("'emulation' is no object")
            emulation = {
                name: value if isinstance(value, int) else _shown(str(value)) for name, value in emulation.items()
            }
        return cls(
            **texts,
            baud=baud,
            has_fixed_baud=has_fixed_baud,
            emulation=emulation,
            facts={_shown(name): _shown(value) for name, value in facts.items()},
        )


def _shown(text: str) -> str:
    return printable(text.encode("utf-8", "replace"))


def without_user(text: str) -> str:
    """Take user names and passwords out of the URLs in a text."""
    return _USER.sub("", text)
