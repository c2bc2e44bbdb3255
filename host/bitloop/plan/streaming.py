"""Which weights travel with each batch, in what chunks, and how large a batch is (docs/model.md)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from bitloop.plan.arrange import arrange, buffers_of, live_bytes
from bitloop.plan.memory import USEFUL_SLOTS, Least, MemoryPlan, Needs, Placement
from bitloop.plan.records import TensorRecord, align4
from bitloop.plan.stages import stages
from bitloop.plan.tensors import codes_a_step, streamed_bytes
from bitloop.spec import MAX_IMAGE_BYTES, NO_OFFSET

MOST_LAYERS_TRIED = 10
"""Of so many layers with weights every set is tried: 1,023."""
CHUNK_COST_BYTES = 64
"""What a chunk costs beside its bytes: the device asks for each when it has done with the one before, so there are a
frame's header, an answer, and a wait of some such bytes."""


@dataclass(frozen=True)
class _Chunk:
    """How a layer's weights are at hand: columns at a time, and whether they are streamed; with the table's bytes."""

    columns: int
    streamed: bool
    table: int = 0


class _Choice:
    """A set of layers whose weights are streamed, and what memory that asks for."""

    def __init__(self, needs: Sequence[Needs], image_bytes: int, slot_bytes: int, chosen: Sequence[bool]) -> None:
        self._needs = needs
        self._slot_bytes = slot_bytes
        self._chosen = chosen
        streamed = [need.weights for need, own in zip(needs, chosen, strict=True) if own and need.weights]
        self.image_bytes = image_bytes - sum(align4(record.data_bytes) for record in streamed)
        self.least_cost = sum(record.data_bytes + CHUNK_COST_BYTES for record in streamed)
        """Of a batch, if each layer's weights travel in one chunk."""
        self._stages = stages(chosen)
        self._outputs = [need.output_bytes for need in needs]
        self._in_place = [need.in_place for need in needs]

    @cached_property
    def _live(self) -> tuple[list[int], list[int]]:
        return self._live_bytes(batched=True)

    def least(self, batch: int) -> Least:
        """Return the least memory for a batch: a column a chunk and no tables."""
        work = max(used + _least_temporaries(need, own) for used, need, own in self._each(self._used(batch)))
        return Least(self.image_bytes, work, batch, self._slot_bytes)

    def largest_batch(self, available_bytes: int, most: int) -> int:
        """Return the most images of a batch that fit, or 0."""
        free = available_bytes - self.image_bytes
        shared, batched = self._live
        fit = most
        for used, images, need, own in zip(shared, batched, self._needs, self._chosen, strict=True):
            rest = free - used - _least_temporaries(need, own)
            fit = min(fit, rest // (images + self._slot_bytes))
        if fit < 2:
            fit = 1 if self.least(1).total <= available_bytes else 0
        return fit

    def chunks(self, available_bytes: int, batch: int) -> list[_Chunk]:
        """Return how each layer's weights are at hand in what a batch leaves free; it must fit."""
        free = available_bytes - self.image_bytes - batch * self._slot_bytes
        return [_chunk(need, free - used, own) for used, need, own in self._each(self._used(batch))]

    def cost(self, chunks: Sequence[_Chunk]) -> int:
        """Return the bytes that travel for a batch, with what the chunks cost beside them."""
        pairs = zip(self._needs, chunks, strict=True)
        return sum(_cost(need.weights, chunk.columns) for need, chunk in pairs if need.weights and chunk.streamed)

    def place(self, available_bytes: int, batch: int) -> Placement:
        """Divide the arena for a batch, which must fit."""
        chunks = self.chunks(available_bytes, batch)
        temporaries = [
            (
                chunk.table,
                need.tile_bytes(chunk.columns),
                need.chunk_bytes(chunk.columns) if chunk.streamed else 0,
            )
            for need, chunk in zip(self._needs, chunks, strict=True)
        ]
        buffers = buffers_of(self._outputs, self._in_place, self._stages, batched=batch > 1)
        region = arrange(buffers, self._in_place, batch, temporaries)
        table, tile, chunk_bytes = temporaries[region.peak]
        queue = self.image_bytes + region.size
        memory = MemoryPlan(
            weights_bytes=self.image_bytes,
            activations_bytes=region.size - table - tile - chunk_bytes,
            tables_bytes=table,
            tiles_bytes=tile,
            chunks_bytes=chunk_bytes,
            queue_bytes=batch * self._slot_bytes,
            total_bytes=queue + batch * self._slot_bytes,
            available_bytes=available_bytes,
            slots=batch,
        )
        offsets = [
            [self.image_bytes + offset if size else NO_OFFSET for offset, size in zip(at, sizes, strict=True)]
            for at, sizes in zip(region.temporaries, temporaries, strict=True)
        ]
        return Placement(
            memory,
            queue,
            outputs=tuple(self.image_bytes + offset for offset in region.outputs),
            strides=region.strides,
            tables=tuple(table for table, _, _ in offsets),
            tiles=tuple(tile for _, tile, _ in offsets),
            chunks=tuple(chunk for _, _, chunk in offsets),
            chunk_columns=tuple(chunk.columns if chunk.streamed else 0 for chunk in chunks),
        )

    def _each(self, used: Sequence[int]) -> Iterator[tuple[int, Needs, bool]]:
        return zip(used, self._needs, self._chosen, strict=True)

    def _used(self, batch: int) -> list[int]:
        """Bytes of outputs in use while each layer runs."""
        shared, batched = self._live if batch > 1 else self._live_bytes(batched=False)
        return [one + batch * other for one, other in zip(shared, batched, strict=True)]

    def _live_bytes(self, *, batched: bool) -> tuple[list[int], list[int]]:
        buffers = buffers_of(self._outputs, self._in_place, self._stages, batched=batched)
        return live_bytes(buffers, len(self._needs))


def streamed_least(
    needs: Sequence[Needs], image_bytes: int, slot_bytes: int, slots: int | None, *, everything: bool
) -> Least | None:
    """Return the least memory with streamed weights, or None where no layer has any; arguments as below."""
    choices = _choices(needs, image_bytes, slot_bytes, everything=everything)
    return min((choice.least(slots or 1) for choice in choices), key=lambda least: least.total, default=None)


def place_streamed(
    needs: Sequence[Needs],
    *,
    image_bytes: int,
    slot_bytes: int,
    slots: int | None,
    available_bytes: int,
    everything: bool,
) -> Placement:
    """Divide the arena so that the fewest bytes of weights travel for each image.

    Bytes an image are those of a batch divided by its images, so a larger batch may outweigh weights in the image. Each
    chunk counts as CHUNK_COST_BYTES more, so that a batch is not bought with tiny ones. Of
    up to MOST_LAYERS_TRIED layers with weights every set is tried, of more only some. Then come decode tables, where
    they do not more than halve a chunk, and chunks as large as fit.

    Args:
        needs: of each operation.
        image_bytes: length of the image with all weights in it.
        slot_bytes: bytes of a slot.
        slots: images of a batch, or None for as many as are useful.
        available_bytes: the device's arena, which has :func:`streamed_least` at least.
        everything: whether the weights of all layers are to be streamed.
    """
    ranked: list[tuple[Fraction, int, int, _Choice]] = []
    for choice in _choices(needs, image_bytes, slot_bytes, everything=everything):
        batch = choice.largest_batch(available_bytes, slots or USEFUL_SLOTS)
        if batch >= (slots or 1):
            ranked.append((Fraction(choice.least_cost, batch), len(ranked), batch, choice))
    best: tuple[Fraction, _Choice, int] | None = None
    for bound, _, most, choice in sorted(ranked, key=lambda each: each[:2]):
        if best is not None and bound >= best[0]:
            break
        # Fewer images may leave room for chunks that waste fewer bits.
        for batch in range(most, (slots or 1) - 1, -1):
            if best is not None and Fraction(choice.least_cost, batch) >= best[0]:
                break
            cost = Fraction(choice.cost(choice.chunks(available_bytes, batch)), batch)
            if best is None or cost < best[0]:
                best = (cost, choice, batch)
    assert best is not None
    _, choice, batch = best
    return choice.place(available_bytes, batch)


def _choices(needs: Sequence[Needs], image_bytes: int, slot_bytes: int, *, everything: bool) -> Iterator[_Choice]:
    weighted = [index for index, need in enumerate(needs) if need.weights is not None]
    for chosen in [weighted] if everything and weighted else _sets(needs, weighted):
        yield _Choice(needs, image_bytes, slot_bytes, [index in chosen for index in range(len(needs))])


def _sets(needs: Sequence[Needs], weighted: Sequence[int]) -> list[tuple[int, ...]]:
    """Sets of layers to stream, none of them empty; which ones does not depend on the memory there is."""
    if len(weighted) <= MOST_LAYERS_TRIED:
        return [chosen for count in range(1, len(weighted) + 1) for chosen in itertools.combinations(weighted, count)]
    # The largest ones; and, as a layer with many outputs in use may have no room for a chunk, those that need little.
    shared, _ = live_bytes(
        buffers_of(
            [need.output_bytes for need in needs], [need.in_place for need in needs], [0] * len(needs), batched=False
        ),
        len(needs),
    )
    by_size = sorted(weighted, key=lambda index: (-_whole(needs[index]), index))
    by_work = sorted(weighted, key=lambda index: (shared[index] + _least_temporaries(needs[index], True), index))
    sets = {tuple(sorted(order[:count])) for order in (by_size, by_work) for count in range(1, len(weighted) + 1)}
    return sorted(sets)


def _whole(need: Needs) -> int:
    return need.weights.data_bytes if need.weights else 0


def _least_temporaries(need: Needs, streamed: bool) -> int:
    """Bytes that a layer cannot do without while it runs, beside what it reads and gives."""
    if need.weights is None:
        return 0
    return need.tile_bytes(1) + need.chunk_bytes(1) if streamed else need.tile_bytes(need.weights.columns)


def _chunk(need: Needs, room: int, streamed: bool) -> _Chunk:
    """Choose columns a chunk and whether there is a table, for a layer with so many bytes to itself."""
    if need.weights is None:
        return _Chunk(0, streamed=False)
    if not streamed:
        columns = need.weights.columns
        table = need.table_bytes(columns)
        return _Chunk(columns, streamed=False, table=table if need.tile_bytes(columns) + table <= room else 0)
    columns = _columns(need, room)
    table = need.table_bytes(columns)
    with_table = _columns(need, room - table) if table else 0
    if (
        2 * with_table >= columns
        and need.table_bytes(with_table)
        and streamed_bytes(need.weights, with_table) == streamed_bytes(need.weights, columns)
    ):
        return _Chunk(with_table, streamed=True, table=table)
    return _Chunk(columns, streamed=True)


def _columns(need: Needs, room: int) -> int:
    """Return the columns of a chunk that cost the least, of those that fit; 0 if none does."""
    record = need.weights
    assert record is not None
    low, high = 0, record.columns
    while low < high:
        middle = (low + high + 1) // 2
        size = need.chunk_bytes(middle)
        if size + need.tile_bytes(middle) <= room and size <= MAX_IMAGE_BYTES:
            low = middle
        else:
            high = middle - 1
    # As many as fit, or as many as waste no bits; where not even these fit, any.
    step = codes_a_step(record)
    candidates = (low, low // step * step) if low >= step else range(low, 0, -1)
    return min(candidates, key=lambda columns: _cost(record, columns), default=0)


def _cost(record: TensorRecord, columns: int) -> int:
    chunks = -(-record.columns // columns)
    return streamed_bytes(record, columns) + CHUNK_COST_BYTES * chunks
