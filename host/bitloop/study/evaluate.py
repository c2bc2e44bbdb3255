"""Labels and logits of many MODELs on the same images: exact, and by the fastest of the exact ways.

There are three ways to exact logits: the compiled core, the numpy reference, and the reference from the first layer on
that differs from a base MODEL, with everything before it computed once. Exact labels can be had from a fourth: products
by BLAS with a proved bound, of which only the images are computed exactly whose label the bound leaves open. Which is
fastest depends on the network and the machine, so it is measured on a few images. Which one is taken changes no label;
:meth:`Evaluator.check` holds them together.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from bitloop.bench.compare import compare_vectors
from bitloop.errors import DisagreementError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.native.evaluator import Evaluator as Core
from bitloop.network.architecture import Conv2D, Dense
from bitloop.plan.planner import plan
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.simulate.bounded import Bounded, BoundedPrefix, bounded_logits, bounded_logits_from, bounded_prefix_of
from bitloop.simulate.elementwise import elementwise_logits
from bitloop.simulate.reference import Prefix, labels, prefix_of, simulate, simulate_from

__all__ = ["Evaluator", "Route", "Score", "core_logits", "cross_entropy", "first_difference", "score"]

_LOGGER = logging.getLogger(__name__)

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]
T = TypeVar("T")

PROBE_IMAGES = 200
"""Images on which the ways are timed."""
CACHE_BYTES = 512 << 20
"""The most that one evaluator keeps of what enters layers."""
CORE_ADVANTAGE = 1.2
"""How many times faster than the reference, which is exact by definition, the core must be to be taken."""
CROSS_ENTROPY_DECIMALS = 5
"""What is kept of a cross-entropy: the digits behind depend on the BLAS where labels are proved by bounds."""
FEW_IMAGES = 20
"""Up to so many images the core is taken at once, instead of nearer bounds before it."""
_ARENA_BYTES = 1 << 31


class Route(Enum):
    """How logits were computed; the value says it in words."""

    CORE = "the compiled core"
    REFERENCE = "the numpy reference"
    SUFFIX = "the numpy reference from the first layer on that differs"
    BOUNDED = "BLAS with a proved bound, and the core where the bound leaves a label open"


@dataclass(frozen=True, eq=False)
class Score:
    """What logits are worth.

    Attributes:
        right: bool ``[N]``, whether the label of each image is right.
        cross_entropy: in nats, see :func:`cross_entropy`.
        logits: float32 ``[N, classes]``; None where they were not kept.
        bounds: float64 ``[N, classes]``: how far a device's logits may be from these; None where these are its own.
            The labels are its own in any case.
    """

    right: npt.NDArray[np.bool_]
    cross_entropy: float | None
    logits: F32 | None = None
    bounds: npt.NDArray[np.float64] | None = None

    @property
    def correct(self) -> int:
        """How many are right."""
        return int(self.right.sum())


def cross_entropy(logits: F32, true: U8) -> float | None:
    """Return the mean cross-entropy in nats: the mean of ``log(sum_k exp(z_k)) - z_true``, in binary64.

    The greatest logit is subtracted first, so that nothing overflows, and the mean is a correctly rounded sum
    (``math.fsum``), so that the order of the images does not matter.

    Args:
        logits: float32 ``[N, classes]``, N at least 1.
        true: labels, ``[N]``, each in [0, classes).

    Returns:
        The mean, 0 or more; None where a logit is NaN or infinite, which has no cross-entropy.
    """
    z = logits.astype(np.float64)
    if not np.isfinite(z).all():
        return None
    z -= z.max(axis=1, keepdims=True)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), true]
    return math.fsum(losses.tolist()) / len(z)


def score(logits: F32, true: U8) -> Score:
    """Return which labels are right, and the cross-entropy.

    Raises:
        UsageError: there are no images.
    """
    if not len(logits):
        raise UsageError("there are no images to score")
    return Score(labels(logits) == true, cross_entropy(logits, true), logits)


def core_logits(model: Model, pixels: U8) -> F32:
    """Return the logits float32 ``[N, classes]`` of the compiled core, in one thread.

    Raises:
        ToolchainError: the core cannot be compiled.
        ModelError, UnsupportedLayerError, FormatError: no image can be planned of the model.
    """
    planned = plan(model, DeviceInfo.native_default(arena_bytes=_ARENA_BYTES), slots=1, placement="resident")
    return Core(planned.image).run(pixels, threads=1)


def first_difference(base: Model, model: Model) -> str | None:
    """Return the name of the first layer whose weights or biases are not the same in both MODELs; None if all are.

    Raises:
        UsageError: the MODELs are not of one architecture.
    """
    if base.architecture != model.architecture:
        raise UsageError(f"{base.name!r} and {model.name!r} are not of one architecture")
    for name, tensor in model.tensors.items():
        if not _same(base.tensors[name], tensor):
            return name.rpartition(".")[0]
    return None


class Evaluator:
    """Evaluates MODELs of one architecture on the same images.

    Args:
        base: where a MODEL is the same as this one in its first layers, these are computed once.
        pixels: uint8 ``[N, H, W, C]``, N at least 1.
        uses: MODELs that are the same up to one layer and come one after another, about: what enters that layer pays
            the sooner the more there are.
        cache_bytes: the most that is kept of what enters layers; more is computed each time.
    """

    def __init__(self, base: Model, pixels: U8, *, uses: int = 20, cache_bytes: int = CACHE_BYTES) -> None:
        self._base = base
        self._pixels = pixels
        self._uses = max(1, uses)
        self._cache_bytes = cache_bytes
        self._whole: tuple[float, float] | None = None
        self._routes: dict[tuple[str | None, bool], Route] = {}
        self._prefix: Prefix | None = None
        self._bounded_prefix: BoundedPrefix | None = None
        self._first = next(
            (layer.name for layer in base.architecture.layers if isinstance(layer, Dense | Conv2D)), None
        )

    def logits(self, model: Model) -> F32:
        """Return the logits, float32 ``[N, classes]``: the bits that a device must answer.

        Raises:
            UsageError: the MODEL is of another architecture than the base.
            ToolchainError: the core cannot be compiled.
            ModelError, UnsupportedLayerError, FormatError: the MODEL cannot be run.
        """
        start = self._start(model)
        return self._exact(model, start, self.route(model, start))

    def score(self, model: Model, true: U8) -> Score:
        """Return what a MODEL is worth.

        Which labels are right is exact: what a device must answer. Logits are exact too, or as near as binary32
        products by BLAS are (``bounds`` is not None then). Cross-entropy is rounded to
        :data:`CROSS_ENTROPY_DECIMALS`, so that it does not tell which of both they were.

        Args:
            model: of the base's architecture.
            true: labels ``[N]`` of the images.

        Raises:
            As :meth:`logits`; UsageError: there are no images.
        """
        found = self._judged(model, true)
        entropy = found.cross_entropy
        return replace(found, cross_entropy=None if entropy is None else round(entropy, CROSS_ENTROPY_DECIMALS))

    def _judged(self, model: Model, true: U8) -> Score:
        start = self._start(model)
        route = self.route(model, start, judging=True)
        if route is not Route.BOUNDED:
            return score(self._exact(model, start, route), true)
        if start is None:
            return _bounded_score(model, self._pixels, true, bounded_logits(model, self._pixels))
        if self._bounded_prefix is None or self._bounded_prefix.layer != start:
            self._bounded_prefix = None  # before the next is made: only one takes memory
            self._bounded_prefix = bounded_prefix_of(self._base, self._pixels, start)
        return _bounded_score(model, self._pixels, true, bounded_logits_from(model, self._bounded_prefix))

    def route(self, model: Model, start: str | None, *, judging: bool = False) -> Route:
        """Return the fastest way for MODELs that differ from layer ``start`` on (None: from the first), measured once.

        Args:
            model: one of these.
            start: name of the layer.
            judging: whether exact labels are enough.
        """
        key = start, judging
        if key not in self._routes:
            self._routes[key] = self._measure(model, start, judging=judging)
            _LOGGER.info("from layer %s on: %s", start or "1", self._routes[key].value)
        return self._routes[key]

    def check(self, model: Model, worth: Score, count: int) -> int:
        """Compute the first images again in full, by the reference and by the core, and hold all three together.

        Core and reference must have the same bits. So must the logits that are judged, or they must lie within their
        bounds; and the same images must be right.

        Args:
            model: what was judged.
            worth: of :meth:`score`, or of :func:`score` of :meth:`logits`.
            count: how many images, at most.

        Returns:
            How many images were compared.

        Raises:
            DisagreementError: they differ; the image, and who differs, are named.
            ValueError: the logits were not kept.
        """
        if worth.logits is None:
            raise ValueError("logits that were not kept cannot be compared")
        part = self._pixels[:count]
        if not len(part):
            return 0
        expected = simulate(model, part)
        _raise_unless_same("the compiled core", core_logits(model, part), expected)
        judged = worth.logits[: len(part)]
        if worth.bounds is None:
            _raise_unless_same("the evaluator", judged, expected)
            return len(part)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(judged.astype(np.float64) - expected)
        bounds = worth.bounds[: len(part)]
        same = (judged == expected) | (np.isnan(judged) & np.isnan(expected))
        beyond = ~((apart <= bounds) | same).all(axis=1) | (labels(judged) != labels(expected))
        if beyond.any():
            raise DisagreementError(
                f"BLAS and the numpy reference differ by more than is possible in {int(beyond.sum()):,} of "
                f"{len(part):,} logit vectors, first on image {int(beyond.argmax()):,} of the split: the BLAS or the "
                "proof is wrong, and no figure can be trusted; please report this"
            )
        return len(part)

    def _start(self, model: Model) -> str | None:
        layer = first_difference(self._base, model)
        return None if layer == self._first else layer

    def _exact(self, model: Model, start: str | None, route: Route) -> F32:
        if route is Route.CORE:
            return core_logits(model, self._pixels)
        if route is Route.REFERENCE or start is None:
            return simulate(model, self._pixels)
        if self._prefix is None or self._prefix.layer != start:
            self._prefix = None  # before the next is made: only one takes memory
            self._prefix = prefix_of(self._base, self._pixels, start)
        return simulate_from(model, self._prefix)

    def _measure(self, model: Model, start: str | None, *, judging: bool) -> Route:
        part = self._pixels[:PROBE_IMAGES]
        if self._whole is None:
            core_logits(model, part[:2])  # the first time it may be compiled
            simulate(model, part[:2])
            self._whole = _timed(lambda: core_logits(model, part))[0], _timed(lambda: simulate(model, part))[0]
        core_s, best_s = self._whole
        best = Route.REFERENCE
        if start is not None:
            prefix_s, prefix = _timed(lambda: prefix_of(self._base, part, start))
            suffix_s = _timed(lambda: simulate_from(model, prefix))[0] + prefix_s / self._uses
            if suffix_s < best_s and self._may_keep(prefix.size_bytes):
                best, best_s = Route.SUFFIX, suffix_s
        if CORE_ADVANTAGE * core_s < best_s:
            best, best_s = Route.CORE, core_s
        if judging and self._bounded_seconds(model, start) < best_s:
            best = Route.BOUNDED
        return best

    def _bounded_seconds(self, model: Model, start: str | None) -> float:
        """Return how long it takes to judge the first images with bounds; infinity if what is kept were too much."""
        part = self._pixels[:PROBE_IMAGES]
        true = np.zeros(len(part), np.uint8)
        bounded_logits(model, part[:2])
        if start is None:
            return _timed(lambda: _bounded_score(model, part, true, bounded_logits(model, part)))[0]
        prefix_s, prefix = _timed(lambda: bounded_prefix_of(self._base, part, start))
        if not self._may_keep(prefix.size_bytes):
            return math.inf
        judged_s = _timed(lambda: _bounded_score(model, part, true, bounded_logits_from(model, prefix)))[0]
        return judged_s + prefix_s / self._uses

    def _may_keep(self, size_bytes: int) -> bool:
        """Tell whether what takes so much of the first images takes too much of all."""
        return size_bytes * len(self._pixels) <= self._cache_bytes * min(PROBE_IMAGES, len(self._pixels))


def _bounded_score(model: Model, pixels: U8, true: U8, found: Bounded) -> Score:
    """Judge logits with bounds; where a label is open, nearer bounds are tried, and then the core computes it."""
    if not len(pixels):
        raise UsageError("there are no images to score")
    logits, bounds = found.logits.copy(), found.bounds.copy()
    left = np.flatnonzero(~found.decided)
    if len(left) > FEW_IMAGES:
        nearer = elementwise_logits(model, pixels[left])
        logits[left], bounds[left] = nearer.logits, nearer.bounds
        left = left[~nearer.decided]
    if len(left):
        logits[left] = core_logits(model, pixels[left])
        bounds[left] = 0.0
    return Score(labels(logits) == true, cross_entropy(logits, true), logits, bounds)


def _raise_unless_same(who: str, found: F32, expected: F32) -> None:
    comparison = compare_vectors(found, expected)
    if not comparison.exact:
        raise DisagreementError(
            f"{who} and the numpy reference differ in {len(comparison.failing):,} of {len(expected):,} logit "
            f"vectors, by up to {comparison.max_ulp:,} ULP, first on image {comparison.failing[0]:,} of the "
            "split: one of them is wrong, and no figure can be trusted; please report this"
        )


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.perf_counter()
    done = work()
    return time.perf_counter() - began, done


def _same(a: QuantizedTensor, b: QuantizedTensor) -> bool:
    """Tell whether two tensors of one name and shape are computed with in the same way."""
    return (
        (a.format, a.scale, a.granularity) == (b.format, b.scale, b.granularity)
        and _equal(a.codes, b.codes)
        and _equal(a.scales, b.scales)
        and _equal(a.zero_points, b.zero_points)
    )


def _equal(a: npt.NDArray[np.generic] | None, b: npt.NDArray[np.generic] | None) -> bool:
    """Tell whether arrays hold the same; scales are positive and finite, so that equal numbers are equal bits."""
    if a is None or b is None:
        return a is b
    return np.array_equal(a, b)
