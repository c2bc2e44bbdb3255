"""Plans: operations, memory to the byte, what a device prefers, and what cannot be planned."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import DoesNotFitError, FormatError, ModelError, UnsupportedLayerError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.network.network import Network
from bitloop.plan import plan, read_image
from bitloop.plan.arrange import arrange, buffers_of
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import NO_INDEX, NO_OFFSET, Activation, Capability, FormatKind, LayerKind, Packing, Status

NATIVE = replace(
    DeviceInfo.native_default(),
    packings=(int(Packing.TRITS), int(Packing.BITS)),
    table_bits=8,
    capabilities=Capability(0),
)
"""It takes no streamed weights; those are in test_plan_streaming.py."""
MLP = Architecture(
    "mlp",
    (28, 28, 1),
    (
        *(Flatten("flatten"), Dense("dense1", 32), ReLU("relu1"), Dense("dense2", 16), ReLU("relu2")),
        *(Dense("dense3", 10), Softmax("softmax")),
    ),
)
CNN = Architecture(
    "cnn",
    (28, 28, 1),
    (
        *(Conv2D("conv1", 8, (3, 3)), ReLU("relu1"), MaxPool2D("pool1")),
        *(Conv2D("conv2", 16, (3, 3), (2, 1), "same"), ReLU("relu2"), AveragePool2D("pool2", (3, 3), (2, 2), "same")),
        *(Flatten("flatten"), ReLU("relu3"), Dense("dense1", 10, use_bias=False), Softmax("softmax")),
    ),
)


def model_of(architecture: Architecture, weights: str = "int8", biases: str = "fp32", overrides=()) -> Model:
    generator = np.random.default_rng(5)
    values = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in architecture.parameter_shapes().items()
    }
    network = Network(architecture, values, dataset="", metadata={})
    return quantize(network, parse_recipe(weights, biases, overrides))


def test_operations_of_a_perceptron():
    planned = plan(model_of(MLP), NATIVE)
    assert [(op.name, op.layers, op.kind, op.output_shape, op.output_bytes) for op in planned.operations] == [
        ("dense1", ("dense1", "relu1"), LayerKind.DENSE, (1, 1, 32), 128),
        ("dense2", ("dense2", "relu2"), LayerKind.DENSE, (1, 1, 16), 64),
        ("dense3", ("dense3",), LayerKind.DENSE, (1, 1, 10), 40),
    ]
    assert planned.macs == 784 * 32 + 32 * 16 + 16 * 10
    image = read_image(planned.image)
    assert [layer.activation for layer in image.layers] == [Activation.RELU, Activation.RELU, Activation.NONE]
    assert [layer.input_shape for layer in image.layers] == [(28, 28, 1), (1, 1, 32), (1, 1, 16)]
    assert [(layer.weights, layer.biases) for layer in image.layers] == [(0, 1), (2, 3), (4, 5)]
    assert image.header.output_count == 10


def test_operations_of_a_convolutional_network():
    """pool1's windows lie apart: it is fused. pool2's share elements: it stays. A ReLU behind a Flatten is none that
    follows a layer directly: it stays too, in place, on the map."""
    planned = plan(model_of(CNN), NATIVE)
    kinds = LayerKind
    assert [(op.name, op.layers, op.kind, op.output_shape) for op in planned.operations] == [
        ("conv1", ("conv1", "relu1", "pool1"), kinds.CONV2D, (13, 13, 8)),
        ("conv2", ("conv2", "relu2"), kinds.CONV2D, (7, 13, 16)),
        ("pool2", ("pool2",), kinds.AVERAGE_POOL, (4, 7, 16)),
        ("relu3", ("relu3",), kinds.RELU, (4, 7, 16)),
        ("dense1", ("dense1",), kinds.DENSE, (1, 1, 10)),
    ]
    assert planned.macs == CNN.macs()
    conv1, conv2, pool2, relu3, dense1 = read_image(planned.image).layers
    assert (conv1.kernel_height, conv1.kernel_width, conv1.stride_y, conv1.stride_x) == (3, 3, 1, 1)
    assert (conv1.activation, conv1.pool_kind, conv1.map_height, conv1.map_width) == (1, kinds.MAX_POOL, 26, 26)
    assert (conv1.pool_height, conv1.pool_width, conv1.pool_stride_y, conv1.pool_stride_x) == (2, 2, 2, 2)
    assert (conv1.pool_padding_top, conv1.pool_padding_left, conv1.batch_stride) == (0, 0, 0)
    # SAME on 13 rows, kernel 3, stride 2: 7 outputs, 12 + 3 - 13 = 2 in all; columns, stride 1: 12 + 3 - 13 = 2.
    assert (conv2.stride_y, conv2.stride_x, conv2.padding_top, conv2.padding_left) == (2, 1, 1, 1)
    assert (conv2.pool_kind, conv2.tile_offset) == (0, NO_OFFSET)
    # 7 rows: 4 outputs, 6 + 3 - 7 = 2; 13 columns: 7 outputs, 12 + 3 - 13 = 2.
    assert (pool2.padding_top, pool2.padding_left) == (1, 1)
    assert relu3.input_offset == relu3.output_offset == pool2.output_offset
    assert (dense1.biases, relu3.weights, conv1.input_offset) == (NO_INDEX, NO_INDEX, NO_OFFSET)
    assert dense1.input_shape == (4, 7, 16)


@pytest.mark.parametrize(
    ("pool", "fused", "padding"),
    [
        (MaxPool2D("p", (2, 2), (2, 2)), True, (0, 0)),
        (AveragePool2D("p", (2, 3), (2, 3)), True, (0, 0)),
        (MaxPool2D("p", (2, 2), (3, 2)), True, (0, 0)),
        (MaxPool2D("p", (2, 2), (2, 1)), False, None),
        (MaxPool2D("p", (2, 2), (1, 2)), False, None),
        (AveragePool2D("p", (1, 1), (1, 1)), True, (0, 0)),
        # 7 rows to 3, 2 * 3 + 3 - 7 = 2 in all; 6 columns to 3, 2 * 2 + 2 - 6 = 0.
        (MaxPool2D("p", (3, 2), (3, 2), "same"), True, (1, 0)),
    ],
)
def test_pooling_is_fused_if_no_output_is_computed_twice(pool, fused, padding):
    network = Architecture("pooled", (9, 8, 1), (Conv2D("c", 2, (3, 3)), pool, Flatten("f"), Dense("d", 2)))
    planned = plan(model_of(network), NATIVE)
    assert [op.layers for op in planned.operations] == ([("c", "p"), ("d",)] if fused else [("c",), ("p",), ("d",)])
    if fused:
        first = read_image(planned.image).layers[0]
        assert (first.pool_padding_top, first.pool_padding_left) == padding
        assert (first.map_height, first.map_width) == (7, 6)


def test_only_pooling_behind_a_convolution_is_fused():
    pool, relu = MaxPool2D("p", (2, 2), (2, 2)), ReLU("r")
    conv = Conv2D("c", 2, (3, 3))
    for layers, operations in (
        ((pool, conv), [("p",), ("c",)]),
        ((conv, relu, pool), [("c", "r", "p")]),
        ((conv, pool, relu), [("c", "p"), ("r",)]),
        ((conv, relu, ReLU("r2"), pool), [("c", "r"), ("r2",), ("p",)]),
        ((conv, pool, MaxPool2D("p2", (2, 2), (2, 2))), [("c", "p"), ("p2",)]),
    ):
        planned = plan(model_of(Architecture("order", (12, 12, 1), layers)), NATIVE)
        assert [op.layers for op in planned.operations] == operations


def test_a_relu_that_reads_pixels_is_not_in_place():
    planned = plan(model_of(Architecture("r", (2, 2, 1), (ReLU("relu"),))), NATIVE)
    (relu,) = read_image(planned.image).layers
    assert relu.input_offset == NO_OFFSET
    assert planned.memory.activations_bytes == 16


def test_memory_to_the_byte():
    """Counted by hand from docs/model.md, on a device with room for three slots and a table."""
    model = model_of(MLP, "int8", "fp32")
    image = 64 + 3 * 56 + 6 * 52  # header and records
    image += 784 * 32 + 32 * 16 + 16 * 10  # int8 weights, all multiples of 4
    image += 3 * 4  # a scale each
    image += 4 * (32 + 16 + 10)  # biases
    image += 4  # CRC-32
    activations = 4 * (32 + 16)  # the longest pair of neighbours
    slot = 784 + 12 + 4 * 10 + 4 * 3
    planned = plan(model, replace(NATIVE, arena_bytes=image + activations + 1024 + 3 * slot + 847))
    memory = planned.memory
    assert len(planned.image) == memory.weights_bytes == image
    assert (memory.activations_bytes, memory.tables_bytes) == (activations, 1024)
    assert (memory.slots, memory.queue_bytes) == (3, 3 * slot)
    assert memory.total_bytes == image + activations + 1024 + 3 * slot
    assert memory.available_bytes == memory.total_bytes + 847
    header = read_image(planned.image).header
    assert (header.arena_bytes, header.slots, header.slot_bytes) == (memory.total_bytes, 3, slot)


def test_memory_of_a_network_with_fused_pooling():
    """conv1 gives 13 * 13 * 8 and reads pixels; conv2 gives 5 * 5 * 16, and its tile has 4 positions of 16 outputs."""
    network = Architecture(
        "cnn",
        (28, 28, 1),
        (
            *(Conv2D("conv1", 8, (3, 3)), ReLU("relu1"), MaxPool2D("pool1")),
            *(Conv2D("conv2", 16, (3, 3)), ReLU("relu2"), MaxPool2D("pool2")),
            *(Flatten("flatten"), Dense("dense1", 10), Softmax("softmax")),
        ),
    )
    planned = plan(model_of(network, "fp32"), NATIVE, slots=1)
    memory = planned.memory
    image = 64 + 3 * 56 + 6 * 52 + 4 * (72 + 8 + 1152 + 16 + 4000 + 10) + 4
    slot = 784 + 12 + 4 * 10 + 4 * 3
    assert (memory.weights_bytes, memory.queue_bytes) == (image, slot)
    assert (memory.activations_bytes, memory.tiles_bytes) == (4 * (13 * 13 * 8 + 5 * 5 * 16), 4 * 4 * 16)
    assert (memory.tables_bytes, memory.chunks_bytes) == (0, 0)
    assert memory.total_bytes == image + 7008 + 256 + slot == 29_692
    conv1, conv2, _ = read_image(planned.image).layers
    # The tile lies between input and output; conv1's, 4 * 4 * 8 bytes, has room beside its output.
    assert (conv1.output_offset, conv1.tile_offset) == (image, image + 5408)
    assert (conv2.output_offset, conv2.tile_offset) == (image + 5408 + 256, image + 5408)


def test_slots_and_tables_give_way_before_the_model_does_not_fit():
    model = model_of(MLP, "int8", "fp32", ["dense2.weights=int4"])
    roomy = plan(model, NATIVE)
    assert (roomy.memory.slots, roomy.memory.tables_bytes) == (64, 1024)
    slot = roomy.memory.queue_bytes // 64
    least = roomy.memory.weights_bytes + roomy.memory.activations_bytes + slot

    def tables(spare: int) -> tuple[int, list[bool]]:
        planned = plan(model, replace(NATIVE, arena_bytes=least + spare))
        has = [layer.table_offset != NO_OFFSET for layer in read_image(planned.image).layers]
        return planned.memory.tables_bytes, has

    # dense3 has no table: 160 multiplications of codes with 256 values.
    assert tables(1024) == (1024, [True, True, False])
    assert tables(1023) == (64, [False, True, False])
    assert tables(63) == (0, [False, False, False])
    assert tables(0) == (0, [False, False, False])
    with pytest.raises(DoesNotFitError) as refused:
        plan(model, replace(NATIVE, arena_bytes=least - 1))
    error = refused.value
    assert (error.needed_bytes, error.available_bytes, error.missing_bytes) == (least, least - 1, 1)
    assert error.status == Status.NO_MEMORY
    for part in (f"needs {least} bytes", f"has {least - 1}", "1 bytes are missing", "image ", "activations 192"):
        assert part in str(error)


def test_slots_that_were_asked_for():
    model = model_of(MLP)
    assert plan(model, NATIVE, slots=2).memory.slots == 2
    assert plan(model, NATIVE, slots=100).memory.slots == 100
    slot = plan(model, NATIVE, slots=1).memory.queue_bytes
    least = plan(model, replace(NATIVE, table_bits=0), slots=5).memory.total_bytes
    with pytest.raises(DoesNotFitError, match=f"queue 5 x {slot}"):
        plan(model, replace(NATIVE, arena_bytes=least - 1), slots=5)
    assert plan(model, replace(NATIVE, arena_bytes=least), slots=5).memory.total_bytes == least
    for slots in (0, -1, 65536):
        with pytest.raises(UsageError, match="slots"):
            plan(model, NATIVE, slots=slots)


@pytest.mark.parametrize(
    ("weights", "table_bits", "expected"),
    [
        ("fp32", 16, None),
        ("fp16", 8, None),
        ("fp16", 16, None),  # 65,536 entries for 25,088 multiplications
        ("e4m3", 8, 1024),
        ("e4m3", 7, None),
        ("e4m3", 0, None),
        ("e8m2", 11, 4 << 11),
        ("int4:affine", 8, 64),
        ("int4:affine:channel", 8, None),
        ("int4:channel", 8, 64),
        ("ternary", 8, 16),
        ("binary", 8, 8),
        ("fp32", 255, None),
    ],
)
def test_decode_tables(weights, table_bits, expected):
    planned = plan(model_of(MLP, weights), replace(NATIVE, table_bits=table_bits))
    assert planned.memory.tables_bytes == (expected or 0)
    first = read_image(planned.image).layers[0]
    assert first.table_offset == (planned.memory.weights_bytes if expected else NO_OFFSET)


@pytest.mark.parametrize(("columns", "has_table"), [(255, False), (256, True)])
def test_a_table_is_planned_where_it_pays(columns, has_table):
    """256 entries of int8 codes against four inputs' multiplications for each output."""
    planned = plan(model_of(Architecture("edge", (2, 2, 1), (Dense("d", columns),))), NATIVE)
    assert bool(planned.memory.tables_bytes) == has_table


@pytest.mark.parametrize(("filters", "has_table"), [(9, False), (11, True)])
def test_a_convolution_looks_codes_up_at_every_position(filters, has_table):
    """25 positions times 4 inputs times filters, against 4 times 256: 900 and 1,100."""
    network = Architecture("edge", (6, 6, 1), (Conv2D("c", filters, (2, 2)),))
    assert bool(plan(model_of(network), NATIVE).memory.tables_bytes) == has_table


@pytest.mark.parametrize(
    ("packings", "packing"),
    [
        ((1, 0), Packing.TRITS),
        ((0, 1), Packing.BITS),
        ((0,), Packing.BITS),
        ((9, 1), Packing.TRITS),
        ((), Packing.BITS),
    ],
)
def test_ternary_is_packed_as_the_device_prefers(packings, packing):
    model = model_of(MLP, "ternary")
    image = read_image(plan(model, replace(NATIVE, packings=packings)).image)
    assert image.tensors[4].packing == packing
    assert image.tensors[4].row_bytes == {Packing.TRITS: 2, Packing.BITS: 3}[packing]  # 10 codes
    assert image.tensors[1].packing == Packing.BITS  # fp32
    assert (image.codes(4) == model.tensors["dense3.weights"].codes).all()


def test_the_same_gives_the_same_bytes():
    first, second = (plan(model_of(CNN, "e4m3:pow2"), NATIVE) for _ in range(2))
    assert first == second


# --- placement ----------------------------------------------------------------------------------------------------


def one_region(sizes, in_place, tiles) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    buffers = buffers_of(sizes, in_place, [0] * len(sizes), batched=False)
    found = arrange(buffers, in_place, 1, [(tile,) for tile in tiles])
    assert found.strides == (0,) * len(sizes)
    return found.outputs, tuple(tile for (tile,) in found.temporaries), found.size


@pytest.mark.parametrize(
    ("sizes", "in_place", "offsets", "region"),
    [
        ([40], [False], (0,), 40),
        ([40, 8], [False, False], (0, 40), 48),
        # First-fit in order would give 10, then 4 behind it, then 20 behind that: 34.
        ([10, 4, 20], [False, False, False], (0, 20, 0), 24),
        ([10, 10, 4, 4, 20], [False, True, False, True, False], (0, 0, 20, 20, 0), 24),
    ],
)
def test_outputs_lie_at_two_ends(sizes, in_place, offsets, region):
    assert one_region(sizes, in_place, [0] * len(sizes))[::2] == (offsets, region)


def test_a_tile_lies_between_input_and_output():
    """The second layer needs 10 + 4 + 3; the third has 4 + 20 and no tile, so the region is of 24."""
    assert one_region([10, 4, 20], [False] * 3, [8, 3, 0]) == ((0, 20, 0), (10, 10, 20), 24)
    # With a tile of 12 the second one needs the most.
    assert one_region([10, 4, 20], [False] * 3, [8, 12, 0]) == ((0, 22, 0), (10, 10, 20), 26)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=1, max_size=12))
@settings(deadline=None)
def test_no_output_lies_over_its_input_and_no_byte_is_wasted(layers):
    sizes, tiles = [size for size, _ in layers], [tile for _, tile in layers]
    offsets, tile_offsets, region = one_region(sizes, [False] * len(sizes), tiles)
    needed = []
    for index, size in enumerate(sizes):
        used = [(offsets[index], size), (tile_offsets[index], tiles[index])]
        if index:
            used.append((offsets[index - 1], sizes[index - 1]))
        for offset, length in used:
            assert offset >= 0
            assert offset + length <= region
        for (a, a_size), (b, b_size) in itertools.combinations(used, 2):
            assert a + a_size <= b or b + b_size <= a or 0 in {a_size, b_size}
        needed.append(sum(length for _, length in used))
    # What a layer uses is in use at once, so no placement is smaller.
    assert region == max(needed)


# --- what cannot be planned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("missing", "layer"),
    [
        (LayerKind.CONV2D, "conv1"),
        (LayerKind.MAX_POOL, "pool1"),  # though it is fused
        (LayerKind.AVERAGE_POOL, "pool2"),
        (LayerKind.RELU, "relu3"),
    ],
)
def test_a_layer_the_device_does_not_know(missing, layer):
    device = replace(NATIVE, layer_kinds=NATIVE.layer_kinds & ~(1 << missing), board="toy")
    with pytest.raises(UnsupportedLayerError, match=rf"layer '{layer}': the device \(toy\) .* {missing.name}"):
        plan(model_of(CNN), device)


def test_a_fused_relu_needs_no_layer_of_its_own():
    device = replace(NATIVE, layer_kinds=1 << LayerKind.DENSE)
    assert len(plan(model_of(MLP), device).operations) == 3


def test_a_format_the_device_does_not_know():
    device = replace(NATIVE, format_kinds=NATIVE.format_kinds & ~(1 << FormatKind.FLOAT))
    with pytest.raises(FormatError, match=r"'dense1\.biases' is fp32, .* FLOAT"):
        plan(model_of(MLP), device)


def test_a_layout_this_host_does_not_know():
    with pytest.raises(FormatError, match=r"layouts \[2\] only"):
        plan(model_of(MLP), replace(NATIVE, layouts=(2,)))


def test_more_layers_or_tensors_than_the_device_takes():
    plan(model_of(MLP), replace(NATIVE, max_layers=3, max_tensors=6))
    with pytest.raises(ModelError, match=r"has 3 layers, the device .* takes 2"):
        plan(model_of(MLP), replace(NATIVE, max_layers=2))
    with pytest.raises(ModelError, match=r"has 6 tensors, the device .* takes 5"):
        plan(model_of(MLP), replace(NATIVE, max_tensors=5))


def test_nothing_to_compute():
    with pytest.raises(ModelError, match="no layer that a device could run"):
        plan(model_of(Architecture("idle", (1, 1, 3), (Flatten("f"), Softmax("s")))), NATIVE)


def test_more_logits_than_a_label_can_tell_apart():
    wide = Architecture("wide", (256, 257, 1), (AveragePool2D("p", (1, 1), (1, 1)),))
    with pytest.raises(ModelError, match="has 65792 logits"):
        plan(model_of(wide), NATIVE)


def test_a_code_that_is_no_number_is_not_planned():
    """A MODEL refuses it when it is built; the planner does not rely on that."""
    model = model_of(MLP, "e4m3")
    codes = model.tensors["dense2.weights"].codes
    codes.flags.writeable = True
    codes[3, 5] = 0x78  # infinity
    with pytest.raises(ModelError, match=r"tensor 2: element 53 has a code that is no finite number"):
        plan(model, NATIVE)


def test_a_scale_that_is_none_is_not_planned():
    model = model_of(MLP, "int8:channel")
    scales = model.tensors["dense2.weights"].scales
    scales.flags.writeable = True
    scales[7] = np.inf
    with pytest.raises(ModelError, match=r"tensor 2: the scale of group 7 is inf"):
        plan(model, NATIVE)
