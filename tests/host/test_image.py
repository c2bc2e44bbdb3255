"""The image: what is in one that was planned, and damaged or hostile ones."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import ModelError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.plan import PlacementKind, Plan, plan, read_image
from bitloop.plan.tensors import record_format
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import NO_OFFSET, Capability, LayerKind, Packing, Status

NATIVE = replace(DeviceInfo.native_default(), packings=(int(Packing.TRITS), int(Packing.BITS)), table_bits=8)
ARENA_BYTES = 100_000

SMALL = Architecture(
    "small",
    (6, 7, 2),
    (
        *(Conv2D("conv", 3, (2, 3), (2, 1), "same"), ReLU("relu1"), MaxPool2D("pool1", (2, 2), (1, 2), "same")),
        *(AveragePool2D("pool2", (2, 1), (1, 1)), ReLU("relu2"), Flatten("flatten")),
        *(Dense("dense1", 5), ReLU("relu3"), Dense("dense2", 4)),
    ),
)
RECIPES = {
    "fp32": ("fp32", "fp32"),
    "e4m3": ("e4m3:pow2", "e5m2"),
    "affine": ("int5:affine:channel", "uint8:affine"),
    "mixed": ("int4:channel", "bf16"),
    "trits": ("ternary:channel", "e3m2finite"),
    "binary": ("binary", "q3.4"),
    "fn": ("e4m3fn:channel", "e3m1nosub"),
}


def model_of(weights: str, biases: str, architecture: Architecture = SMALL) -> Model:
    generator = np.random.default_rng(11)
    values = {
        name: generator.normal(size=shape).astype(np.float32) for name, shape in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, values, dataset="", metadata={}), parse_recipe(weights, biases))


BATCHED = Architecture(
    "batched",
    (6, 7, 2),
    (
        *(Conv2D("conv1", 3, (2, 3), (1, 1), "same"), ReLU("relu1"), MaxPool2D("pool1", (2, 2), (3, 2), "same")),
        *(AveragePool2D("pool2", (2, 1), (1, 1), "same"), Conv2D("conv2", 5, (2, 2), (1, 1), "same")),
        *(AveragePool2D("pool3", (2, 1), (2, 1)), Flatten("flatten"), ReLU("relu2"), Dense("dense1", 30)),
        *(ReLU("relu3"), Dense("dense2", 4)),
    ),
)
"""Six operations: conv1 with pool1, pool2, conv2 with pool3, relu2 in place, dense1, dense2."""


def image_of(recipe: str) -> bytes:
    return plan(model_of(*RECIPES[recipe]), NATIVE.with_arena(ARENA_BYTES), slots=2).image


def streamed_plan(recipe: str, *, arena: int = ARENA_BYTES, slots: int, placement: PlacementKind) -> Plan:
    device = replace(NATIVE.with_arena(arena), capabilities=Capability.STREAMED_WEIGHTS)
    return plan(model_of(*RECIPES[recipe], BATCHED), device, slots=slots, placement=placement)


IMAGES = {name: image_of(name) for name in RECIPES}
STREAMED = {
    # Only dense1 travels, in several chunks, for a batch of two; with it, the stage before is of four operations.
    "one layer": streamed_plan("fp32", arena=3100, slots=2, placement="auto"),
    "all layers": streamed_plan("e4m3", slots=3, placement="stream"),
    "all, in trits": streamed_plan("trits", arena=1780, slots=2, placement="stream"),
    "one image": streamed_plan("affine", arena=1740, slots=1, placement="stream"),
}
IMAGES |= {name: planned.image for name, planned in STREAMED.items()}


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def repaired(image: bytes | bytearray) -> bytes:
    """The image with its CRC-32 made right again."""
    return with_crc(bytes(image[:-4]))


# --- a planned image holds the model --------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_image_holds_every_tensor_of_the_model(recipe):
    model = model_of(*RECIPES[recipe])
    image = read_image(IMAGES[recipe])
    assert len(image.tensors) == len(model.tensors)
    for index, tensor in enumerate(model.tensors.values()):
        record = image.tensors[index]
        expected = record_format(record)
        assert (expected.name, expected.width_bits) == (tensor.format.name, tensor.format.width_bits)
        assert (image.codes(index) == tensor.codes.reshape(-1, tensor.shape[-1])).all()
        for found, original in (
            (image.scales(index), tensor.scales),
            (image.zero_points(index), tensor.zero_points),
        ):
            assert (found is None) == (original is None)
            if found is not None and original is not None:
                assert (found == original).all()
        assert (record.groups, record.rows * record.columns) == (tensor.groups, tensor.codes.size)


@pytest.mark.parametrize("width", [*range(2, 17), 32])
@pytest.mark.parametrize("columns", [1, 3, 7, 8, 9])
def test_rows_of_any_width_begin_at_a_byte(width, columns):
    """Against Python's integers: row r is the number sum(code_i << i * width), little-endian, in whole bytes."""
    weights = f"int{width}" if width <= 16 else "fp32"
    architecture = Architecture("rows", (1, 4, 1), (Dense("d", columns, use_bias=False),))
    model = model_of(weights, "fp32", architecture)
    image = read_image(plan(model, NATIVE).image)
    record = image.tensors[0]
    size = -(-columns * width // 8)
    expected = b"".join(
        sum(int(code) << i * width for i, code in enumerate(row)).to_bytes(size, "little")
        for row in model.tensors["d.weights"].codes
    )
    assert record.row_bytes == size
    assert image.data[record.data_offset : record.data_offset + record.data_bytes] == expected


# --- damaged images -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["fp32", "trits"])
def test_every_truncation_is_refused(recipe):
    image = IMAGES[recipe]
    for length in range(len(image)):
        with pytest.raises(ModelError):
            read_image(image[:length])
    with pytest.raises(ModelError, match="length"):
        read_image(image + b"\0")


@pytest.mark.parametrize("recipe", ["fp32", "trits"])
def test_every_flipped_bit_is_refused(recipe):
    image = bytearray(IMAGES[recipe])
    for position in range(len(image) * 8):
        image[position // 8] ^= 1 << position % 8
        with pytest.raises(ModelError):
            read_image(bytes(image))
        image[position // 8] ^= 1 << position % 8


LAYER = 64
TENSOR = LAYER + 56 * len(read_image(IMAGES["fp32"]).layers)
LAST_LAYER = TENSOR - 56
RELU_LAYER = LAYER + 3 * 56


def data_of(recipe: str, tensor: int) -> int:
    return read_image(IMAGES[recipe]).tensors[tensor].data_offset


@pytest.mark.parametrize(
    ("recipe", "offset", "layout", "value", "message"),
    [
        ("fp32", 0, "<I", 0, "magic"),
        ("fp32", 4, "<H", 3, "version is 3"),
        ("fp32", 6, "<H", 63, "header length"),
        ("fp32", 8, "<I", 12, "length field is 12"),
        ("fp32", 12, "<H", 0, "layer count is 0"),
        ("fp32", 12, "<H", 65535, "do not fit its length"),
        ("fp32", 16, "<H", 41, "layer record length"),
        ("fp32", 18, "<H", 0, "tensor record length"),
        ("fp32", 20, "<H", 0, "input shape"),
        ("fp32", 26, "<H", 1, "reserved field at byte 26"),
        ("fp32", 28, "<I", ARENA_BYTES + 1, "the device has 100000"),
        ("fp32", 28, "<I", 64, "arena is smaller"),
        ("fp32", 32, "<I", 0, "outside of the arena or over the image"),
        ("fp32", 32, "<I", 0xFFFFFFFC, "outside of the arena or over the image"),
        ("fp32", 32, "<I", 2, "queue offset 2 is not aligned"),
        ("fp32", 36, "<H", 0, "no slot"),
        ("fp32", 36, "<H", 65535, "outside of the arena"),
        ("fp32", 38, "<H", 1, "reserved field at byte 38"),
        ("fp32", 40, "<I", 4, "slots have 4 bytes"),
        ("fp32", 44, "<I", 4, "logits are at 4"),
        ("fp32", 48, "<I", 0, "number of logits is 0"),
        ("fp32", 48, "<I", 0xFFFFFFFF, "number of logits"),
        ("fp32", 52, "<I", 1, "streamed weights have 1 bytes, those of its layers 0"),
        ("fp32", 63, "<B", 1, "reserved field at byte 56"),
        ("fp32", LAYER, "<B", 6, "layer 0: unknown kind 6"),
        ("fp32", LAYER + 1, "<B", 2, "layer 0: activation is 2"),
        ("fp32", LAYER + 2, "<B", 0, "layer 0: a kernel of 0"),
        ("fp32", LAYER + 5, "<B", 0, "layer 0: a stride of 0"),
        ("fp32", LAYER + 7, "<B", 3, "is not less than the kernel"),
        ("fp32", LAYER + 8, "<H", 5, "layer 0: input shape"),
        ("fp32", LAYER + 14, "<H", 60000, "windows without any input"),
        ("fp32", LAYER + 18, "<H", 0, "layer 0: output shape"),
        ("fp32", LAYER + 20, "<H", 0xFFFF, "weight tensor 65535 is not among"),
        ("fp32", LAYER + 20, "<H", 2, "weight tensor 2 is"),
        ("fp32", LAYER + 22, "<H", 2, "bias tensor 2 is"),
        ("fp32", LAYER + 24, "<I", 0, "layer 0: input offset is 0"),
        ("e4m3", LAYER + 32, "<I", 0, "decode table, 1024 bytes at 0, lies outside"),
        ("fp32", LAYER + 32, "<I", 4000, "a decode table for 32 bits"),
        ("fp32", LAYER + 37, "<B", 1, "layer 0: the reserved field"),
        ("fp32", LAYER + 56 + 20, "<H", 0, "a weight or bias tensor it cannot have"),
        ("fp32", LAYER + 56 + 24, "<I", 0xFFFFFFFF, "layer 1: input offset"),
        ("e4m3", LAYER + 56 + 32, "<I", 4, "a decode table of a layer without weights"),
        ("fp32", LAST_LAYER + 2, "<B", 1, "of a layer without a window"),
        ("fp32", LAST_LAYER + 14, "<H", 2, "a dense layer's output shape"),
        ("fp32", TENSOR, "<B", 5, "tensor 0: unknown format kind 5"),
        ("fp32", TENSOR + 1, "<B", 31, "tensor 0: width is 31 bits"),
        ("fp32", TENSOR + 2, "<B", 9, "tensor 0: exponent bits are 9"),
        ("fp32", TENSOR + 3, "<B", 24, "tensor 0: mantissa bits are 24"),
        ("fp32", TENSOR + 4, "<B", 8 | 3, "tensor 0: unknown flags 0x0B"),
        ("fp32", TENSOR + 4, "<B", 4 | 3, "tensor 0: a float cannot be affine"),
        ("fp32", TENSOR + 5, "<B", 3, "tensor 0: unknown top codes 3"),
        ("fp32", TENSOR + 5, "<B", 2, "not every element is a binary32 number"),
        ("fp32", TENSOR + 6, "<B", 1, "tensor 0: unknown packing 1 for this format"),
        ("fp32", TENSOR + 7, "<B", 2, "tensor 0: unknown layout 2"),
        ("fp32", TENSOR + 8, "<h", 126, "not every element is a binary32 number"),
        ("fp32", TENSOR + 8, "<h", 128, "not every element is a binary32 number"),
        ("fp32", TENSOR + 10, "<B", 3, "tensor 0: unknown scale kind 3"),
        ("fp32", TENSOR + 11, "<B", 2, "tensor 0: unknown granularity 2"),
        ("fp32", TENSOR + 12, "<I", 0, "tensor 0 has no rows"),
        ("fp32", TENSOR + 12, "<I", 1 << 31, "data has"),
        ("fp32", TENSOR + 16, "<I", 0, "tensor 0 has 0 columns"),
        ("fp32", TENSOR + 16, "<I", 65536, "tensor 0 has 65536 columns"),
        ("fp32", TENSOR + 20, "<I", 13, "bytes a row is 13"),
        ("fp32", TENSOR + 24, "<I", 0, "lies outside of the image"),
        ("fp32", TENSOR + 24, "<I", 0xFFFFFFF0, "lies outside of the image"),
        ("fp32", TENSOR + 24, "<I", 401, "is not aligned"),
        ("fp32", TENSOR + 32, "<I", 400, "scales offset is 400, but it has none"),
        ("e4m3", TENSOR + 32, "<I", 0xFFFFFFFF, "scales"),
        ("fp32", TENSOR + 36, "<I", 400, "zero points offset is 400, but it has none"),
        ("fp32", TENSOR + 40, "<I", 1, "has 1 groups, expected 0"),
        ("fp32", TENSOR + 48, "<I", 1, "tensor 0: a CRC-32 of streamed data, but it is not streamed"),
        ("fp32", data_of("fp32", 0), "<I", 0x7F800000, "tensor 0: element 0 has a code that is no finite number"),
        ("fp32", data_of("fp32", 0) + 8, "<I", 0xFFC00000, "tensor 0: element 2 has a code"),
        ("e4m3", data_of("e4m3", 0) + 5, "<B", 0xF8, "tensor 0: element 5 has a code"),
        ("fn", data_of("fn", 0) + 4, "<B", 0xFF, "tensor 0: element 4 has a code"),
        ("trits", data_of("trits", 0), "<B", 243, "at most 242"),
        ("trits", data_of("trits", 0), "<B", 27, "padding"),  # three columns: digits 0 0 0 1 0
        ("mixed", data_of("mixed", 0) + 1, "<B", 0x10, "the padding behind row 0"),  # three codes of four bits
        ("binary", data_of("binary", 0) + 1, "<B", 8, "the padding behind row 1"),
        ("affine", TENSOR + 4, "<B", 1, "zero points offset is"),
        ("binary", TENSOR + 8, "<h", 1, "fraction bits are 1"),
        ("binary", TENSOR + 4, "<B", 4, "only integers can be affine"),
        ("binary", TENSOR + 5, "<B", 1, "top codes of a format that is no float are 1"),
        ("binary", TENSOR + 4, "<B", 3, "the subnormals flag of a format that is no float"),
        ("trits", TENSOR + 1, "<B", 3, "width is 3 bits, expected 2"),
        ("mixed", TENSOR + 1, "<B", 17, "width is 17 bits, out of 2 to 16"),
        ("mixed", TENSOR + 1, "<B", 1, "width is 1 bits, out of 2 to 16"),
        ("mixed", TENSOR + 8, "<h", 150, "with 150 fraction bits"),
        ("mixed", TENSOR + 8, "<h", -125, "with -125 fraction bits"),
        ("fp32", RELU_LAYER + 18, "<H", 1, "does not follow from"),
        ("e4m3", LAYER + 32, "<I", ARENA_BYTES // 2 + 2, "decode table offset 50002 is not aligned"),
        ("binary", TENSOR + 2, "<B", 1, "exponent bits of a format that is no float"),
    ],
)
def test_a_hostile_field_is_named(recipe, offset, layout, value, message):
    image = bytearray(IMAGES[recipe])
    struct.pack_into(layout, image, offset, value)
    with pytest.raises(ModelError, match=message):
        read_image(repaired(image), arena_bytes=ARENA_BYTES)


def changed(recipe: str, *changes: tuple[int, str, int]) -> bytes:
    image = bytearray(IMAGES[recipe])
    for offset, layout, value in changes:
        struct.pack_into(layout, image, offset, value)
    return repaired(image)


OUTPUT = 44  # of the header
ONE = read_image(IMAGES["one layer"])
ALL = read_image(IMAGES["all layers"])
DENSE1, DENSE2 = LAYER + 4 * 56, LAYER + 5 * 56
WEIGHTS0, BIASES0, WEIGHTS4 = (LAYER + 6 * 56 + 52 * number for number in (0, 1, 4))


@pytest.mark.parametrize(
    ("recipe", "changes", "message"),
    [
        # Regions of one layer.
        ("fp32", [(LAST_LAYER + 28, "<I", 0), (OUTPUT, "<I", 0)], "layer 5: output, 16 bytes at 0, lies outside"),
        ("fp32", [(LAST_LAYER + 28, "<I", 4001), (OUTPUT, "<I", 4001)], "layer 5: output offset 4001 is not aligned"),
        (
            "fp32",
            [(at, "<I", read_image(IMAGES["fp32"]).header.queue_offset - 4) for at in (LAST_LAYER + 28, OUTPUT)],
            "layer 5: output, 16 bytes at .*, overlaps the queue",
        ),
        (
            "fp32",
            [(at, "<I", read_image(IMAGES["fp32"]).layers[4].output_offset) for at in (LAST_LAYER + 28, OUTPUT)],
            "layer 5: input, 20 bytes at .*, overlaps the output",
        ),
        # Fused pooling.
        ("fp32", [(LAYER + 36, "<B", 3)], r"layer 0: the convolution's map \(0, 0\) is impossible"),
        ("one layer", [(LAYER + 36, "<B", 5)], "layer 0: unknown kind 5 of fused pooling"),
        (
            "one layer",
            [(LAYER + 36, "<B", 0)],
            "layer 0: kernel, stride, padding or map of a pooling that is not there",
        ),
        ("one layer", [(LAYER + 37, "<B", 1)], "layer 0: the reserved field is 1"),
        ("one layer", [(LAYER + 38, "<B", 0)], "layer 0: fused pooling: a kernel of 0"),
        ("one layer", [(LAYER + 41, "<B", 0)], "layer 0: fused pooling: a stride of 0"),
        ("one layer", [(LAYER + 42, "<B", 2)], "layer 0: fused pooling: padding .* is not less than the kernel"),
        ("one layer", [(LAYER + 44, "<H", 0)], r"layer 0: the convolution's map \(0, 7\) is impossible"),
        ("one layer", [(LAYER + 44, "<H", 7)], r"layer 0: output shape \(7, 7\) has windows without any input"),
        ("one layer", [(LAYER + 44, "<H", 3)], r"fused pooling: output shape \(2, 4\) has windows without any input"),
        ("one layer", [(LAYER + 48, "<I", NO_OFFSET)], "layer 0: tile offset 4294967295 is not aligned"),
        ("one layer", [(LAYER + 48, "<I", 4)], "layer 0: tile, 48 bytes at 4, lies outside"),
        (
            "one layer",
            [(LAYER + 48, "<I", ONE.layers[0].output_offset + 92)],
            "layer 0: tile, 48 bytes at .*, overlaps the output",
        ),
        ("one layer", [(LAYER + 56 + 48, "<I", 4000)], "layer 1: a tile, but no fused pooling"),
        ("one layer", [(LAYER + 56 + 36, "<B", 3)], "layer 1: pooling can be fused behind a convolution only"),
        # Streamed tensors.
        ("one layer", [(52, "<I", 2399)], "streamed weights have 2399 bytes, those of its layers 2400"),
        ("one layer", [(WEIGHTS4 + 44, "<I", 31)], "tensor 4 has 30 columns, fewer than a chunk, 31"),
        ("one layer", [(WEIGHTS4 + 44, "<I", 6)], "tensor 4: bytes a row is 28, expected 24"),
        ("one layer", [(WEIGHTS4 + 28, "<I", 556)], "tensor 4: data has 556 bytes, expected 560"),
        ("one layer", [(WEIGHTS4 + 24, "<I", 4)], "tensor 4: chunk, 564 bytes at 4, lies outside"),
        ("one layer", [(WEIGHTS4 + 24, "<I", 2014)], "tensor 4: chunk offset 2014 is not aligned"),
        (
            "one layer",
            [(WEIGHTS4 + 24, "<I", ONE.header.queue_offset - 560)],
            "tensor 4: chunk, 564 bytes at .*, overlaps the queue",
        ),
        (
            "one layer",
            [(WEIGHTS4 + 24, "<I", ONE.layers[3].output_offset + 80 + 76)],
            "layer 4: input, 160 bytes at .*, overlaps the chunk",
        ),
        (
            "all layers",
            [(BIASES0 + 44, "<I", 3), (BIASES0 + 24, "<I", ALL.layers[0].output_offset)],
            "layer 0: bias tensor 1 is streamed",
        ),
        # What is kept for a batch.
        ("fp32", [(LAYER + 52, "<I", 4000)], "layer 0: batch stride is 4000, but the image streams nothing"),
        ("one layer", [(DENSE1 + 52, "<I", 122)], "layer 4: batch stride 122 is not aligned"),
        ("one layer", [(DENSE1 + 52, "<I", 116)], "layer 4: batch stride 116 is less than the output's 120 bytes"),
        ("one layer", [(DENSE1 + 52, "<I", 0)], "layer 4: no batch stride, but its output is kept"),
        ("one layer", [(DENSE2 + 52, "<I", 0)], "layer 5: no batch stride, but its output is kept"),
        ("one layer", [(DENSE1 + 52, "<I", 0xFFFFFFFC)], "layer 4: output, 4294967412 bytes at .*, lies outside"),
        (
            "one layer",
            [(LAYER + 3 * 56 + 52, "<I", 84)],
            "layer 3: batch stride is 84, but it works in place of one of 80",
        ),
        (
            "one layer",
            [(LAYER + offset, "<I", ONE.layers[2].output_offset + 80) for offset in (28, 56 + 24)],
            "layer 0: output, 96 bytes at .*, overlaps the output of its stage",
        ),
        (
            "one layer",
            [(LAYER + 48, "<I", ONE.layers[2].output_offset + 80)],
            "layer 0: tile, 48 bytes at .*, overlaps the output of its stage",
        ),
    ],
)
def test_a_hostile_region_is_named(recipe, changes, message):
    with pytest.raises(ModelError, match=message):
        read_image(changed(recipe, *changes), arena_bytes=ARENA_BYTES)


@pytest.mark.parametrize("bits", [0, 0x80000000, 1, 0x007FFFFF, 0x7F800000, 0x7FC00000, 0xBF800000])
@pytest.mark.parametrize("recipe", ["e4m3", "mixed"])
def test_a_scale_must_be_positive_and_normal(recipe, bits):
    offset = read_image(IMAGES[recipe]).tensors[0].scales_offset
    hostile = bytearray(IMAGES[recipe])
    struct.pack_into("<I", hostile, offset, bits)
    with pytest.raises(ModelError, match="tensor 0: the scale of group 0"):
        read_image(repaired(hostile))


def test_a_power_of_two_must_be_one():
    hostile = bytearray(IMAGES["e4m3"])
    struct.pack_into("<f", hostile, read_image(IMAGES["e4m3"]).tensors[0].scales_offset, 1.5)
    with pytest.raises(ModelError, match=r"tensor 0: the scale of group 0 is 1\.5, which is no power of two"):
        read_image(repaired(hostile))


@pytest.mark.parametrize("value", [-17, 16, -(1 << 31)])
def test_a_zero_point_must_be_an_integer_of_the_format(value):
    hostile = bytearray(IMAGES["affine"])
    struct.pack_into("<i", hostile, read_image(IMAGES["affine"]).tensors[0].zero_points_offset + 4, value)
    with pytest.raises(ModelError, match=f"tensor 0: the zero point of group 1 is {value}, out of -16 to 15"):
        read_image(repaired(hostile))


def test_the_logits_are_what_the_last_layer_gives():
    """One logit more, in slots that are long enough for it."""
    hostile = bytearray(IMAGES["fp32"])
    header = read_image(IMAGES["fp32"]).header
    struct.pack_into("<HxxI", hostile, 36, 1, header.slot_bytes + 4)
    struct.pack_into("<I", hostile, 48, header.output_count + 1)
    with pytest.raises(ModelError, match="the image has 5 logits, its last layer gives 4"):
        read_image(repaired(hostile))


def test_an_image_may_not_be_endless(monkeypatch):
    from bitloop.plan import check

    monkeypatch.setattr(check, "MAX_IMAGE_BYTES", len(IMAGES["fp32"]) - 1)
    with pytest.raises(ModelError, match="the most is"):
        read_image(IMAGES["fp32"])


def test_limits_of_the_device():
    with pytest.raises(ModelError, match="layer count is 6; the device takes 5"):
        read_image(IMAGES["fp32"], max_layers=5)
    with pytest.raises(ModelError, match="tensor count is 6; the device takes 5"):
        read_image(IMAGES["fp32"], max_tensors=5)


# --- mutations, and the device's own opinion ------------------------------------------------------------------------

SIZES = {"<B": 1, "<H": 2, "<I": 4}
NUMBERS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 40, 48, 64, 127, 128, 255, 256, 257, 0x7FFF, 0x8000, 0xFFFF]),
    st.sampled_from([0x10000, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFC, 0xFFFFFFFF, ARENA_BYTES]),
    st.integers(0, 0xFFFFFFFF),
)


@st.composite
def mutated(draw) -> bytes:
    """An image with one to three fields set or changed by a little, mostly in its records, and a right CRC-32."""
    image = bytearray(IMAGES[draw(st.sampled_from(sorted(IMAGES)))])
    header = read_image(bytes(image)).header
    records = 64 + 56 * header.layer_count + 52 * header.tensor_count
    for _ in range(draw(st.integers(1, 3))):
        layout = draw(st.sampled_from(sorted(SIZES)))
        size = SIZES[layout]
        last = records if draw(st.integers(0, 3)) else len(image) - 4
        offset = draw(st.integers(8, last // size - 1)) * size if last // size > 9 else 8
        offset = min(offset, len(image) - 4 - size)
        (old,) = struct.unpack_from(layout, image, offset)
        value = draw(st.one_of(NUMBERS, st.integers(-4, 4).map(lambda d, old=old: old + d)))
        struct.pack_into(layout, image, offset, value % (1 << 8 * size))
    return repaired(image)


def accepted(image: bytes) -> bool:
    try:
        read_image(image, arena_bytes=ARENA_BYTES, max_layers=256, max_tensors=512)
    except ModelError:
        return False
    return True


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(mutated())
def test_reader_and_device_accept_and_refuse_the_same(image):
    """Two validators that were written apart; any other exception than ModelError fails this too."""
    from bitloop.native.core import validate_image

    status, details = validate_image(image, ARENA_BYTES)
    assert accepted(image) == (status is Status.OK), f"the device says {status.name} {details}"


@st.composite
def rearranged(draw) -> bytes:
    """A streamed image with one or two of its regions elsewhere, near another one's begin or end."""
    name = draw(st.sampled_from(sorted(STREAMED)))
    image = bytearray(IMAGES[name])
    parsed = read_image(IMAGES[name])
    layers, first_tensor = parsed.header.layer_count, LAYER + 56 * parsed.header.layer_count
    begins = [
        *(layer.output_offset + k * layer.batch_stride for layer in parsed.layers for k in range(2)),
        *(layer.tile_offset for layer in parsed.layers if layer.pool_kind),
        *(tensor.data_offset for tensor in parsed.tensors if tensor.streamed),
        parsed.header.queue_offset,
    ]
    for _ in range(draw(st.integers(1, 2))):
        layer, place = draw(st.integers(0, layers - 1)), draw(st.sampled_from(["output", "stride", "tile", "chunk"]))
        value = draw(st.sampled_from(begins)) + 4 * draw(st.integers(-30, 30))
        record = LAYER + 56 * layer
        if place == "output":
            # What reads it must name the same offset, and a ReLU in place goes on working there.
            targets = [record + 28, record + 56 + 24 if layer + 1 < layers else OUTPUT]
            if layer + 1 < layers and image[record + 56] == LayerKind.RELU and draw(st.booleans()):
                targets += [record + 56 + 28, record + 112 + 24]
        elif place == "stride":
            value = draw(st.sampled_from([0, 16, 80, 84, 96, 116, 120, 124, 240, 400]))
            targets = [record + 52]
            if layer + 1 < layers and image[record + 56] == LayerKind.RELU and draw(st.booleans()):
                targets.append(record + 56 + 52)
        elif place == "tile":
            targets = [record + 48]
        else:
            targets = [first_tensor + 52 * draw(st.integers(0, len(parsed.tensors) - 1)) + 24]
        for target in targets:
            struct.pack_into("<I", image, target, value % (1 << 32))
    return repaired(image)


@settings(max_examples=2000, deadline=None, derandomize=True)
@given(rearranged())
def test_reader_and_device_agree_on_where_things_may_lie(image):
    from bitloop.native.core import validate_image

    status, details = validate_image(image, ARENA_BYTES)
    assert accepted(image) == (status is Status.OK), f"the device says {status.name} {details}"


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=600), st.booleans())
def test_noise_is_refused(noise, with_a_start):
    with pytest.raises(ModelError):
        read_image(IMAGES["fp32"][:64] + noise if with_a_start else noise)


@pytest.mark.parametrize("recipe", IMAGES)
def test_the_device_accepts_what_the_planner_writes(recipe):
    from bitloop.native.core import validate_image

    assert validate_image(IMAGES[recipe], ARENA_BYTES)[0] is Status.OK
    assert accepted(IMAGES[recipe])
