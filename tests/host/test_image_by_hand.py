"""Images assembled by hand from docs/model.md: the planner writes them, the reader reads them."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from bitloop.errors import ModelError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.plan import plan, read_image
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import Capability, Granularity, Packing, ScaleKind


def with_crc(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


HEADER = "<4sHHIHHHHHHHHIIHHIIII8x"
LAYER_RECORD = "<BBBBBBBBHHHHHHHHIIIBxBBBBBBHHII"
TENSOR_RECORD = "<BBBBBBBBhBBIIIIIIIIII"
NONE = 0xFFFFFFFF
NO_POOL = (0, 0, 0, 0, 0, 0, 0, 0, 0, NONE)
# Float, signed, with subnormals: 5 exponent and 10 mantissa bits; packed as bits; bias 15; no scale.
FP16 = (1, 16, 5, 10, 3, 0, 0, 1, 15, 0, 0)


def hand_made() -> bytes:
    """A network of an average pool and a dense layer with ReLU: ternary weights (2, 2) by channel, an fp16 bias.

    records: 64 + 2 * 56 + 2 * 52 = 280. Then the weights: two rows of one byte of trits, at 280; two scales at 284; the
    biases, four bytes, at 292; CRC-32 at 296; 300 bytes in all. Activations: 8 bytes each, at 300 and 308. Two slots of
    align4(3) + 12 + 4 * 2 + 4 * 2 = 32 bytes at 316; 380 bytes in all. No decode table.
    """
    header = struct.pack(HEADER, *(b"BLI1", 2, 64, 300, 2, 2, 56, 52, 1, 3, 1, 0), *(380, 316, 2, 0, 32, 308, 2), 0)
    pool = struct.pack(
        LAYER_RECORD,
        *(4, 0, 1, 2, 1, 1, 0, 0, 1, 3, 1, 1, 2, 1, 0xFFFF, 0xFFFF, NONE, 300, NONE),
        *(*NO_POOL, 0),
    )
    dense = struct.pack(LAYER_RECORD, *(1, 1, 0, 0, 0, 0, 0, 0, 1, 2, 1, 1, 1, 2, 0, 1, 300, 308, NONE), *(*NO_POOL, 0))
    # Ternary, signed; trits; scale fp32 by channel.
    weights = struct.pack(TENSOR_RECORD, *(3, 2, 0, 0, 1, 0, 1, 1, 0, 2, 1), *(2, 2, 1, 280, 2, 284, NONE, 2, 0, 0))
    biases = struct.pack(TENSOR_RECORD, *FP16, *(1, 2, 4, 292, 4, NONE, NONE, 0, 0, 0))
    # Rows (+1, 0) and (-1, +1): digits 2 + 3 * 1 = 5 and 0 + 3 * 2 = 6; padded to 4.
    data = bytes([5, 6, 0, 0]) + struct.pack("<ff", 0.5, 3.0) + struct.pack("<ee", 1.0, -2.0)
    return with_crc(header + pool + dense + weights + biases + data)


CHUNKS = struct.pack("<2e", 1.0, -2.0), struct.pack("<6e", 1.0, 2.0, 4.0, 5.0, 3.0, 6.0)


def hand_made_streamed() -> bytes:
    """A batch of two; a convolution with pooling fused behind it and a dense layer, the weights of both streamed.

    Pixels (2, 2, 1); convolution of one pixel to two channels, 1 and -2, without biases; max pooling 2 x 2 to
    (1, 1, 2); dense with weights ((1, 2, 3), (4, 5, 6)), all fp16. records: 64 + 2 * 56 + 3 * 52 = 332. Biases, 6
    bytes, at 332; CRC-32 at 340; 344 bytes in all. Two slots of 4 + 12 + 4 * 3 + 4 * 2 = 36 bytes.

    There are 52 bytes for all else, at 344. Both outputs are kept for the batch: 2 * 8 bytes at 344, 2 * 12 at the end,
    at 372. The convolution has 36 bytes left: with one column a chunk the tile takes 4 * 4 * 1 = 16, at 360, and the
    chunk 2 and a margin of 4, rounded up to 8, at 376; with two it would be 32 and 8. The dense layer has 12 left, at
    360: two columns are 2 rows of 4 bytes and the margin, 12; three would be 16.

    The pass: columns 1 and -2; then the rows (1, 2) and (4, 5), and what is left of them, (3) and (6).
    """
    header = struct.pack(HEADER, *(b"BLI1", 2, 64, 344, 2, 3, 56, 52, 2, 2, 1, 0), *(468, 396, 2, 0, 36, 372, 3), 16)
    convolution = struct.pack(
        LAYER_RECORD,
        *(2, 0, 1, 1, 1, 1, 0, 0, 2, 2, 1, 1, 1, 2, 0, 0xFFFF, NONE, 344, NONE),
        *(3, 2, 2, 2, 2, 0, 0, 2, 2, 360, 8),
    )
    dense = struct.pack(
        LAYER_RECORD, *(1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 1, 1, 3, 1, 2, 344, 372, NONE), *(*NO_POOL, 12)
    )
    crcs = [zlib.crc32(chunks) for chunks in CHUNKS]
    tensors = [
        struct.pack(TENSOR_RECORD, *FP16, *(1, 2, 2, 376, 2, NONE, NONE, 0, 1, crcs[0])),
        struct.pack(TENSOR_RECORD, *FP16, *(2, 3, 4, 360, 8, NONE, NONE, 0, 2, crcs[1])),
        struct.pack(TENSOR_RECORD, *FP16, *(1, 3, 6, 332, 6, NONE, NONE, 0, 0, 0)),
    ]
    biases = struct.pack("<3e", 1.0, 0.0, -1.0) + bytes(2)
    return with_crc(header + convolution + dense + b"".join(tensors) + biases)


def hand_made_streamed_model() -> Model:
    def fp16(name: str, values: list[float], shape: tuple[int, ...]) -> QuantizedTensor:
        codes = np.array(values, "<f2").view("<u2").astype(np.uint32).reshape(shape)
        return QuantizedTensor(
            *(name, parse_format("fp16"), ScaleKind.NONE, Granularity.TENSOR, Rounding.NEAREST, Packing.BITS, codes)
        )

    architecture = Architecture(
        "streamed",
        (2, 2, 1),
        (
            *(Conv2D("conv", 2, (1, 1), use_bias=False), MaxPool2D("pool", (2, 2), (2, 2))),
            *(Flatten("flatten"), Dense("dense", 3)),
        ),
    )
    tensors = [
        fp16("conv.weights", [1, -2], (1, 1, 1, 2)),
        fp16("dense.weights", [1, 2, 3, 4, 5, 6], (2, 3)),
        fp16("dense.biases", [1, 0, -1], (3,)),
    ]
    recipe = {"weights": "", "biases": "", "overrides": {}}
    return Model("streamed", "", architecture, recipe, {tensor.name: tensor for tensor in tensors})


def hand_made_model() -> Model:
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
    device = DeviceInfo(arena_bytes=380, layer_kinds=0xFF, format_kinds=0xFF, packings=(1,))
    planned = plan(hand_made_model(), device, slots=2)
    assert planned.image == hand_made()
    assert (planned.placement, planned.streamed) == ("resident", None)


def test_the_planner_streams_what_was_assembled_by_hand():
    device = DeviceInfo(arena_bytes=468, layer_kinds=0xFF, format_kinds=0xFF, capabilities=Capability.STREAMED_WEIGHTS)
    planned = plan(hand_made_streamed_model(), device, slots=2, placement="stream")
    assert planned.image == hand_made_streamed()
    assert planned.placement == "stream"
    assert planned.streamed is not None
    assert planned.streamed.data == b"".join(CHUNKS)
    assert (planned.streamed.ends, planned.streamed.batch, planned.streamed.bytes_per_image) == ((4, 16), 2, 8.0)
    # Most is in use behind the convolution: 16 + 24 bytes of outputs and a chunk of 12.
    memory = planned.memory
    assert (memory.weights_bytes, memory.activations_bytes, memory.tiles_bytes, memory.chunks_bytes) == (344, 40, 0, 12)
    assert (memory.queue_bytes, memory.total_bytes, memory.slots) == (72, 468, 2)


def test_the_reader_reads_streamed_weights():
    image = read_image(hand_made_streamed(), arena_bytes=468)
    codes = image.streamed_codes(b"".join(CHUNKS))
    assert sorted(codes) == [0, 1]
    assert codes[0].astype("<u2").view("<f2").tolist() == [[1, -2]]
    assert codes[1].astype("<u2").view("<f2").tolist() == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(ModelError, match="tensor 0 is streamed: its codes are not in the image"):
        image.codes(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1], "the pass has 15 bytes, the image asks for 16"),
        (lambda data: data + bytes(1), "the pass has 17 bytes"),
        (lambda data: data[:1] + b"\xff" + data[2:], "tensor 0: the chunks' CRC-32 is"),
        (lambda data: data[:-1] + b"\xff", "tensor 1: the chunks' CRC-32 is"),
    ],
)
def test_a_damaged_pass_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        read_image(hand_made_streamed()).streamed_codes(change(b"".join(CHUNKS)))


def test_a_streamed_code_that_is_no_number_is_refused():
    """The second chunk of the dense layer, column 2, its second row: infinity."""
    data = b"".join(CHUNKS)[:-2] + struct.pack("<H", 0x7C00)
    image = bytearray(hand_made_streamed())
    struct.pack_into("<I", image, 64 + 2 * 56 + 52 + 48, zlib.crc32(data[4:]))
    with pytest.raises(ModelError, match="tensor 1, chunk from column 2 on: element 1 has a code that is no finite"):
        read_image(with_crc(bytes(image[:-4]))).streamed_codes(data)


def test_the_reader_reads_what_was_assembled_by_hand():
    image = read_image(hand_made(), arena_bytes=380, max_layers=2, max_tensors=2)
    assert image.codes(0).tolist() == [[1, 0], [3, 1]]
    assert image.scales(0).tolist() == [0.5, 3.0]
    assert image.codes(1).tolist() == [[0x3C00, 0xC000]]
    assert image.scales(1) is None
    assert image.zero_points(0) is None
    assert [layer.kind for layer in image.layers] == [4, 1]
