"""Who took part in a run: model, image, firmware, device, host, versions, as the record states them."""

from __future__ import annotations

import os
import platform

import numpy as np

import bitloop
from bitloop.bench.record import (
    Arena,
    BuildMemory,
    DeviceIdentity,
    FirmwareIdentity,
    HostIdentity,
    ModelIdentity,
    Placement,
    Ram,
    Sizes,
    TensorSize,
    Versions,
)
from bitloop.hello import DeviceInfo
from bitloop.plan.memory import MemoryPlan
from bitloop.plan.planner import Plan
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import Capability, Granularity, ResetCause, ScaleKind

__all__ = [
    "device_identity",
    "firmware_identity",
    "host_identity",
    "model_identity",
    "placement_of",
    "ram_of",
    "sizes_of",
    "versions",
]


def model_identity(model: Model) -> ModelIdentity:
    """Return name, recipe and hash of a MODEL."""
    return ModelIdentity(
        name=model.name,
        architecture=model.architecture.name,
        weights=str(model.recipe["weights"]),
        biases=str(model.recipe["biases"]),
        overrides=tuple(f"{name}={spec}" for name, spec in sorted(model.recipe["overrides"].items())),
        sha256=model.sha256,
    )


def tensor_words(tensor: QuantizedTensor) -> str:
    """Say in one text how a tensor is stored: format, scale, granularity, rounding."""
    words = [tensor.format.name]
    if tensor.scale is not ScaleKind.NONE:
        words.append(tensor.scale.name.lower())
        words.append("channel" if tensor.granularity is Granularity.CHANNEL else "tensor")
    if tensor.affine:
        words.append("affine")
    words.append(tensor.rounding.value)
    return ":".join(words)


def sizes_of(model: Model) -> Sizes:
    """Return the bytes of a MODEL, in all and by tensor."""
    tensors = tuple(
        TensorSize(
            name=name,
            spec=tensor_words(tensor),
            shape=tuple(int(length) for length in tensor.shape),
            elements=int(tensor.codes.size),
            codes=tensor.codes_bytes,
            scales=tensor.scales_bytes,
            fp32=4 * int(tensor.codes.size),
        )
        for name, tensor in model.tensors.items()
    )
    sizes = model.sizes
    return Sizes(
        weights=sizes.weights,
        biases=sizes.biases,
        scales=sizes.scales,
        total=sizes.total,
        fp32=sum(tensor.fp32 for tensor in tensors),
        tensors=tensors,
    )


def firmware_identity(info: DeviceInfo) -> FirmwareIdentity:
    """Return what the device says of its firmware."""
    return FirmwareIdentity(info.firmware_version, info.firmware_hash, info.protocol)


def device_identity(url: str, info: DeviceInfo) -> DeviceIdentity:
    """Return what the device says of itself."""
    known = [capability for capability in Capability if capability in info.capabilities]
    causes = {int(cause): cause.name.lower() for cause in ResetCause}
    return DeviceIdentity(
        url=url,
        board=info.board,
        isa=info.isa,
        clock_hz=info.clock_hz,
        simulated=info.simulated,
        emulator=info.emulator or None,
        reset_cause=causes.get(int(info.reset_cause), f"unknown code {int(info.reset_cause)}"),
        boot_count=info.boot_count,
        arena_bytes=info.arena_bytes,
        body_bytes=info.body_bytes,
        window_bytes=info.window_bytes,
        capabilities=tuple((capability.name or "").lower() for capability in known),
        probe_failures=tuple(info.probe_failures()),
    )


def ram_of(
    memory: MemoryPlan,
    info: DeviceInfo,
    stats: dict[str, int],
    *,
    reserved: int,
    build: tuple[BuildMemory | None, str | None],
) -> Ram:
    """Return predicted and measured memory.

    Args:
        memory: the plan's.
        info: the device.
        stats: the device's counters, empty where it could not be asked any more.
        reserved: bytes of the arena that the device says the image takes.
        build: what the firmware's build says, or None and why not.
    """
    stack_peak = stats.get("stack_peak_bytes")
    note: str | None = None
    if stack_peak is None:
        note = (
            "the stack belongs to the host process (simulated device)"
            if info.simulated and not info.emulator
            else "the device did not tell its stack's peak"
        )
    return Ram(
        static=stats.get("static_bytes", info.static_bytes) or None,
        stack_peak=stack_peak,
        stack_note=note,
        arena=Arena(
            weights=memory.weights_bytes,
            activations=memory.activations_bytes + memory.tiles_bytes,
            buffers=memory.tables_bytes + memory.chunks_bytes + memory.queue_bytes,
            tables=memory.tables_bytes,
            chunks=memory.chunks_bytes,
            queue=memory.queue_bytes,
            available=memory.available_bytes,
        ),
        predicted=memory.total_bytes,
        reserved=reserved,
        measured=stats.get("arena_peak_bytes"),
        build=build[0],
        build_note=build[1],
    )


def placement_of(plan: Plan, *, streamed_bytes: int, traced_bytes: int) -> Placement:
    """Return where a plan has the weights, and what of them travelled, in encoded bytes."""
    streamed = plan.streamed
    return Placement(
        kind=plan.placement,
        batch=plan.memory.slots,
        batch_bytes=0 if streamed is None else len(streamed.data),
        image_bytes=0.0 if streamed is None else streamed.bytes_per_image,
        streamed_bytes=streamed_bytes,
        traced_bytes=traced_bytes,
    )


def versions() -> Versions:
    """Return the versions of the software at work."""
    return Versions(bitloop=bitloop.__version__, python=platform.python_version(), numpy=np.__version__)


def host_identity() -> HostIdentity:
    """Return what machine this is, without its name."""
    return HostIdentity(
        system=f"{platform.system()} {platform.release()}".strip(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
    )
