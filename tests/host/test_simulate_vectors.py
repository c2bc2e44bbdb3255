"""Golden networks (tests/vectors/networks.json), derived by hand, on the simulation and through planner and image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bitloop.hello import DeviceInfo
from bitloop.network.architecture import Architecture
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.plan import memory, plan
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.simulate import simulate
from bitloop.spec import Granularity, Packing, ScaleKind

CASES = json.loads((Path(__file__).parents[1] / "vectors" / "networks.json").read_text())["cases"]


def words(entries) -> np.ndarray:
    return np.array([int(entry, 16) if isinstance(entry, str) else entry for entry in entries], np.uint32)


def model_of(case) -> Model:
    architecture = Architecture.from_dict({key: case[key] for key in ("name", "input_shape", "layers")})
    shapes = architecture.parameter_shapes()
    parts = {}
    for name, entry in case["tensors"].items():
        points = entry.get("zero_points")
        parts[name] = QuantizedTensor(
            name,
            parse_format(entry["format"]),
            ScaleKind[entry.get("scale", "none").upper()],
            Granularity[entry.get("granularity", "tensor").upper()],
            Rounding.NEAREST,
            Packing.BITS,
            words(entry["codes"]).reshape(shapes[name]),
            words(entry["scales"]).view(np.float32) if "scales" in entry else None,
            None if points is None else np.array(points, np.int32),
        )
    return Model(case["name"], "", architecture, {"weights": "", "biases": "", "overrides": {}}, parts)


def pixels_of(case) -> np.ndarray:
    return np.array(case["pixels"], np.uint8).reshape(-1, *case["input_shape"])


def hexadecimal(logits: np.ndarray) -> list[list[str]]:
    return [[f"{bits:08X}" for bits in row] for row in logits.view(np.uint32)]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_simulation(case):
    assert hexadecimal(simulate(model_of(case), pixels_of(case))) == case["logits"]


@pytest.mark.parametrize("table_bits", [0, 16])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_compiled_core(case, table_bits, monkeypatch):
    """Planned, written as an image, and run by the core on this machine, with decode tables and without."""
    from dataclasses import replace

    from bitloop.native.evaluator import Evaluator

    monkeypatch.setattr(memory, "MACS_A_TABLE_ENTRY", 0)
    image = plan(model_of(case), replace(DeviceInfo.native_default(), table_bits=table_bits)).image
    assert hexadecimal(Evaluator(image).run(pixels_of(case))) == case["logits"]
