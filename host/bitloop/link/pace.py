"""How long a device takes for an image, as seen from the host; decides when to ask, and when to give up."""

from __future__ import annotations

from bitloop.link.channel import Timing
from bitloop.spec import RunMode

_FIRST_IMAGE_S = 1.0
_ASK_MARGIN = 1.5
_PATIENCE_MARGIN = 8.0
_SILENCE_DECAY = 0.9


class Pace:
    """Measured over the runs of one model.

    Nothing is asked while the device may be computing in timing mode: asking would disturb what is measured. What comes
    right after a question may have been lost before, so it can only lower the estimate, to one pause between questions:
    a repair must not slow the next one down.

    Where weights are streamed, a batch is computed in stages, each after its own pause: they are told apart by the
    offset of the weights up to which the device has all that it asked for.

    In throughput mode the device may be asked while it computes, which costs a little: it is waited for somewhat longer
    than it was silent of late by itself.

    Args:
        timing: What to assume before anything was measured.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest_s = 0.0
        self._stages_s: dict[int, float] = {}
        self._silence_s = 0.0

    @property
    def image_s(self) -> float:
        """Seconds an image, of the slowest stage; 0.0 as long as none is known."""
        return max(self._stages_s.values(), default=0.0)

    def knows(self, stage: int) -> bool:
        """Tell whether this stage was measured."""
        return stage in self._stages_s

    def begin_run(self) -> None:
        """Forget the pauses of the run before."""
        self._slowest_s = self._silence_s = 0.0

    def batch(self, seconds: float, images: int, *, clean: bool, asked: int = 1, stage: int = 0) -> None:
        """Note that results came, or more weights were asked for, ``seconds`` after the device had everything.

        Args:
            seconds: Since the last progress.
            images: How many it was computing.
            clean: They came by themselves, not as the answer to a question.
            asked: How many questions it took, if they did not.
            stage: What it was computing of them.
        """
        if images <= 0:
            return
        measured = seconds / images
        # Where nothing is known pauses between questions double: the last one is half of all. Else they are alike.
        repaired = measured / (1 + max(asked if self._stages_s else 1, 1))
        self._stages_s[stage] = measured if clean else min(self._stages_s.get(stage, measured), repaired)

    def silence(self, seconds: float) -> None:
        """Note the longest silence since the results before, none of them the wait before a question."""
        self._silence_s = max(seconds, _SILENCE_DECAY * self._silence_s)

    def progress(self, seconds: float) -> None:
        """Note that so much time lay between two signs of progress."""
        self._slowest_s = max(self._slowest_s, seconds)

    def quiet_s(self, waiting: int, mode: RunMode, stage: int = 0) -> float:
        """Give how long the device may well be silent with ``waiting`` images before it."""
        if not waiting:
            return 0.0
        known_s = self._stages_s.get(stage)
        if known_s is None:
            return max(min(_FIRST_IMAGE_S, self._timing.image_timeout_s), _ASK_MARGIN * self.image_s * waiting)
        return _ASK_MARGIN * (known_s * waiting if mode == RunMode.TIMING else self._silence_s)

    def patience_s(self, waiting: int, received: int) -> float:
        """Give how long to wait for any progress before giving up."""
        patience = self._timing.timeout_s + _PATIENCE_MARGIN * max(self._slowest_s, self.image_s * waiting)
        return patience + (self._timing.image_timeout_s if waiting and not received else 0.0)
