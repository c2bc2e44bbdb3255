"""Streamed weights end to end: planned models on a device whose arena has just what they need, bit for bit."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.errors import DoesNotFitError
from bitloop.hello import DeviceInfo
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.network.zoo import zoo_architecture
from bitloop.plan import Plan, plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import activations, simulate
from bitloop.spec import MessageType, RunOutput

NATIVE = DeviceInfo.native_default()
Device = Any  # conftest's, which gives no type


def model_of(architecture: Architecture, weights: str, seed: int = 3) -> Model:
    rng = np.random.default_rng(seed)
    parameters = {
        name: (rng.normal(size=shape) * 0.5).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, parameters, "none", {}), parse_recipe(weights, "fp32", []))


def run(device: Device, planned: Plan, pixels: np.ndarray, stop_layer: int = spec.NO_LAYER) -> list[bytes]:
    """Run images; weights go as the device asks for them. Returns the results' records."""
    streamed = planned.streamed
    assert streamed is not None
    whole = stop_layer == spec.NO_LAYER
    end = len(streamed.data) if whole else streamed.ends[stop_layer]
    data = pixels.tobytes()
    device.pending.clear()
    outputs = RunOutput.LOGITS if whole else RunOutput(0)
    ready = device.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, outputs, stop_layer, len(pixels)))
    assert ready.type == MessageType.RUN_READY
    slots, record_bytes, limit = struct.unpack("<HHI", ready.body)
    assert slots == (streamed.batch if whole else 1)
    at, wanted, records = 0, (0, 0, 0), list[bytes]()
    while len(records) < len(pixels):
        if at < min(limit, len(data)):
            answer = device.ask(MessageType.RUN_DATA, struct.pack("<I", at) + data[at : min(limit, at + 1000)])
        elif wanted[1] < wanted[2]:
            number, begin, until = wanted
            assert until <= end
            piece = streamed.data[begin : min(until, begin + 700)]
            answer = device.ask(MessageType.STREAM_DATA, struct.pack("<II", number, begin) + piece)
        else:
            answer = device.pending.pop(0) if device.pending else device.receive()
        if answer.type == MessageType.RESULT:
            first, count = struct.unpack_from("<IB", answer.body)
            assert first == len(records)
            records += [answer.body[6 + k * record_bytes : 6 + (k + 1) * record_bytes] for k in range(count)]
            if not whole:
                continue
            answer = device.ask(MessageType.RUN_ACK, struct.pack("<IB", len(records), 0))
        assert answer.type == MessageType.RUN_CREDIT, answer
        at, limit, _, *now = struct.unpack("<6I", answer.body)
        wanted = (now[0], now[1], now[2])
    return records


def check(start_device: Callable[..., Device], model: Model, planned: Plan) -> None:
    """Hold the logits of two batches and an image against the simulation, and each operation's output for one image."""
    count = min(2 * planned.memory.slots + 1, 9)
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (count, *model.architecture.input_shape), dtype=np.uint8)
    pixels[rng.random(pixels.shape) < 0.4] = 0
    expected = simulate(model, pixels).view(np.uint32)
    each = activations(model, pixels[:1])
    device = start_device("--arena", str(planned.memory.total_bytes))
    device.hello()
    assert device.upload(planned.image).type == MessageType.UPLOAD_DONE
    found = [np.frombuffer(record, "<u4", expected.shape[1], 12) for record in run(device, planned, pixels)]
    np.testing.assert_array_equal(np.array(found), expected)
    for number, operation in enumerate(planned.operations):
        run(device, planned, pixels[:1], number)
        data = b""
        while len(data) < operation.output_bytes:
            answer = device.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", len(data), 1000))
            assert struct.unpack_from("<II", answer.body) == (len(data), operation.output_bytes)
            data += answer.body[8:]
        reference = each[operation.layers[-1]][0].ravel().view(np.uint32)
        np.testing.assert_array_equal(np.frombuffer(data, "<u4"), reference)
    assert device.close() == 0


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """A convolution or two with pooling that is fused or not, then dense layers, with ReLUs in place here and there."""
    relu = lambda name: [ReLU(name)] if draw(st.booleans()) else []  # noqa: E731
    layers: list[Layer] = []
    for number in range(draw(st.integers(0, 2))):
        same, bias = draw(st.sampled_from(("same", "valid"))), draw(st.booleans())
        layers += [Conv2D(f"conv{number}", draw(st.integers(1, 9)), (2, draw(st.integers(1, 2))), (1, 1), same, bias)]
        layers += relu(f"relu{number}")
        pool = draw(st.sampled_from((None, MaxPool2D, AveragePool2D)))
        if pool is not None:
            layers += [pool(f"pool{number}", (2, 2), (draw(st.integers(1, 2)), 2), "same"), *relu(f"behind{number}")]
    layers.append(Flatten("flatten"))
    for number in range(draw(st.integers(1, 3))):
        layers += [*relu(f"before{number}"), Dense(f"dense{number}", draw(st.integers(1, 20)), draw(st.booleans()))]
    layers += relu("last")
    return Architecture(
        "random", (draw(st.integers(4, 8)), draw(st.integers(4, 8)), draw(st.integers(1, 3))), tuple(layers)
    )


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    architectures(),
    st.sampled_from(("fp32", "fp16", "int8:channel", "int5", "e3m1:pow2", "ternary", "binary", "int4:affine:channel")),
    st.sampled_from(((0,), (1, 0))),
    st.tuples(st.sampled_from((None, 1, 2, 3)), st.integers(0, 99)),
)
def test_random_networks(
    start_device: Callable[..., Device],
    architecture: Architecture,
    weights: str,
    packings: tuple[int, ...],
    room: tuple[int | None, int],
) -> None:
    slots, percent = room
    model = model_of(architecture, weights)
    device = replace(NATIVE, packings=packings)
    needed = []
    for placement in ("auto", "resident"):
        with pytest.raises(DoesNotFitError) as refused:
            plan(model, device.with_arena(0), slots=slots, placement=placement)
        needed.append(refused.value.needed_bytes)
    least, resident = needed
    assume(least < resident)
    arena = least + (resident - least) * percent // 100
    check(start_device, model, plan(model, device.with_arena(arena), slots=slots))
    check(start_device, model, plan(model, device, slots=slots or 5, placement="stream"))


@pytest.mark.parametrize(
    ("name", "weights", "arena"),
    [("mlp8k", "int8", 5120), ("mlp8k", "ternary", 2500), ("mlp", "fp32", 5120), ("cnn", "fp32", 16384)],
)
def test_networks_larger_than_the_arena(
    start_device: Callable[..., Device], name: str, weights: str, arena: int
) -> None:
    model = model_of(zoo_architecture(name), weights)
    check(start_device, model, plan(model, NATIVE.with_arena(arena)))
