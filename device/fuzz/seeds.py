"""Seeds for the fuzz targets: planned images of a small network in many formats, and requests around them.

python device/fuzz/seeds.py coding|frame|image|server DIRECTORY
"""

from __future__ import annotations

import argparse
import itertools
import struct
from hashlib import sha256
from pathlib import Path

import numpy as np

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
from bitloop.plan.planner import PLACEMENTS, Plan, plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import CODE_SYMBOLS, MAX_CODE_BITS, MAX_RUN, CodeTable, Coding, MessageType, Packing

RECIPES = (
    ("fp32", "fp32"),
    ("fp16", "bf16"),
    ("e4m3:pow2", "e5m2"),
    ("e8m2", "fp32"),
    ("e4m3fn:channel", "int8"),
    ("int8:channel", "int8:affine"),
    ("int4:channel", "q3.4"),
    ("uint8:affine", "fp16"),
    ("int12", "int16"),
    ("int5:channel", "ternary"),
    ("ternary", "fp32"),
    ("binary", "fp32"),
)


def _architectures() -> tuple[Architecture, ...]:
    return (
        Architecture(
            "dense",
            (3, 3, 1),
            (Flatten("flat"), Dense("dense1", 5), ReLU("relu1"), Dense("dense2", 3), Softmax("soft")),
        ),
        Architecture(
            "conv",
            (6, 6, 2),
            (
                Conv2D("conv1", 3, (3, 3), (1, 1), "same"),
                ReLU("relu1"),
                MaxPool2D("pool1", (2, 2), (2, 2), "valid"),
                Conv2D("conv2", 2, (2, 1), (2, 1), "valid"),
                AveragePool2D("pool2", (2, 2), (1, 2), "same"),
                ReLU("relu2"),
                Flatten("flat"),
                Dense("dense1", 3, use_bias=False),
            ),
        ),
    )


def plans() -> list[Plan]:
    """Plan each network in each recipe: with and without decode tables, in both ternary packings, streamed and not."""
    rng = np.random.default_rng(1)
    result: list[Plan] = []
    for architecture in _architectures():
        parameters = {
            name: rng.normal(size=shape).astype(np.float32) for name, shape in architecture.parameter_shapes().items()
        }
        network = Network(architecture, parameters, "none", {})
        for weights, biases in RECIPES:
            model = quantize(network, parse_recipe(weights, biases, []))
            for table_bits, packings in itertools.product(
                (8, 0), ((Packing.BITS, Packing.TRITS), (Packing.TRITS, Packing.BITS))
            ):
                device = DeviceInfo.native_default(arena_bytes=1 << 13)
                device = type(device)(
                    **{**vars(device), "table_bits": table_bits, "packings": tuple(int(p) for p in packings)}
                )
                result += [plan(model, device, slots=2, placement=placement) for placement in PLACEMENTS[1:]]
    return result


_WEIGHTS_A_FRAME = 100
_BOARDS = (0b0000, 0b0011, 0b0100, 0b1000)
"""Kinds of board (fuzz_server.c): all there is; no tables, a fixed rate; short frames sent; short frames received."""

PASS, TABLE, COMPLETE, DELTA, IMAGE, RAW = range(0xFA, 0x100)


def _step(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<BH", kind, len(body)) + body


def _run(planned: Plan, mode: int, outputs: int, stop: int) -> bytes:
    """Upload and run three images, with all that may be asked on the way, and begin the upload anew."""
    image = planned.image
    height, width, channels = struct.unpack_from("<HHH", image, 20)
    pixels = height * width * channels
    stream = bytes(i % 256 for i in range(3 * pixels))
    steps = [_step(IMAGE, image), _step(MessageType.RUN_BEGIN, struct.pack("<BBHI", mode, outputs, stop, 3))]
    for offset in range(0, len(stream), pixels):
        steps.append(_step(MessageType.RUN_DATA, struct.pack("<I", offset) + stream[offset : offset + pixels]))
        weights = b"" if planned.streamed is None else planned.streamed.data
        for at in range(0, len(weights), _WEIGHTS_A_FRAME):
            head = struct.pack("<II", offset // pixels // 2, at)
            steps.append(_step(MessageType.STREAM_DATA, head + weights[at : at + _WEIGHTS_A_FRAME]))
        steps.append(_step(MessageType.READ_ACTIVATION, struct.pack("<IH", 0, 64)))
        steps.append(_step(MessageType.RUN_ACK, struct.pack("<IB", offset // pixels, 1)))
    steps += [_step(MessageType.RUN_END), _step(MessageType.STATS_REQUEST), _step(MessageType.ECHO_REQUEST, b"e")]
    steps += [_step(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0)), _step(RAW, b"\x00raw\x00")]
    steps.append(_step(MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), 8192) + bytes(32)))
    steps += [_step(MessageType.UPLOAD_DATA, bytes(4) + image[:50]), _step(MessageType.UPLOAD_END)]
    return b"".join(steps)


def _behind_gaps(image: bytes) -> bytes:
    """Send every third piece of an image, then all of them backwards."""
    pieces = [struct.pack("<I", at) + image[at : at + 40] for at in range(0, len(image), 40)]
    steps = [_step(MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), 8192) + sha256(image).digest())]
    steps += [_step(MessageType.UPLOAD_DATA, piece) for piece in [*pieces[1::3], *pieces[::-1]]]
    return b"".join([*steps, _step(MessageType.UPLOAD_END), _step(MessageType.TENSORS_REQUEST, bytes(2))])


def _coded(image: bytes) -> bytes:
    """The same in each coding, with a table for each use; then pixels and weights, also beyond a gap."""
    steps = [_step(TABLE, bytes([table, *TABLE_BYTES])) for table in CodeTable]
    steps.append(_step(MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), 8192) + sha256(image).digest()))
    for number, at in enumerate(range(0, len(image), 60)):
        data = image[at : at + 60]
        kind = number % 3 + 1
        head = struct.pack("<IHB", at, len(data), kind)
        steps.append(_step(MessageType.UPLOAD_CODED, head + coded(data, kind, code_lengths(TABLE_BYTES))))
    steps += [_step(MessageType.UPLOAD_END), _step(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 1, 0xFFFF, 4))]
    for offset, kind in ((9, 1), (0, 3), (5, 2), (18, 1), (18, 3)):
        head = struct.pack("<IHB", offset, 9, kind)
        piece = head + coded(bytes(9), kind, code_lengths(TABLE_BYTES))
        steps += [_step(MessageType.RUN_CODED, piece), _step(MessageType.STREAM_CODED, bytes(4) + piece)]
    return b"".join([*steps, _step(MessageType.CODE_TABLE, bytes([0, 0, 0, 0, 0x11]))])


def _delta(old: bytes, new: bytes) -> bytes:
    """Make an image of another: two copies, the first of which overlaps itself."""
    copies = struct.pack("<B6H", 2, 64, 68, 40, 200, 200, 100)
    steps = [_step(IMAGE, old), _step(DELTA, copies + new), _step(COMPLETE), _step(DELTA, b"\0" + old)]
    again = [_step(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 2)), _step(COMPLETE)]
    return b"".join([*steps, *again, _step(MessageType.TENSORS_REQUEST, struct.pack("<H", 4))])


def _rates() -> bytes:
    """Change the rate; commit it; let each of the times pass after which the first one is back."""
    change, commit = (
        _step(kind, struct.pack("<I", 500000)) for kind in (MessageType.BAUD_REQUEST, MessageType.BAUD_COMMIT)
    )
    echo = _step(MessageType.ECHO_REQUEST, bytes(range(64)))
    short, second, long = (_step(PASS, struct.pack("<H", passed)) for passed in (400, 1000, 10000))
    noise = _step(RAW, b"\x80\xff\x13")
    steps = [change, echo, short, echo, commit, short, second, noise, second, second, echo, change, second, change]
    return b"".join([*steps, commit, long, change, commit, _step(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 2))])


def conversations() -> list[bytes]:
    """Whole runs in both modes, with a stop layer, with weights for two batches; and each of protocol 1.2's ways."""
    planned = plans()
    result = [
        _run(each, mode, outputs, stop)
        for each in planned[::3]
        for mode, outputs, stop in ((0, 3, 0xFFFF), (1, 1, 0xFFFF), (1, 2, 0))
    ]
    for each in planned[::9]:
        result += [_behind_gaps(each.image), _coded(each.image)]
    result += [_delta(old.image, new.image) for old, new in itertools.pairwise(planned[::7])]
    result.append(_rates())
    return [bytes([board]) + each for board, each in zip(itertools.cycle(_BOARDS), result)]


# --- codings ------------------------------------------------------------------------------------------------------

TABLE_BYTES = bytes(i * 7 % 251 for i in range(255))
"""Of which a code of all 256 symbols is made."""


def code_lengths(data: bytes) -> list[int]:
    """Split a leaf for each byte, as fuzz_common.h does; return the length of each symbol's code."""
    depths = [0]
    for byte in data[: CODE_SYMBOLS - 1]:
        leaf = byte % len(depths)
        if depths[leaf] < MAX_CODE_BITS:
            depths[leaf] += 1
            depths.append(depths[leaf])
    lengths = [0] * CODE_SYMBOLS
    for leaf, depth in enumerate(depths):
        lengths[(leaf * 167 + 13) % CODE_SYMBOLS] = max(depth, 1)
    return lengths


def coded(data: bytes, kind: int, lengths: list[int]) -> bytes:
    """Code bytes as docs/protocol.md says: zeros as runs, all else as literals; codes from their highest bit on."""
    if kind & Coding.RUNS:
        tokens = b""
        for is_zero, group in itertools.groupby(data, lambda byte: byte == 0):
            run = bytes(group)
            for piece in (run[at : at + MAX_RUN] for at in range(0, len(run), MAX_RUN)):
                tokens += bytes([len(piece) + 127]) if is_zero else bytes([len(piece) - 1]) + piece
        data = tokens
    if not kind & Coding.CODES:
        return data
    codes: dict[int, str] = {}
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(lengths) if length > 0):
        code <<= length - before
        codes[symbol], before = f"{code:0{length}b}", length
        code += 1
    bits = "".join(codes[byte] for byte in data)
    return b"".join(int(bits[at : at + 8][::-1], 2).to_bytes(1, "little") for at in range(0, len(bits), 8))


def coding_seeds() -> list[bytes]:
    """Bytes with and without zeros in each coding, whole and cut off."""
    result: list[bytes] = []
    lengths = code_lengths(TABLE_BYTES)
    for data in (b"a", bytes(300), bytes(range(256)), b"\0\0\0abc\0" * 30):
        for kind in range(4):
            code = coded(data, kind, lengths)
            head = struct.pack("<BHB", kind | 4, len(data), len(TABLE_BYTES)) + TABLE_BYTES
            result += [head + code, head + code[:-1], head + code + b"\0"]
    result.append(struct.pack("<BHB", 2, 5, 128) + bytes([0x88] * 128) + b"hello")  # all lengths 8: bytes turned round
    return [*result, struct.pack("<BHB", 2, 5, 1) + b"\x01\0"]  # one symbol, of one bit


def frame_seeds() -> list[bytes]:
    """Frames around what COBS counts, good ones and pieces of them, for decoders of several lengths."""
    contents = [b"abcd", bytes(4), bytes(range(1, 255)), bytes([1] * 253) + b"\0", bytes([7] * 255), bytes(50)]
    steps = [bytes([1, len(content)]) + content for content in contents]
    raw = [bytes([0, len(data)]) + data for data in (b"\0", b"\0\0", b"\x05abc\0", b"\xff" * 200, b"boot\r\n\0")]
    return [
        bytes([capacity]) + b"".join(each)
        for capacity in (0, 100, 255)
        for each in (steps, raw, [*steps, *raw], [raw[3], *steps[2:4], raw[2]])
    ]


SEEDS = {
    "coding": coding_seeds,
    "frame": frame_seeds,
    "image": lambda: [planned.image for planned in plans()],
    "server": conversations,
}


def main() -> None:
    """Write the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(SEEDS))
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    for number, seed in enumerate(SEEDS[arguments.target]()):
        (arguments.directory / f"seed-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
