"""What makes the arena's division valid (docs/model.md): no region that is in use lies over another."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.plan.check import require
from bitloop.plan.records import Header, LayerRecord, TensorRecord
from bitloop.plan.stages import stages
from bitloop.plan.tensors import streamed_bytes
from bitloop.spec import ARENA_ALIGNMENT, MAX_IMAGE_BYTES, NO_INDEX, NO_OFFSET, LayerKind

CHUNK_MARGIN_BYTES = 4
"""A device may read so far beyond a chunk's data."""
MAX_TABLE_BITS = 16


@dataclass(frozen=True)
class _Region:
    """Bytes of the arena; of an output with a batch stride those of all images."""

    name: str
    offset: int
    size: int

    def overlaps(self, other: _Region) -> bool:
        return self.offset < other.offset + other.size and other.offset < self.offset + self.size

    def check_inside(self, header: Header, what: str) -> None:
        require(self.offset % ARENA_ALIGNMENT == 0, f"{what}: {self.name} offset {self.offset} is not aligned")
        require(
            header.image_bytes <= self.offset and self.offset + self.size <= header.arena_bytes,
            f"{what}: {self}, lies outside of the arena or over the image",
        )
        queue = _Region("queue", header.queue_offset, header.slots * header.slot_bytes)
        self.check_apart(queue, what)

    def check_apart(self, other: _Region, what: str, name: str = "") -> None:
        require(not self.overlaps(other), f"{what}: {self}, overlaps the {name or other.name}")

    def __str__(self) -> str:
        return f"{self.name}, {self.size} bytes at {self.offset}"


def check_chunk(header: Header, tensor: TensorRecord, what: str) -> None:
    """Check the place of a streamed tensor's chunk."""
    require(tensor.data_bytes <= MAX_IMAGE_BYTES, f"{what}: chunk has {tensor.data_bytes} bytes")
    _chunk(tensor).check_inside(header, what)


def check_arena(header: Header, layers: Sequence[LayerRecord], tensors: Sequence[TensorRecord]) -> None:
    """Check that all regions lie in the arena, and none over another that is in use with it.

    Args:
        header: the checked header.
        layers: checked for all but what they use of the arena.
        tensors: the checked tensors.
    """
    streamed = [_weights(layer, tensors) for layer in layers]
    total = sum(streamed_bytes(tensor, tensor.chunk_columns) for tensor in streamed if tensor and tensor.streamed)
    require(
        header.streamed_bytes == total,
        f"the image's streamed weights have {header.streamed_bytes} bytes, those of its layers {total}",
    )
    stage_of = stages([tensor is not None and tensor.streamed for tensor in streamed])
    batched = header.streamed_bytes > 0 and header.slots > 1
    for index, layer in enumerate(layers):
        what = f"layer {index}"
        last_of_stage = index + 1 == len(layers) or stage_of[index + 1] != stage_of[index]
        _check_stride(header, layer, what, needed=batched and last_of_stage)
        _check_layer(header, layers[index - 1] if index else None, layer, tensors, what)
    if batched:
        for _, stage in itertools.groupby(range(len(layers)), key=stage_of.__getitem__):
            _check_stage(header, list(stage), layers, tensors)


def _weights(layer: LayerRecord, tensors: Sequence[TensorRecord]) -> TensorRecord | None:
    return None if layer.weights == NO_INDEX else tensors[layer.weights]


def _check_stride(header: Header, layer: LayerRecord, what: str, *, needed: bool) -> None:
    stride, size = layer.batch_stride, 4 * math.prod(layer.output_shape)
    require(
        stride == 0 or header.streamed_bytes > 0, f"{what}: batch stride is {stride}, but the image streams nothing"
    )
    require(stride % ARENA_ALIGNMENT == 0, f"{what}: batch stride {stride} is not aligned")
    require(stride == 0 or stride >= size, f"{what}: batch stride {stride} is less than the output's {size} bytes")
    require(stride > 0 or not needed, f"{what}: no batch stride, but its output is kept for the whole batch")


def _check_layer(
    header: Header, before: LayerRecord | None, layer: LayerRecord, tensors: Sequence[TensorRecord], what: str
) -> None:
    """Input, output, table, tile and chunk of a layer lie apart, all at once."""
    require(
        layer.table_offset == NO_OFFSET or layer.weights != NO_INDEX,
        f"{what}: a decode table of a layer without weights",
    )
    require(layer.pool_kind != 0 or layer.tile_offset == NO_OFFSET, f"{what}: a tile, but no fused pooling")
    regions = [_output(header, layer), *_temporaries(layer, tensors, what)]
    for region in regions:
        region.check_inside(header, what)
    if before is not None:
        if _in_place(layer):
            require(
                layer.batch_stride == before.batch_stride,
                f"{what}: batch stride is {layer.batch_stride}, but it works in place of one of {before.batch_stride}",
            )
        else:
            regions.append(_Region("input", *_span(header, before)))
    for number, region in enumerate(regions):
        for other in regions[:number]:
            region.check_apart(other, what)


def _check_stage(
    header: Header, stage: Sequence[int], layers: Sequence[LayerRecord], tensors: Sequence[TensorRecord]
) -> None:
    """While a stage runs, its input and output are kept for all images of the batch."""
    kept = []
    if stage[0] > 0:
        kept.append(_Region("input of its stage", *_span(header, layers[stage[0] - 1])))
    result = _Region("output of its stage", *_span(header, layers[stage[-1]]))
    writer = next((index for index in reversed(stage) if not _in_place(layers[index])), None)
    for index in stage:
        layer, what = layers[index], f"layer {index}"
        for region in _temporaries(layer, tensors, what):
            for other in (*kept, result):
                region.check_apart(other, what)
        if not _in_place(layer):
            for other in kept if index == writer else (*kept, result):
                _output(header, layer).check_apart(other, what)


def _in_place(layer: LayerRecord) -> bool:
    return layer.kind == LayerKind.RELU and layer.input_offset == layer.output_offset


def _span(header: Header, layer: LayerRecord) -> tuple[int, int]:
    """Return offset and bytes of a layer's outputs for all images of a batch."""
    return layer.output_offset, 4 * math.prod(layer.output_shape) + (header.slots - 1) * layer.batch_stride


def _output(header: Header, layer: LayerRecord) -> _Region:
    return _Region("output", *_span(header, layer))


def _chunk(tensor: TensorRecord) -> _Region:
    return _Region("chunk", tensor.data_offset, tensor.data_bytes + CHUNK_MARGIN_BYTES)


def _temporaries(layer: LayerRecord, tensors: Sequence[TensorRecord], what: str) -> list[_Region]:
    """Return what only one layer uses: decode table, tile, chunk."""
    regions: list[_Region] = []
    tensor = _weights(layer, tensors)
    if tensor is None:
        return regions
    if layer.table_offset != NO_OFFSET:
        width = tensor.width_bits
        require(width <= MAX_TABLE_BITS, f"{what}: a decode table for {width} bits; the most is {MAX_TABLE_BITS}")
        regions.append(_Region("decode table", layer.table_offset, 4 << width))
    if layer.pool_kind:
        columns = tensor.chunk_columns or tensor.columns
        regions.append(_Region("tile", layer.tile_offset, 4 * layer.pool_height * layer.pool_width * columns))
    if tensor.streamed:
        regions.append(_chunk(tensor))
    return regions
