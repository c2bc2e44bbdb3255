"""The image: one assembled by hand from docs/model.md, what is in one that was planned, and damaged or hostile ones."""

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
from bitloop.plan import plan, read_image
from bitloop.plan.tensors import record_format
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import Packing, Status

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


def image_of(recipe: str) -> bytes:
    return plan(model_of(*RECIPES[recipe]), NATIVE.with_arena(ARENA_BYTES), slots=2).image


IMAGES = {name: image_of(name) for name in RECIPES}


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def repaired(image: bytes | bytearray) -> bytes:
    """The image with its CRC-32 made right again."""
    return with_crc(bytes(image[:-4]))


# --- an image by hand -----------------------------------------------------------------------------------------------


def hand_made() -> bytes:
    """A network of an average pool and a dense layer with ReLU: ternary weights (2, 2) by channel, an fp16 bias.

    records: 64 + 2 * 40 + 2 * 48 = 240. Then the weights: two rows of one byte of trits, at 240; two scales at 244; the
    biases, four bytes, at 252; CRC-32 at 256; 260 bytes in all. Activations: 8 bytes each, at 260 and 268. Two slots of
    align4(3) + 12 + 4 * 2 + 4 * 2 = 32 bytes at 276; 340 bytes in all. No decode table.
    """
    none = 0xFFFFFFFF
    header = struct.pack(
        "<4sHHIHHHHHHHHIIHHIII12x",
        *(b"BLI1", 1, 64, 260, 2, 2, 40, 48, 1, 3, 1, 0),
        *(340, 276, 2, 0, 32, 268, 2),
    )
    pool = struct.pack(
        "<BBBBBBBBHHHHHHHHIIII", 4, 0, 1, 2, 1, 1, 0, 0, 1, 3, 1, 1, 2, 1, 0xFFFF, 0xFFFF, none, 260, none, 0
    )
    dense = struct.pack("<BBBBBBBBHHHHHHHHIIII", 1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 1, 1, 2, 0, 1, 260, 268, none, 0)
    # Ternary, signed; trits; scale fp32 by channel.
    weights = struct.pack("<BBBBBBBBhBBIIIIIIIII", 3, 2, 0, 0, 1, 0, 1, 1, 0, 2, 1, 2, 2, 1, 240, 2, 244, none, 2, 0)
    # Float, signed, with subnormals: 5 exponent and 10 mantissa bits, bias 15; no scale.
    biases = struct.pack("<BBBBBBBBhBBIIIIIIIII", 1, 16, 5, 10, 3, 0, 0, 1, 15, 0, 0, 1, 2, 4, 252, 4, none, none, 0, 0)
    # Rows (+1, 0) and (-1, +1): digits 2 + 3 * 1 = 5 and 0 + 3 * 2 = 6; padded to 4.
    data = bytes([5, 6, 0, 0]) + struct.pack("<ff", 0.5, 3.0) + struct.pack("<ee", 1.0, -2.0)
    return with_crc(header + pool + dense + weights + biases + data)


def hand_made_model() -> Model:
    from bitloop.numeric.formats import parse_format
    from bitloop.numeric.rounding import Rounding
    from bitloop.quantize.model import QuantizedTensor
    from bitloop.spec import Granularity, ScaleKind

    architecture = Architecture(
        "hand", (1, 3, 1), (AveragePool2D("pool", (1, 2), (1, 1)), Dense("dense", 2), ReLU("relu"))
    )
    weights = QuantizedTensor(
        *("dense.weights", parse_format("ternary"), ScaleKind.FP32, Granularity.CHANNEL, Rounding.NEAREST),
        *(Packing.BITS, np.array([[1, 0], [3, 1]], np.uint32), np.array([0.5, 3.0], np.float32)),
    )
    biases = QuantizedTensor(
        *("dense.biases", parse_format("fp16"), ScaleKind.NONE, Granularity.TENSOR, Rounding.NEAREST),
        *(Packing.BITS, np.array([0x3C00, 0xC000], np.uint32)),
    )
    parts = {"dense.weights": weights, "dense.biases": biases}
    return Model("hand", "", architecture, {"weights": "", "biases": "", "overrides": {}}, parts)


def test_the_planner_writes_what_was_assembled_by_hand():
    device = DeviceInfo(arena_bytes=340, layer_kinds=0xFF, format_kinds=0xFF, packings=(1,))
    assert plan(hand_made_model(), device, slots=2).image == hand_made()


def test_the_reader_reads_what_was_assembled_by_hand():
    image = read_image(hand_made(), arena_bytes=340, max_layers=2, max_tensors=2)
    assert image.codes(0).tolist() == [[1, 0], [3, 1]]
    assert image.scales(0).tolist() == [0.5, 3.0]
    assert image.codes(1).tolist() == [[0x3C00, 0xC000]]
    assert image.scales(1) is None
    assert image.zero_points(0) is None
    assert [layer.kind for layer in image.layers] == [4, 1]


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
TENSOR = LAYER + 40 * len(read_image(IMAGES["fp32"]).layers)
LAST_LAYER = TENSOR - 40
RELU_LAYER = LAYER + 3 * 40


def data_of(recipe: str, tensor: int) -> int:
    return read_image(IMAGES[recipe]).tensors[tensor].data_offset


@pytest.mark.parametrize(
    ("recipe", "offset", "layout", "value", "message"),
    [
        ("fp32", 0, "<I", 0, "magic"),
        ("fp32", 4, "<H", 2, "version is 2"),
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
        ("fp32", 63, "<B", 1, "reserved field at byte 52"),
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
        ("fp32", LAYER + 28, "<I", 0, "lies outside of the arena or over the image"),
        ("e4m3", LAYER + 32, "<I", 0, "decode table, 1024 bytes at 0, lies outside"),
        ("fp32", LAYER + 32, "<I", 4000, "a decode table for 32 bits"),
        ("fp32", LAYER + 36, "<I", 1, "layer 0: the reserved field"),
        ("fp32", LAYER + 40 + 20, "<H", 0, "a weight or bias tensor it cannot have"),
        ("fp32", LAYER + 40 + 24, "<I", 0xFFFFFFFF, "layer 1: input offset"),
        ("e4m3", LAYER + 40 + 32, "<I", 4, "a decode table of a layer without weights"),
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
        ("fp32", TENSOR + 44, "<I", 1, "tensor 0: the reserved field"),
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
    records = read_image(bytes(image)).tensors[0].data_offset
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


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=600), st.booleans())
def test_noise_is_refused(noise, with_a_start):
    with pytest.raises(ModelError):
        read_image(IMAGES["fp32"][:64] + noise if with_a_start else noise)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_device_accepts_what_the_planner_writes(recipe):
    from bitloop.native.core import validate_image

    assert validate_image(IMAGES[recipe], ARENA_BYTES)[0] is Status.OK
    assert accepted(IMAGES[recipe])
