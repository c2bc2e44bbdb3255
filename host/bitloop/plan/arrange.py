"""Where what layers write lies in one region, which is as small as it can be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Buffer:
    """What one layer writes, with all that later ReLUs do to it in place.

    Attributes:
        size: bytes for one image.
        writer: the layer that writes it first.
        first: the layer from which on it is in use.
        last: the layer up to which it is in use, that one included.
        batched: whether there is one for each image of a batch; else all images share one.
    """

    size: int
    writer: int
    first: int
    last: int
    batched: bool


@dataclass(frozen=True)
class Arrangement:
    """Offsets in a region.

    Attributes:
        outputs: of each layer's output; of a batch, the first image's.
        strides: from an output for one image of a batch to that for the next, or 0 if they share one.
        temporaries: of what only one layer uses, for each layer as they were asked for.
        size: bytes of the region.
        peak: the first layer that needs all of it.
    """

    outputs: tuple[int, ...]
    strides: tuple[int, ...]
    temporaries: tuple[tuple[int, ...], ...]
    size: int
    peak: int


def buffers_of(
    outputs: Sequence[int], in_place: Sequence[bool], stages: Sequence[int], *, batched: bool
) -> list[Buffer]:
    """Find how long each buffer is in use (docs/model.md, "Streamed weights").

    Args:
        outputs: bytes of each layer's output for one image.
        in_place: whether a layer works in the buffer of the one before; never the first.
        stages: for each layer the number of its stage.
        batched: whether a stage is finished for several images before the next one begins. Then a buffer that is read
            by another stage, or is the result, is kept for each image from the beginning of the stage that writes it
            to the end of the one that reads it; every other one only from its writer to its reader.
    """
    end = len(outputs) - 1
    found = []
    writer = 0
    for index in range(len(outputs)):
        if index < end and in_place[index + 1]:
            continue
        reader = min(index + 1, end)
        kept = batched and (stages[writer] != stages[reader] or index == end)
        first = stages.index(stages[writer]) if kept else writer
        last = end - stages[::-1].index(stages[reader]) if kept else reader
        found.append(Buffer(outputs[writer], writer, first, last, kept))
        writer = index + 1
    return found


def live_bytes(buffers: Sequence[Buffer], layers: int) -> tuple[list[int], list[int]]:
    """Return what is in use while each layer runs: bytes that images share, and bytes for each image of a batch."""
    shared, batched = [0] * layers, [0] * layers
    for buffer in buffers:
        of = batched if buffer.batched else shared
        for index in range(buffer.first, buffer.last + 1):
            of[index] += buffer.size
    return shared, batched


def arrange(
    buffers: Sequence[Buffer], in_place: Sequence[bool], batch: int, temporaries: Sequence[Sequence[int]]
) -> Arrangement:
    """Place buffers and temporaries so that nothing lies over what is in use with it.

    The buffers of a batch that are in use at one time are at most two, what a stage reads and what it gives, and each
    is written while the one before is still in use: they lie at the two ends of the region in turn. Between those of a
    stage lie, in the same way, at most two that images share, what a layer reads and what it gives; and between these
    its temporaries. So the region is exactly as long as what is in use at once, and no placement can be shorter.

    Args:
        buffers: as from :func:`buffers_of`.
        in_place: as there.
        batch: images of a batch.
        temporaries: for each layer, the bytes of each thing that only it uses; multiples of 4.
    """
    layers = len(in_place)
    shared, batched = live_bytes(buffers, layers)
    needed = [shared[index] + batch * batched[index] + sum(sizes) for index, sizes in enumerate(temporaries)]
    region = max(needed)
    low, high = [0] * layers, [0] * layers  # bytes in use at either end
    offsets = [0] * len(buffers)
    # Those of a batch are at the outside.
    for outside in (True, False):
        at_low = True
        for number, buffer in enumerate(buffers):
            if buffer.batched != outside:
                continue
            size = buffer.size * (batch if outside else 1)
            taken = (low if at_low else high)[buffer.first]
            offsets[number] = taken if at_low else region - taken - size
            for index in range(buffer.first, buffer.last + 1):
                (low if at_low else high)[index] += size
            at_low = not at_low
    of = []
    for number, buffer in enumerate(buffers):
        following = buffers[number + 1].writer if number + 1 < len(buffers) else layers
        of += [number] * (following - buffer.writer)
    return Arrangement(
        tuple(offsets[number] for number in of),
        tuple(buffers[number].size if buffers[number].batched else 0 for number in of),
        tuple(
            tuple(low[index] + sum(sizes[:position]) for position in range(len(sizes)))
            for index, sizes in enumerate(temporaries)
        ),
        region,
        needed.index(region),
    )
