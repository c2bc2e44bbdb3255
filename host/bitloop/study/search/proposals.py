"""What Optuna proposes in a grid that is too large to evaluate; several machines may share one study.

A trial is an assignment: one categorical parameter a tensor, named as the tensor. Its values are those of the
objectives where it is admissible. Where it is not, each value is :data:`PENALTY` times 1 and more, the more the greater
the bound of its loss is: it is worse than any admissible trial, in every objective, and trials beyond the margin are
ordered by how far they are beyond it. That is the order of constrained domination (Deb et al., 2002), said without
Optuna's interface for constraints, which has changed. User attributes of a trial hold its recipe and its evaluation.
"""

from __future__ import annotations

import datetime
import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitloop.errors import DataError, UsageError
from bitloop.study.results import to_line
from bitloop.study.search.choices import Assignment, Choices
from bitloop.study.search.evaluations import Evaluation, Judge
from bitloop.study.search.storage import again, import_optuna, open_study

__all__ = ["PENALTY", "Proposals"]

_LOGGER = logging.getLogger(__name__)

PENALTY = 1e12
"""More than any objective of an admissible assignment: bytes, or ticks of an image."""
_REPEATED = 5
"""Proposals that were evaluated before, for each trial that is asked for, until the sampler is given up."""
_STALE_S = 600.0
"""Seconds after which a trial that another process began is taken for abandoned."""

Values = Callable[[Evaluation], Sequence[float] | None]
"""From an admissible evaluation to its objectives; None where it has none, as on a device that it does not fit."""


@dataclass(frozen=True)
class _Terms:
    """What trials of one study must have in common."""

    choices: Choices
    judge: Judge
    objectives: tuple[str, ...]


class Proposals:
    """A study of Optuna.

    Args:
        choices: of the search.
        judge: of the search.
        objectives: names.
        values: gives the objectives of admissible evaluations.
        asked: what the search was asked, as JSON takes it: a study that was asked something else is refused.
        read: reads the evaluation out of a trial of another process, and checks it.
        storage: a URL of Optuna's, whose trials several processes may share; or a file of this process's own, in which
            what is under way was broken off.
        name: of the study.
        seed: of the sampler.

    Raises:
        UsageError: Optuna is not installed, the storage cannot be reached, or holds a study of another search.
    """

    def __init__(
        self,
        choices: Choices,
        judge: Judge,
        objectives: tuple[str, ...],
        values: Values,
        *,
        asked: Mapping[str, object],
        read: Callable[[str, str], Evaluation],
        storage: str | Path,
        name: str,
        seed: int,
    ) -> None:
        self._optuna = optuna = import_optuna()
        self._terms = _Terms(choices, judge, objectives)
        self._values = values
        self._read = read
        self._distributions = {
            tensor: optuna.distributions.CategoricalDistribution(specs)
            for tensor, specs in zip(choices.tensors, choices.specs, strict=True)
        }
        self._study = open_study(storage, name, ["minimize"] * len(objectives))
        again(lambda: self._check(json.loads(json.dumps(asked)), name))
        if isinstance(storage, Path):
            self._end_broken_off()
        # Machines that share a study, and a search that is gone on with, must not draw the same again.
        drawn = (seed + len(self._trials())) % 2**32
        samplers = optuna.samplers
        self._study.sampler = (
            samplers.TPESampler(seed=drawn) if len(objectives) == 1 else samplers.NSGAIISampler(seed=drawn)
        )

    def finished(self) -> dict[Assignment, Evaluation]:
        """Return the evaluations of all trials that are done, of every process.

        Raises:
            DataError: a trial's evaluation was changed.
        """
        complete = self._optuna.trial.TrialState.COMPLETE
        found: dict[Assignment, Evaluation] = {}
        for trial in self._trials(complete):
            if trial.user_attrs.get("repeated"):
                continue
            text = trial.user_attrs.get("evaluation")
            if not isinstance(text, str):
                raise DataError(f"trial {trial.number} of the study holds no evaluation; take another --study-name")
            evaluation = self._read(text, f"trial {trial.number} of the study")
            found[self._terms.choices.assignment(evaluation.specs)] = evaluation
        return found

    def add(self, evaluations: Iterable[Evaluation], *, proposed: bool = False) -> None:
        """Add evaluations as trials of their own, those that a trial holds already left out.

        Args:
            evaluations: what is added.
            proposed: whether they count as proposals: they were, but another process has ended the trial.
        """
        there = self.finished()
        for evaluation in evaluations:
            if self._terms.choices.assignment(evaluation.specs) not in there:
                trial = self._optuna.trial.create_trial(
                    values=self._objectives(evaluation),
                    params=dict(zip(self._terms.choices.tensors, evaluation.specs, strict=True)),
                    distributions=self._distributions,
                    user_attrs=self._attributes(evaluation, proposed=proposed),
                )
                again(functools.partial(self._study.add_trial, trial))

    def enqueue(self, assignments: Iterable[Assignment]) -> None:
        """Let assignments be proposed first."""
        choices = self._terms.choices
        for assignment in assignments:
            params = dict(zip(choices.tensors, choices.texts(assignment), strict=True))
            again(functools.partial(self._study.enqueue_trial, params, skip_if_exists=True))

    def run(
        self,
        trials: int,
        evaluate: Callable[[Sequence[Assignment]], list[Evaluation]],
        *,
        at_once: int,
        progress: Callable[[int, int], None],
    ) -> None:
        """Evaluate proposals until so many were evaluated in all, by whichever process.

        Args:
            trials: proposals that are evaluated, those from before included.
            evaluate: gives evaluations, in order.
            at_once: proposals that are evaluated together.
            progress: called with how many were evaluated, and how many there will be.
        """
        repeated = 0
        while (done := self._proposed()) < trials and repeated < _REPEATED * trials:
            progress(done, trials)
            taken = self._taken()
            left = self._terms.choices.count - len(taken)
            if not left:
                _LOGGER.info("every assignment of the grid has been evaluated")
                break
            batch: dict[Assignment, Any] = {}
            while len(batch) < min(at_once, trials - done, left) and repeated < _REPEATED * trials:
                trial = self._ask()
                chosen = self._terms.choices.assignment([trial.params[name] for name in self._terms.choices.tensors])
                if chosen in taken or chosen in batch:
                    repeated += 1
                    self._repeat(trial, taken.get(chosen))
                else:
                    batch[chosen] = trial
            for evaluation, trial in zip(evaluate(list(batch)), batch.values(), strict=True):
                if not self._tell(trial, self._objectives(evaluation), self._attributes(evaluation, proposed=True)):
                    self.add([evaluation], proposed=True)
        progress(self._proposed(), trials)
        if repeated >= _REPEATED * trials:
            _LOGGER.warning("the sampler proposes only what was evaluated before: the search ends earlier than asked")

    def _repeat(self, trial: Any, evaluation: Evaluation | None) -> None:
        """Answer a proposal that was evaluated before with the same figures; one that is under way elsewhere, not."""
        if evaluation is None:
            self._tell(trial, None, {})
        else:
            self._tell(trial, self._objectives(evaluation), {"repeated": True})

    def _ask(self) -> Any:
        """Return a trial to evaluate; of an enqueued one that another process has ended meanwhile, the next."""
        return again(
            lambda: self._study.ask(self._distributions), also=(self._optuna.exceptions.UpdateFinishedTrialError,)
        )

    def _tell(self, trial: Any, values: list[float] | None, attributes: Mapping[str, object]) -> bool:
        """End a trial, with values or as failed; return whether it was ended here.

        Where two processes were given the same trial, it stays as the faster one has ended it.
        """

        def tell() -> None:
            for name, value in attributes.items():
                trial.set_user_attr(name, value)
            self._study.tell(trial, values, state=self._optuna.trial.TrialState.FAIL if values is None else None)

        try:
            again(tell)
        except (ValueError, self._optuna.exceptions.UpdateFinishedTrialError):
            if not self._trials()[trial.number].state.is_finished():
                raise
            return False
        return True

    def _taken(self) -> dict[Assignment, Evaluation | None]:
        """Return what was evaluated, and, without an evaluation, what another process evaluates at this moment."""
        taken: dict[Assignment, Evaluation | None] = dict(self.finished())
        running = self._optuna.trial.TrialState.RUNNING
        for trial in self._trials(running):
            begun = trial.datetime_start
            fresh = begun is not None and (datetime.datetime.now() - begun).total_seconds() < _STALE_S
            if fresh and set(trial.params) == set(self._terms.choices.tensors):
                chosen = self._terms.choices.assignment([trial.params[name] for name in self._terms.choices.tensors])
                taken.setdefault(chosen, None)
        return taken

    def _end_broken_off(self) -> None:
        states = self._optuna.trial.TrialState
        for trial in self._trials(states.RUNNING):
            self._study.tell(trial.number, state=states.FAIL)

    def _proposed(self) -> int:
        complete = self._optuna.trial.TrialState.COMPLETE
        return sum(bool(trial.user_attrs.get("proposed")) for trial in self._trials(complete))

    def _trials(self, *states: Any) -> list[Any]:
        """Return the trials in some states, or all."""
        found: list[Any] = again(lambda: self._study.get_trials(deepcopy=False, states=states or None))
        return found

    def _objectives(self, evaluation: Evaluation) -> list[float]:
        judge = self._terms.judge
        if judge.is_admissible(evaluation):
            values = self._values(evaluation)
            if values is not None:
                return list(values)
        return [PENALTY * (2.0 + judge.bound(evaluation) - judge.margin)] * len(self._terms.objectives)

    def _attributes(self, evaluation: Evaluation, *, proposed: bool) -> dict[str, Any]:
        choices = self._terms.choices
        return {
            "recipe": choices.words(choices.assignment(evaluation.specs)),
            "admissible": self._terms.judge.is_admissible(evaluation),
            "evaluation": to_line(evaluation),
            **({"proposed": True} if proposed else {}),
        }

    def _check(self, asked: object, name: str) -> None:
        earlier = self._study.user_attrs.get("bitloop")
        if earlier is None and not self._trials():
            self._study.set_user_attr("bitloop", asked)
        elif earlier != asked:
            differs = (
                sorted(key for key in asked if earlier.get(key) != asked[key])
                if isinstance(earlier, dict) and isinstance(asked, dict)
                else ["everything"]
            )
            raise UsageError(
                f"the study {name!r} is of another search: {', '.join(differs)} differ; name another --study-name"
            )
