"""Short versions of the long proofs of ``scripts/verify``: the same code, fewer images and formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bitloop.boards import find_board
from bitloop.data import dataset
from bitloop.data.splits import Split
from bitloop.firmware import find
from proofs import boards, faults, native


@pytest.fixture(scope="module")
def images(mnist_dir: Path) -> dataset.Images:
    return dataset.load("mnist", mnist_dir).split(Split.SEARCH)


@pytest.mark.parametrize("network", native.NETWORKS)
def test_device_equals_host_in_every_format(network: str, images: dataset.Images) -> None:
    for _, text, record in native.records((network,), native.FORMATS, images.first(200)):
        assert native.exact(record, 200), f"{network} {text}: {record.headline}"


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.url) for fault in faults.FAULTS])
def test_a_wrong_device_is_caught(fault: faults.Fault, images: dataset.Images) -> None:
    ((_, record),) = faults.records((fault,), images.first(100))
    assert faults.caught(fault, record), record.headline


def test_the_proof_itself_fails_for_a_wrong_device(images: dataset.Images) -> None:
    ((_, record),) = faults.records((faults.FAULTS[0],), images.first(20))
    assert not native.exact(record, 20)


BOARD_IMAGES = 100
PACKED_IMAGES = 2
ON_EVERY_BOARD = {("mlp8k", "int4:channel"), ("mlp8k", "e4m3:pow2")}
ON_ONE = {
    ("stm32f405", "mlp", "fp32"),  # its weights travel, with batches of many images
    ("stm32f405", "cnn", "int8:channel"),
    ("stm32f100", "mlp8k", "ternary"),
    ("rv32imc", "cnn", "ternary"),
    ("lx106", "mlp", "e8m2"),
    ("stm32f405", boards.PACKED, "e3m1:pow2"),
}


def part_of_boards() -> list[boards.Case]:
    """What is quick; all refusals."""
    return [
        case
        for case in boards.cases()
        if case.expected == "refused"
        or (case.network, case.weights) in ON_EVERY_BOARD
        or (case.board, case.network, case.weights) in ON_ONE
    ]


def missing_for(board: str) -> str:
    found = find_board(board)
    return "; ".join(map(str, [*find.missing_to_build(found.environment), *find.missing_to_emulate(found)]))


@pytest.fixture(scope="module")
def outcome_of(images: dataset.Images) -> Callable[[boards.Case], boards.Outcome]:
    """Run what can be run here, two emulators at a time, when the first is asked for."""
    wanted = [case for case in part_of_boards() if not missing_for(case.board)]
    made: dict[boards.Case, boards.Outcome] = {}

    def outcome(case: boards.Case) -> boards.Outcome:
        if case not in wanted:
            pytest.skip(f"{case.board} needs {missing_for(case.board)}; {find.SETUP} installs it")
        if not made:
            found = boards.outcomes(wanted, images.first(BOARD_IMAGES), packed_images=PACKED_IMAGES)
            made.update((each.case, each) for each in found)
        return made[case]

    return outcome


@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in part_of_boards()])
def test_a_board_equals_host_and_build(case: boards.Case, outcome_of: Callable[[boards.Case], boards.Outcome]) -> None:
    outcome = outcome_of(case)
    assert outcome.failures() == []
    if outcome.record is not None:
        assert outcome.images == (PACKED_IMAGES if case.network == boards.PACKED else BOARD_IMAGES)


@pytest.mark.timeout(900)
def test_the_proof_of_boards_itself_fails(outcome_of: Callable[[boards.Case], boards.Outcome]) -> None:
    """Each figure, made to be wrong, is a failure."""
    right = outcome_of(next(case for case in part_of_boards() if case.board == "stm32f405" and case.timed_twice))
    record = right.record
    assert record is not None
    assert record.ram.build is not None
    assert record.ram.build.stack_bound is not None
    ram, build, bound = record.ram, record.ram.build, record.ram.build.stack_bound
    wrong = [
        replace(right, ticks_apart=2),
        replace(right, images=right.images + 1),
        replace(right, record=None, missing_bytes=5),
        replace(right, case=replace(right.case, expected="stream")),
        replace(right, record=replace(record, verdict="disagree")),
        replace(right, record=replace(record, exact=replace(record.exact, matching=record.exact.total - 1))),
        replace(right, record=replace(record, ram=replace(ram, build=None))),
        replace(right, record=replace(record, ram=replace(ram, static=build.static + 1))),
        replace(right, record=replace(record, device=replace(record.device, arena_bytes=build.arena - 4))),
        replace(right, record=replace(record, ram=replace(ram, predicted=ram.predicted + 4))),
        replace(right, record=replace(record, ram=replace(ram, measured=ram.reserved - 4))),
        replace(right, record=replace(record, ram=replace(ram, stack_peak=bound + 1))),
        replace(right, record=replace(record, ram=replace(ram, stack_peak=bound * 59 // 100))),
    ]
    assert right.failures() == []
    assert [len(each.failures()) for each in wrong] == [1] * len(wrong)
