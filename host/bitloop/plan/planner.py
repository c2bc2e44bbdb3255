"""Planning: which operations a device runs for a MODEL, and where everything lies in its memory."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from bitloop.errors import FormatError, ModelError, UnsupportedLayerError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import Conv2D, Dense
from bitloop.plan.check_arena import MAX_TABLE_BITS
from bitloop.plan.image import image_bytes, read_image, write_image
from bitloop.plan.memory import (
    MemoryPlan,
    Needs,
    Placement,
    check_slots,
    does_not_fit,
    place_resident,
    resident_least,
)
from bitloop.plan.records import Header, LayerRecord, Shape, TensorRecord, slot_bytes
from bitloop.plan.steps import Step, steps_of
from bitloop.plan.streaming import place_streamed, streamed_least
from bitloop.plan.tensors import PackedTensor, pack_tensor, tensor_record
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import (
    MAX_DIMENSION,
    NO_INDEX,
    NO_OFFSET,
    Activation,
    Capability,
    LayerKind,
    Layout,
    Packing,
    TensorFlag,
)

PlacementKind = Literal["auto", "resident", "stream"]
PLACEMENTS: tuple[PlacementKind, ...] = get_args(PlacementKind)


@dataclass(frozen=True)
class Operation:
    """What a device runs as one layer.

    Attributes:
        name: of the network's layer that it is named after, the first it covers.
        layers: the network's layers it covers, in order: a ReLU may be part of the layer before it, and pooling of the
            convolution before it. A Flatten is no operation, and a final Softmax is computed on the host; neither is
            covered by any.
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
class StreamedWeights:
    """Weights that travel with each batch of images.

    Attributes:
        data: one pass of them: the chunks in the order they are needed, the same for every batch.
        ends: for each operation, the offset in the pass behind its weights, or behind those before it if it streams
            none: where a run that stops behind it ends a pass.
        batch: images of a batch, at most.
    """

    data: bytes
    ends: tuple[int, ...]
    batch: int

    @property
    def bytes_per_image(self) -> float:
        """Bytes of weights on the line for each image of a full batch."""
        return len(self.data) / self.batch


@dataclass(frozen=True)
class Plan:
    """An image for one device, and what is known about it.

    Attributes:
        image: the bytes that are sent.
        sha256: of the image, 64 hex digits.
        operations: one for each of the image's layers.
        memory: how the arena is divided; the device must agree to the byte.
        macs: multiplications of one image of the data set, those with zeros included.
        placement: "resident" with all weights in the image, "stream" if any travel with each batch.
        streamed: the weights that do, or None.
    """

    image: bytes
    sha256: str
    operations: tuple[Operation, ...]
    memory: MemoryPlan
    macs: int
    placement: Literal["resident", "stream"]
    streamed: StreamedWeights | None


@dataclass(frozen=True)
class _Tensors:
    """The tensors of the operations, in the image's order."""

    tensors: tuple[QuantizedTensor, ...]
    records: tuple[TensorRecord, ...]
    indices: tuple[tuple[int, int], ...]
    ternary_packing: Packing

    def weights(self, operation: int) -> TensorRecord | None:
        """The record of an operation's weights."""
        index = self.indices[operation][0]
        return None if index == NO_INDEX else self.records[index]

    def packed(self, placement: Placement) -> list[PackedTensor]:
        """All tensors, ready for the image, or to be streamed where the placement says so."""
        chunks = {
            weights: (columns, offset)
            for (weights, _), columns, offset in zip(
                self.indices, placement.chunk_columns, placement.chunks, strict=True
            )
            if columns
        }
        packed = []
        for index, tensor in enumerate(self.tensors):
            columns, offset = chunks.get(index, (0, NO_OFFSET))
            packed.append(pack_tensor(tensor, self.ternary_packing, chunk_columns=columns, chunk_offset=offset))
        return packed


def plan(model: Model, device: DeviceInfo, *, slots: int | None = None, placement: PlacementKind = "auto") -> Plan:
    """Plan a MODEL for a device.

    The same MODEL, facts of the device, slots and placement give the same bytes.

    Args:
        model: what is to be run.
        device: what the device said in HELLO.
        slots: images the device shall hold, or None for as many as are useful and fit.
        placement: "resident" keeps all weights on the device; "stream" sends those of every layer with each batch of
            images; "auto" keeps them if they fit, else streams as few bytes an image as it can.

    Raises:
        DoesNotFitError: the device lacks memory; the message says how many bytes.
        UnsupportedLayerError: the device does not know a layer's kind.
        FormatError: the device does not know a tensor's kind of format, or bitloop's layout of weights.
        ModelError: the MODEL holds what no device may run (a code that is no finite number), or is too large for
            an image or for the device's limits.
        UsageError: ``slots`` is out of range, there is no such ``placement``, or the device takes no streamed weights.
    """
    if placement not in PLACEMENTS:
        raise UsageError(f"there is no placement {placement!r}; take one of {', '.join(PLACEMENTS)}")
    if placement == "stream" and not _can_stream(device):
        raise UsageError(
            f"the device ({device.board}) takes no streamed weights; flash a newer firmware, or keep the weights on it"
        )
    check_slots(slots)
    steps = _steps(model, device)
    tensors = _tensors(model, steps, device)
    for count, most, what in (
        (len(steps), device.max_layers, "layers"),
        (len(tensors.records), device.max_tensors, "tensors"),
    ):
        if count > most:
            raise ModelError(f"model {model.name!r} has {count} {what}, the device ({device.board}) takes {most}")
    placed = _place(model, device, steps, tensors, slots, placement=placement)
    packed = tensors.packed(placed)
    image = _image(model, steps, tensors, packed, placed)
    # The device would refuse what this refuses; better to hear it here than over the line.
    parsed = read_image(
        image, arena_bytes=device.arena_bytes, max_layers=device.max_layers, max_tensors=device.max_tensors
    )
    streamed = _streamed(tensors, packed, placed)
    if streamed is not None:
        parsed.streamed_codes(streamed.data)
    return Plan(
        image,
        hashlib.sha256(image).hexdigest(),
        tuple(Operation(step.layer.name, step.covers, step.kind, step.after, step.output_bytes) for step in steps),
        placed.memory,
        model.architecture.macs(),
        "resident" if streamed is None else "stream",
        streamed,
    )


def _steps(model: Model, device: DeviceInfo) -> list[Step]:
    steps = steps_of(model.architecture)
    if not steps:
        raise ModelError(f"model {model.name!r} has no layer that a device could run")
    for name, kind in itertools.chain.from_iterable(step.kinds for step in steps):
        if not device.supports_layer(kind):
            raise UnsupportedLayerError(
                f"layer {name!r}: the device ({device.board}) does not run layers of kind {kind.name}; "
                "flash a newer firmware or change the network"
            )
    logits = math.prod(steps[-1].after)
    if logits > MAX_DIMENSION:
        raise ModelError(f"model {model.name!r} has {logits} logits; a label tells {MAX_DIMENSION} apart")
    return steps


def _tensors(model: Model, steps: Sequence[Step], device: DeviceInfo) -> _Tensors:
    """Return the image's tensors, and for each operation the numbers of its weights and biases (or NO_INDEX)."""
    if Layout.IN_MAJOR not in device.layouts:
        raise FormatError(
            f"the device ({device.board}) takes weights in layouts {list(device.layouts)} only, this host lays "
            f"them out as {int(Layout.IN_MAJOR)}; update bitloop"
        )
    tensors: list[QuantizedTensor] = []
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
            tensors.append(tensor)
        indices.append((found[0], found[1]))
    packing = next((Packing(kind) for kind in device.packings if kind in tuple(Packing)), Packing.BITS)
    records = tuple(tensor_record(tensor, packing) for tensor in tensors)
    return _Tensors(tuple(tensors), records, tuple(indices), packing)


def _needs(steps: Sequence[Step], tensors: _Tensors, device: DeviceInfo) -> list[Needs]:
    return [
        Needs(
            output_bytes=step.output_bytes,
            in_place=number > 0 and step.kind is LayerKind.RELU,
            weights=tensors.weights(number),
            positions=step.positions,
            tile_elements=math.prod(step.pool_window.kernel),
            has_table=_has_table(tensors.weights(number), device),
        )
        for number, step in enumerate(steps)
    ]


def _has_table(record: TensorRecord | None, device: DeviceInfo) -> bool:
    """Tell whether the device wants decode tables of such codes.

    One table does not do for a tensor whose outputs have zero points of their own.
    """
    if record is None or (record.flags & TensorFlag.AFFINE and record.groups > 1):
        return False
    return record.width_bits <= min(device.table_bits, MAX_TABLE_BITS)


def _place(
    model: Model,
    device: DeviceInfo,
    steps: Sequence[Step],
    tensors: _Tensors,
    slots: int | None,
    *,
    placement: PlacementKind,
) -> Placement:
    """Divide the arena as asked, or say how many bytes are missing at the least."""
    needs = _needs(steps, tensors, device)
    available = device.arena_bytes
    image = image_bytes(len(steps), tensors.records)
    slot = slot_bytes(math.prod(model.architecture.input_shape), math.prod(steps[-1].after), len(steps))
    everything = placement == "stream"
    resident = resident_least(needs, image, slot, slots)
    fits = resident.total <= available
    if fits and not everything:
        return place_resident(needs, image_bytes=image, slot_bytes=slot, slots=slots, available_bytes=available)
    can_stream = _can_stream(device)
    streamed = streamed_least(needs, image, slot, slots, everything=everything) if can_stream else None
    if streamed is None:
        if fits:  # nothing has weights that could be streamed
            return place_resident(needs, image_bytes=image, slot_bytes=slot, slots=slots, available_bytes=available)
        raise does_not_fit(resident, available)
    if placement == "resident":
        hint = "let weights travel with each batch, " if streamed.total <= available else ""
        raise does_not_fit(resident, available, hint=hint)
    if streamed.total > available:
        if placement == "auto" and resident.total <= streamed.total:
            raise does_not_fit(resident, available)
        raise does_not_fit(streamed, available, streamed=True)
    return place_streamed(
        needs,
        image_bytes=image,
        slot_bytes=slot,
        slots=slots,
        available_bytes=available,
        everything=everything,
    )


def _can_stream(device: DeviceInfo) -> bool:
    return bool(device.capabilities & Capability.STREAMED_WEIGHTS)


def _image(
    model: Model, steps: Sequence[Step], tensors: _Tensors, packed: Sequence[PackedTensor], placed: Placement
) -> bytes:
    memory = placed.memory
    header = Header(
        memory.weights_bytes,
        len(steps),
        len(packed),
        *model.architecture.input_shape,
        arena_bytes=memory.total_bytes,
        queue_offset=placed.queue,
        slots=memory.slots,
        slot_bytes=memory.queue_bytes // memory.slots,
        output_offset=placed.outputs[-1],
        output_count=math.prod(steps[-1].after),
        streamed_bytes=sum(len(tensor.codes) for tensor in packed if tensor.record.streamed),
    )
    layers = [_layer_record(step, number, tensors.indices[number], placed) for number, step in enumerate(steps)]
    return write_image(header, layers, packed)


def _layer_record(step: Step, number: int, parameters: tuple[int, int], placed: Placement) -> LayerRecord:
    own, pool = step.window, step.pool_window
    return LayerRecord(
        step.kind,
        Activation.RELU if step.relu else Activation.NONE,
        *own.kernel,
        *own.strides,
        *own.padding,
        *step.before,
        *step.after,
        weights=parameters[0],
        biases=parameters[1],
        input_offset=placed.outputs[number - 1] if number else NO_OFFSET,
        output_offset=placed.outputs[number],
        table_offset=placed.tables[number],
        pool_kind=step.pool_kind,
        pool_height=pool.kernel[0],
        pool_width=pool.kernel[1],
        pool_stride_y=pool.strides[0],
        pool_stride_x=pool.strides[1],
        pool_padding_top=pool.padding[0],
        pool_padding_left=pool.padding[1],
        map_height=step.map_shape[0] if step.pool else 0,
        map_width=step.map_shape[1] if step.pool else 0,
        tile_offset=placed.tiles[number],
        batch_stride=placed.strides[number],
    )


def _streamed(tensors: _Tensors, packed: Sequence[PackedTensor], placed: Placement) -> StreamedWeights | None:
    if not placed.streamed:
        return None
    parts = [
        packed[weights].codes if columns else b""
        for (weights, _), columns in zip(tensors.indices, placed.chunk_columns, strict=True)
    ]
    ends = tuple(itertools.accumulate(len(part) for part in parts))
    return StreamedWeights(b"".join(parts), ends, placed.memory.slots)
