"""MODELs on a device one after another, in one session, so that only what differs from the last crosses the line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bitloop import errors
from bitloop.bench.attempt import Attempt
from bitloop.bench.beside import HostSimulation
from bitloop.bench.compose import record_of
from bitloop.bench.line import open_session
from bitloop.bench.options import RunOptions
from bitloop.bench.record import RunRecord
from bitloop.data.dataset import Images
from bitloop.errors import BitloopError, DisagreementError, DoesNotFitError, Interrupted, LinkError, UsageError
from bitloop.link.channel import LogCallback, RawCallback
from bitloop.link.session import Session
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.study.folder import read_lines
from bitloop.study.grid import Cell, recipe_of
from bitloop.study.results import from_line

__all__ = [
    "DEVICE_IMAGES",
    "DeviceBench",
    "DeviceCell",
    "DeviceOptions",
    "measure_on_device",
    "models_on_device",
    "open_bench",
    "read_device",
]

DEVICE_IMAGES = 100
"""Images of a cell that a device runs, unless said otherwise."""


@dataclass(frozen=True, kw_only=True)
class DeviceOptions:
    """Where cells are measured besides.

    Attributes:
        url: a port or any pyserial URL.
        images: how many of the sweep's, from the front.
        run: how; the line's options among them.
        on_log: gets level and text of each line that the device logs.
        on_raw: gets bytes outside of frames.
    """

    url: str
    images: int = DEVICE_IMAGES
    run: RunOptions = field(default_factory=lambda: RunOptions(per_layer=False))
    on_log: LogCallback | None = None
    on_raw: RawCallback | None = None


@dataclass(frozen=True)
class DeviceCell:
    """A line of ``device.jsonl``: a MODEL on a device, whose logits were those of the host, bit for bit.

    Attributes:
        cell: its key: of a sweep's cell, or of a search's assignment.
        board: the device's.
        firmware: SHA-256 of its firmware's sources, "" where it does not say.
        simulated: whether it is no chip.
        images: how many it ran.
        refused: why it did not, as where the model does not fit; then all below is None.
        image_sha256: of what was planned for it.
        latency_median: of an image, in ``latency_unit``.
        latency_unit: as :func:`bitloop.bench.judge.latency_unit` says it.
        ram_predicted: bytes of the arena by the plan.
        ram_measured: the highest byte of it that was written, where the device tells.
        image_bytes: of the planned image.
        upload_line_bytes: encoded bytes that went up the line to bring it to the device.
        copied_bytes: bytes of it that the device took over from the image before.
        placement: "resident", or "stream" where weights travel with each batch.
    """

    cell: str
    board: str
    firmware: str
    simulated: bool
    images: int
    refused: str | None
    image_sha256: str | None = None
    latency_median: float | None = None
    latency_unit: str | None = None
    ram_predicted: int | None = None
    ram_measured: int | None = None
    image_bytes: int | None = None
    upload_line_bytes: int | None = None
    copied_bytes: int | None = None
    placement: str | None = None

    @property
    def ram_bytes(self) -> int | None:
        """Bytes of RAM that the device was seen to use, or, where it does not tell, is planned to."""
        return self.ram_predicted if self.ram_measured is None else self.ram_measured


C = TypeVar("C", bound=DeviceCell)


def read_device(
    path: Path, cells: Sequence[str], images: int | None, kind: type[C], *, study: str = "sweep"
) -> dict[str, C]:
    """Read ``device.jsonl``, by the cells' keys; none where it is missing.

    Args:
        path: of the file.
        cells: keys of all that may be there.
        images: how many each must have run; None is any number.
        kind: what a line is.
        study: what it is of, for messages.

    Raises:
        DataError: a line is damaged.
        UsageError: what is there is of another study, of several devices, or ran another number of images.
    """
    lines = read_lines(path)
    read = [from_line(kind, line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    found = {line.cell: line for line in read}
    if len(found) != len(read) or not set(found) <= set(cells):
        raise UsageError(f"{path} holds lines twice, or of another {study}; remove it to measure on the device anew")
    if images is not None and any(line.images != images for line in read):
        raise UsageError(
            f"{path} was measured on {read[0].images:,} images, not {images:,}; say so again, or remove the file"
        )
    return found


def measure_on_device(
    network: Network,
    images: Images,
    cells: Sequence[Cell],
    others: str,
    options: DeviceOptions,
    *,
    earlier: Mapping[str, DeviceCell],
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[DeviceCell]:
    """Run cells on a device, one after another, and give each that agreed with the host.

    Args:
        network: what is swept.
        images: as many as are run of each cell.
        cells: those that are missing.
        others: spec of the tensors that are not swept.
        options: which device, and how.
        earlier: cells that were measured before, by their key: on the same device, or this is refused.
        progress: called with a stage, how much of it is done, and how much there is.

    Raises:
        DisagreementError: a logit of the device is not that of the host, or it does not tell the truth of itself; the
            cell, the first layer that differs and the distance are named.
        UsageError: the cells before were measured on another device.
        LinkError, DeviceError: the device could not be reached, or was lost.
        Interrupted: Ctrl-C.
    """
    with open_bench(images, options, earlier=earlier) as bench:
        for number, cell in enumerate(cells, start=1):
            line, _ = bench.measure(cell.key, quantize(network, recipe_of(cell, others)), label=f"cell {cell.key}")
            yield line
            if progress is not None:
                progress("device", number, len(cells))


def models_on_device(
    models: Iterable[tuple[str, Model]],
    images: Images,
    options: DeviceOptions,
    *,
    earlier: Mapping[str, DeviceCell],
    noun: str,
) -> Iterator[tuple[DeviceCell, RunRecord | None]]:
    """Run MODELs on a device, one after another, and give each that agreed with the host, or does not fit.

    Args:
        models: each with its key; taken when its turn comes.
        images: as many as are run of each.
        options: which device, and how.
        earlier: those that were measured before, by their key: on the same device, or this is refused.
        noun: what a MODEL is to the caller, for messages.

    Yields:
        As :meth:`DeviceBench.measure` returns it.

    Raises:
        As :func:`measure_on_device`.
    """
    with open_bench(images, options, earlier=earlier, noun=noun) as bench:
        for key, model in models:
            yield bench.measure(key, model, label=f"{noun} {key}")


class DeviceBench:
    """Measures MODELs on a device, one after another; :func:`open_bench` gives one.

    Args:
        session: to the device, not yet connected.
        images: what each MODEL runs.
        options: which device, and how.
        earlier: MODELs that were measured before, by their key: on the same device, or this is refused.
        noun: what a MODEL is to the caller, for messages.
    """

    def __init__(
        self, session: Session, images: Images, options: DeviceOptions, earlier: Mapping[str, DeviceCell], noun: str
    ) -> None:
        self._session = session
        self._images = images
        self._options = options
        self._earlier = earlier
        self._noun = noun

    def measure(self, key: str, model: Model, *, label: str) -> tuple[DeviceCell, RunRecord | None]:
        """Run a MODEL, and return what it took if it agreed with the host, with the record; or why it does not fit.

        Args:
            key: of the line that is returned.
            model: what is run.
            label: what the MODEL is called in an error.

        Raises:
            DisagreementError: a logit of the device is not that of the host, or it does not tell the truth of itself;
                the MODEL, the first layer that differs and the distance are named.
            UsageError: the MODELs before were measured on another device.
            LinkError, DeviceError: the device could not be reached, or was lost.
            Interrupted: Ctrl-C.
        """
        options, images = self._options, self._images
        attempt = Attempt(self._session, options.url, model, images, options.run, progress=None)
        try:
            attempt.prepare()
        except DoesNotFitError as error:
            if self._session.info is None:
                raise
            info = self._session.info
            return DeviceCell(key, info.board, info.firmware_hash, info.simulated, len(images), str(error)), None
        _check_device(attempt, self._earlier, self._noun)
        with HostSimulation(model, images.pixels) as host:
            attempt.stream(host, None)
        attempt.finish()
        record = record_of(attempt, (), (), started=attempt.started, command=options.run.command)
        _raise_unless_exact(record, label, options.url)
        return _line_of(record, key), record


@contextmanager
def open_bench(
    images: Images, options: DeviceOptions, *, earlier: Mapping[str, DeviceCell], noun: str = "cell"
) -> Iterator[DeviceBench]:
    """Open a session in which MODELs are measured; see :class:`DeviceBench` for the arguments.

    Raises:
        LinkError: the port cannot be opened.
    """
    with open_session(options.url, options.run, on_log=options.on_log, on_raw=options.on_raw) as session:
        yield DeviceBench(session, images, options, earlier, noun)


def _check_device(attempt: Attempt, earlier: Mapping[str, DeviceCell], noun: str) -> None:
    for line in earlier.values():
        if (line.board, line.firmware) != (attempt.info.board, attempt.info.firmware_hash):
            raise UsageError(
                f"{noun}s were measured on {line.board} with firmware {line.firmware[:12] or 'unknown'}, this device "
                f"is {attempt.info.board} with {attempt.info.firmware_hash[:12] or 'unknown'}; take that one, or "
                "remove device.jsonl"
            )


def _raise_unless_exact(record: RunRecord, label: str, url: str) -> None:
    if record.verdict == "exact":
        return
    message = f"{label} on {url}: {record.headline}"
    if record.verdict == "disagree":
        raise DisagreementError(message)
    if record.status == "interrupted" or record.error is None:
        raise Interrupted(f"{message}; the same command goes on with the rest")
    kind = getattr(errors, record.error.kind, LinkError)
    plain = isinstance(kind, type) and issubclass(kind, LinkError) and kind.__init__ is LinkError.__init__
    failure: BitloopError = kind(message) if plain else LinkError(message)
    raise failure


def _line_of(record: RunRecord, key: str) -> DeviceCell:
    latency, ram, link = record.latency, record.ram, record.link
    return DeviceCell(
        cell=key,
        board=record.device.board,
        firmware=record.firmware.hash,
        simulated=record.simulated,
        images=record.exact.total,
        refused=None,
        image_sha256=record.image.sha256,
        latency_median=None if latency is None else latency.median,
        latency_unit=None if latency is None else latency.unit,
        ram_predicted=ram.predicted,
        ram_measured=ram.measured,
        image_bytes=record.image.size,
        upload_line_bytes=link.upload_line_bytes,
        copied_bytes=link.copied_bytes,
        placement=record.placement.kind,
    )
