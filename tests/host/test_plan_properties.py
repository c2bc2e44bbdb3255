"""Random networks on random devices: every plan is run in a memory that knows who wrote each word."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitloop.errors import DoesNotFitError
from bitloop.hello import DeviceInfo
from bitloop.native.core import validate_image
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.plan import ParsedImage, PlacementKind, Plan, plan, read_image
from bitloop.plan.records import LayerRecord
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import NO_INDEX, NO_OFFSET, Capability, LayerKind, Packing, Status

NATIVE = DeviceInfo.native_default()
FORMATS = ("fp32", "fp16", "int8", "int5", "e3m1:pow2", "ternary", "binary", "int4:affine:channel", "int12:channel")


# --- a memory that knows who wrote each word --------------------------------------------------------------------------


class Memory:
    """The arena in words of four bytes; each holds what was written to it last."""

    def __init__(self, size: int) -> None:
        self.words: list[object] = [None] * (size // 4)

    def write(self, offset: int, size: int, what: object) -> None:
        assert offset % 4 == 0
        assert 0 <= offset <= offset + size <= 4 * len(self.words)
        for word in range(offset // 4, -(-(offset + size) // 4)):
            self.words[word] = what

    def holds(self, offset: int, size: int, what: object) -> bool:
        return all(self.words[word] == what for word in range(offset // 4, -(-(offset + size) // 4)))


@dataclass(frozen=True)
class Work:
    """One run of one layer for one image; of a streamed layer, of one chunk."""

    layer: int
    image: int
    first: int
    columns: int


def schedule(image: ParsedImage) -> list[tuple[str, Work]]:
    """What a device does, from docs/model.md: stage by stage for a batch; without streamed weights image by image."""
    layers, tensors, images = image.layers, image.tensors, range(image.header.slots)
    streamed = [layer.weights != NO_INDEX and tensors[layer.weights].chunk_columns > 0 for layer in layers]
    runs: list[list[int]] = []
    for index, own in enumerate(streamed):
        if runs and not own and not streamed[index - 1]:
            runs[-1].append(index)
        else:
            runs.append([index])
    done: list[tuple[str, Work]] = []
    for run in runs:
        if not streamed[run[0]]:
            done += [("compute", Work(index, k, 0, layers[index].output_channels)) for k in images for index in run]
            continue
        columns = tensors[layers[run[0]].weights]
        for first in range(0, columns.columns, columns.chunk_columns):
            count = min(columns.chunk_columns, columns.columns - first)
            done.append(("receive", Work(run[0], -1, first, count)))
            done += [("compute", Work(run[0], k, first, count)) for k in images]
    return done


def output_words(layer: LayerRecord, work: Work) -> list[int]:
    """Offsets of what a chunk's columns, or all, give for one image."""
    begin = layer.output_offset + work.image * layer.batch_stride
    positions = layer.output_height * layer.output_width
    return [
        begin + 4 * (position * layer.output_channels + column)
        for position in range(positions)
        for column in range(work.first, work.first + work.columns)
    ]


def run_in_memory(planned: Plan) -> None:
    """Let everything that a layer uses be there when it begins, and still be there when it ends."""
    image = read_image(planned.image, arena_bytes=planned.memory.available_bytes)
    header, layers, tensors = image.header, image.layers, image.tensors
    memory = Memory(header.arena_bytes)
    memory.write(0, header.image_bytes, "image")
    for k in range(header.slots):
        memory.write(header.queue_offset + k * header.slot_bytes, header.slot_bytes, ("slot", k))
    for action, work in schedule(image):
        layer = layers[work.layer]
        weights = None if layer.weights == NO_INDEX else tensors[layer.weights]
        if action == "receive":
            assert weights is not None
            memory.write(weights.data_offset, weights.data_bytes + 4, ("chunk", work.layer, work.first))
            continue
        taken: list[tuple[int, int, object]] = [(0, header.image_bytes, "image")]
        taken += [(header.queue_offset + k * header.slot_bytes, header.slot_bytes, ("slot", k)) for k in [work.image]]
        if work.layer:
            before = layers[work.layer - 1]
            at = before.output_offset + work.image * before.batch_stride
            taken.append((at, 4 * math.prod(before.output_shape), ("output", work.layer - 1, work.image)))
        if weights is not None and weights.chunk_columns:
            chunk = ("chunk", work.layer, work.first)
            taken.append((weights.data_offset, weights.rows * weights.row_bytes + 4, chunk))
        assert all(memory.holds(*each) for each in taken), (work, "something is not there")
        if layer.table_offset != NO_OFFSET:
            assert weights is not None
            taken.append((layer.table_offset, 4 << weights.width_bits, ("table", work)))
            memory.write(*taken[-1])
        if layer.pool_kind:
            taken.append((layer.tile_offset, 4 * layer.pool_height * layer.pool_width * work.columns, ("tile", work)))
            memory.write(*taken[-1])
        in_place = layer.kind == LayerKind.RELU and layer.input_offset == layer.output_offset
        for offset in output_words(layer, work):
            memory.write(offset, 4, ("output", work.layer, work.image))
        if in_place:
            taken = [each for each in taken if each[2] != ("output", work.layer - 1, work.image)]
        assert all(memory.holds(*each) for each in taken), (work, "something was written over")
    last = len(layers) - 1
    for k in range(header.slots if header.streamed_bytes else 0):
        at = header.output_offset + k * layers[last].batch_stride
        assert memory.holds(at, 4 * header.output_count, ("output", last, k))


# --- random networks and devices --------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn) -> Architecture:
    shape = (draw(st.integers(2, 9)), draw(st.integers(2, 9)), draw(st.integers(1, 3)))
    layers: list[Layer] = []
    size = list(shape[:2])

    def window(number: int, kind: str) -> None:
        kernel = (draw(st.integers(1, min(3, size[0]))), draw(st.integers(1, min(3, size[1]))))
        apart = kind != "conv" and draw(st.booleans())
        strides = kernel if apart else (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        padding = draw(st.sampled_from(("same", "valid")))
        name = f"{kind}{number}"
        if kind == "conv":
            layers.append(Conv2D(name, draw(st.integers(1, 9)), kernel, strides, padding, draw(st.booleans())))
        else:
            layers.append((MaxPool2D if kind == "max" else AveragePool2D)(name, kernel, strides, padding))
        for axis in (0, 1):
            wide = size[axis] if padding == "same" else size[axis] - kernel[axis] + 1
            size[axis] = -(-wide // strides[axis])

    for number in range(draw(st.integers(0, 5))):
        kind = draw(st.sampled_from(("conv", "conv", "max", "average", "relu")))
        if kind == "relu":
            layers.append(ReLU(f"relu{number}"))
        else:
            window(number, kind)
    if draw(st.booleans()) or not layers:
        layers.append(Flatten("flatten"))
        for number in range(draw(st.integers(1, 3))):
            if draw(st.booleans()):
                layers.append(ReLU(f"before{number}"))
            layers.append(Dense(f"dense{number}", draw(st.integers(1, 24)), draw(st.booleans())))
            if draw(st.booleans()):
                layers.append(ReLU(f"behind{number}"))
    return Architecture("random", shape, tuple(layers))


def model_of(architecture: Architecture, weights: str) -> Model:
    values = {
        name: np.resize(np.array([1.0, -0.5, 0.25, 0.75], np.float32), shape)
        for name, shape in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, values, "none", {}), parse_recipe(weights, "fp32", []))


def try_plan(
    model: Model, device: DeviceInfo, slots: int | None, placement: PlacementKind
) -> tuple[Plan | None, DoesNotFitError | None]:
    try:
        return plan(model, device, slots=slots, placement=placement), None
    except DoesNotFitError as error:
        return None, error


DEVICES = st.builds(
    lambda table_bits, packings: replace(NATIVE, table_bits=table_bits, packings=packings),
    st.sampled_from((0, 4, 8)),
    st.sampled_from(((int(Packing.BITS),), (int(Packing.TRITS), int(Packing.BITS)))),
)
CASES = (
    networks(),
    st.sampled_from(FORMATS),
    DEVICES,
    st.sampled_from((None, None, 1, 2, 3, 7)),
    st.integers(0, 100),
)


def arenas(model: Model, device: DeviceInfo, slots: int | None, percent: int) -> tuple[int, int, int]:
    """Return the least arena for all weights resident, the least at all, and one in between or a little above."""
    _, error = try_plan(model, device.with_arena(0), slots, "resident")
    assert error is not None
    _, least = try_plan(model, device.with_arena(0), slots, "auto")
    assert least is not None
    span = error.needed_bytes - least.needed_bytes
    return error.needed_bytes, least.needed_bytes, least.needed_bytes + percent * (span + 100) // 100


@settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*CASES)
def test_nothing_is_written_over_while_it_is_needed(architecture, weights, device, slots, percent):
    model = model_of(architecture, weights)
    resident, _, arena = arenas(model, device, slots, percent)
    planned = plan(model, device.with_arena(arena), slots=slots)
    assert (planned.placement == "resident") == (arena >= resident)
    run_in_memory(planned)
    assert validate_image(planned.image, arena) == (Status.OK, (0, 0))
    check_figures(planned, model)
    everything, _ = try_plan(model, device.with_arena(arena + 500), slots, "stream")
    if everything is not None:
        run_in_memory(everything)
        check_figures(everything, model)


def check_figures(planned: Plan, model: Model) -> None:
    """The parts of memory add up, and what travels is what the model holds."""
    memory = planned.memory
    image = read_image(planned.image)
    parts = (
        *(memory.weights_bytes, memory.activations_bytes, memory.tables_bytes, memory.tiles_bytes),
        *(memory.chunks_bytes, memory.queue_bytes),
    )
    assert sum(parts) == memory.total_bytes == image.header.arena_bytes <= memory.available_bytes
    assert min(parts) >= 0
    assert (memory.weights_bytes, memory.slots) == (len(planned.image), image.header.slots)
    if planned.streamed is None:
        assert planned.placement == "resident"
        return
    assert planned.placement == "stream"
    assert len(planned.streamed.data) == image.header.streamed_bytes == planned.streamed.ends[-1]
    assert planned.streamed.batch == memory.slots
    codes = image.streamed_codes(planned.streamed.data)
    before = 0
    for index, (operation, end) in enumerate(zip(planned.operations, planned.streamed.ends, strict=True)):
        assert (index in codes) == (end > before)
        before = end
        if index in codes:
            expected = model.tensors[f"{operation.name}.weights"].codes
            assert (codes[index] == expected.reshape(-1, expected.shape[-1])).all()


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*CASES)
def test_a_refusal_tells_exactly_how_much_is_missing(architecture, weights, device, slots, percent):
    model = model_of(architecture, weights)
    for able in (device, replace(device, capabilities=Capability(0))):
        for placement in ("auto", "resident", "stream") if able is device else ("auto", "resident"):
            _, error = try_plan(model, able.with_arena(3 * percent), slots, placement)
            if error is None:
                continue
            needed = error.needed_bytes
            assert error.missing_bytes == needed - 3 * percent
            enough, _ = try_plan(model, able.with_arena(needed), slots, placement)
            assert enough is not None
            assert enough.memory.total_bytes == needed
            _, less = try_plan(model, able.with_arena(needed - 1), slots, placement)
            assert less is not None
            assert less.missing_bytes == 1


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(*CASES)
def test_no_other_set_of_layers_costs_less(architecture, weights, device, slots, percent):
    """Against all sets, batches and numbers of columns, from the page's rules for what is in use.

    An image costs (bytes of a pass + 64 a chunk) / batch. The search here places nothing: it counts what is in use
    while each layer runs. It takes any number of columns that fits, where the planner takes the most or a whole
    number of bytes; and a table may have cost the planner a chunk. So it may be a little better.
    """
    model = model_of(architecture, weights)
    resident, least, _ = arenas(model, device, slots, percent)
    assume(least < resident)
    arena = least + (resident - 1 - least) * percent // 100
    planned = plan(model, device.with_arena(arena), slots=slots)
    image = read_image(planned.image)
    assert planned.streamed is not None
    cost = cost_of(image) / image.header.slots
    best = best_cost(image, model, arena, slots)
    assert best <= cost <= 1.1 * best


def cost_of(image: ParsedImage) -> int:
    records = [image.tensors[layer.weights] for layer in image.layers if layer.weights != NO_INDEX]
    chunks = sum(-(-record.columns // record.chunk_columns) for record in records if record.chunk_columns)
    return image.header.streamed_bytes + 64 * chunks


def row_bytes(columns: int, width: int, packing: int) -> int:
    return -(-columns // 5) if packing == Packing.TRITS else -(-columns * width // 8)


def best_cost(image: ParsedImage, model: Model, arena: int, slots: int | None) -> float:
    """Try every set of layers, every batch and every number of columns."""
    layers = image.layers
    weighted = [index for index, layer in enumerate(layers) if layer.weights != NO_INDEX]
    records = {index: image.tensors[layers[index].weights] for index in weighted}
    sizes = {
        index: 4 * -(-record.rows * row_bytes(record.columns, record.width_bits, record.packing) // 4)
        for index, record in records.items()
    }
    kept = image.header.image_bytes - sum(size for index, size in sizes.items() if not records[index].chunk_columns)
    best = math.inf
    for chosen in range(1, 1 << len(weighted)):
        streamed = {index for bit, index in enumerate(weighted) if chosen >> bit & 1}
        fixed = kept + sum(size for index, size in sizes.items() if index not in streamed)
        for batch in [slots] if slots else range(1, 65):
            cost = 0
            for index in range(len(layers)):
                room = arena - fixed - batch * image.header.slot_bytes - in_use(layers, streamed, index, batch)
                found = layer_cost(layers[index], records.get(index), index in streamed, room)
                if found is None:
                    break
                cost += found
            else:
                best = min(best, cost / batch)
    return best


def in_use(layers: Sequence[LayerRecord], streamed: set[int], index: int, batch: int) -> int:
    """Bytes of outputs that must not be written over while layer `index` runs, from docs/model.md."""
    stage = []
    for number in range(len(layers)):
        new = number == 0 or number in streamed or number - 1 in streamed
        stage.append(stage[-1] + new if stage else 0)
    total = 0
    number = 0
    while number < len(layers):
        last = number  # of the layers that work in the buffer
        while last + 1 < len(layers) and layers[last + 1].kind == LayerKind.RELU:
            last += 1
        reader = min(last + 1, len(layers) - 1)
        size = 4 * math.prod(layers[number].output_shape)
        if batch > 1 and (stage[number] != stage[reader] or last == reader):
            total += batch * size * (stage[number] <= stage[index] <= stage[reader])
        else:
            total += size * (number <= index <= reader)
        number = last + 1
    return total


def layer_cost(layer: LayerRecord, record, streamed: bool, room: int) -> int | None:
    """The least that a layer costs in what is left for it, or None if it does not fit."""
    if record is None:
        return 0 if room >= 0 else None
    area = 4 * layer.pool_height * layer.pool_width
    if not streamed:
        return 0 if area * record.columns <= room else None
    found = None
    for columns in range(1, record.columns + 1):
        chunk = record.rows * row_bytes(columns, record.width_bits, record.packing)
        if area * columns + 4 * -(-(chunk + 4) // 4) > room:
            continue
        rest = record.rows * row_bytes(record.columns % columns, record.width_bits, record.packing)
        cost = record.columns // columns * chunk + rest + 64 * -(-record.columns // columns)
        found = cost if found is None else min(found, cost)
    return found
