"""How a search is asked for, and what it will do for that."""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.errors import UsageError
from bitloop.network.network import Network
from bitloop.study.device import DeviceOptions
from bitloop.study.search.bench import OBJECTIVES
from bitloop.study.search.choices import EXHAUSTIVE_LAYERS, Choices, choices_of
from bitloop.study.statistics import MARGIN

__all__ = ["METHODS", "SearchOptions", "SearchPlan", "plan_search"]

METHODS = ("auto", "exhaustive", "sampled")
MAX_EVALUATIONS = 200_000
"""Evaluations that an exhaustive search makes at most, unless said otherwise."""
TRIALS = 100
"""Proposals of Optuna that a sampled search evaluates, unless said otherwise."""
DEVICE_CANDIDATES = 20
"""Assignments that an exhaustive search measures on a device at most, besides the best."""
BEST = 10
"""Assignments that are confirmed, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """How a search is done.

    Attributes:
        choices: what is chosen from; None is :func:`bitloop.study.search.choices.choices_of` of the network.
        margin: the loss of accuracy that is put up with, as a share, in (0, 1).
        objectives: some of :data:`bitloop.study.search.bench.OBJECTIVES`; the first decides who wins.
        method: "exhaustive", "sampled", or "auto": exhaustive up to four layers with parameters.
        max_evaluations: that an exhaustive search may take.
        trials: proposals of Optuna that a sampled search evaluates.
        seed: of the sampler.
        storage: a URL of Optuna's, which several machines may share; None is a file in the folder.
        study_name: of the study in the storage; None is the network's name.
        best: assignments that are confirmed.
        processes: how many evaluate; None is one a processor.
        device: where candidates are measured; needed by the objectives latency and ram.
        device_candidates: the most that an exhaustive search measures there, besides the best.
        command: what started the search, for its record.
    """

    choices: Choices | None = None
    margin: float = MARGIN
    objectives: tuple[str, ...] = ("bytes",)
    method: str = "auto"
    max_evaluations: int = MAX_EVALUATIONS
    trials: int = TRIALS
    seed: int = 0
    storage: str | None = None
    study_name: str | None = None
    best: int = BEST
    processes: int | None = None
    device: DeviceOptions | None = None
    device_candidates: int = DEVICE_CANDIDATES
    command: str = ""


@dataclass(frozen=True)
class SearchPlan:
    """What a search will do.

    Attributes:
        choices: what is chosen from.
        method: "exhaustive" or "sampled".
        evaluations: how many assignments are evaluated: all of an exhaustive search, Optuna's proposals of a sampled
            one, which evaluates some of its own before.
    """

    choices: Choices
    method: str
    evaluations: int


def plan_search(network: Network, options: SearchOptions) -> SearchPlan:
    """Return what a search will do, before it does anything.

    Raises:
        UsageError: an option makes no sense, or an exhaustive search would take too many evaluations.
        FormatError: the choices do not go with the network.
    """
    choices = options.choices or choices_of(network)
    if choices.tensors != tuple(network.parameters):
        raise UsageError(f"the choices are for {', '.join(choices.tensors)}, network {network.name!r} has others")
    unknown = [name for name in options.objectives if name not in OBJECTIVES]
    if unknown or not options.objectives or len(set(options.objectives)) != len(options.objectives):
        raise UsageError(
            f"objectives are some of {', '.join(OBJECTIVES)}, each once; not {', '.join(options.objectives) or 'none'}"
        )
    if set(options.objectives) != {"bytes"} and options.device is None:
        raise UsageError(
            f"{' and '.join(name for name in options.objectives if name != 'bytes')} can be measured on a device only: "
            "name one with --device URL (sim://native simulates one)"
        )
    if not 0.0 < options.margin < 1.0:
        raise UsageError(
            f"the loss that is put up with lies above 0 and below 100 points, not at {100 * options.margin:g}"
        )
    if options.method not in METHODS:
        raise UsageError(f"a method is {', '.join(METHODS)}; not {options.method!r}")
    if min(options.trials, options.max_evaluations, options.best) < 1 or options.device_candidates < 0:
        raise UsageError(
            "trials, evaluations and assignments to confirm are 1 or more, candidates for the device 0 or more"
        )
    if not 0 <= options.seed < 2**32:
        raise UsageError(f"a seed is 0 to {2**32 - 1}, not {options.seed}")
    method = options.method
    if method == "auto":
        method = "exhaustive" if choices.layers <= EXHAUSTIVE_LAYERS else "sampled"
    if method == "exhaustive" and choices.count > options.max_evaluations:
        raise UsageError(
            f"the grid has {choices.count:,} assignments, more than the {options.max_evaluations:,} that may be "
            "evaluated: choose from fewer formats (--weights, --biases), pin tensors (--set TENSOR=SPEC), let Optuna "
            "choose what is evaluated (--method sampled), or raise --max-evaluations"
        )
    return SearchPlan(choices, method, choices.count if method == "exhaustive" else options.trials)
