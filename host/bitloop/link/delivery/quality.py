"""What a session has learnt of its line: how much of it is damaged, how fast it is, and how long an answer takes.

It outlives single streams, so that a run begins with what the upload before it found out.
"""

from __future__ import annotations

import math

from bitloop import spec
from bitloop.link.transport import DEFAULT_BAUD
from bitloop.link.wire.frame import body_that_fits

_LINE_BITS = 10  # of a byte: start, eight of data, stop
_FRAMING_BYTES = spec.FRAME_OVERHEAD_BYTES + 2  # COBS adds a byte, the end another
_SMALL_BODY = 48
_INTERVAL_WEIGHT = 0.25  # of the latest stretch between two losses, in the mean of all
_RATE_LEAST_BYTES = 1 << 11
_RATE_MEMORY_BYTES = 1 << 16
_SRTT_WEIGHT = 1 / 8  # RFC 6298, 2.3
_RTTVAR_WEIGHT = 1 / 4
_VARIATIONS = 4
_AWAY_S = 0.1
_WITHOUT_END = 1 << 32
_LEAST_MARGIN_S = 0.03  # what a busy host and a USB bridge's timer add to an answer now and then


class LineQuality:
    """Measured over the streams of a session.

    Args:
        baud: The line's rate in bits a second, to begin with; 0: it has none.
    """

    def __init__(self, baud: int = DEFAULT_BAUD) -> None:
        self._baud = -1
        self.at_rate(baud)
        self._loss_interval = math.inf  # mean of encoded bytes between losses
        self._clean_bytes = 0
        self._in_loss = False

    def at_rate(self, baud: int) -> None:
        """Begin to measure time anew if the line has another rate than before."""
        if baud == self._baud:
            return
        self._baud = baud
        self._byte_s = _LINE_BITS / baud if baud > 0 else 0.0
        self._busy_bytes = 0
        self._busy_s = 0.0
        self._srtt_s: float | None = None
        self._rttvar_s = 0.0

    # --- damage ---

    def survived(self, size_bytes: int) -> None:
        """Note that a frame of so many encoded bytes has reached the device."""
        self._in_loss = False
        self._clean_bytes += size_bytes

    def lost(self, size_bytes: int) -> None:
        """Note that a frame was lost; those lost right behind it are of the same event, be it a burst or a cable."""
        self._clean_bytes += size_bytes
        if self._in_loss:
            return
        self._in_loss = True
        if math.isinf(self._loss_interval):
            self._loss_interval = float(self._clean_bytes)
        else:
            self._loss_interval += _INTERVAL_WEIGHT * (self._clean_bytes - self._loss_interval)
        self._clean_bytes = 0

    @property
    def loss_rate(self) -> float:
        """Losses a byte that travels: 1 over the mean of bytes between losses.

        The mean is exponentially weighted over the stretches between losses, as its precision depends on how many
        losses were seen, not on time. The stretch since the last loss counts as soon as it makes the mean greater, as
        in RFC 5348, 5.4: so a line that has become clean is known to be.
        """
        open_mean = (1 - _INTERVAL_WEIGHT) * self._loss_interval + _INTERVAL_WEIGHT * self._clean_bytes
        return 1 / max(self._loss_interval, open_mean)

    def body_bytes(self, most: int, head_bytes: int) -> int:
        """Give the length of body that makes the most of the line.

        With h bytes of overhead, and losses that strike each byte at a rate p, frames of n bytes of payload have a
        goodput of n / (n + h) · (1 − p)^(n + h), the efficiency of selective repeat (E. Modiano, "An adaptive algorithm
        for optimizing the packet size used in wireless ARQ protocols", Wireless Networks 5, 1999). Its derivative is 0
        where n² + h·n = h / −ln(1 − p), so the best is n = √(h² / 4 + h / −ln(1 − p)) − h / 2, about √(h / p).

        Args:
            most: What the device takes.
            head_bytes: How many bytes of a body are not payload.

        Returns:
            From 64 to ``most``.
        """
        rate = self.loss_rate
        if rate <= 0:
            return most
        overhead = _FRAMING_BYTES + head_bytes
        damage = -math.log1p(-min(rate, 0.5))
        best = math.sqrt(overhead**2 / 4 + overhead / damage) - overhead / 2
        return min(most, max(spec.MIN_BODY_BYTES, head_bytes + int(best)))

    # --- time ---

    def note_busy(self, size_bytes: int, seconds: float) -> None:
        """Note how long after the answer before it one came, of a frame that was under way all that time."""
        self._busy_bytes += size_bytes
        self._busy_s += seconds
        if self._busy_bytes > _RATE_MEMORY_BYTES:
            self._busy_bytes //= 2
            self._busy_s /= 2

    def note_delay(self, size_bytes: int, seconds: float) -> None:
        """Note how long the answer to a frame took before which nothing was under way (RFC 6298, 2.2 and 2.3)."""
        delay_s = max(seconds - size_bytes * self.byte_s, 0.0)
        if self._srtt_s is None:
            self._srtt_s, self._rttvar_s = delay_s, delay_s / 2
            return
        self._rttvar_s += _RTTVAR_WEIGHT * (abs(self._srtt_s - delay_s) - self._rttvar_s)
        self._srtt_s += _SRTT_WEIGHT * (delay_s - self._srtt_s)

    @property
    def byte_s(self) -> float:
        """Seconds that a byte takes: as measured, or as the line's rate says as long as little was sent."""
        return self._busy_s / self._busy_bytes if self._busy_bytes >= _RATE_LEAST_BYTES else self._byte_s

    @property
    def round_trip_bytes(self) -> int:
        """How many bytes the line could carry while one waits for an answer."""
        return int((self._srtt_s or 0.0) / self.byte_s) if self.byte_s > 0 else 0

    @property
    def enough_bytes(self) -> int:
        """How many bytes under way keep the line busy, also when the host looks away for a moment.

        With more of them losses are only found later, and more of what lies behind them has to be kept by the device.
        """
        return self.round_trip_bytes + int(_AWAY_S / self.byte_s) if self.byte_s > 0 else _WITHOUT_END

    def patience_s(self, size_bytes: int, unknown_s: float) -> float:
        """Give how long the answer to a frame may take that nothing is before.

        Args:
            size_bytes: Encoded bytes of the frame.
            unknown_s: What to assume beside the time on the line as long as no answer was measured.
        """
        line_s = size_bytes * self.byte_s
        if self._srtt_s is None:
            return unknown_s + line_s
        return self._srtt_s + max(_VARIATIONS * self._rttvar_s, _LEAST_MARGIN_S) + line_s


def longest_body(body_bytes: int, window_bytes: int) -> int:
    """Give the body of a full frame: two fit the window where that leaves a frame worth sending."""
    half = body_that_fits(window_bytes // 2)
    return min(body_bytes, half if half >= _SMALL_BODY else body_that_fits(window_bytes))
