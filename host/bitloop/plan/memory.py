"""How a device's arena is divided: the image, decode tables, what layers give, tiles, chunks of weights, the queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import DoesNotFitError, UsageError
from bitloop.numeric.packing import packed_bytes
from bitloop.plan.arrange import Arrangement, arrange, buffers_of
from bitloop.plan.check_arena import CHUNK_MARGIN_BYTES
from bitloop.plan.records import TensorRecord, align4
from bitloop.spec import NO_OFFSET, Packing, Status

USEFUL_SLOTS = 64
"""More slots do not make a run faster: the line is kept busy by fewer, and results of a batch come together."""
MAX_SLOTS = 0xFFFF
MACS_A_TABLE_ENTRY = 4
"""A device fills a layer's decode table for every image: that pays if the layer then looks up more codes than it has
entries. Most activations are zero, and their codes are not looked up."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of a device's arena.

    Outputs, tiles and chunks lie over those of other layers that are in use at other times; so do tables where weights
    are streamed. What is told of them is what the layer that needs most has in use: exactly what is set aside.

    Attributes:
        weights_bytes: the image, which holds the tensors in their packed form.
        activations_bytes: what layers give.
        tables_bytes: the decode table; without streamed weights it is one that all layers share.
        tiles_bytes: outputs of a convolution in one window of the pooling fused behind it.
        chunks_bytes: weights that travel with each batch.
        queue_bytes: ``slots`` slots of pixels and results.
        total_bytes: the sum of the six.
        available_bytes: what the device has.
        slots: images the device can hold; where weights are streamed, a batch.
    """

    weights_bytes: int
    activations_bytes: int
    tables_bytes: int
    tiles_bytes: int
    chunks_bytes: int
    queue_bytes: int
    total_bytes: int
    available_bytes: int
    slots: int


@dataclass(frozen=True)
class Needs:
    """What one operation asks of memory.

    Attributes:
        output_bytes: of what it gives.
        in_place: whether it works in the buffer of the one before.
        weights: record of its weights, unplaced, or None.
        positions: how often each weight is used for one image.
        tile_elements: of its tile for each column computed; 0 without fused pooling.
        has_table: whether the device wants a decode table of its codes where one pays.
    """

    output_bytes: int
    in_place: bool
    weights: TensorRecord | None
    positions: int
    tile_elements: int
    has_table: bool

    def tile_bytes(self, columns: int) -> int:
        """Return the bytes of its tile."""
        return 4 * self.tile_elements * columns

    def table_bytes(self, columns: int) -> int:
        """Return the bytes of its decode table if one pays with so many columns at a time, else 0."""
        if not self.has_table or self.weights is None:
            return 0
        lookups = self.weights.rows * columns * self.positions
        return 4 << self.weights.width_bits if MACS_A_TABLE_ENTRY << self.weights.width_bits <= lookups else 0

    def chunk_bytes(self, columns: int) -> int:
        """Return the bytes set aside for a chunk of its weights."""
        assert self.weights is not None
        record = self.weights
        row_bytes = packed_bytes(columns, record.width_bits, Packing(record.packing))
        return align4(record.rows * row_bytes + CHUNK_MARGIN_BYTES)


@dataclass(frozen=True)
class Placement:
    """A :class:`MemoryPlan` with offsets in the arena, for each operation; ``NO_OFFSET`` for what it has not.

    Attributes:
        memory: the bytes.
        queue: of the first slot.
        outputs: of what operations give; with a batch stride, the first image's.
        strides: batch strides.
        tables: of decode tables.
        tiles: of tiles.
        chunks: of chunks.
        chunk_columns: outputs a chunk, 0 where nothing is streamed.
    """

    memory: MemoryPlan
    queue: int
    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    tables: tuple[int, ...]
    tiles: tuple[int, ...]
    chunks: tuple[int, ...]
    chunk_columns: tuple[int, ...]

    @property
    def streamed(self) -> bool:
        """Whether weights travel with each batch."""
        return any(self.chunk_columns)


@dataclass(frozen=True)
class Least:
    """The least memory that a way of placing a model asks for.

    Attributes:
        image: bytes of the image.
        work: bytes of outputs, tiles and chunks.
        slots: how many must be there.
        slot: bytes of a slot.
    """

    image: int
    work: int
    slots: int
    slot: int

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.image + self.work + self.slots * self.slot


def check_slots(slots: int | None) -> None:
    """Raise UsageError unless so many slots can be asked for."""
    if slots is not None and not 1 <= slots <= MAX_SLOTS:
        raise UsageError(f"{slots} slots; a device's queue has 1 to {MAX_SLOTS}")


def does_not_fit(least: Least, available_bytes: int, *, streamed: bool = False, hint: str = "") -> DoesNotFitError:
    """Return the error that says how many bytes are missing.

    Args:
        least: what is needed.
        available_bytes: the device's arena.
        streamed: whether that is with weights that travel with each batch.
        hint: what to do, before the general advice.
    """
    how, chunk = (", even if weights travel with each batch", " and a chunk") if streamed else ("", "")
    return DoesNotFitError(
        f"the model needs {least.total} bytes of the device's arena, which has {available_bytes}{how}: "
        f"{least.total - available_bytes} bytes are missing (image {least.image}, activations{chunk} {least.work}, "
        f"queue {least.slots} x {least.slot}); {hint}take fewer bits, a smaller network or a device with more memory",
        needed_bytes=least.total,
        available_bytes=available_bytes,
        status=Status.NO_MEMORY,
    )


def resident_least(needs: Sequence[Needs], image_bytes: int, slot_bytes: int, slots: int | None) -> Least:
    """Return the least memory with all weights in the image."""
    return Least(image_bytes, _resident_region(needs).size, slots or 1, slot_bytes)


def place_resident(
    needs: Sequence[Needs], *, image_bytes: int, slot_bytes: int, slots: int | None, available_bytes: int
) -> Placement:
    """Divide the arena with all weights in the image.

    Decode tables make a device faster, never right: where memory is short the widest are given up first. Then as many
    slots are planned as are useful and fit.

    Args:
        needs: of each operation.
        image_bytes: length of the image, which lies at offset 0; a multiple of 4.
        slot_bytes: bytes of a slot.
        slots: how many, or None for as many as are useful.
        available_bytes: the device's arena, which has :func:`resident_least` at least.
    """
    spare = available_bytes - resident_least(needs, image_bytes, slot_bytes, slots).total
    wanted = [need.table_bytes(need.weights.columns) if need.weights else 0 for need in needs]
    table = max((size for size in wanted if size <= spare), default=0)
    count = slots or min(USEFUL_SLOTS, 1 + (spare - table) // slot_bytes)
    region = _resident_region(needs)
    begin = image_bytes + table
    queue = begin + region.size
    tile = sum(_resident_tiles(needs)[region.peak])
    memory = MemoryPlan(
        weights_bytes=image_bytes,
        activations_bytes=region.size - tile,
        tables_bytes=table,
        tiles_bytes=tile,
        chunks_bytes=0,
        queue_bytes=count * slot_bytes,
        total_bytes=queue + count * slot_bytes,
        available_bytes=available_bytes,
        slots=count,
    )
    nothing = (0,) * len(needs)
    return Placement(
        memory,
        queue,
        outputs=tuple(begin + offset for offset in region.outputs),
        strides=nothing,
        tables=tuple(image_bytes if 0 < size <= table else NO_OFFSET for size in wanted),
        tiles=tuple(begin + offsets[0] if offsets else NO_OFFSET for offsets in region.temporaries),
        chunks=(NO_OFFSET,) * len(needs),
        chunk_columns=nothing,
    )


def _resident_tiles(needs: Sequence[Needs]) -> list[list[int]]:
    return [[need.tile_bytes(need.weights.columns)] if need.weights and need.tile_elements else [] for need in needs]


def _resident_region(needs: Sequence[Needs]) -> Arrangement:
    in_place = [need.in_place for need in needs]
    buffers = buffers_of([need.output_bytes for need in needs], in_place, [0] * len(needs), batched=False)
    return arrange(buffers, in_place, 1, _resident_tiles(needs))
