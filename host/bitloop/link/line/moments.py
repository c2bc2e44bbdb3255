"""What befalls a line once, behind a number of bytes: it falls silent, or its port vanishes."""

from __future__ import annotations

import math

from bitloop.link.line.options import LineOptions, Silence, Vanishing


class Moments:
    """Counts the bytes that cross, in both directions together, and lets happen what is due.

    Attributes:
        gone: Why the port is gone, or None while it is there.
        back_at: When a port that is gone can be opened again.
    """

    def __init__(self, options: LineOptions) -> None:
        moments: tuple[Silence | Vanishing, ...] = (*options.silences, *options.vanishings)
        self._left = sorted(moments, key=lambda moment: moment.after_bytes)
        self._crossed_bytes = 0
        self._silent_until = -math.inf
        self.gone: Vanishing | None = None
        self.back_at = -math.inf

    def pass_on(self, data: bytes, now: float) -> bytes:
        """Give what of the bytes that arrive now is not lost."""
        if not self._left and self.gone is None and now >= self._silent_until:
            return data
        out = b""
        while True:
            while self._left and self._crossed_bytes >= self._left[0].after_bytes:
                self._begin(self._left.pop(0), now)
            if not data or self.gone is not None or now < self._silent_until:
                return out
            count = self._left[0].after_bytes - self._crossed_bytes if self._left else len(data)
            out += data[:count]
            self._crossed_bytes += len(data[:count])
            data = data[count:]

    def come_back(self) -> None:
        """Let a port that was gone be there again."""
        self.gone = None

    def _begin(self, moment: Silence | Vanishing, now: float) -> None:
        if isinstance(moment, Silence):
            self._silent_until = max(self._silent_until, now + moment.seconds)
        else:
            self.gone = moment
            self.back_at = now + moment.seconds
