"""What of a record an interruption may change, and what it may not: two runs of the same are equal in the rest."""

from __future__ import annotations

from typing import Any

from bitloop.bench.record import RunRecord

__all__ = ["VARYING", "comparable"]

VARYING: tuple[str, ...] = (
    "headline",  # tells of interruptions at its end: see comparable()
    "interruptions",
    "command",
    "started",
    "seconds",
    # Times as the device took them: no two runs have the same, disturbed or not.
    *(f"latency.{name}" for name in ("min", "median", "mean", "p95", "p99", "max")),
    *(f"latency.per_layer.{name}" for name in ("median", "mean", "max")),
    "ram.stack_peak",  # since the session began; may depend on what interrupted the firmware when
    # Figures of the line: what was sent again, and how long all took.
    "link",
    "placement.streamed_bytes",
    "placement.traced_bytes",
    # The device may hang on another port, and was started again perhaps.
    "device.url",
    "device.reset_cause",
    "device.boot_count",
    "vault",  # a resumed run takes its images out of the vault again, which is another opening
)
"""Keys of ``run.json``, ``a.b`` for those within another; lists are looked into."""


def comparable(record: RunRecord) -> dict[str, Any]:
    """Return a record as JSON without :data:`VARYING`: equal for a run that was interrupted and one that was not.

    The headline is kept without what it says of interruptions.
    """
    document = record.to_dict()
    headline = record.headline.split("; interrupted ")[0]
    for path in VARYING:
        _without(document, path.split("."))
    return {**document, "headline": headline}


def _without(value: Any, path: list[str]) -> None:
    if isinstance(value, list):
        for item in value:
            _without(item, path)
    elif isinstance(value, dict):
        if len(path) == 1:
            del value[path[0]]
        else:
            _without(value[path[0]], path[1:])
