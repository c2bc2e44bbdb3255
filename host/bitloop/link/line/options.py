"""What a URL asks of the line: its options, taken out of the query so that the port sees only its own."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bitloop.errors import UsageError
from bitloop.link.urls.quantities import parse_number, parse_time_s, parse_whole

T = TypeVar("T")

AUTO = "auto"
_MOST_SEED = _MOST_BYTES = (1 << 63) - 1


class Direction(enum.IntEnum):
    """Which way bytes go: up to the device, down to the host."""

    UP = 0
    DOWN = 1


@dataclass(frozen=True)
class Silence:
    """Behind ``after_bytes`` bytes, counted over both directions, all bytes are lost for ``seconds``."""

    after_bytes: int
    seconds: float


@dataclass(frozen=True)
class Vanishing:
    """Behind ``after_bytes`` bytes the port is gone for ``seconds``; with ``power`` the device loses its state too."""

    after_bytes: int
    seconds: float
    power: bool = False


@dataclass(frozen=True)
class LineOptions:
    """How a line behaves. The defaults are those of a line that changes nothing.

    Attributes:
        baud: Bits a second at which both directions are paced, 10 a byte; None: at no rate, or at real ones.
        real_rates: Bytes are paced by the sender's own rate, and garbled where the receiver's is another.
        cable_baud: The highest rate that the cable carries cleanly; None: any.
        rtt_s: Round trip's delay; half of it each way.
        jitter_s: Most delay beyond that, drawn anew for each burst of bytes (up to a zero byte).
        drop: Probability that a byte is lost.
        flip: Probability that a *bit* is inverted.
        dup: Probability that a byte comes twice.
        burst: Probability, per byte, that 8 to 64 bytes are lost or overwritten from there on.
        frame_dup: Probability that a frame comes twice.
        frame_cut: Probability that a frame loses its tail.
        frame_swap: Probability that a frame and the next one come in exchanged order.
        only: The one direction that has faults; None: both.
        seed: Of all that is left to chance.
        silences: When all bytes are lost for a while.
        vanishings: When the port is gone for a while.
    """

    baud: int | None = None
    real_rates: bool = False
    cable_baud: int | None = None
    rtt_s: float = 0.0
    jitter_s: float = 0.0
    drop: float = 0.0
    flip: float = 0.0
    dup: float = 0.0
    burst: float = 0.0
    frame_dup: float = 0.0
    frame_cut: float = 0.0
    frame_swap: float = 0.0
    only: Direction | None = None
    seed: int = 0
    silences: tuple[Silence, ...] = ()
    vanishings: tuple[Vanishing, ...] = ()

    def strikes(self, direction: Direction) -> bool:
        """Tell whether bytes of a direction are meant by the faults."""
        return self.only is None or self.only == direction


_PROBABILITIES = ("drop", "flip", "dup", "burst", "frame_dup", "frame_cut", "frame_swap")
NAMES = ("baud", "cable", "rtt", "jitter", *_PROBABILITIES, "only", "seed", "silence", "vanish")
_REPEATABLE = ("silence", "vanish")


def split_url(url: str) -> tuple[str, LineOptions | None]:
    """Take the line's options out of a URL, or out of a port's name (``/dev/ttyUSB0?flip=1e-5``).

    Returns:
        The port's own URL, and what is asked of the line, or None if that is nothing. ``baud=auto`` stays with
        ``sim://`` as well: its port must tell the device's rate.

    Raises:
        UsageError: An option makes no sense.
    """
    base, mark, query = url.partition("?")
    if not mark:
        return url, None
    query, hash_mark, fragment = query.partition("#")
    is_simulated = base.lower().startswith("sim:")
    line: list[tuple[str, str]] = []
    rest: list[str] = []
    for piece in query.split("&"):
        name, _, value = piece.partition("=")
        if name in NAMES:
            line.append((name, value))
        if name not in NAMES or (is_simulated and (name, value) == ("baud", AUTO)):
            rest.append(piece)
    port = base + ("?" + "&".join(rest) if rest else "") + hash_mark + fragment
    if not line:
        return url, None
    try:
        return port, _options(line)
    except ValueError as error:
        raise UsageError(f"{url}: {error}") from error


def port_url(url: str) -> str:
    """Give a URL without the line's options."""
    return split_url(url)[0]


def port_option_names(url: str) -> list[str]:
    """Give the names of the options that a port's URL has."""
    query = url.partition("?")[2].partition("#")[0]
    return [piece.partition("=")[0] for piece in query.split("&") if piece]


def _options(given: list[tuple[str, str]]) -> LineOptions:
    values: dict[str, str] = {}
    silences: list[Silence] = []
    vanishings: list[Vanishing] = []
    for name, value in given:
        if name in values:
            raise ValueError(f"option '{name}' is given twice")
        if name == "silence":
            silences.append(_silence(value))
        elif name == "vanish":
            vanishings.append(_vanishing(value))
        if name not in _REPEATABLE:
            values[name] = value

    def read(name: str, how: Callable[[str], T], default: T) -> T:
        if name not in values:
            return default
        try:
            return how(values[name])
        except ValueError as error:
            raise ValueError(f"option '{name}': {error}") from error

    is_auto = values.get("baud") == AUTO
    if is_auto:
        del values["baud"]
    return LineOptions(
        baud=read("baud", _baud, None),
        real_rates=is_auto,
        cable_baud=read("cable", _baud, None),
        rtt_s=read("rtt", parse_time_s, 0.0),
        jitter_s=read("jitter", parse_time_s, 0.0),
        drop=read("drop", _probability, 0.0),
        flip=read("flip", _probability, 0.0),
        dup=read("dup", _probability, 0.0),
        burst=read("burst", _probability, 0.0),
        frame_dup=read("frame_dup", _probability, 0.0),
        frame_cut=read("frame_cut", _probability, 0.0),
        frame_swap=read("frame_swap", _probability, 0.0),
        only=read("only", _direction, None),
        seed=read("seed", lambda text: parse_whole(text, most=_MOST_SEED), 0),
        silences=tuple(silences),
        vanishings=tuple(vanishings),
    )


def _baud(text: str) -> int | None:
    try:
        return parse_whole(text, least=50, most=1_000_000_000)
    except ValueError:
        raise ValueError(f"'{text}' is no rate; write bits a second, such as 921600") from None


def _probability(text: str) -> float:
    try:
        probability = parse_number(text)
    except ValueError:
        probability = -1.0
    if not 0 <= probability <= 1:
        raise ValueError(f"'{text}' is no probability; write a number of 0 to 1, such as 1e-4")
    return probability


def _direction(text: str) -> Direction | None:
    if text not in ("up", "down"):
        raise ValueError(f"'{text}' is no direction; write up (to the device) or down")
    return Direction.UP if text == "up" else Direction.DOWN


def _silence(text: str) -> Silence:
    pieces = text.split(":")
    try:
        if len(pieces) == 2:
            return Silence(parse_whole(pieces[0], most=_MOST_BYTES), parse_time_s(pieces[1]))
    except ValueError as error:
        raise ValueError(f"option 'silence': {error}") from error
    raise ValueError(f"option 'silence': '{text}' is not BYTES:TIME, such as 20000:5s")


def _vanishing(text: str) -> Vanishing:
    pieces = text.split(":")
    try:
        if len(pieces) == 2 or (len(pieces) == 3 and pieces[2] == "power"):
            return Vanishing(parse_whole(pieces[0], most=_MOST_BYTES), parse_time_s(pieces[1]), len(pieces) == 3)
    except ValueError as error:
        raise ValueError(f"option 'vanish': {error}") from error
    raise ValueError(f"option 'vanish': '{text}' is not BYTES:TIME or BYTES:TIME:power, such as 20000:1s")
