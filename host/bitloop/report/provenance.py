"""What a page of a study says of where its figures are from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from bitloop.bench.record import HostIdentity, Versions

__all__ = ["provenance_of"]


class _Begun(Protocol):
    """How a study was begun."""

    @property
    def command(self) -> str: ...

    @property
    def started(self) -> str: ...

    @property
    def versions(self) -> Versions: ...

    @property
    def host(self) -> HostIdentity: ...


def provenance_of(begun: _Begun, what: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return names and values: the command, what it was about, the software and the host."""
    versions, host = begun.versions, begun.host
    return [
        ("Command", begun.command or "–"),
        ("Started", begun.started),
        *what,
        ("Software", f"bitloop {versions.bitloop}, Python {versions.python}, numpy {versions.numpy}"),
        ("Host", f"{host.system}, {host.machine}, {host.cpus} CPUs"),
    ]
