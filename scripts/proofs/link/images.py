"""Throughput mode: 10,000 images where the line, the device, or both are what takes the time."""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.data.dataset import Images
from bitloop.spec import RunMode, RunOutput
from proofs.link.setting import FAST_BAUD, connected, line_seconds, mnist, zoo_model
from proofs.page import Section, cells

IMAGES = 10_000
MOST_OVER = 0.05
RAW_BYTES = 784
MOST_BYTES = RAW_BYTES / 3
MODEL = ("mlp", "int8:channel")
ROUND_TRIP = "1ms"
CASES = {"line-bound": 0.25, "balanced": 1.0, "compute-bound": 2.0}
"""How long the device computes at an image, as a multiple of the time that the image takes on the line."""


@dataclass(frozen=True)
class Throughput:
    """What was measured of a run."""

    case: str
    images: int
    compute_us: int
    bytes_up: int
    bytes_down: int
    seconds: float

    @property
    def line_s(self) -> float:
        """Time that the busier direction of the line needs for what travelled."""
        return line_seconds(max(self.bytes_up, self.bytes_down), FAST_BAUD)

    @property
    def compute_s(self) -> float:
        """Time that the device needs for the images."""
        return self.images * self.compute_us * 1e-6

    @property
    def over(self) -> float:
        """How much longer it took than the longer of the two."""
        return self.seconds / max(self.line_s, self.compute_s) - 1

    @property
    def bytes_an_image(self) -> float:
        """Bytes on the line, both ways."""
        return (self.bytes_up + self.bytes_down) / self.images

    @property
    def holds(self) -> bool:
        """Whether it keeps both bounds."""
        return self.over <= MOST_OVER and self.bytes_an_image <= MOST_BYTES


def run(case: str, images: Images, compute_us: int) -> Throughput:
    """Run images on a device that takes ``compute_us`` for each."""
    url = f"sim://native?baud={FAST_BAUD}&rtt={ROUND_TRIP}"
    if compute_us:
        url += f"&compute={compute_us}us"
    with connected(url, zoo_model(*MODEL)) as device:
        session = device.session
        session.upload(device.plan.image, device.plan.memory.total_bytes)
        before = session.counters.as_dict()
        started = session.clock()
        for _ in session.run(images.pixels, RunMode.THROUGHPUT, RunOutput.LOGITS):
            pass
        seconds = session.clock() - started
        after = session.counters.as_dict()
    return Throughput(
        case,
        len(images),
        compute_us,
        after["bytes_up"] - before["bytes_up"],
        after["bytes_down"] - before["bytes_down"],
        seconds,
    )


def measure(count: int = IMAGES) -> list[Throughput]:
    """Measure every case; what an image takes on the line is found out with a tenth of the images."""
    images = mnist(count)
    probe = run("", images.first(max(count // 10, 1)), 0)
    image_us = 1e6 * probe.line_s / probe.images
    return [run(case, images, round(factor * image_us)) for case, factor in CASES.items()]


def prove() -> Section:
    """Measure, and hold against the bounds."""
    made = measure()
    rows = [
        (
            t.case,
            t.images,
            f"{t.compute_us} µs",
            f"{t.line_s:.2f} s",
            f"{t.compute_s:.2f} s",
            f"{t.seconds:.2f} s",
            f"{100 * t.over:+.1f} %",
            f"{t.bytes_up / t.images:.1f} + {t.bytes_down / t.images:.1f}",
            f"{t.bytes_an_image / RAW_BYTES:.3f}",
        )
        for t in made
    ]
    return Section(
        "Images in throughput mode",
        f"{' '.join(MODEL)} on `sim://native` at {FAST_BAUD:,} baud, round trip {ROUND_TRIP.replace('ms', ' ms')}; the "
        "simulated device takes at least the stated time for an image. `line` is what the busier direction needs "
        f"for the bytes that travelled; bounds: {100 * MOST_OVER:.0f} % over the longer of line and compute, and a "
        f"third of the {RAW_BYTES} bytes of a raw image, both directions together.",
        ("case", "images", "compute", "line", "compute in all", "took", "over", "bytes up + down", "of raw"),
        cells(rows),
        all(t.holds for t in made),
    )
