"""Where things lie in a device's arena: the image, one decode table, activations, the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import DoesNotFitError, UsageError
from bitloop.spec import NO_OFFSET, Status

USEFUL_SLOTS = 64
"""More slots do not make a run faster: the line is kept busy by fewer, and results of a batch come together."""
MAX_SLOTS = 0xFFFF


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a device's arena.

    Attributes:
        weights_bytes: the image, which holds the tensors in their packed form.
        activations_bytes: what layers give, each byte used by several of them.
        tables_bytes: the decode table that all layers share.
        queue_bytes: ``slots`` slots of pixels and results.
        total_bytes: the sum of the four.
        available_bytes: what the device has.
        slots: images the device can hold.
    """

    weights_bytes: int
    activations_bytes: int
    tables_bytes: int
    queue_bytes: int
    total_bytes: int
    available_bytes: int
    slots: int


@dataclass(frozen=True)
class Placement:
    """A :class:`MemoryPlan` with offsets: of the table (or ``NO_OFFSET``), of each layer's output, of the queue."""

    memory: MemoryPlan
    table_bits: int
    table_offset: int
    output_offsets: tuple[int, ...]
    queue_offset: int


def ping_pong(sizes: Sequence[int], in_place: Sequence[bool]) -> tuple[tuple[int, ...], int]:
    """Place the outputs of a chain of layers.

    Only a layer's input and output live at the same time. So outputs lie at the two ends of one region in turn, and the
    region is as long as the longest pair of neighbours: no placement can be smaller.

    Args:
        sizes: bytes of each layer's output.
        in_place: whether a layer works in the buffer of the one before; never the first.

    Returns:
        Offset of each output in the region, and the region's bytes.
    """
    buffers: list[int] = []  # sizes of buffers that differ
    buffer_of: list[int] = []
    for size, same in zip(sizes, in_place, strict=True):
        if not same:
            buffers.append(size)
        buffer_of.append(len(buffers) - 1)
    region = max(first + second for first, second in zip(buffers, [*buffers[1:], 0], strict=True))
    offsets = [0 if index % 2 == 0 else region - size for index, size in enumerate(buffers)]
    return tuple(offsets[index] for index in buffer_of), region


def place(
    *,
    image_bytes: int,
    sizes: Sequence[int],
    in_place: Sequence[bool],
    table_widths: Sequence[int],
    slot_bytes: int,
    slots: int | None,
    available_bytes: int,
) -> Placement:
    """Divide the arena.

    Decode tables make a device faster, never right: where memory is short the widest are given up first. Then as many
    slots are planned as are useful and fit.

    Args:
        image_bytes: length of the image, which lies at offset 0; a multiple of 4.
        sizes: bytes of each layer's output.
        in_place: as in :func:`ping_pong`.
        table_widths: widths in bits of the codes that could have a decode table; 0 for none.
        slot_bytes: bytes of a slot.
        slots: how many, or None for as many as are useful.
        available_bytes: the device's arena.

    Raises:
        DoesNotFitError: not even one slot (or not ``slots`` of them) fits beside image and activations.
        UsageError: ``slots`` is out of 1 to 65535.
    """
    if slots is not None and not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"{slots} slots; a device's queue has 1 to {MAX_SLOTS}")
    offsets, activations_bytes = ping_pong(sizes, in_place)
    least = image_bytes + activations_bytes + (slots or 1) * slot_bytes
    if least > available_bytes:
        raise DoesNotFitError(
            f"the model needs {least} bytes of the device's arena, which has {available_bytes}: "
            f"{least - available_bytes} bytes are missing (image {image_bytes}, activations {activations_bytes}, "
            f"queue {slots or 1} x {slot_bytes}); take fewer bits, a smaller network or a device with more memory",
            needed_bytes=least,
            available_bytes=available_bytes,
            status=Status.NO_MEMORY,
        )
    spare = available_bytes - least
    table_bits = max((width for width in table_widths if width and 4 << width <= spare), default=0)
    tables_bytes = 4 << table_bits if table_bits else 0
    count = slots or min(USEFUL_SLOTS, 1 + (spare - tables_bytes) // slot_bytes)
    queue_offset = image_bytes + tables_bytes + activations_bytes
    memory = MemoryPlan(
        weights_bytes=image_bytes,
        activations_bytes=activations_bytes,
        tables_bytes=tables_bytes,
        queue_bytes=count * slot_bytes,
        total_bytes=queue_offset + count * slot_bytes,
        available_bytes=available_bytes,
        slots=count,
    )
    return Placement(
        memory,
        table_bits,
        image_bytes if table_bits else NO_OFFSET,
        tuple(image_bytes + tables_bytes + offset for offset in offsets),
        queue_offset,
    )
