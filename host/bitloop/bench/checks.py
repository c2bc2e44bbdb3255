"""What is checked before a run: that model and images fit, and that the device tells the truth of what it holds."""

from __future__ import annotations

import logging

import numpy as np

from bitloop.boards import find_board
from bitloop.data.dataset import CLASSES, Images
from bitloop.errors import NetworkError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.link.line.options import port_url
from bitloop.link.upload import UploadReport
from bitloop.link.urls.protocol_qemu import options_of
from bitloop.native.build import firmware_hash
from bitloop.plan.planner import Plan
from bitloop.quantize.model import Model

__all__ = ["check_fit", "false_claims"]

_LOGGER = logging.getLogger(__name__)


def check_fit(model: Model, images: Images) -> None:
    """See that a model takes these images.

    Raises:
        UsageError: there are no images.
        NetworkError: the model takes others, or has another number of outputs than there are classes.
    """
    if not len(images):
        raise UsageError("there are no images to run")
    shape = model.architecture.input_shape
    if images.pixels.shape[1:] != shape:
        raise NetworkError(
            f"model {model.name!r} takes images of {list(shape)}, those of {images.dataset!r} are "
            f"{list(images.pixels.shape[1:])}; take another data set"
        )
    outputs = int(np.prod(model.architecture.output_shapes()[-1]))
    if outputs != CLASSES:
        raise NetworkError(f"model {model.name!r} has {outputs} outputs, {images.dataset!r} has {CLASSES} classes")
    if model.dataset and model.dataset != images.dataset:
        _LOGGER.warning("the model was trained on %s and is run on %s", model.dataset, images.dataset)


def false_claims(device_url: str, info: DeviceInfo, plan: Plan, report: UploadReport) -> list[str]:
    """List, as sentences, what the device says of image, memory and firmware that the host knows better.

    The firmware's hash is known for ``sim://native`` and for ``qemu://`` boards without a firmware of the user's own:
    these were built from the sources that lie here.
    """
    claims: list[str] = []
    if report.device_sha256 != plan.sha256:
        claims.append(f"the device reports image hash {report.device_sha256}, the host sent {plan.sha256}")
    if report.arena_bytes != plan.memory.total_bytes:
        claims.append(
            f"the device says the image takes {report.arena_bytes:,} bytes of its arena, the plan "
            f"{plan.memory.total_bytes:,}"
        )
    port = _built_here(device_url)
    if port and info.firmware_hash != firmware_hash(port):
        claims.append(
            f"the simulated device reports firmware hash {info.firmware_hash or 'none'}, it was built from "
            f"{firmware_hash(port)}"
        )
    return claims


def _built_here(device_url: str) -> str:
    """Give the port whose sources a device's firmware was built from, or "" where that is not known."""
    if device_url.lower().startswith("sim://native"):
        return find_board("native").port
    if not device_url.lower().startswith("qemu://"):
        return ""
    options = options_of(port_url(device_url))
    return find_board(options.board).port if options.elf is None else ""
