"""A bit atlas: what each bit position of a MODEL's codes is worth: it is flipped, and what then is right is counted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from bitloop.bench.checks import check_fit
from bitloop.bench.files import write_file
from bitloop.bench.identity import host_identity, versions
from bitloop.bench.interrupt import InterruptGuard
from bitloop.bench.metrics import Proportion, wilson
from bitloop.bench.strict import plain
from bitloop.data.dataset import Images
from bitloop.errors import DisagreementError, Interrupted, SealedSplitError, UsageError
from bitloop.quantize.model import Model
from bitloop.study.atlas_results import (
    ATLAS_VERSION,
    BASE_KEY,
    AtlasAsked,
    AtlasBegun,
    AtlasFolder,
    DevicePoint,
    Point,
    PointOutcome,
    points_of,
)
from bitloop.study.atlas_summary import (
    AtlasRow,
    Group,
    atlas_row_document,
    group_document,
    groups_of,
    points_csv,
    rank_correlation,
    ranked,
    rows_of_points,
)
from bitloop.study.bit_positions import Flip, check_choice, flip, struck
from bitloop.study.device import DeviceOptions, models_on_device, read_device
from bitloop.study.evaluate import Evaluator
from bitloop.study.folder import Lines
from bitloop.study.measure import measure_model
from bitloop.study.sweep import CHECKED_IMAGES, SPLITS

__all__ = ["Atlas", "AtlasOptions", "Progress", "run_atlas"]

Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class AtlasOptions:
    """How an atlas is made.

    Attributes:
        share: of a tensor's codes that are flipped at each point, in (0, 1]; one code at least.
        seed: by which these are chosen, 32 bits.
        checked_images: of each point, computed again in full by reference and core.
        command: what started it, for its record.
        device: where the points are measured besides; None is nowhere.
    """

    share: float = 1.0
    seed: int = 0
    checked_images: int = CHECKED_IMAGES
    command: str = ""
    device: DeviceOptions | None = None


@dataclass(frozen=True, eq=False)
class Atlas:
    """An atlas that is complete.

    Attributes:
        folder: where its files are.
        begun: how it was begun.
        base: what the MODEL without a flip is worth, and its cross-entropy.
        base_entropy: in nats; None where a logit is infinite or NaN.
        rows: the points, in the order of the network, of a tensor from the most significant bit down.
        ranking: the same, the costliest first.
        kinds: the same, summed up by kind of bits.
        tensors: the same, summed up by tensor.
        correlation: of mean change and loss over the points: Spearman's; None where there is none.
        measured_now: points that were not there before, the MODEL without a flip among them.
        device: of what was measured on a device too, by key; each agreed bit for bit, or was refused.
    """

    folder: AtlasFolder
    begun: AtlasBegun
    base: Proportion
    base_entropy: float | None
    rows: list[AtlasRow]
    ranking: list[AtlasRow]
    kinds: list[Group]
    tensors: list[Group]
    correlation: float | None
    measured_now: int
    device: dict[str, DevicePoint]

    def document(self) -> dict[str, object]:
        """Return what came of it, as ``result.json`` holds it."""
        device = self.device.get(BASE_KEY)
        return {
            "version": ATLAS_VERSION,
            "asked": plain(vars(self.begun.asked)),
            "base": {
                "accuracy": vars(self.base),
                "cross_entropy": self.base_entropy,
                "device": None if device is None else vars(device),
            },
            "ranking": [atlas_row_document(row, self.device.get(row.key)) for row in self.ranking],
            "kinds": [group_document(group) for group in self.kinds],
            "tensors": [group_document(group) for group in self.tensors],
            "rank_correlation": self.correlation,
        }


def run_atlas(
    model: Model,
    images: Images,
    out: Path,
    *,
    options: AtlasOptions | None = None,
    progress: Progress | None = None,
) -> Atlas:
    """Flip each bit position of each tensor of a MODEL, and measure what that costs; go on where it was left.

    Args:
        model: whose bits are flipped.
        images: of the search or confirm split.
        out: the folder; one that holds the same atlas is gone on with.
        options: how it is done.
        progress: called with a stage, how much of it is done, and how much there is.

    Raises:
        UsageError: an option makes no sense, the folder holds another atlas, or cannot be written.
        SealedSplitError: the images are of another split.
        NetworkError: the MODEL takes other images.
        DataError: a file of the folder is damaged.
        DisagreementError: core and reference differ, or a device and the host.
        LinkError, DeviceError: the device could not be reached, or was lost; all points of the host are kept.
        Interrupted: Ctrl-C; the points done are kept.
    """
    options = options or AtlasOptions()
    if images.split.value not in SPLITS:
        raise SealedSplitError(f"an atlas is made on {' or '.join(SPLITS)}, not on the {images.split.value} split")
    check_choice(options.share, options.seed)
    if options.checked_images < 0:
        raise UsageError(f"{options.checked_images} images cannot be checked; 0 leaves it out")
    check_fit(model, images)
    points = points_of(model)
    asked = AtlasAsked(
        model=model.name,
        model_sha256=model.sha256,
        dataset=images.dataset,
        dataset_sha256=images.sha256,
        split=images.split.value,
        images=len(images),
        checked=min(options.checked_images, len(images)),
        share=options.share,
        seed=options.seed if options.share < 1.0 else 0,
        formats=tuple(tensor.format.name for tensor in model.tensors.values()),
        points=(BASE_KEY, *(point.key for point in points)),
    )
    work = _Work(model, images, points, asked, AtlasFolder(out), progress)
    started = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    with work.folder.locked():
        begun = work.folder.begin(
            AtlasBegun(ATLAS_VERSION, started, options.command, asked, versions(), host_identity())
        )
        outcomes = work.folder.read_points(asked, work.sizes())
        before = len(outcomes)
        _measure(work, outcomes)
        atlas = _atlas_of(work, begun, outcomes, before)
        _write(atlas)  # before the device is asked: what may go wrong there takes nothing of this with it
        if options.device is not None:
            atlas = replace(atlas, device=_on_device(work, outcomes, options.device))
            _write(atlas)
    return atlas


@dataclass(frozen=True, eq=False)
class _Work:
    """What the steps of an atlas share."""

    model: Model
    images: Images
    points: list[Point]
    asked: AtlasAsked
    folder: AtlasFolder
    progress: Progress | None

    def step(self, stage: str, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(stage, done, total)

    def flip(self, point: Point) -> Flip:
        return flip(self.model, point.tensor, point.position.bit, share=self.asked.share, seed=self.asked.seed)

    def sizes(self) -> dict[str, int]:
        """Return how many codes each point strikes, by key."""
        counts = {
            name: int(struck(tensor.codes.size, self.asked.share, self.asked.seed).sum())
            for name, tensor in self.model.tensors.items()
        }
        return {BASE_KEY: 0, **{point.key: counts[point.tensor] for point in self.points}}

    def flips(self) -> Iterator[tuple[str, Flip]]:
        """Give the MODEL without a flip, and those with one, each when its turn comes."""
        yield BASE_KEY, Flip(self.model, 0, 0, None)
        for point in self.points:
            yield point.key, self.flip(point)


def _measure(work: _Work, outcomes: dict[str, PointOutcome]) -> None:
    """Measure the points that are missing, and keep each at once."""
    keys = [key for key in work.asked.points if key not in outcomes]
    if not keys:
        return
    layers = {point.tensor.rpartition(".")[0] for point in work.points}
    evaluator = Evaluator(work.model, work.images.pixels, uses=len(keys) // len(layers))
    try:
        with Lines(work.folder.lines) as lines, InterruptGuard() as guard:
            for key, flipped in work.flips():
                if key in outcomes:
                    continue
                measured = measure_model(evaluator, flipped.model, work.images.labels, work.asked.checked)
                outcome = PointOutcome(key, flipped.changed, flipped.left, flipped.mean_change, measured)
                with guard.held():
                    lines.append(outcome)
                    outcomes[key] = outcome
                work.step("points", len(outcomes), len(work.asked.points))
    except KeyboardInterrupt as error:
        raise Interrupted(
            f"interrupted after {len(outcomes):,} of {len(work.asked.points):,} points; they are in "
            f"{work.folder.path}, and the same command goes on with the rest"
        ) from error


def _atlas_of(work: _Work, begun: AtlasBegun, outcomes: dict[str, PointOutcome], before: int) -> Atlas:
    """Put together what the points say, and what a device said of them earlier."""
    base = outcomes[BASE_KEY].measured
    if base.model_sha256 != work.asked.model_sha256:
        raise DisagreementError(f"{work.folder.lines} was measured of another MODEL; begin the atlas anew")
    formats = {name: tensor.format.name for name, tensor in work.model.tensors.items()}
    rows = rows_of_points(begun.asked, work.points, formats, outcomes)
    return Atlas(
        folder=work.folder,
        begun=begun,
        base=wilson(base.correct, len(work.images)),
        base_entropy=base.cross_entropy,
        rows=rows,
        ranking=ranked(rows),
        kinds=groups_of(rows, by="kind"),
        tensors=groups_of(rows, by="tensor"),
        correlation=rank_correlation(rows),
        measured_now=len(outcomes) - before,
        device=read_device(work.folder.device, begun.asked.points, None, DevicePoint, study="atlas"),
    )


def _on_device(work: _Work, outcomes: dict[str, PointOutcome], options: DeviceOptions) -> dict[str, DevicePoint]:
    """Measure what a device has not run yet, and keep each at once; points without a flipped code are the MODEL."""
    keys, path = work.asked.points, work.folder.device
    part = work.images.first(options.images)
    found = read_device(path, keys, len(part), DevicePoint, study="atlas")
    left = [key for key in keys if key not in found and (key == BASE_KEY or outcomes[key].changed)]
    if left:
        wanted = set(left)
        models = ((key, flipped.model) for key, flipped in work.flips() if key in wanted)
        done = len(found)
        with Lines(path) as lines:
            for cell, record in models_on_device(models, part, options, earlier=dict(found), noun="point"):
                correct = None if record is None or record.accuracy is None else record.accuracy.device.correct
                point = DevicePoint(**vars(cell), correct=correct)
                lines.append(point)
                found[point.cell] = point
                work.step("device", len(found), done + len(left))
    return {key: found[key] for key in keys if key in found}


def _write(atlas: Atlas) -> None:
    """Write what came of an atlas, as a table and as JSON."""
    write_file(atlas.folder.table, points_csv(atlas.ranking, atlas.device).encode())
    text = json.dumps(atlas.document(), indent=2, ensure_ascii=False, allow_nan=False)
    write_file(atlas.folder.result, f"{text}\n".encode())
