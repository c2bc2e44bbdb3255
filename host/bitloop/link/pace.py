"""How long a device takes for an image, as seen from the host; decides when to ask, and when to give up."""

from __future__ import annotations

from bitloop.link.channel import Timing
from bitloop.spec import RunMode

_FIRST_IMAGE_S = 1.0
_ASK_MARGIN = 1.5
_PATIENCE_MARGIN = 8.0


class Pace:
    """Measured over the runs of one model.

    Nothing is asked while the device may be computing in timing mode: asking would disturb what is measured. A repair
    must not slow the next one down, so a batch in which something was asked for can only lower the estimate.

    Args:
        timing: What to assume before anything was measured.

    Attributes:
        image_s: Seconds an image, 0.0 as long as that is not known.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest_s = 0.0
        self.image_s = 0.0

    def begin_run(self) -> None:
        """Forget the pauses of the run before."""
        self._slowest_s = 0.0

    def batch(self, seconds: float, images: int, *, clean: bool) -> None:
        """Note that results came ``seconds`` after the device had everything for ``images`` images.

        Args:
            seconds: Since the last progress.
            images: How many it was computing.
            clean: Nothing was lost meanwhile.
        """
        if images <= 0:
            return
        measured = seconds / images
        self.image_s = measured if clean or not self.image_s else min(self.image_s, measured)

    def progress(self, seconds: float) -> None:
        """Note that so much time lay between two signs of progress."""
        self._slowest_s = max(self._slowest_s, seconds)

    def quiet_s(self, waiting: int, mode: RunMode) -> float:
        """Give how long the device may well be silent with ``waiting`` images before it."""
        if not waiting:
            return 0.0
        if not self.image_s:
            return min(_FIRST_IMAGE_S, self._timing.image_timeout_s)
        return _ASK_MARGIN * self.image_s * waiting if mode == RunMode.TIMING else 0.0

    def patience_s(self, waiting: int, received: int) -> float:
        """Give how long to wait for any progress before giving up."""
        patience = self._timing.timeout_s + _PATIENCE_MARGIN * max(self._slowest_s, self.image_s * waiting)
        return patience + (self._timing.image_timeout_s if waiting and not received else 0.0)
