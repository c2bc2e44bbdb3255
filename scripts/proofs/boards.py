"""Every emulated board against host simulation and build: bits, memory, stack, time; two emulators at a time."""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from bitloop.api import load_model
from bitloop.bench.journal import read_samples
from bitloop.bench.record import RunRecord
from bitloop.bench.run import RunOptions, run
from bitloop.boards import BOARDS as CATALOGUE
from bitloop.boards import find_board
from bitloop.data import dataset, vault
from bitloop.data.dataset import Images
from bitloop.errors import DoesNotFitError
from bitloop.firmware.build import firmware_elf
from bitloop.link.session import Session
from bitloop.network import load_network
from bitloop.plan.planner import PlacementKind, plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from proofs.contraction import build_contracted
from proofs.page import Section, cells

BOARDS = tuple(board.name for board in CATALOGUE if board.emulator is not None)
NETWORKS = ("mlp8k", "mlp", "cnn")
FORMATS = ("fp32", "e4m3:pow2", "e8m2", "int8:channel", "int4:channel", "ternary")
SMALL = ("stm32f100", "mega2560")
"""Boards of 8 KB of RAM. A batch of one image of cnn does not fit them, even if all weights travel."""

IMAGES = 1000
SLOW_IMAGES = 200
SLOW_BYTES = 2000
"""Above so many bytes of weights an image, a line of 20 to 40 KB/s makes 1,000 images unreasonable."""

PACKED, PACKED_IMAGES, PACKED_BATCH = "bitopt2018-e3m1", 20, 4
TIMED = ("mlp8k", "int4:channel")
TIMED_IMAGES = 100
TRIES = 3
RETRANSMITTED_HELLO = 1
"""The first HELLO is sent before the firmware listens."""
EMULATORS = 2
STACK_LEAST = 0.6


@dataclass(frozen=True)
class Case:
    """A run. ``expected`` is where its weights must be, "refused" where it must not start, "" where either may be."""

    board: str
    network: str
    weights: str
    placement: PlacementKind = "auto"
    expected: str = ""
    timed_twice: bool = False

    @property
    def name(self) -> str:
        """All but what is expected, for a person."""
        return f"{self.board} {self.network} {self.weights} {self.placement}"


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
        case: which.
        images: how many it was to run.
        record: of its run; None where the model was refused.
        missing_bytes: that the refusal named.
        ticks_apart: the greatest difference of an image's time between two runs, where there were two.
    """

    case: Case
    images: int
    record: RunRecord | None
    missing_bytes: int = 0
    ticks_apart: int | None = None

    def failures(self) -> list[str]:
        """Say all that is not as it must be."""
        case, record = self.case, self.record
        if record is None:
            named = self.missing_bytes > 0
            return [] if case.expected == "refused" and named else [f"refused, {self.missing_bytes} bytes are missing"]
        found = [] if case.expected in ("", record.placement.kind) else [f"its weights are {record.placement.kind}"]
        if record.verdict != "exact" or not record.exact.matching == record.exact.total == self.images:
            found.append(record.headline)
        if case.network == PACKED and record.placement.batch < PACKED_BATCH:
            found.append(f"a batch has {record.placement.batch} images")
        if self.ticks_apart is not None and self.ticks_apart > 1:
            found.append(f"two runs are {self.ticks_apart} ticks apart")
        return found + _memory_failures(record)


def _memory_failures(record: RunRecord) -> list[str]:
    ram, build = record.ram, record.ram.build
    if build is None or build.stack_bound is None or ram.stack_peak is None:
        return [f"memory is not known: {ram.build_note or ram.stack_note or (build and build.stack_note)}"]
    found = []
    if (ram.static, record.device.arena_bytes) != (build.static, build.arena):
        found.append(f"static and arena are {ram.static} and {record.device.arena_bytes}, not as built")
    used = ram.measured == ram.reserved or record.exact.total < record.placement.batch  # not all of its images came
    if ram.predicted != ram.reserved or not used:
        found.append(f"the arena was planned {ram.predicted}, reserved {ram.reserved}, used {ram.measured}")
    if not STACK_LEAST * build.stack_bound <= ram.stack_peak <= build.stack_bound:
        found.append(f"the stack's peak of {ram.stack_peak} is not 60 to 100 % of its bound {build.stack_bound}")
    return found


def cases() -> list[Case]:
    """Return all runs, the longest and those of slow lines first."""
    made = []
    for board, network, weights in itertools.product(BOARDS, NETWORKS, FORMATS):
        twice = (network, weights) == TIMED
        expected = "refused" if board in SMALL and network == "cnn" else ""
        if board in SMALL and network == "mlp8k" and weights in ("int8:channel", "int4:channel"):
            expected = "resident" if weights == "int4:channel" else "stream"
        made.append(Case(board, network, weights, expected=expected, timed_twice=twice))
    made += [Case(board, "mlp8k", "int8:channel", "resident", "refused") for board in SMALL]
    made.append(Case("stm32f405", PACKED, "e3m1:pow2", expected="stream"))
    lines = ("mega2560", "stm32f100", "stm32f405", "lx106", "rv32imc")
    return sorted(made, key=lambda case: (case.network != PACKED, lines.index(case.board)))


def outcomes(wanted: Sequence[Case], images: Images, *, packed_images: int = PACKED_IMAGES) -> Iterator[Outcome]:
    """Run cases, two emulators at a time, and give what came of each as it ends up next.

    Args:
        wanted: which.
        images: for all but :data:`PACKED`; of a slow case the first :data:`SLOW_IMAGES`.
        packed_images: how many for :data:`PACKED`.
    """
    for board in sorted({case.board for case in wanted}):
        firmware_elf(find_board(board).environment)
    with ProcessPoolExecutor(EMULATORS, mp_context=get_context("spawn")) as pool:
        jobs = [
            pool.submit(_outcome, case, images.first(packed_images) if case.network == PACKED else images)
            for case in wanted
        ]
        for job in jobs:
            made = job.result()
            print(f"{made.case.name}: {'; '.join(made.failures()) or 'holds'}", file=sys.stderr, flush=True)
            yield made


def _outcome(case: Case, images: Images) -> Outcome:
    model = _model(case)
    url = find_board(case.board).url
    try:
        with Session(url) as session:
            made = plan(model, session.connect(), placement=case.placement)
    except DoesNotFitError as error:
        return Outcome(case, 0, None, error.missing_bytes)
    slow = made.streamed is not None and made.streamed.bytes_per_image > SLOW_BYTES
    chosen = images.first(SLOW_IMAGES) if slow else images
    with tempfile.TemporaryDirectory() as folder:
        # Running an image again layer by layer would send this model's weights once more, 20 s for each image.
        audited = 0 if case.network == PACKED else 1
        options = RunOptions(placement=case.placement, warm_up_images=0, audit_images=audited)
        record = run(model, url, chosen, out_dir=Path(folder) / "first", options=options)

        def again(name: str) -> RunRecord:
            return run(model, url, images.first(TIMED_IMAGES), out_dir=Path(folder) / name, options=options)

        apart = _ticks_apart(record, again, Path(folder)) if case.timed_twice else None
    return Outcome(case, len(chosen.pixels), record, ticks_apart=apart)


def _ticks_apart(record: RunRecord, again: Callable[[str], RunRecord], folder: Path) -> int:
    """Give the greatest difference of an image's ticks between two runs, the first of which is there.

    What a slow host sends again reaches a device that computes, and interrupts it: then both are run anew.
    """
    records = [record, again("second")]
    names = ("first", "second")
    for number in range(TRIES):
        ticks = [_ticks(folder / name)[:TIMED_IMAGES] for name in names]
        apart = int(np.abs(ticks[0] - ticks[1]).max())
        if apart <= 1 or all(each.link.retransmissions <= RETRANSMITTED_HELLO for each in records):
            break
        names = (f"first {number}", f"second {number}")
        records = [again(name) for name in names]
    return apart


def _model(case: Case) -> Model:
    if case.network == PACKED:
        return load_model(PACKED)
    return quantize(load_network(case.network), parse_recipe(case.weights))


def _ticks(folder: Path) -> np.ndarray:
    return np.array([sample.ticks for sample in read_samples(folder / "samples.jsonl")], np.int64)


def contraction_is_caught(images: Images) -> bool:
    """Tell whether a build that fuses multiplications and additions is found out by the device's own probe."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"qemu://stm32f405?elf={build_contracted(Path(folder))}"
        model = quantize(load_network("mlp8k"), parse_recipe("int8:channel"))
        record = run(model, url, images.first(4), options=RunOptions(warm_up_images=0))
    print(f"contraction: {record.headline}", file=sys.stderr, flush=True)
    told = any("the arithmetic probe failed: fused multiply-add" in reason for reason in record.reasons)
    return (record.verdict, record.exit_code) == ("disagree", 3) and told


def prove() -> Section:
    """Run MNIST's first 1,000 test images."""
    images = vault.Vault(dataset.load("mnist")).open("verify boards").first(IMAGES)
    made = list(outcomes(cases(), images))
    caught = contraction_is_caught(images)
    return Section(
        "Emulated boards",
        "The firmware that would be flashed, in QEMU, on MNIST's first 1,000 test images (200 where more than "
        f"{SLOW_BYTES:,} bytes of weights travel for an image), held bit for bit against the numpy simulation; static "
        "memory and arena as the build says; the painted stack and its static bound; for one format the greatest "
        "difference of an image's ticks between two runs. Instructions are the emulator's, streamed weights included. "
        "A firmware built with contraction is "
        f"{'caught by its arithmetic probe' if caught else '**not caught**'}.",
        (
            "board",
            "network",
            "weights",
            "placement",
            "bit-identical",
            "weight bytes an image",
            "median instructions",
            "model's bytes",
            "static + arena",
            "stack peak of bound",
            "ticks apart",
            "",
        ),
        cells(_row(outcome) for outcome in made),
        caught and not any(outcome.failures() for outcome in made),
    )


def _row(outcome: Outcome) -> tuple[object, ...]:
    case, record = outcome.case, outcome.record
    start = (case.board, case.network, case.weights)
    state = "; ".join(outcome.failures()) or "holds"
    if record is None:
        asked = "resident" if case.placement == "resident" else "even streamed"
        return (*start, f"{asked}: {outcome.missing_bytes:,} bytes missing", *[""] * 7, state)
    ram, build, latency = record.ram, record.ram.build, record.latency
    bound = build.stack_bound if build is not None else None
    stack = "" if bound is None or ram.stack_peak is None else f"{ram.stack_peak:,} of {bound:,}"
    where = f"{record.placement.kind}, batch {record.placement.batch}"
    return (
        *start,
        where,
        f"{record.exact.matching:,} of {record.exact.total:,}",
        round(record.placement.image_bytes),
        "" if latency is None else round(latency.median),
        ram.predicted,
        f"{ram.static or 0:,} + {record.device.arena_bytes or 0:,}",
        stack,
        "" if outcome.ticks_apart is None else outcome.ticks_apart,
        state,
    )
