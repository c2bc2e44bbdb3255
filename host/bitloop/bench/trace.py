"""Where a device departs from the host: failing images are run again, operation by operation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from bitloop.bench.compare import bits, ulp_distance
from bitloop.bench.record import Divergence
from bitloop.errors import ProtocolError
from bitloop.link.session import Session
from bitloop.plan.planner import Operation
from bitloop.quantize.model import Model
from bitloop.simulate.reference import activations
from bitloop.spec import Capability

__all__ = ["TRACED_IMAGES", "find_divergence"]

_LOGGER = logging.getLogger(__name__)

TRACED_IMAGES = 3
"""How many failing images of a run are traced: the layer that diverges first in any of them is named."""


def find_divergence(
    session: Session,
    model: Model,
    operations: Sequence[Operation],
    pixels: npt.NDArray[np.uint8],
    indices: Sequence[int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Divergence | None:
    """Find the first operation whose output on the device is not what the host simulation gives.

    Args:
        session: with the MODEL's image uploaded, and no run under way.
        model: what the device runs.
        operations: of the image, in its order.
        pixels: images to trace, uint8 ``[N, H, W, C]``: all of them, which takes a run for each layer of each.
        indices: their indices in the data set, for the record.
        progress: called with how many layers were compared, and how many there are at the most.

    Returns:
        The earliest divergence in any of the traced images, or None if the device cannot be traced or, traced, gives
        everything as it should: then its error does not repeat itself.

    Raises:
        LinkError: if the line breaks meanwhile.
    """
    if session.info is not None and Capability.ACTIVATIONS not in session.info.capabilities:
        _LOGGER.warning("the device cannot be traced, so the first diverging layer stays unknown")
        return None
    found: Divergence | None = None
    for position in range(len(pixels)):
        expected = activations(model, pixels[position : position + 1])
        last = len(operations) if found is None else found.operation
        for number, operation in enumerate(operations[:last]):
            device = session.trace(pixels[position], number)
            if progress is not None:
                progress(position * len(operations) + number + 1, len(pixels) * len(operations))
            host = np.ascontiguousarray(expected[operation.layers[-1]][0]).reshape(-1)
            if device.shape != host.shape:
                raise ProtocolError(
                    f"asked for the output of layer {operation.name}, the device sent {device.size} numbers, "
                    f"{host.size} were expected; its firmware is faulty"
                )
            differs = np.flatnonzero(bits(device) != bits(host))
            if not differs.size:
                continue
            first = int(differs[0])
            found = Divergence(
                layer=operation.name,
                operation=number,
                image_index=int(indices[position]),
                element=first,
                differing_elements=int(differs.size),
                ulp=int(ulp_distance(device, host).max()),
                device_bits=f"{int(device.view(np.uint32)[first]):08x}",
                host_bits=f"{int(host.view(np.uint32)[first]):08x}",
            )
            break
    return found
