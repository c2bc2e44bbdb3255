"""Searches of a grid that is too large: the additive proxy, Optuna's proposals, a study that several runs share."""

from __future__ import annotations

import builtins
import itertools
import json
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitloop.data.dataset import Images
from bitloop.errors import UsageError
from bitloop.network.network import Network
from bitloop.study.device import DeviceOptions
from bitloop.study.results import from_line, to_line
from bitloop.study.search.choices import Choices, choices_of
from bitloop.study.search.evaluations import Evaluation, Judge
from bitloop.study.search.greedy import greedy_path, proxy_front
from bitloop.study.search.library import Library
from bitloop.study.search.proposals import PENALTY, Proposals
from bitloop.study.search.search import Search, SearchOptions, run_search

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install 'bitloop[search]'")
WEIGHTS = ("int3", "int5", "int8:channel")
Run = Callable[..., Search]


def few(network: Network) -> Choices:
    return choices_of(network, weights=WEIGHTS, biases=("int4", "fp16"))


@pytest.fixture
def search(deep: Callable[[int], Network], labelled: Callable[..., tuple[Images, Images]], tmp_path: Path) -> Run:
    """Search five layers, 7,776 assignments: ``search("folder", trials=..., any other option)``."""

    def run(out: str = "search", *, choices: Choices | None = None, **options: object) -> Search:
        network = deep(5)
        asked = replace(SearchOptions(choices=choices or few(network), margin=0.2, processes=1, trials=4), **options)
        return run_search(network, *labelled(network), asked, tmp_path / out)

    return run


@pytest.fixture(scope="module")
def library(deep: Callable[[int], Network]) -> Library:
    network = deep(2)
    return Library(network, few(network))


PROXY = ((0.9, 0.3, 0.0), (0.02, 0.0), (0.5, 0.05, 0.0), (-0.01, 0.0))


def test_the_front_of_the_proxy_is_that_of_all_assignments(library: Library) -> None:
    every = {
        chosen: (
            library.sizes(chosen).total,
            sum(losses[choice] for losses, choice in zip(PROXY, chosen, strict=True)),
        )
        for chosen in itertools.product(*(range(len(specs)) for specs in library.choices.specs))
    }
    front = proxy_front(library, PROXY)
    assert [size for size, _, _ in front] == sorted({size for size, _, _ in front})
    for size, loss, chosen in front:
        assert (size, loss) == pytest.approx(every[chosen])
        assert not [o for o in every.values() if o[0] <= size and o[1] < loss - 1e-12]
    for size, loss in every.values():
        assert [o for o in front if o[0] <= size and o[1] <= loss + 1e-12]


def test_the_greedy_path_takes_what_saves_most_for_its_loss(library: Library) -> None:
    path = greedy_path(library, PROXY)
    assert path[0] == library.widest()
    sizes = [library.sizes(chosen).total for chosen in path]
    assert sizes == sorted(set(sizes), reverse=True)
    smallest = [
        min(library.tensor_bytes(tensor, choice) for choice in range(len(losses)))
        for tensor, losses in enumerate(PROXY)
    ]
    assert sizes[-1] == sum(smallest)
    for before, after in itertools.pairwise(path):
        (tensor,) = [place for place in range(4) if before[place] != after[place]]
        taken = _gain(library, before, tensor, after[tensor])
        assert taken == max(
            _gain(library, before, place, choice)
            for place, losses in enumerate(PROXY)
            for choice in range(len(losses))
            if library.tensor_bytes(place, choice) < library.tensor_bytes(place, before[place])
        )


def _gain(library: Library, before: tuple[int, ...], tensor: int, choice: int) -> float:
    saved = library.tensor_bytes(tensor, before[tensor]) - library.tensor_bytes(tensor, choice)
    return saved / max(PROXY[tensor][choice] - PROXY[tensor][before[tensor]], 1e-6)


def trials_of(search: Search, url: str | None = None) -> list[Any]:
    journal = optuna.storages.journal
    storage = url or optuna.storages.JournalStorage(journal.JournalFileBackend(str(search.folder.study)))
    return optuna.load_study(study_name="deep5", storage=storage).get_trials(states=(optuna.trial.TrialState.COMPLETE,))


def test_five_layers(search: Run) -> None:
    found = search()
    assert found.begun.asked.method == "sampled"
    assert 4 < len(found.evaluations) < found.choices.count / 50
    proposed = [trial for trial in trials_of(found) if trial.user_attrs.get("proposed")]
    assert len(proposed) == 4
    # Each trial has its recipe, and its value is the bytes, or more than any where it loses too much.
    by_key = {one.key: one for one in found.evaluations}
    for trial in trials_of(found):
        if trial.user_attrs.get("repeated"):
            continue
        specs = [trial.params[tensor] for tensor in found.choices.tensors]
        one = by_key[" ".join(specs)]
        assert trial.user_attrs["recipe"] == " ".join(
            f"{tensor}={spec}" for tensor, spec in zip(found.choices.tensors, specs, strict=True)
        )
        admissible = one.comparison(60).bound <= 0.2
        assert trial.user_attrs["admissible"] is admissible
        assert trial.value == one.total_bytes if admissible else trial.value > PENALTY
    # The best is smaller than the widest, which the search began with, and is among what was evaluated.
    widest = max(one.total_bytes for one in found.evaluations)
    assert found.candidates[0].total_bytes < widest / 1.5
    good = [one for one in found.evaluations if one.comparison(60).bound <= 0.2]
    assert found.candidates[0].total_bytes == min(one.total_bytes for one in good)
    # Nothing more is left to do; with more trials asked for, it goes on.
    again = search()
    assert again.evaluated_now == 0
    more = search(trials=6)
    assert 1 <= more.evaluated_now <= 2
    lines = more.folder.evaluations.read_bytes().splitlines()
    assert len(lines) == len(set(lines)) == len(more.evaluations)


def test_the_same_seed_gives_the_same(search: Run) -> None:
    first, second = search("one", trials=3), search("two", trials=3)
    assert first.folder.evaluations.read_bytes() == second.folder.evaluations.read_bytes()
    assert first.folder.result.read_bytes() == second.folder.result.read_bytes()


def test_two_runs_share_a_study(search: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    first = search("one", storage=url, trials=3)
    second = search("two", storage=url, trials=5, seed=1)
    trials = [trial for trial in trials_of(first, url) if not trial.user_attrs.get("repeated")]
    assert sum(bool(trial.user_attrs.get("proposed")) for trial in trials) == 5
    recipes = [trial.user_attrs["recipe"] for trial in trials]
    assert len(recipes) == len(set(recipes)), "something was evaluated twice"
    keys = {one.key for one in second.evaluations}
    assert {one.key for one in first.evaluations} <= keys
    assert len(recipes) == len(keys) == len(first.evaluations) + 2
    # The first knows of the others once it is asked again.
    assert {one.key for one in search("one", storage=url, trials=5).evaluations} == keys
    with pytest.raises(UsageError, match="of another search: margin differ"):
        search("three", storage=url, margin=0.3)


AT_ONCE = """
import sys
import optuna.storages._rdb.storage
from bitloop.study.search.choices import Choices
from bitloop.study.search.evaluations import Evaluation, Judge
from bitloop.study.search.proposals import Proposals
from bitloop.study.results import from_line

choices = Choices(tuple(f"{name}.weights" for name in "abcde"), (("int3", "int4", "int5", "int8"),) * 5)
def evaluation(chosen):
    lost = sum(3 - place for place in chosen)
    return Evaluation(choices.texts(chosen), 10 * (1 + sum(chosen)), 0, 0, 900 - lost, lost, 0, 0.1)
def evaluate(batch):
    return [evaluation(chosen) for chosen in batch]
print("ready", flush=True)
sys.stdin.read(1)  # all begin together
proposals = Proposals(choices, Judge(1000, 0.01), ("bytes",), lambda one: [one.total_bytes], asked={"margin": 0.01},
    read=lambda text, where: from_line(Evaluation, text, where), storage=sys.argv[1], name="s", seed=int(sys.argv[2]))
proposals.add(evaluate([(3, 3, 3, 3, 3), (2, 3, 3, 3, 3)]))
proposals.enqueue([(2, 2, 3, 3, place) for place in range(4)] + [(3, place, 2, 2, 2) for place in range(4)])
proposals.run(24, evaluate, at_once=2, progress=lambda done, total: None)
found = proposals.finished()
assert all(found[chosen] == evaluation(chosen) for chosen in found)
"""


def test_processes_that_run_at_the_same_moment_share_a_study(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    command = [sys.executable, "-c", AT_ONCE, url]
    processes = [
        subprocess.Popen(
            [*command, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    trials = optuna.load_study(study_name="s", storage=url).get_trials()
    assert not [trial for trial in trials if trial.state == optuna.trial.TrialState.RUNNING]
    done = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    proposed = [trial for trial in done if trial.user_attrs.get("proposed")]
    assert 24 <= len(proposed) <= 24 + 2 * 3  # each had two under way when the last was told
    assert all(json.loads(t.user_attrs["evaluation"]) for t in done if not t.user_attrs.get("repeated"))


FOUR = Choices(("a.weights",), (("int3", "int4", "int5", "int8"),))


def four(chosen: tuple[int, ...]) -> Evaluation:
    return Evaluation(FOUR.texts(chosen), 10 * (1 + chosen[0]), 0, 0, 900, 0, 0, 0.1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A storage that waits a tenth of a second for its lock, not five."""
    return f"sqlite:///{tmp_path}/shared.db?timeout=0.1"


@pytest.fixture
def proposals(url: str) -> Proposals:
    """A study of four assignments, without any trial."""
    return Proposals(
        FOUR,
        Judge(1000, 0.01),
        ("bytes",),
        lambda one: [one.total_bytes],
        asked={},
        read=lambda text, where: from_line(Evaluation, text, where),
        storage=url,
        name="s",
        seed=0,
    )


def test_a_storage_that_is_lost_is_named(proposals: Proposals, tmp_path: Path) -> None:
    assert proposals.finished() == {}
    (tmp_path / "shared.db").write_bytes(b"no database " * 1000)
    with pytest.raises(UsageError, match=r"storage of the study does not answer .* the same command goes on"):
        proposals.finished()


def test_a_storage_that_is_locked_for_a_while_is_waited_for(proposals: Proposals, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "shared.db", check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.5, other.rollback)
    release.start()
    proposals.add([four((2,))])
    assert not release.is_alive()  # it was locked until then
    release.join()
    other.close()
    assert proposals.finished() == {(2,): four((2,))}


@pytest.mark.parametrize("ended", ["COMPLETE", "FAIL"])
def test_a_trial_that_another_process_ended_meanwhile(ended: str, proposals: Proposals, url: str) -> None:
    """Two were given the same: what the faster one told stays, and what it did not tell is added."""
    states = optuna.trial.TrialState

    def evaluate(batch: Sequence[tuple[int, ...]]) -> list[Evaluation]:
        other = optuna.load_study(study_name="s", storage=url)
        for trial in other.get_trials(states=(states.RUNNING,)):
            if ended == "COMPLETE":
                same = to_line(four(FOUR.assignment([trial.params["a.weights"]])))
                other._storage.set_trial_user_attr(trial._trial_id, "evaluation", same)
                other._storage.set_trial_user_attr(trial._trial_id, "proposed", True)
                other.tell(trial.number, 10.0 * (1 + FOUR.assignment([trial.params["a.weights"]])[0]))
            else:
                other.tell(trial.number, state=states.FAIL)
        return [four(chosen) for chosen in batch]

    proposals.enqueue([(1,)])
    proposals.run(1, evaluate, at_once=1, progress=lambda done, total: None)
    assert proposals.finished()[1,] == four((1,))
    trials = optuna.load_study(study_name="s", storage=url).get_trials()
    done = [trial for trial in trials if trial.state == states.COMPLETE]
    assert len([trial for trial in done if trial.params["a.weights"] == "int4"]) == 1


def test_a_trial_that_was_changed_is_refused(search: Run, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    search("one", storage=url, trials=1)
    study = optuna.load_study(study_name="deep5", storage=url)
    trial = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))[0]
    line = json.loads(trial.user_attrs["evaluation"])
    forged = json.dumps({**line, "correct": line["correct"] - 1})
    study.add_trial(
        optuna.trial.create_trial(
            value=1.0,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**trial.user_attrs, "evaluation": forged},
        )
    )
    with pytest.raises(Exception, match=r"trial \d+ of the study says what cannot be"):
        search("two", storage=url)


def test_a_small_grid_is_evaluated_whole_and_nothing_twice(search: Run, deep: Callable[[int], Network]) -> None:
    pinned = ["dense1.weights=int3,int5,int8", "dense3.weights=int3,int5,int8", "dense5.weights=int4,int8"]
    chosen = choices_of(deep(5), weights=("int6",), biases=("fp16",), pinned=pinned)
    found = search(choices=chosen, trials=30)
    assert len(found.evaluations) == chosen.count == 18
    assert len(found.folder.evaluations.read_bytes().splitlines()) == 18
    recipes = [t.user_attrs["recipe"] for t in trials_of(found) if not t.user_attrs.get("repeated")]
    assert len(recipes) == len(set(recipes)) == 18


def test_device_objectives_take_the_front(search: Run) -> None:
    device = DeviceOptions(url="sim://native", images=3)
    found = search(objectives=("bytes", "latency"), device=device, trials=3)
    assert found.objective_front
    for trial in trials_of(found):
        if trial.user_attrs.get("repeated"):
            continue
        key = " ".join(trial.params[tensor] for tensor in found.choices.tensors)
        cell = found.device.get(key)
        if trial.user_attrs["admissible"]:
            assert cell is not None
            assert trial.values[1] == cell.latency_median
        else:
            assert cell is None
            assert min(trial.values) > PENALTY


def test_what_loses_more_is_worse_and_never_better_than_what_is_admissible(tmp_path: Path) -> None:
    choices = Choices(("a.weights",), (("int3", "int4", "int8"),))
    judge = Judge(1000, 0.01)
    rows = [("int3", 10, 300), ("int4", 20, 100), ("int8", 40, 1)]
    evaluations = [Evaluation((spec,), size, 0, 0, 900 - lost, lost, 0, 0.1) for spec, size, lost in rows]
    proposals = Proposals(
        choices,
        judge,
        ("bytes",),
        lambda one: [one.total_bytes],
        asked={},
        read=lambda text, where: evaluations[0],
        storage=f"sqlite:///{tmp_path}/s.db",
        name="s",
        seed=0,
    )
    proposals.add(evaluations)
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
    ranked = sorted(study.get_trials(), key=lambda trial: trial.value)
    assert [trial.params["a.weights"] for trial in ranked] == ["int8", "int4", "int3"]
    assert study.best_trial.value == 40


def test_without_optuna_it_says_what_to_install(search: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def absent(name: str, *rest: Any, **named: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(UsageError, match=r"pip install 'bitloop\[search\]'"):
        search()


def test_a_storage_that_cannot_be_reached(search: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be opened at"):
        search(storage=f"sqlite:///{tmp_path}/no/such/folder/s.db")
