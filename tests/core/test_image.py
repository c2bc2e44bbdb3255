"""The image validator: every field made wrong, one at a time, has its own status and details."""

from __future__ import annotations

import random
import struct
from types import SimpleNamespace

import pytest

from bitloop import spec
from bitloop.native.core import validate_image
from bitloop.spec import LayerKind, Status

ARENA = 1 << 16
LAYERS = 64  # offset of the layer records
TENSORS = LAYERS + 56 * 4  # of the tensor records of the fixture below


@pytest.fixture(scope="session")
def image(images: SimpleNamespace) -> bytes:
    """conv (int4, scale a channel, table), max pool, relu in place, dense (fp16 weights, affine uint8 biases)."""
    conv = images.Layer(
        *(LayerKind.CONV2D, (6, 6, 1), (6, 6, 3), (3, 3), (1, 1), (1, 1)),
        weights=images.integer([[i % 7 - 3, i % 5 - 2, 1] for i in range(9)], 4, scale_kind=2, scales=[0.5, 0.25, 1.0]),
        biases=images.fp32([[1.0, -1.0, 0.5]]),
        relu=True,
        table=True,
    )
    pool = images.Layer(LayerKind.MAX_POOL, (6, 6, 3), (3, 3, 3), (2, 2), (2, 2))
    relu = images.Layer(LayerKind.RELU, (3, 3, 3), (3, 3, 3), in_place=True)
    weights = images.Tensor([[(i * 37 + o) % 0x7C00 for o in range(2)] for i in range(27)], 1, 16, 5, 10, 3, 0, 0, 15)
    biases = images.integer([[3, 200]], 8, signed=False, scale_kind=1, scales=[0.5], zero_points=[7])
    return images.build([conv, pool, relu, images.dense((3, 3, 3), weights, biases)])


def put(image: bytes, offset: int, data: bytes) -> bytes:
    return image[:offset] + data + image[offset + len(data) :]


def u8(value: int) -> bytes:
    return struct.pack("<B", value)


def u16(value: int) -> bytes:
    return struct.pack("<H", value)


def u32(value: int) -> bytes:
    return struct.pack("<I", value)


def word(image: bytes, offset: int) -> int:
    return struct.unpack_from("<I", image, offset)[0]


def layer(number: int, field: int) -> int:
    return LAYERS + 56 * number + field


def tensor(number: int, field: int) -> int:
    return TENSORS + 52 * number + field


def test_a_good_image_passes(image: bytes) -> None:
    assert validate_image(image, ARENA) == (Status.OK, (0, 0))
    assert validate_image(image, word(image, 28)) == (Status.OK, (0, 0))
    assert validate_image(image, word(image, 28) - 1) == (
        Status.NO_MEMORY,
        (word(image, 28), word(image, 28) - 1),
    )


HEADER = [
    (0, b"BLI2", Status.BAD_MAGIC, (0, 0)),
    (4, u16(1), Status.BAD_VERSION, (1, 2)),
    (6, u16(60), Status.BAD_HEADER, (6, 0)),
    (12, u16(0), Status.BAD_HEADER, (12, 0)),
    (12, u16(200), Status.BAD_HEADER, (12, 0)),
    (12, u16(0xFFFF), Status.TOO_MANY, (0xFFFF, 256)),
    (14, u16(0xFFFF), Status.TOO_MANY, (0xFFFF, 512)),
    (14, u16(500), Status.BAD_HEADER, (12, 0)),
    (14, u16(3), Status.BAD_TENSOR_INDEX, (3, 3)),
    (16, u16(44), Status.BAD_HEADER, (16, 0)),
    (18, u16(44), Status.BAD_HEADER, (18, 0)),
    (20, u16(0), Status.BAD_HEADER, (20, 0)),
    (20, struct.pack("<HHH", 0xFFFF, 0xFFFF, 0xFFFF), Status.BAD_HEADER, (20, 0)),
    (20, struct.pack("<HHH", 0x8000, 0x8000, 1), Status.BAD_HEADER, (20, 0)),  # four bytes each: 2^32
    (20, u16(5), Status.BAD_HEADER, (40, 0)),
    (26, u16(1), Status.BAD_HEADER, (26, 0)),
    (28, u32(100), Status.BAD_HEADER, (28, 0)),
    (28, u32(0xFFFFFFFF), Status.NO_MEMORY, (0xFFFFFFFF, ARENA)),
    (32, u32(64), Status.BAD_HEADER, (32, 0)),
    (32, u32(0xFFFFFFFC), Status.BAD_HEADER, (32, 0)),
    (36, u16(0), Status.BAD_HEADER, (36, 0)),
    (36, u16(0xFFFF), Status.BAD_HEADER, (36, 0)),
    (36, u16(3), Status.BAD_HEADER, (32, 0)),
    (38, u16(1), Status.BAD_HEADER, (38, 0)),
    (40, u32(4), Status.BAD_HEADER, (40, 0)),
    (40, u32(0xFFFFFFFC), Status.BAD_HEADER, (40, 0)),
    (44, u32(4), Status.BAD_HEADER, (44, 0)),
    (48, u32(0), Status.BAD_HEADER, (48, 0)),
    (48, u32(0xFFFFFFFF), Status.BAD_HEADER, (48, 0)),
    (48, u32(3), Status.BAD_HEADER, (40, 0)),
    (56, u8(1), Status.BAD_HEADER, (56, 0)),
    (63, u8(1), Status.BAD_HEADER, (56, 0)),
]

LAYER = [
    (layer(0, 0), u8(0), Status.BAD_LAYER_KIND, (0, 0)),
    (layer(2, 0), u8(6), Status.BAD_LAYER_KIND, (2, 6)),
    (layer(0, 1), u8(2), Status.BAD_LAYER_SHAPE, (0, 1)),
    (layer(1, 1), u8(1), Status.BAD_LAYER_SHAPE, (1, 1)),
    (layer(0, 2), u8(0), Status.BAD_LAYER_SHAPE, (0, 2)),
    (layer(1, 3), u8(0), Status.BAD_LAYER_SHAPE, (1, 2)),
    (layer(3, 2), u8(1), Status.BAD_LAYER_SHAPE, (3, 2)),
    (layer(2, 7), u8(1), Status.BAD_LAYER_SHAPE, (2, 2)),
    (layer(0, 4), u8(0), Status.BAD_LAYER_SHAPE, (0, 4)),
    (layer(1, 5), u8(0), Status.BAD_LAYER_SHAPE, (1, 4)),
    (layer(0, 6), u8(3), Status.BAD_LAYER_SHAPE, (0, 6)),
    (layer(0, 4), u8(2), Status.BAD_LAYER_SHAPE, (0, 14)),  # the last window would begin behind the input
    (layer(0, 2), u8(2), Status.BAD_TENSOR_INDEX, (0, 0)),  # 2 * 3 rows are not 9
    (layer(0, 8), u16(0), Status.BAD_LAYER_SHAPE, (0, 8)),
    (layer(0, 8), u16(7), Status.BAD_LAYER_CHAIN, (0, 0)),
    (layer(0, 8), struct.pack("<HHH", 36, 1, 1), Status.BAD_LAYER_CHAIN, (0, 0)),
    (layer(1, 8), struct.pack("<HHH", 0xFFFF, 0xFFFF, 0xFFFF), Status.BAD_LAYER_SHAPE, (1, 8)),
    (layer(1, 8), struct.pack("<HHH", 0x8000, 0x8000, 1), Status.BAD_LAYER_SHAPE, (1, 8)),
    (layer(1, 14), struct.pack("<HHH", 0x8000, 0x4000, 2), Status.BAD_LAYER_SHAPE, (1, 14)),
    (layer(1, 12), u16(4), Status.BAD_LAYER_CHAIN, (1, 0)),
    (layer(0, 14), u16(0), Status.BAD_LAYER_SHAPE, (0, 14)),
    (layer(0, 14), u16(8), Status.BAD_LAYER_SHAPE, (0, 14)),
    (layer(1, 18), u16(2), Status.BAD_LAYER_SHAPE, (1, 14)),
    (layer(3, 14), u16(2), Status.BAD_LAYER_SHAPE, (3, 14)),
    (layer(2, 14), u16(2), Status.BAD_LAYER_SHAPE, (2, 14)),
    (layer(0, 20), u16(4), Status.BAD_TENSOR_INDEX, (0, 4)),
    (layer(0, 20), u16(0xFFFF), Status.BAD_TENSOR_INDEX, (0, 0xFFFF)),
    (layer(0, 20), u16(2), Status.BAD_TENSOR_INDEX, (0, 2)),
    (layer(0, 22), u16(0), Status.BAD_TENSOR_INDEX, (0, 0)),
    (layer(0, 22), u16(9), Status.BAD_TENSOR_INDEX, (0, 9)),
    (layer(1, 20), u16(0), Status.BAD_TENSOR_INDEX, (1, 0)),
    (layer(2, 22), u16(1), Status.BAD_TENSOR_INDEX, (2, 1)),
    (layer(0, 24), u32(0), Status.BAD_LAYER_CHAIN, (0, 0)),
    (layer(1, 24), u32(0xFFFFFFFF), Status.BAD_LAYER_CHAIN, (1, 0)),
    (layer(1, 24), u32(1000), Status.BAD_LAYER_CHAIN, (1, 0)),
    (layer(0, 28), u32(0), Status.BAD_ARENA, (0, 28)),
    (layer(0, 28), u32(0xFFFFFFFC), Status.BAD_ARENA, (0, 28)),
    (layer(0, 32), u32(0), Status.BAD_ARENA, (0, 32)),
    (layer(0, 32), u32(0xFFFFFFF0), Status.BAD_ARENA, (0, 32)),
    (layer(1, 32), u32(2000), Status.BAD_ARENA, (1, 32)),
    (layer(3, 32), u32(2000), Status.BAD_ARENA, (3, 32)),
    (layer(1, 36), u8(3), Status.BAD_LAYER_SHAPE, (1, 36)),  # pooling behind a pooling
    (layer(0, 36), u8(1), Status.BAD_LAYER_SHAPE, (0, 36)),
    (layer(0, 38), u8(1), Status.BAD_LAYER_SHAPE, (0, 36)),  # pooling's kernel without pooling
    (layer(0, 48), u32(2000), Status.BAD_ARENA, (0, 48)),
    (layer(0, 52), u32(4096), Status.BAD_ARENA, (0, 52)),  # nothing is streamed
]

TENSOR = [
    (tensor(0, 0), u8(9), Status.BAD_TENSOR_FORMAT, (0, 0)),
    (tensor(0, 1), u8(0), Status.BAD_TENSOR_FORMAT, (0, 1)),
    (tensor(0, 1), u8(6), Status.BAD_TENSOR_BOUNDS, (0, 20)),
    (tensor(2, 2), u8(6), Status.BAD_TENSOR_FORMAT, (2, 1)),
    (tensor(2, 5), u8(7), Status.BAD_TENSOR_FORMAT, (2, 5)),
    (tensor(0, 6), u8(1), Status.BAD_TENSOR_FORMAT, (0, 6)),
    (tensor(0, 7), u8(2), Status.BAD_TENSOR_FORMAT, (0, 7)),
    (tensor(2, 8), struct.pack("<h", 200), Status.BAD_TENSOR_FORMAT, (2, 8)),
    (tensor(0, 10), u8(3), Status.BAD_TENSOR_FORMAT, (0, 10)),
    (tensor(0, 11), u8(2), Status.BAD_TENSOR_FORMAT, (0, 11)),
    (tensor(0, 11), u8(0), Status.BAD_TENSOR_BOUNDS, (0, 40)),
    (tensor(0, 10), u8(0), Status.BAD_TENSOR_BOUNDS, (0, 40)),
    (tensor(0, 12), u32(0), Status.BAD_TENSOR_BOUNDS, (0, 12)),
    (tensor(0, 12), u32(8), Status.BAD_TENSOR_BOUNDS, (0, 28)),
    (tensor(0, 12), u32(0x80000009), Status.BAD_TENSOR_BOUNDS, (0, 28)),  # times 2 it wraps to the right length
    (tensor(0, 16), u32(0), Status.BAD_TENSOR_BOUNDS, (0, 16)),
    (tensor(0, 16), u32(0x10000), Status.BAD_TENSOR_BOUNDS, (0, 16)),
    (tensor(0, 20), u32(0), Status.BAD_TENSOR_BOUNDS, (0, 20)),
    (tensor(0, 20), u32(3), Status.BAD_TENSOR_BOUNDS, (0, 20)),
    (tensor(0, 24), u32(0), Status.BAD_TENSOR_BOUNDS, (0, 24)),
    (tensor(0, 24), u32(0xFFFFFFFC), Status.BAD_TENSOR_BOUNDS, (0, 24)),
    (tensor(0, 28), u32(0xFFFFFFFF), Status.BAD_TENSOR_BOUNDS, (0, 28)),
    (tensor(0, 28), u32(17), Status.BAD_TENSOR_BOUNDS, (0, 28)),
    (tensor(0, 32), u32(0xFFFFFFFF), Status.BAD_TENSOR_BOUNDS, (0, 32)),
    (tensor(0, 32), u32(0), Status.BAD_TENSOR_BOUNDS, (0, 32)),
    (tensor(0, 32), u32(0xFFFFFFF8), Status.BAD_TENSOR_BOUNDS, (0, 32)),
    (tensor(1, 32), u32(600), Status.BAD_TENSOR_BOUNDS, (1, 32)),
    (tensor(0, 36), u32(600), Status.BAD_TENSOR_BOUNDS, (0, 36)),
    (tensor(3, 36), u32(0xFFFFFFFF), Status.BAD_TENSOR_BOUNDS, (3, 36)),
    (tensor(3, 36), u32(0x7FFFFFFC), Status.BAD_TENSOR_BOUNDS, (3, 36)),
    (tensor(3, 40), u32(2), Status.BAD_TENSOR_BOUNDS, (3, 40)),
    (tensor(1, 40), u32(1), Status.BAD_TENSOR_BOUNDS, (1, 40)),
    (tensor(1, 44), u32(9), Status.BAD_TENSOR_BOUNDS, (1, 44)),  # a chunk of more columns than there are
    (tensor(1, 48), u32(1), Status.BAD_TENSOR_BOUNDS, (1, 48)),
]


@pytest.mark.parametrize(("offset", "data", "status", "details"), [*HEADER, *LAYER, *TENSOR])
def test_each_wrong_field_is_named(
    images: SimpleNamespace, image: bytes, *, offset: int, data: bytes, status: Status, details: tuple[int, int]
) -> None:
    assert validate_image(images.seal(put(image, offset, data)), ARENA) == (status, details)


def test_lengths_and_crc(images: SimpleNamespace, image: bytes) -> None:
    for length in range(68):
        assert validate_image(image[:length], ARENA)[0] is Status.BAD_LENGTH
    assert validate_image(image[:-1], ARENA) == (Status.BAD_LENGTH, (len(image), len(image) - 1))
    assert validate_image(image + b"\0", ARENA) == (Status.BAD_LENGTH, (len(image), len(image) + 1))
    longer = put(image + bytes(4), 8, u32(len(image) + 4))
    assert validate_image(longer, ARENA)[0] is Status.BAD_CRC
    for bit in range(0, 8 * len(image), 97):
        damaged = bytearray(image)
        damaged[bit // 8] ^= 1 << (bit % 8)
        assert validate_image(bytes(damaged), ARENA)[0] in (
            Status.BAD_CRC,
            Status.BAD_MAGIC,
            Status.BAD_VERSION,
            Status.BAD_LENGTH,
        )


@pytest.mark.parametrize(
    ("scale", "status"),
    [
        (0x3F000000, Status.OK),
        (0x00800000, Status.OK),
        (0x7F7FFFFF, Status.OK),
        (0x00000000, Status.BAD_SCALE),
        (0x007FFFFF, Status.BAD_SCALE),
        (0x7F800000, Status.BAD_SCALE),
        (0x7FC00000, Status.BAD_SCALE),
        (0xBF800000, Status.BAD_SCALE),
        (0x80000000, Status.BAD_SCALE),
    ],
)
def test_scales(images: SimpleNamespace, image: bytes, scale: int, status: Status) -> None:
    scales = word(image, tensor(0, 32))
    found = validate_image(images.seal(put(image, scales + 4, u32(scale))), ARENA)
    assert found == (status, (0, 1) if status else (0, 0))


def test_a_power_of_two_has_no_mantissa(images: SimpleNamespace, image: bytes) -> None:
    scales = word(image, tensor(3, 32))
    assert validate_image(images.seal(put(image, scales, u32(0x3F800001))), ARENA) == (Status.BAD_SCALE, (3, 0))


@pytest.mark.parametrize(
    ("zero_point", "good"), [(0, True), (255, True), (256, False), (-1, False), (-(1 << 31), False)]
)
def test_zero_points(images: SimpleNamespace, image: bytes, zero_point: int, good: bool) -> None:
    offset = word(image, tensor(3, 36))
    status, details = validate_image(images.seal(put(image, offset, struct.pack("<i", zero_point))), ARENA)
    assert (status, details) == ((Status.OK, (0, 0)) if good else (Status.BAD_SCALE, (3, 0)))


def test_codes_that_are_no_number(images: SimpleNamespace, image: bytes) -> None:
    data = word(image, tensor(2, 24))
    for code in (0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF):
        bad = put(image, data + 4 * 11 + 2, u16(code))
        assert validate_image(images.seal(bad), ARENA) == (Status.BAD_CODE, (2, 23))
    data = word(image, tensor(1, 24))
    assert validate_image(images.seal(put(image, data, u32(0x7F800000))), ARENA) == (Status.BAD_CODE, (1, 0))


def test_padding_bits(images: SimpleNamespace, image: bytes) -> None:
    data = word(image, tensor(0, 24))  # three codes of four bits: the upper half of each row's second byte
    for row in range(9):
        at = data + 2 * row + 1
        assert validate_image(images.seal(put(image, at, u8(image[at] | 0x80))), ARENA) == (
            Status.BAD_CODE,
            (0, 3 * row + 2),
        )


def test_ternary(images: SimpleNamespace) -> None:
    rows = [[0, 1, 3, 0, 1, 3, 3]] * 4
    for packing in spec.Packing:
        weights = images.Tensor(rows, spec.FormatKind.TERNARY, 2, 0, 0, 1, 0, packing, 0)
        image = images.build([images.dense((2, 2, 1), weights)])
        begin, length = word(image, 64 + 56 + 24), word(image, 64 + 56 + 28)
        assert length == 8
        assert validate_image(image, ARENA)[0] is Status.OK

        def refused(offset: int, byte: int, image: bytes = image) -> tuple[Status, tuple[int, int]]:
            return validate_image(images.seal(put(image, offset, u8(byte))), ARENA)

        if packing is spec.Packing.BITS:
            assert refused(begin + 2, 0b00_11_10_00) == (Status.BAD_CODE, (0, 7 + 1))
            assert refused(begin + 3, image[begin + 3] | 0x40) == (Status.BAD_CODE, (0, 13))
        else:
            assert refused(begin + 2, 242)[0] is Status.OK
            assert refused(begin + 2, 243) == (Status.BAD_CODE, (0, 7 + 4))
            assert refused(begin + 4, 255)[0] is Status.BAD_CODE
            assert refused(begin + 3, 9) == (Status.BAD_CODE, (0, 13))


def test_regions_may_not_meet(images: SimpleNamespace, image: bytes) -> None:
    """An output or table moved over any other region of its layer is refused exactly where they meet."""
    length, queue = len(image), word(image, 32)
    output, pool, table = word(image, layer(0, 28)), word(image, layer(1, 28)), word(image, layer(0, 32))
    assert (output, table) == (length + -length % 4, output + 432)
    for at in range(0, queue + 200, 4):
        status, details = validate_image(images.seal(put(image, layer(0, 32), u32(at))), ARENA)
        fits = at >= length and at + 64 <= queue and not (output - 64 < at < output + 432)
        assert (status, details) == ((Status.OK, (0, 0)) if fits else (Status.BAD_ARENA, (0, 32))), at
    for at in range(1, 4):
        assert validate_image(images.seal(put(image, layer(0, 32), u32(table + at))), ARENA)[0] is Status.BAD_ARENA
    for at in range(0, queue + 200, 4):  # pool's output, together with those who read it
        moved = put(put(image, layer(1, 28), u32(at)), layer(2, 24), u32(at))
        moved = images.seal(put(put(moved, layer(2, 28), u32(at)), layer(3, 24), u32(at)))
        status, details = validate_image(moved, ARENA)
        logits = word(image, layer(3, 28))
        fits = at >= length and at + 108 <= queue and not output - 108 < at < output + 432
        if fits and logits - 108 < at < logits + 8:
            assert (status, details) == (Status.BAD_ARENA, (3, 28))
        else:
            assert (status, details) == ((Status.OK, (0, 0)) if fits else (Status.BAD_ARENA, (1, 28))), at
    partly = put(put(image, layer(2, 28), u32(pool + 4)), layer(3, 24), u32(pool + 4))
    assert validate_image(images.seal(partly), ARENA) == (Status.BAD_ARENA, (2, 28))  # only exactly in place


def test_tables_of_wide_codes_are_refused(images: SimpleNamespace) -> None:
    good = images.integer([[1, 2]] * 4, 16)
    assert validate_image(images.build([images.dense((2, 2, 1), good, table=True)]), 1 << 20)[0] is Status.OK
    wide = images.Tensor([[1, 2]] * 4, 1, 17, 8, 8, 3, 0, 0, 127)
    plain = images.build([images.dense((2, 2, 1), wide)])
    assert validate_image(plain, ARENA)[0] is Status.OK
    assert validate_image(images.build([images.dense((2, 2, 1), wide, table=True)]), 1 << 20) == (
        Status.BAD_ARENA,
        (0, 32),
    )


def test_random_damage_never_does_harm(images: SimpleNamespace, image: bytes) -> None:
    rng = random.Random(5)
    refused = 0
    for _ in range(20_000):
        data = bytearray(image)
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(data) - 4)
            data[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        refused += validate_image(images.seal(bytes(data)), ARENA)[0] is not Status.OK
    assert refused > 5000
