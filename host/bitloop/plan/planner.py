"""Planning: which operations a device runs for a MODEL, and where everything lies in its memory."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import FormatError, ModelError, UnsupportedLayerError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.network.shapes import same_padding
from bitloop.plan.check import MAX_TABLE_BITS
from bitloop.plan.image import image_bytes, read_image, write_image
from bitloop.plan.memory import MemoryPlan, Placement, place
from bitloop.plan.records import Header, LayerRecord, Shape, slot_bytes
from bitloop.plan.tensors import PackedTensor, pack_tensor
from bitloop.quantize.model import Model
from bitloop.spec import (
    MAX_DIMENSION,
    NO_INDEX,
    NO_OFFSET,
    Activation,
    LayerKind,
    Layout,
    Packing,
    TensorFlag,
)

MACS_A_TABLE_ENTRY = 4
"""A device fills a layer's decode table for every image: that pays if the layer then looks up more codes than it has
entries. Most activations are zero, and their codes are not looked up."""


@dataclass(frozen=True)
class Operation:
    """What a device runs as one layer.

    Attributes:
        name: of the network's layer that it is named after, the first it covers.
        layers: the network's layers it covers, in order: a ReLU may be part of the layer before it. A Flatten is
            no operation, and a final Softmax is computed on the host; neither is covered by any.
        kind: what the device knows it as.
        output_shape: height, width and channels of what it gives; a vector is (1, 1, n).
        output_bytes: of the same in binary32.
    """

    name: str
    layers: tuple[str, ...]
    kind: LayerKind
    output_shape: Shape
    output_bytes: int


@dataclass(frozen=True)
class Plan:
    """An image for one device, and what is known about it.

    Attributes:
        image: the bytes that are sent.
        sha256: of the image, 64 hex digits.
        operations: one for each of the image's layers.
        memory: how the arena is divided; the device must agree to the byte.
        macs: multiplications of one image of the data set, those with zeros included.
    """

    image: bytes
    sha256: str
    operations: tuple[Operation, ...]
    memory: MemoryPlan
    macs: int


@dataclass(frozen=True)
class _Step:
    """An operation before memory is planned."""

    layer: Layer
    covers: tuple[str, ...]
    kind: LayerKind
    before: Shape
    after: Shape

    @property
    def fused(self) -> bool:
        return len(self.covers) > 1


def plan(model: Model, device: DeviceInfo, *, slots: int | None = None) -> Plan:
    """Plan a MODEL for a device.

    The same MODEL, facts of the device and slots give the same bytes.

    Args:
        model: what is to be run.
        device: what the device said in HELLO.
        slots: images the device shall hold, or None for as many as are useful and fit.

    Raises:
        DoesNotFitError: the device lacks memory; the message says how many bytes.
        UnsupportedLayerError: the device does not know a layer's kind.
        FormatError: the device does not know a tensor's kind of format, or bitloop's layout of weights.
        ModelError: the MODEL holds what no device may run (a code that is no finite number), or is too large for
            an image or for the device's limits.
        UsageError: ``slots`` is out of range.
    """
    steps = _steps(model.architecture)
    if not steps:
        raise ModelError(f"model {model.name!r} has no layer that a device could run")
    for step in steps:
        if not device.supports_layer(step.kind):
            raise UnsupportedLayerError(
                f"layer {step.layer.name!r}: the device ({device.board}) does not run layers of kind {step.kind.name}; "
                "flash a newer firmware or change the network"
            )
    tensors, indices = _tensors(model, steps, device)
    for count, most, what in ((len(steps), device.max_layers, "layers"), (len(tensors), device.max_tensors, "tensors")):
        if count > most:
            raise ModelError(f"model {model.name!r} has {count} {what}, the device ({device.board}) takes {most}")
    logits = math.prod(steps[-1].after)
    if logits > MAX_DIMENSION:
        raise ModelError(f"model {model.name!r} has {logits} logits; a label tells {MAX_DIMENSION} apart")

    input_shape = model.architecture.input_shape
    table_widths = [
        _table_bits(tensors[weights], step, device) if weights != NO_INDEX else 0
        for step, (weights, _) in zip(steps, indices, strict=True)
    ]
    placement = place(
        image_bytes=image_bytes(len(steps), tensors),
        sizes=[4 * math.prod(step.after) for step in steps],
        in_place=[index > 0 and step.kind is LayerKind.RELU for index, step in enumerate(steps)],
        table_widths=table_widths,
        slot_bytes=slot_bytes(math.prod(input_shape), logits, len(steps)),
        slots=slots,
        available_bytes=device.arena_bytes,
    )
    memory = placement.memory
    header = Header(
        image_bytes=memory.weights_bytes,
        layer_count=len(steps),
        tensor_count=len(tensors),
        input_height=input_shape[0],
        input_width=input_shape[1],
        input_channels=input_shape[2],
        arena_bytes=memory.total_bytes,
        queue_offset=placement.queue_offset,
        slots=memory.slots,
        slot_bytes=memory.queue_bytes // memory.slots,
        output_offset=placement.output_offsets[-1],
        output_count=logits,
    )
    layers = [
        _layer_record(step, number, table_widths[number], indices[number], placement)
        for number, step in enumerate(steps)
    ]
    image = write_image(header, layers, tensors)
    # The device would refuse what this refuses; better to hear it here than over the line.
    read_image(image, arena_bytes=device.arena_bytes, max_layers=device.max_layers, max_tensors=device.max_tensors)
    operations = tuple(
        Operation(step.layer.name, step.covers, step.kind, step.after, 4 * math.prod(step.after)) for step in steps
    )
    return Plan(image, hashlib.sha256(image).hexdigest(), operations, memory, model.architecture.macs())


def _steps(architecture: Architecture) -> list[_Step]:
    """Return what a device computes; shapes are maps throughout, as a Flatten does not move anything."""
    steps: list[_Step] = []
    before: Shape = architecture.input_shape
    layers = architecture.layers
    skip = False
    for index, (layer, output) in enumerate(zip(layers, architecture.output_shapes(), strict=True)):
        if skip or isinstance(layer, Flatten | Softmax):
            skip = False
            continue
        if isinstance(layer, Dense):
            after: Shape = (1, 1, layer.units)
        elif isinstance(layer, ReLU):
            after = before
        else:
            after = (output[0], output[1], output[2])
        covers: tuple[str, ...] = (layer.name,)
        if isinstance(layer, Dense | Conv2D) and index + 1 < len(layers) and isinstance(layers[index + 1], ReLU):
            covers = (layer.name, layers[index + 1].name)
            skip = True
        steps.append(_Step(layer, covers, _kind(layer), before, after))
        before = after
    return steps


def _kind(layer: Layer) -> LayerKind:
    match layer:
        case Dense():
            return LayerKind.DENSE
        case Conv2D():
            return LayerKind.CONV2D
        case MaxPool2D():
            return LayerKind.MAX_POOL
        case AveragePool2D():
            return LayerKind.AVERAGE_POOL
        case ReLU():
            return LayerKind.RELU
    raise UnsupportedLayerError(f"layer {layer.name!r}: no device runs a {type(layer).__name__}")


def _tensors(
    model: Model, steps: Sequence[_Step], device: DeviceInfo
) -> tuple[list[PackedTensor], list[tuple[int, int]]]:
    """Return the image's tensors, and for each operation the numbers of its weights and biases (or NO_INDEX)."""
    if Layout.IN_MAJOR not in device.layouts:
        raise FormatError(
            f"the device ({device.board}) takes weights in layouts {list(device.layouts)} only, this host lays "
            f"them out as {int(Layout.IN_MAJOR)}; update bitloop"
        )
    ternary_packing = next((Packing(kind) for kind in device.packings if kind in tuple(Packing)), Packing.BITS)
    tensors: list[PackedTensor] = []
    indices: list[tuple[int, int]] = []
    for step in steps:
        names = []
        if isinstance(step.layer, Dense | Conv2D):
            names = [f"{step.layer.name}.weights", *([f"{step.layer.name}.biases"] if step.layer.use_bias else [])]
        found = [NO_INDEX, NO_INDEX]
        for place_of, name in enumerate(names):
            tensor = model.tensors.get(name)
            if tensor is None:
                raise ModelError(f"model {model.name!r} has no tensor {name!r}")
            if not device.supports_format(tensor.format.kind):
                raise FormatError(
                    f"tensor {name!r} is {tensor.format.name}, but the device ({device.board}) does not decode formats "
                    f"of kind {tensor.format.kind.name}; quantize to another format"
                )
            found[place_of] = len(tensors)
            tensors.append(pack_tensor(tensor, ternary_packing))
        indices.append((found[0], found[1]))
    return tensors, indices


def _table_bits(tensor: PackedTensor, step: _Step, device: DeviceInfo) -> int:
    """Return the width of codes if the device wants a decode table of them and the layer gains by it, else 0.

    One table does not do for a tensor whose outputs have zero points of their own.
    """
    record = tensor.record
    own_zero_points = bool(record.flags & TensorFlag.AFFINE) and record.groups > 1
    if own_zero_points or record.width_bits > min(device.table_bits, MAX_TABLE_BITS):
        return 0
    multiplications = record.rows * math.prod(step.after)
    return record.width_bits if MACS_A_TABLE_ENTRY << record.width_bits <= multiplications else 0


def _layer_record(
    step: _Step, number: int, table_bits: int, parameters: tuple[int, int], placement: Placement
) -> LayerRecord:
    kernel, strides, before = _window(step)
    return LayerRecord(
        step.kind,
        Activation.RELU if step.fused else Activation.NONE,
        *kernel,
        *strides,
        *before,
        *step.before,
        *step.after,
        weights=parameters[0],
        biases=parameters[1],
        input_offset=placement.output_offsets[number - 1] if number else NO_OFFSET,
        output_offset=placement.output_offsets[number],
        table_offset=placement.table_offset if 0 < table_bits <= placement.table_bits else NO_OFFSET,
    )


def _window(step: _Step) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Return kernel, strides and padding before, each (y, x); zeros for layers without a window."""
    layer = step.layer
    if not isinstance(layer, Conv2D | MaxPool2D | AveragePool2D):
        return (0, 0), (0, 0), (0, 0)
    kernel = layer.kernel_size if isinstance(layer, Conv2D) else layer.pool_size
    before = (0, 0)
    if layer.padding == "same":
        before = (
            same_padding(step.before[0], kernel[0], layer.strides[0])[0],
            same_padding(step.before[1], kernel[1], layer.strides[1])[0],
        )
    return kernel, layer.strides, before
