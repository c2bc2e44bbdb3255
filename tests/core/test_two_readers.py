"""The core's validator and the host's reader of images were written apart: they must accept the same ones."""

from __future__ import annotations

import random
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest

from bitloop.errors import ModelError
from bitloop.hello import DeviceInfo
from bitloop.native import validate_image
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D
from bitloop.network.network import Network
from bitloop.plan.image import read_image
from bitloop.plan.planner import plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import Packing, Status

ARENA = 1 << 20


def planned(weights: str, biases: str, packing: Packing) -> bytes:
    layers = (
        Conv2D("c", 2, (2, 2), (1, 1), "same"),
        MaxPool2D("m", (2, 2), (1, 2), "valid"),
        AveragePool2D("a", (2, 1), (1, 1), "same"),
        Flatten("f"),
        Dense("d", 3),
    )
    architecture = Architecture("small", (4, 4, 1), layers)
    rng = np.random.default_rng(1)
    parameters = {name: rng.normal(size=s).astype(np.float32) for name, s in architecture.parameter_shapes().items()}
    model = quantize(Network(architecture, parameters, "none", {}), parse_recipe(weights, biases, []))
    packings = (int(packing), 1 - int(packing))
    return plan(model, replace(DeviceInfo.native_default(arena_bytes=ARENA), packings=packings)).image


def seal(image: bytearray) -> bytes:
    image[8:12] = struct.pack("<I", len(image))
    image[-4:] = struct.pack("<I", zlib.crc32(image[:-4]))
    return bytes(image)


def host_accepts(image: bytes) -> bool:
    try:
        read_image(image, arena_bytes=ARENA)
    except ModelError:
        return False
    return True


@pytest.mark.parametrize(
    ("weights", "biases", "packing"),
    [
        ("e4m3:pow2", "int8:affine", Packing.BITS),
        ("ternary", "fp16", Packing.TRITS),
        ("ternary", "binary", Packing.BITS),
        ("int5:channel", "q3.4", Packing.BITS),
    ],
)
def test_same_verdict_on_damaged_images(weights: str, biases: str, packing: Packing) -> None:
    good = planned(weights, biases, packing)
    assert host_accepts(good)
    assert validate_image(good, ARENA)[0] is Status.OK
    rng = random.Random(weights)
    accepted = 0
    for _ in range(2500):
        image = bytearray(good)
        for _ in range(rng.choice((1, 1, 2))):
            at = rng.randrange(len(image) - 4)
            image[at] = rng.choice(
                (0, 1, 2, 0x7F, 0x80, 0xFF, rng.randrange(256), (image[at] + rng.choice((-4, 4))) & 255)
            )
        sealed = seal(image)
        verdict = validate_image(sealed, ARENA)
        assert (verdict[0] is Status.OK) == host_accepts(sealed), (verdict, sealed.hex())
        accepted += verdict[0] is Status.OK
    assert 20 < accepted < 2000
