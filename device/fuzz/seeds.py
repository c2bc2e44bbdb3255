"""Seeds for the fuzz targets: planned images of a small network in many formats, and requests around them.

python device/fuzz/seeds.py image|server DIRECTORY
"""

from __future__ import annotations

import argparse
import itertools
import struct
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
from bitloop.spec import MessageType, Packing

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


def _step(kind: int, body: bytes = b"") -> bytes:
    return struct.pack("<BH", kind, len(body)) + body


def conversations() -> list[bytes]:
    """Whole runs in both modes, with a stop layer, with weights for two batches, and an upload that begins anew."""
    result: list[bytes] = []
    for planned in plans()[::3]:
        image = planned.image
        height, width, channels = struct.unpack_from("<HHH", image, 20)
        pixels = height * width * channels
        stream = bytes(i % 256 for i in range(3 * pixels))
        for mode, outputs, stop in ((0, 3, 0xFFFF), (1, 1, 0xFFFF), (1, 2, 0)):
            steps = [_step(0xFE, image), _step(MessageType.RUN_BEGIN, struct.pack("<BBHI", mode, outputs, stop, 3))]
            for offset in range(0, len(stream), pixels):
                steps.append(_step(MessageType.RUN_DATA, struct.pack("<I", offset) + stream[offset : offset + pixels]))
                weights = b"" if planned.streamed is None else planned.streamed.data
                for at in range(0, len(weights), _WEIGHTS_A_FRAME):
                    head = struct.pack("<II", offset // pixels // 2, at)
                    steps.append(_step(MessageType.STREAM_DATA, head + weights[at : at + _WEIGHTS_A_FRAME]))
                steps.append(_step(MessageType.READ_ACTIVATION, struct.pack("<IH", 0, 64)))
                steps.append(_step(MessageType.RUN_ACK, struct.pack("<IB", offset // pixels, 1)))
            steps += [
                _step(MessageType.RUN_END),
                _step(MessageType.STATS_REQUEST),
                _step(MessageType.ECHO_REQUEST, b"e"),
            ]
            steps += [_step(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0)), _step(0xFF, b"\x00raw\x00")]
            steps.append(_step(MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), 8192) + bytes(32)))
            steps += [_step(MessageType.UPLOAD_DATA, bytes(4) + image[:50]), _step(MessageType.UPLOAD_END)]
            result.append(b"".join(steps))
    return result


def main() -> None:
    """Write the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=("image", "server"))
    parser.add_argument("directory", type=Path)
    arguments = parser.parse_args()
    seeds = [planned.image for planned in plans()] if arguments.target == "image" else conversations()
    for number, seed in enumerate(seeds):
        (arguments.directory / f"seed-{number:03}").write_bytes(seed)


if __name__ == "__main__":
    main()
