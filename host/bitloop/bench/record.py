"""The record of a run: what ``run.json`` holds, as typed dataclasses whose fields are its keys.

``run.schema.json`` beside this module states the same for other programs (JSON Schema, draft 2020-12).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bitloop.bench.files import write_file
from bitloop.bench.metrics import Proportion
from bitloop.bench.strict import build, plain
from bitloop.bench.upgrade import upgraded
from bitloop.errors import DataError, DisagreementError

__all__ = [
    "RECORD_VERSION",
    "Accuracy",
    "Arena",
    "BuildMemory",
    "DataIdentity",
    "DeviceIdentity",
    "Divergence",
    "Exact",
    "Failure",
    "FirmwareIdentity",
    "HostIdentity",
    "ImageIdentity",
    "Interruption",
    "Labels",
    "Latency",
    "LayerLatency",
    "LinkFigures",
    "LinkShare",
    "ModelIdentity",
    "Paired",
    "Placement",
    "Ram",
    "RunRecord",
    "Sizes",
    "StackStep",
    "TensorSize",
    "VaultOpening",
    "Versions",
    "read_record",
    "schema_path",
]

RECORD_VERSION = 2


@dataclass(frozen=True)
class Divergence:
    """Where a device first departs from the host simulation, found by tracing failing images layer by layer.

    ``ulp`` is the greatest distance in that layer's output (:func:`bitloop.bench.compare.ulp_distance`); ``element``
    is the first one that differs, row-major; the bits are its binary32 patterns, eight hex digits.
    """

    layer: str
    operation: int
    image_index: int
    element: int
    differing_elements: int
    ulp: int
    device_bits: str
    host_bits: str


@dataclass(frozen=True)
class Exact:
    """Bitwise comparison of the logits. ``failing`` lists the first failing images' indices in the data set.

    ``audited`` images were compared in every layer besides; a divergence found there need not show in any logit.
    """

    matching: int
    total: int
    max_ulp: int
    first_diverging_layer: str | None
    divergence: Divergence | None
    audited: int
    failing_count: int
    failing: tuple[int, ...]


@dataclass(frozen=True)
class Labels:
    """Predicted labels. ``impossible`` counts the device's labels that do not follow from its own logits."""

    agreeing: int
    total: int
    impossible: int


@dataclass(frozen=True)
class Paired:
    """Device against host, image by image; p is McNemar's exact one, as description."""

    only_device: int
    only_host: int
    mcnemar_p: float


@dataclass(frozen=True)
class Accuracy:
    """Share of right labels with the 95 % Wilson interval, on the device and in the host simulation, of one set."""

    device: Proportion
    host: Proportion
    paired: Paired


@dataclass(frozen=True)
class LayerLatency:
    """Compute time of one operation of the device, in the same unit, and the layers it stands for."""

    name: str
    layers: tuple[str, ...]
    median: float
    mean: float
    max: float


@dataclass(frozen=True)
class Latency:
    """Compute time of an image on the device, in ``unit``. ``overlapped`` marks throughput mode.

    A tick of the device's timer, as the journal holds them, is ``units_per_tick`` units: 1 but for an emulated device,
    whose ticks are turned into instructions.
    """

    unit: str
    ticks_per_second: int
    units_per_tick: float
    simulated: bool
    overlapped: bool
    warm_up_images: int
    min: float
    median: float
    mean: float
    p95: float
    p99: float
    max: float
    per_layer: tuple[LayerLatency, ...] | None


@dataclass(frozen=True)
class Arena:
    """How the plan spends the device's arena, in bytes.

    Buffers are the queue of images, the decode tables, and the chunks of weights that travel with each batch.
    """

    weights: int
    activations: int
    buffers: int
    tables: int
    chunks: int
    queue: int
    available: int


@dataclass(frozen=True)
class StackStep:
    """A function along the deepest calls, and the bytes it has on the stack then."""

    function: str
    bytes: int


@dataclass(frozen=True)
class BuildMemory:
    """What the build of the firmware says, in bytes; the device was not asked.

    ``static`` is the firmware's own state, ``arena`` what is left for a model, ``stack`` what is reserved for the
    stack, ``flash`` what is loaded. The stack takes ``stack_bound`` bytes at most, ``stack_interrupts`` of them for
    interrupts, the others along ``stack_path``; ``stack_note`` says why there is no bound.
    """

    static: int
    arena: int
    stack: int
    flash: int
    stack_bound: int | None
    stack_interrupts: int | None
    stack_path: tuple[StackStep, ...]
    stack_note: str | None


@dataclass(frozen=True)
class Ram:
    """Memory in bytes.

    Of the arena: ``predicted`` by the plan, ``reserved`` as the device says, ``measured`` as the end of the highest
    byte that was written. ``build`` is what the host reads off the firmware's build, or ``build_note`` why it cannot.
    """

    static: int | None
    stack_peak: int | None
    stack_note: str | None
    arena: Arena
    predicted: int
    reserved: int
    measured: int | None
    build: BuildMemory | None
    build_note: str | None


@dataclass(frozen=True)
class Placement:
    """Where the weights are while images run: ``resident`` on the device, or ``stream``.

    Streamed, ``batch_bytes`` of weights travel with each batch of ``batch`` images, ``image_bytes`` for each image of a
    full one. In encoded bytes, with all repetitions, ``streamed_bytes`` went up with the images that count, and
    ``traced_bytes`` to run single images again layer by layer. Resident, ``batch`` is how many images the device holds.
    """

    kind: str
    batch: int
    batch_bytes: int
    image_bytes: float
    streamed_bytes: int
    traced_bytes: int


@dataclass(frozen=True)
class LinkShare:
    """Shares of the streaming time: the line, the host's own work between results (queue), the device's computing."""

    line: float
    queue: float
    compute: float


@dataclass(frozen=True)
class LinkFigures:
    """What went over the line, in encoded bytes.

    ``bytes_up`` and ``bytes_down`` count everything, ``stream_…`` the streaming of the images, which took ``seconds``
    without its interruptions. ``upload_seconds`` and ``upload_line_bytes`` (up) are of the upload of the model, of all
    of them where the run was interrupted; ``copied_bytes`` of it the device took over from the image that it held.
    ``codings`` says how model and pixels travelled, ``baud`` is the rate that the line got to. Of a process that was
    killed the figures reach to about a second before its end.
    """

    url: str
    bytes_up: int
    bytes_down: int
    stream_bytes_up: int
    stream_bytes_down: int
    seconds: float
    upload_seconds: float
    images_per_second: float | None
    retransmissions: int
    crc_errors: int
    share: LinkShare | None
    upload_line_bytes: int | None
    copied_bytes: int | None
    codings: tuple[str, ...]
    baud: int | None


@dataclass(frozen=True)
class TensorSize:
    """One tensor of the MODEL; sizes in bytes, ``fp32`` what it would take as binary32 without a scale."""

    name: str
    spec: str
    shape: tuple[int, ...]
    elements: int
    codes: int
    scales: int
    fp32: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of the MODEL's packed codes, and of its scales and zero points."""

    weights: int
    biases: int
    scales: int
    total: int
    fp32: int
    tensors: tuple[TensorSize, ...]


@dataclass(frozen=True)
class DataIdentity:
    """Which images: data set, split, hash of the data set's contents, and how many were asked for and measured.

    ``sent_sha256`` is that of the pixels as device and host simulation got them, all images asked for, one behind the
    other: of ``pixel_bits`` bits each, or as the data set has them where that is None.
    """

    name: str
    split: str
    sha256: str
    requested: int
    measured: int
    image_shape: tuple[int, int, int]
    classes: int
    pixel_bits: int | None
    sent_sha256: str | None


@dataclass(frozen=True)
class ModelIdentity:
    """The device-neutral MODEL."""

    name: str
    architecture: str
    weights: str
    biases: str
    overrides: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class ImageIdentity:
    """The image planned from the MODEL: its hash by the host, and as the device computed it."""

    sha256: str
    device_sha256: str | None
    size: int
    operations: int


@dataclass(frozen=True)
class FirmwareIdentity:
    """What the device says of its firmware."""

    version: str
    hash: str
    protocol: str


@dataclass(frozen=True)
class DeviceIdentity:
    """What the device says of itself, and what emulates it, where that is known."""

    url: str
    board: str
    isa: str
    clock_hz: int
    simulated: bool
    emulator: str | None
    reset_cause: str
    boot_count: int
    arena_bytes: int
    body_bytes: int
    window_bytes: int
    capabilities: tuple[str, ...]
    probe_failures: tuple[str, ...]


@dataclass(frozen=True)
class VaultOpening:
    """One opening of the test split; ``count`` is the running number for this data set on this machine."""

    dataset: str
    reason: str
    count: int
    time: str


@dataclass(frozen=True)
class Versions:
    """Software versions."""

    bitloop: str
    python: str
    numpy: str


@dataclass(frozen=True)
class HostIdentity:
    """The machine that ran the host side."""

    system: str
    machine: str
    cpus: int


@dataclass(frozen=True)
class Failure:
    """What ended a run early."""

    kind: str
    message: str
    exit_code: int


@dataclass(frozen=True)
class Interruption:
    """A break in a run, behind which it went on; no image was run twice for the record, and none left out.

    It came when ``images`` were measured, and cost ``seconds`` until images ran again (the time until ``--resume`` was
    said included). ``resumed``: the run was begun again from its directory; else the device was reached again without.
    The boot counts are the device's, before and after; None where it could not be told.
    """

    images: int
    resumed: bool
    reason: str
    seconds: float
    boot_count_before: int | None
    boot_count_after: int | None


@dataclass(frozen=True)
class RunRecord:
    """All of ``run.json``. Figures that could not be measured are None.

    ``status`` says how the run ended (complete, interrupted, failed), ``verdict`` what it showed (exact, disagree,
    or the status when it did not come to an end), ``headline`` the same in words, ``reasons`` why device and host
    disagree. ``interruptions`` lists where it broke off and went on; ``seconds`` leaves out the time in which no
    process was at work on it.
    """

    version: int
    status: str
    verdict: str
    headline: str
    reasons: tuple[str, ...]
    error: Failure | None
    interruptions: tuple[Interruption, ...]
    command: str
    started: str
    seconds: float
    mode: str
    simulated: bool
    exact: Exact
    labels: Labels
    accuracy: Accuracy | None
    confusion: tuple[tuple[int, ...], ...] | None
    latency: Latency | None
    ram: Ram
    placement: Placement
    link: LinkFigures
    sizes: Sizes
    dataset: DataIdentity
    model: ModelIdentity
    image: ImageIdentity
    firmware: FirmwareIdentity
    device: DeviceIdentity
    vault: tuple[VaultOpening, ...]
    versions: Versions
    host: HostIdentity

    @property
    def exit_code(self) -> int:
        """What the command line exits with: 3 for a disagreement, else the failure's own code, else 0."""
        if self.verdict == "disagree":
            return DisagreementError.exit_code
        return self.error.exit_code if self.error is not None else 0

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON takes it: objects, lists, numbers, text."""
        document = plain(asdict(self))
        if not isinstance(document, dict):
            raise TypeError("a record is an object")
        return document

    @classmethod
    def from_dict(cls, document: object) -> RunRecord:
        """Read a record strictly: no key missing, none unknown, every type as stated. Older versions are read too.

        Raises:
            DataError: naming the first key that is wrong.
        """
        record = build(cls, upgraded(document), "run")
        if not isinstance(record, cls):
            raise TypeError("a record is built from its class")
        if record.version != RECORD_VERSION:
            raise DataError(
                f"this run has record version {record.version}; this bitloop reads versions 1 to {RECORD_VERSION}"
            )
        return record

    def to_json(self) -> str:
        """Return the text of ``run.json``."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write ``run.json`` atomically: a reader sees the old file or the whole new one."""
        write_file(path, self.to_json().encode())


def read_record(path: Path) -> RunRecord:
    """Read a ``run.json``.

    Raises:
        DataError: if it is missing, no JSON, or not a record.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there: is {path.parent} the directory of a run?") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    return RunRecord.from_dict(document)


def schema_path() -> Path:
    """Return the path of the JSON Schema of ``run.json``."""
    return Path(__file__).with_name("run.schema.json")
