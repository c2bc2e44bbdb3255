"""How a run was begun: ``begun.json``, written before the first sample, so that the run can be gone on with."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.options import RunOptions
from bitloop.bench.record import FirmwareIdentity, VaultOpening, Versions
from bitloop.bench.strict import build, plain
from bitloop.data.dataset import Dataset
from bitloop.errors import DataError, LinkError, ModelError, UsageError
from bitloop.hello import DeviceInfo

__all__ = ["BEGUN_VERSION", "Begun", "DeviceKind", "ImagesBegun", "read_begun"]

BEGUN_VERSION = 1


@dataclass(frozen=True)
class DeviceKind:
    """What must be the same of a device for a run to go on on it."""

    board: str
    arena_bytes: int
    firmware: FirmwareIdentity

    @classmethod
    def of(cls, info: DeviceInfo) -> DeviceKind:
        """Take it from what the device says of itself."""
        firmware = FirmwareIdentity(info.firmware_version, info.firmware_hash, info.protocol)
        return cls(info.board, info.arena_bytes, firmware)

    def check(self, info: DeviceInfo, name: str) -> None:
        """See that a device is of this kind.

        Args:
            info: what it says of itself.
            name: what its port is called.

        Raises:
            LinkError: it is another, or runs another firmware; both are named.
        """
        if info.firmware_hash != self.firmware.hash:
            raise LinkError(
                f"{name} runs the firmware with hash {info.firmware_hash or 'none'} (version {info.firmware_version}), "
                f"the run was begun with {self.firmware.hash or 'none'} (version {self.firmware.version}); flash that "
                "again, or begin a new run"
            )
        if info.board != self.board:
            raise LinkError(
                f"the device at {name} is {info.board!r}, the run was begun on {self.board!r}; connect that, or begin "
                "a new run"
            )
        if info.arena_bytes != self.arena_bytes:
            raise LinkError(
                f"the device at {name} has {info.arena_bytes:,} bytes for a model, the run was begun with "
                f"{self.arena_bytes:,}; connect that device, or begin a new run"
            )


@dataclass(frozen=True)
class ImagesBegun:
    """Which images the run is about: ``data`` is a data set's name or a directory, ``count`` how many from the front.

    ``sha256`` is the hash of the data set's contents, ``sent_sha256`` that of the pixels the device gets.
    """

    data: str
    dataset: str
    split: str
    count: int
    sha256: str
    sent_sha256: str

    def check(self, dataset: Dataset) -> None:
        """See that a data set is the run's; the pixels' own hash is compared once they are made.

        Raises:
            DataError: it is another; both hashes are named.
        """
        if dataset.sha256 != self.sha256:
            raise DataError(
                f"the data set {dataset.name} ({dataset.origin}) has SHA-256 {dataset.sha256}, the run was begun with "
                f"{self.dataset} of {self.sha256}; name that data with --data, or begin a new run"
            )

    def check_sent(self, sha256: str) -> None:
        """See that the device gets the same pixels.

        Raises:
            DataError: it would get others; both hashes are named.
        """
        if sha256 != self.sent_sha256:
            raise DataError(
                f"the pixels to send have SHA-256 {sha256}, the run was begun with {self.sent_sha256}: they are not "
                "the same images; begin a new run"
            )


@dataclass(frozen=True)
class Begun:
    """All of ``begun.json``. ``operations`` are those that are timed, None where none is."""

    version: int
    started: str
    device_url: str
    device: DeviceKind
    options: RunOptions
    images: ImagesBegun
    model_sha256: str
    image_sha256: str
    operations: int | None
    vault: tuple[VaultOpening, ...]
    versions: Versions

    def check_plan(self, image_sha256: str, operations: int | None, device_url: str) -> None:
        """See that the device gets the same image, and times as many of its operations.

        Raises:
            ModelError: it would get another; both hashes are named.
        """
        if (image_sha256, operations) != (self.image_sha256, self.operations):
            raise ModelError(
                f"for the device at {device_url} the image {image_sha256} is planned, the run was begun with "
                f"{self.image_sha256} (by bitloop {self.versions.bitloop}); take that bitloop and device, or begin a "
                "new run"
            )

    def write(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UsageError: it cannot be written.
        """
        text = json.dumps(plain(dataclasses.asdict(self)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_file(path, text.encode())

    @classmethod
    def from_dict(cls, document: dict[str, Any]) -> Begun:
        """Read it strictly.

        Raises:
            DataError: naming the first key that is wrong.
        """
        begun = build(cls, document, "begun")
        if not isinstance(begun, cls):
            raise TypeError("it is built from its class")
        return begun


def read_begun(directory: RunDirectory) -> Begun:
    """Read how a run was begun.

    Raises:
        UsageError: no run that could go on was begun there.
        DataError: ``begun.json`` is damaged, or of another version.
    """
    path = directory.begun
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(
            f"{directory.path} holds no run that could go on: {path.name} is missing, which is written when the device "
            "has taken the model. Nothing was measured before; begin the run again"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != BEGUN_VERSION:
        found = document.get("version") if isinstance(document, dict) else None
        raise DataError(f"{path} has version {found}; this bitloop goes on with runs of version {BEGUN_VERSION}")
    return Begun.from_dict(document)
