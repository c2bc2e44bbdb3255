"""How much of the line's rate is payload: a large upload, and the smallest board's frames on its largest model."""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.data.dataset import Images
from bitloop.errors import DoesNotFitError
from bitloop.hello import DeviceInfo
from bitloop.link.session import Session
from bitloop.plan.planner import plan
from bitloop.quantize.model import Model
from bitloop.spec import RunMode, RunOutput
from proofs.link.setting import FAST_BAUD, SLOW_BAUD, connected, large_model, mnist, share, zoo_model
from proofs.page import Section, cells

LEAST_SHARE = 0.95
LEAST_SHARE_SMALL = 0.90
ROUND_TRIPS = ("1ms", "16ms")
SMALL_BOARD, SMALL_NETWORK = "stm32f100", "mlp8k"
SMALL_FORMATS = ("int8:channel", "int7:channel", "int6:channel", "int5:channel", "int4:channel")
SMALL_SLOTS = 2
"""With one slot the line waits while an image is computed and answered."""


@dataclass(frozen=True)
class Share:
    """What was measured of a line."""

    what: str
    baud: int
    round_trip: str
    payload_bytes: int
    seconds: float
    least: float

    @property
    def share(self) -> float:
        """The part of the line's rate that was payload."""
        return share(self.payload_bytes, self.seconds, self.baud)

    @property
    def holds(self) -> bool:
        """Whether it reaches the bound."""
        return self.share >= self.least


def large_upload(round_trip: str) -> Share:
    """Send 400 KB that are not compressed, to the simulated device with its own frame and window sizes."""
    with connected(f"sim://native?baud={FAST_BAUD}&rtt={round_trip}", large_model()) as device:
        image = device.plan.image
        report = device.session.upload(image, device.plan.memory.total_bytes, coded=False)
    return Share(f"upload of {len(image):,} bytes", FAST_BAUD, round_trip, len(image), report.seconds, LEAST_SHARE)


def largest_model(info: DeviceInfo) -> tuple[str, Model]:
    """Return the widest format in which the small network fits a board with slots enough to overlap.

    Raises:
        DoesNotFitError: not even the narrowest one fits.
    """
    for weights in SMALL_FORMATS:
        model = zoo_model(SMALL_NETWORK, weights)
        try:
            if plan(model, info, placement="resident").memory.slots >= SMALL_SLOTS:
                return weights, model
        except DoesNotFitError:
            continue
    raise DoesNotFitError(
        f"{SMALL_NETWORK} does not fit {info.board}", needed_bytes=0, available_bytes=info.arena_bytes
    )


def small_board(info: DeviceInfo, images: Images, round_trip: str) -> Share:
    """Send the largest model of a small board, and images, raw, with that board's frames, window and memory.

    Args:
        info: What the real firmware of the board says of itself.
        images: What is run in throughput mode.
        round_trip: Of the line.
    """
    weights, model = largest_model(info)
    url = (
        f"sim://native?body={info.body_bytes}&window={info.window_bytes}&arena={info.arena_bytes}"
        f"&send_body={info.longest_sent}&ranges={info.ranges}&codings={int(info.codings)}"
        f"&baud={SLOW_BAUD}&rtt={round_trip}"
    )
    with connected(url, model) as device:
        session = device.session
        report = session.upload(device.plan.image, device.plan.memory.total_bytes, coded=False)
        started = session.clock()
        for _ in session.run(images.pixels, RunMode.THROUGHPUT, RunOutput.LOGITS, coded=False):
            pass
        seconds = report.seconds + session.clock() - started
    return Share(
        f"{SMALL_NETWORK} {weights} and {len(images):,} raw images with the frames ({info.body_bytes} bytes) and the "
        f"window ({info.window_bytes}) of {SMALL_BOARD}",
        SLOW_BAUD,
        round_trip,
        report.image_bytes + images.pixels.size,
        seconds,
        LEAST_SHARE_SMALL,
    )


def small_board_info() -> DeviceInfo:
    """Ask the real firmware of the small board, in its emulator."""
    with Session(f"qemu://{SMALL_BOARD}") as session:
        return session.connect()


def measure(images: int = 1000) -> list[Share]:
    """Measure every case."""
    shares = [large_upload(round_trip) for round_trip in ROUND_TRIPS]
    shares.append(small_board(small_board_info(), mnist(images), ROUND_TRIPS[0]))
    return shares


def prove() -> Section:
    """Measure, and hold against the bounds."""
    shares = measure()
    rows = [
        (
            s.what,
            s.baud,
            s.round_trip.replace("ms", " ms"),
            f"{s.seconds:.2f} s",
            f"{100 * s.share:.1f} %",
            f"{100 * s.least:.0f} %",
        )
        for s in shares
    ]
    return Section(
        "Share of the line's rate that is payload",
        "Bytes that were asked to be moved, times ten bits, over the line's rate and the time from the first request "
        "to the last answer. Nothing is compressed here.",
        ("what", "baud", "round trip", "took", "payload", "at least"),
        cells(rows),
        all(s.holds for s in shares),
    )
