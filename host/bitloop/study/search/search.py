"""A search: evaluated, confirmed on images it never saw, measured on a device where asked for, and put together."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from bitloop.bench.checks import check_fit
from bitloop.bench.files import write_file
from bitloop.bench.identity import host_identity, versions
from bitloop.bench.strict import plain
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.errors import Interrupted, SealedSplitError
from bitloop.network.network import Network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize
from bitloop.study.device import DeviceCell
from bitloop.study.grid import UNQUANTIZED, base_recipe
from bitloop.study.search.choices import Choices
from bitloop.study.search.confirm import Candidate, Curse, Floating, confirm, curse_of, floating_on, verify
from bitloop.study.search.evaluations import Evaluation, Judge, accuracy_front
from bitloop.study.search.folder import SEARCH_VERSION, SearchAsked, SearchBegun, SearchFolder
from bitloop.study.search.library import Library
from bitloop.study.search.options import SearchOptions, SearchPlan, plan_search
from bitloop.study.search.results import candidate_document, candidates_csv, evaluation_document
from bitloop.study.search.steps import Selected, Work, evaluate_all, sample, select

__all__ = ["Progress", "Search", "SearchOptions", "SearchPlan", "plan_search", "run_search"]

Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Search:
    """A search that is complete.

    Attributes:
        folder: where its files are.
        begun: how it was begun.
        choices: what was chosen from.
        evaluations: all that were evaluated, the best first; those that lose too much behind.
        admissible: how many of them lose no more than is put up with, on the search split.
        fp32: the network in binary32, on the search and on the confirm split.
        fp32_bytes: of its weights and biases.
        candidates: the best, confirmed or not.
        winner: the first of the candidates that is confirmed, or None.
        front: of bytes and accuracy on the search split, of all that were evaluated.
        objective_front: keys of what nothing measured beats in all objectives; none of one objective.
        device: what was measured on a device, by the key of the evaluation.
        curse: by how much the search flattered its candidates.
        verified: images on which core and reference agree bit for bit, of "fp32" and "winner".
        evaluated_now: evaluations that were not there before.
    """

    folder: SearchFolder
    begun: SearchBegun
    choices: Choices
    evaluations: list[Evaluation]
    admissible: int
    fp32: tuple[Floating, Floating]
    fp32_bytes: int
    candidates: list[Candidate]
    winner: Candidate | None
    front: list[Evaluation]
    objective_front: list[str]
    device: dict[str, DeviceCell]
    curse: Curse | None
    verified: dict[str, int]
    evaluated_now: int

    def document(self) -> dict[str, object]:
        """Return what came of it, as ``result.json`` holds it."""
        tensors, images = self.choices.tensors, self.begun.asked.images
        search, confirmation = self.fp32
        return {
            "version": SEARCH_VERSION,
            "asked": plain(asdict(self.begun.asked)),
            "grid": self.choices.count,
            "evaluated": len(self.evaluations),
            "admissible": self.admissible,
            "fp32": {
                "bytes": self.fp32_bytes,
                "search": {"accuracy": asdict(search.accuracy), "cross_entropy": search.score.cross_entropy},
                "confirm": {
                    "accuracy": asdict(confirmation.accuracy),
                    "cross_entropy": confirmation.score.cross_entropy,
                },
            },
            "winner": None if self.winner is None else candidate_document(self.winner, tensors),
            "candidates": [candidate_document(candidate, tensors) for candidate in self.candidates],
            "winners_curse_points": None if self.curse is None else asdict(self.curse),
            "verified": self.verified,
            "front": [evaluation_document(evaluation, tensors, images) for evaluation in self.front],
            "objective_front": self.objective_front,
            "device": [asdict(cell) for cell in self.device.values()],
        }


def run_search(
    network: Network,
    search_images: Images,
    confirm_images: Images,
    options: SearchOptions,
    out: Path,
    *,
    progress: Progress | None = None,
) -> Search:
    """Find the smallest assignment of formats that loses no more than is put up with, and confirm it.

    Admissible is what is not inferior on the search split: the upper one-sided 95 % bound of its paired loss against
    binary32 is at most the margin. The best ten of these (``options.best``) are evaluated on the confirm split; the
    winner is the first of them that is not inferior there either.

    Args:
        network: whose weights and biases get formats.
        search_images: of the search split.
        confirm_images: of the confirm split.
        options: how it is done.
        out: the folder; one that holds the same search is gone on with.
        progress: called with a stage, how much of it is done, and how much there is.

    Raises:
        UsageError: as :func:`plan_search`; or the folder, or the study, holds another search, or cannot be written.
        SealedSplitError: the images are of other splits.
        NetworkError, FormatError: network, images and choices do not go together.
        DisagreementError: core and reference differ, or a device and the host.
        LinkError, DeviceError: the device could not be reached, or was lost; all evaluations are kept.
        WorkerError: a process crashed.
        Interrupted: Ctrl-C; what was evaluated is kept.
    """
    for images, split in ((search_images, Split.SEARCH), (confirm_images, Split.CONFIRM)):
        if images.split is not split:
            raise SealedSplitError(
                f"a search chooses on 'search' and confirms on 'confirm'; it was given {images.split.value!r} for "
                f"{split.value!r}"
            )
    planned = plan_search(network, options)
    base = quantize(network, base_recipe(UNQUANTIZED))
    check_fit(base, search_images)
    check_fit(base, confirm_images)
    library = Library(network, planned.choices)
    folder = SearchFolder(out)
    asked = SearchAsked(
        network=network.name,
        network_sha256=base.sha256,
        dataset=search_images.dataset,
        dataset_sha256=search_images.sha256,
        images=len(search_images),
        confirm_images=len(confirm_images),
        margin=options.margin,
        objectives=options.objectives,
        method=planned.method,
        tensors=tuple(
            f"{tensor}={','.join(specs)}"
            for tensor, specs in zip(planned.choices.tensors, planned.choices.specs, strict=True)
        ),
        seed=options.seed if planned.method == "sampled" else 0,
    )
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with folder.locked():
        begun = folder.begin(SearchBegun(SEARCH_VERSION, started, options.command, asked, versions(), host_identity()))
        on_search = floating_on(library, search_images)
        work = Work(
            library=library,
            images=search_images,
            reference=on_search.score,
            judge=Judge(len(search_images), options.margin),
            folder=folder,
            processes=max(1, options.processes or os.cpu_count() or 1),
            objectives=options.objectives,
            device=options.device,
            progress=progress,
        )
        known = folder.read_evaluations(library, on_search.score.correct, len(search_images))
        before = len(known)
        try:
            if planned.method == "exhaustive":
                evaluate_all(work, known)
            else:
                sample(work, known, begun.asked, options)
            selected = select(work, list(known.values()), options.best, options.device_candidates)
            search = _put_together(
                work,
                begun,
                selected,
                list(known.values()),
                on_search=on_search,
                confirm_images=confirm_images,
                before=before,
            )
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted after {len(known):,} evaluations; they are in {folder.path}, and the same command goes "
                "on with the rest"
            ) from error
        _write(search, library)
    return search


def _put_together(
    work: Work,
    begun: SearchBegun,
    selected: Selected,
    evaluations: list[Evaluation],
    *,
    on_search: Floating,
    confirm_images: Images,
    before: int,
) -> Search:
    """Confirm what was selected, verify, and gather all that is told of a search."""
    on_confirm = floating_on(work.library, confirm_images)
    candidates = confirm(
        selected.best,
        work.library,
        (work.images, on_search),
        (confirm_images, on_confirm),
        work.judge.margin,
        progress=work.stage("confirm"),
    )
    winner = next((candidate for candidate in candidates if candidate.is_confirmed), None)
    base = quantize(work.library.network, base_recipe(UNQUANTIZED))
    good = work.judge.best(evaluations, len(evaluations))
    lossy = sorted(set(evaluations) - set(good), key=lambda found: (-found.correct, found.total_bytes, found.key))
    return Search(
        folder=work.folder,
        begun=begun,
        choices=work.library.choices,
        evaluations=[*good, *lossy],
        admissible=len(good),
        fp32=(on_search, on_confirm),
        fp32_bytes=base.sizes.total,
        candidates=candidates,
        winner=winner,
        front=accuracy_front(evaluations),
        objective_front=selected.front,
        device=selected.device,
        curse=curse_of(candidates, winner),
        verified=verify(work.library, work.images, winner),
        evaluated_now=len(evaluations) - before,
    )


def _write(search: Search, library: Library) -> None:
    """Write what came of a search: the winner as a MODEL, tables, JSON."""
    folder = search.folder
    if search.winner is None:
        folder.winner.unlink(missing_ok=True)
    else:
        assignment = library.choices.assignment(search.winner.evaluation.specs)
        blm.save(library.model(assignment), folder.winner)
    table = candidates_csv(search.candidates, search.choices.tensors, search.device)
    write_file(folder.table, table.encode())
    text = json.dumps(search.document(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(folder.result, f"{text}\n".encode())
