"""How long a device takes for an image, as seen from the host; decides when to ask, and when to give up."""

from __future__ import annotations

from bitloop.link.channel import Timing
from bitloop.spec import RunMode

_FIRST_IMAGE_S = 1.0
_ASK_MARGIN = 1.5
_PATIENCE_MARGIN = 8.0
_SPACING_WEIGHT = 0.25


class Pace:
    """Measured over the runs of one model.

    Nothing is asked while the device may be computing in timing mode: asking would disturb what is measured. What comes
    right after a question may have been lost before, so it can only lower the estimate, to one pause between questions:
    a repair must not slow the next one down.

    Where weights are streamed, a batch is computed in stages, each after its own pause: they are told apart by the
    offset of the weights up to which the device has all that it asked for.

    In throughput mode results come in batches of up to half of the slots: for so many the device may be silent, at the
    pace at which results came of late.

    Args:
        timing: What to assume before anything was measured.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._slowest_s = 0.0
        self._stages_s: dict[int, float] = {}
        self._spacing_s: float | None = None

    @property
    def image_s(self) -> float:
        """Seconds an image, of the slowest stage; 0.0 as long as none is known."""
        return max(self._stages_s.values(), default=0.0)

    def knows(self, stage: int) -> bool:
        """Tell whether this stage was measured."""
        return stage in self._stages_s

    def begin_run(self) -> None:
        """Forget the pauses of the run before."""
        self._slowest_s = 0.0
        self._spacing_s = None

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

    def results(self, seconds: float, images: int) -> None:
        """Note that results of so many images came so long after those before, and nothing had to be repaired."""
        spacing_s = seconds / images
        if self._spacing_s is None:
            self._spacing_s = spacing_s
        self._spacing_s += _SPACING_WEIGHT * (spacing_s - self._spacing_s)

    def progress(self, seconds: float) -> None:
        """Note that so much time lay between two signs of progress."""
        self._slowest_s = max(self._slowest_s, seconds)

    def quiet_s(self, waiting: int, mode: RunMode, stage: int = 0, batch: int = 1) -> float:
        """Give how long the device may well be silent with ``waiting`` images before it.

        Args:
            waiting: Images that it may be computing.
            mode: Of the run.
            stage: What it is computing of them.
            batch: Most results that it keeps until it sends them, in throughput mode.
        """
        if not waiting:
            return 0.0
        known_s = self._stages_s.get(stage) if mode == RunMode.TIMING else self._spacing_s
        if known_s is None:
            return max(min(_FIRST_IMAGE_S, self._timing.image_timeout_s), _ASK_MARGIN * self.image_s * waiting)
        return _ASK_MARGIN * known_s * (waiting if mode == RunMode.TIMING else min(waiting, batch))

    def patience_s(self, waiting: int, received: int) -> float:
        """Give how long to wait for any progress before giving up."""
        patience = self._timing.timeout_s + _PATIENCE_MARGIN * max(self._slowest_s, self.image_s * waiting)
        return patience + (self._timing.image_timeout_s if waiting and not received else 0.0)
