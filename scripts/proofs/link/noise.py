"""Goodput at a bit error rate, beside the clean line."""

from __future__ import annotations

from dataclasses import dataclass

from proofs.link.setting import FAST_BAUD, connected, large_model, share
from proofs.page import Section, cells

BIT_ERROR_RATE = 1e-5
LEAST_OF_CLEAN = 0.80
SEEDS = range(5)
ROUND_TRIPS = ("1ms", "16ms")


@dataclass(frozen=True)
class Goodput:
    """An upload over a clean line, and over noisy ones."""

    round_trip: str
    clean: float
    noisy: tuple[float, ...]
    retransmitted_bytes: int

    @property
    def of_clean(self) -> float:
        """The worst of the noisy ones, as a part of the clean one."""
        return min(self.noisy) / self.clean

    @property
    def holds(self) -> bool:
        """Whether it reaches the bound, and errors really happened."""
        return self.of_clean >= LEAST_OF_CLEAN and self.retransmitted_bytes > 0


def upload(options: str) -> tuple[float, int]:
    """Return the share of payload of an upload, and how many bytes of it were sent again."""
    with connected(f"sim://native?baud={FAST_BAUD}{options}", large_model()) as device:
        image = device.plan.image
        report = device.session.upload(image, device.plan.memory.total_bytes, coded=False)
        if report.device_sha256 != device.plan.sha256:
            raise AssertionError("the device holds another image than was sent")
        return share(len(image), report.seconds, FAST_BAUD), device.session.counters.retransmitted_bytes


def measure() -> list[Goodput]:
    """Measure every round trip."""
    made = []
    for round_trip in ROUND_TRIPS:
        clean, _ = upload(f"&rtt={round_trip}")
        noisy = [upload(f"&rtt={round_trip}&flip={BIT_ERROR_RATE}&seed={seed}") for seed in SEEDS]
        made.append(Goodput(round_trip, clean, tuple(s for s, _ in noisy), sum(b for _, b in noisy)))
    return made


def prove() -> Section:
    """Measure, and hold against the bound."""
    made = measure()
    rows = [
        (
            g.round_trip.replace("ms", " ms"),
            f"{100 * g.clean:.1f} %",
            f"{100 * min(g.noisy):.1f} to {100 * max(g.noisy):.1f} %",
            g.retransmitted_bytes // len(g.noisy),
            f"{100 * g.of_clean:.1f} %",
        )
        for g in made
    ]
    return Section(
        "Goodput under noise",
        f"Upload of 400 KB at {FAST_BAUD:,} baud with a bit error rate of {BIT_ERROR_RATE:g} in both directions, "
        f"{len(SEEDS)} seeds; at least {100 * LEAST_OF_CLEAN:.0f} % of the clean line.",
        ("round trip", "clean line", "noisy line", "bytes sent again", "worst, of clean"),
        cells(rows),
        all(g.holds for g in made),
    )
