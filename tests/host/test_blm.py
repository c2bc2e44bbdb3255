"""The .blm file: bytes laid out by hand from docs/model.md, and damage of every kind."""

import hashlib
import json
import struct
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import ModelError
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, ReLU, Softmax
from bitloop.network.network import Network
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.spec import MAX_MODEL_BYTES


def _model(weights: str = "int4:affine:channel", *overrides: str) -> Model:
    architecture = Architecture(
        "small",
        (4, 4, 1),
        (
            Conv2D("conv1", 2, (2, 2), padding="same"),
            ReLU("relu1"),
            AveragePool2D("pool1"),
            Flatten("flatten"),
            Dense("dense1", 3),
            Softmax("softmax"),
        ),
    )
    rng = np.random.default_rng(0)
    shapes = architecture.parameter_shapes()
    parameters = {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    return quantize(Network(architecture, parameters, "digits"), parse_recipe(weights, "e4m3:pow2", overrides))


MODEL = _model("int4:affine:channel", "dense1.weights=ternary", "dense1.biases=int5")
DATA = MODEL.to_bytes()


def _sealed(body: bytes) -> bytes:
    """Return a file with its length and CRC-32 made right."""
    body = body[:8] + struct.pack("<I", len(body) + 4) + body[12:]
    return body + struct.pack("<I", zlib.crc32(body))


def _file(header: object, payload: bytes, **changes: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    fields = {"version": 1, "reserved": 0, "header_length": len(text), **changes}
    preamble = struct.pack("<4sHHII", b"BLM1", fields["version"], fields["reserved"], 0, fields["header_length"])
    return _sealed(preamble + text + payload)


def _parts(data: bytes = DATA) -> tuple[dict[str, Any], bytes]:
    (length,) = struct.unpack_from("<I", data, 12)
    return json.loads(data[16 : 16 + length]), data[16 + length : -4]


# The example of a file, by hand: a dense layer of three inputs and two outputs.
TINY_HEADER = {
    "name": "tiny",
    "dataset": "",
    "recipe": {"weights": "int4:channel", "biases": "e4m3", "overrides": {}},
    "architecture": {
        "name": "tiny",
        "input_shape": [1, 3, 1],
        "layers": [{"kind": "dense", "name": "d", "units": 2, "use_bias": True}],
    },
    "tensors": [
        {
            "name": "d.weights", "shape": [3, 2], "format": "int4", "scale": "fp32", "granularity": "channel",
            "rounding": "nearest", "packing": "bits", "offset": 0, "length": 3, "scales": 3, "zero_points": None,
            "groups": 2,
        },
        {
            "name": "d.biases", "shape": [2], "format": "e4m3", "scale": "none", "granularity": "tensor",
            "rounding": "nearest", "packing": "bits", "offset": 11, "length": 2, "scales": None, "zero_points": None,
            "groups": 0,
        },
    ],
}  # fmt: skip
# Codes 1, -1, 2, -2, 7, -7 two a byte, low half first; scales 0.5 and 2; biases 1.0 and -0.25.
TINY_PAYLOAD = bytes([0xF1, 0xE2, 0x97]) + struct.pack("<ff", 0.5, 2.0) + bytes([0x38, 0xA8])
TINY = _file(TINY_HEADER, TINY_PAYLOAD)


def test_a_file_by_hand() -> None:
    model = blm.from_bytes(TINY)
    assert model.tensors["d.weights"].elements().tolist() == [[1, -1], [2, -2], [7, -7]]
    assert model.tensors["d.weights"].values().tolist() == [[0.5, -2], [1, -4], [3.5, -14]]
    assert model.tensors["d.biases"].values().tolist() == [1.0, -0.25]
    assert (model.sizes.weights, model.sizes.biases, model.sizes.scales) == (3, 2, 8)
    assert model.to_bytes() == TINY
    assert model.sha256 == hashlib.sha256(TINY).hexdigest()


def test_a_quantized_network_gives_that_file() -> None:
    architecture = Architecture("tiny", (1, 3, 1), (Dense("d", 2),))
    weights = np.array([[0.5, -2], [1, -4], [3.5, -14]], dtype=np.float32)
    network = Network(architecture, {"d.weights": weights, "d.biases": np.array([1.0, -0.25], np.float32)})
    assert quantize(network, parse_recipe("int4:channel", "e4m3")).to_bytes() == TINY


@pytest.mark.parametrize(
    "weights",
    [
        *("fp32", "fp16", "e8m2:toward_zero", "e3m1:pow2", "int8:channel", "uint4:affine", "ternary"),
        *("ternary:bits:channel", "binary:pow2", "q3.4:stochastic:seed=3", "ue4m3nosub:channel", "e2m1finite:fp32"),
    ],
)
def test_round_trip(weights: str, tmp_path: Path) -> None:
    model = _model(weights)
    path = tmp_path / "model.blm"
    blm.save(model, path)
    assert [p.name for p in tmp_path.iterdir()] == ["model.blm"]
    found = blm.load(path)
    assert path.read_bytes() == found.to_bytes() == model.to_bytes()
    assert (found.sha256, found.recipe, found.sizes) == (model.sha256, model.recipe, model.sizes)
    assert found.architecture == model.architecture
    for name, tensor in model.tensors.items():
        other = found.tensors[name]
        assert (other.format, other.scale, other.granularity) == (tensor.format, tensor.scale, tensor.granularity)
        assert np.array_equal(other.values(), tensor.values())
        assert not other.codes.flags.writeable
    header, payload = _parts(model.to_bytes())
    assert len(payload) == model.sizes.total
    assert header["recipe"]["weights"] == model.recipe["weights"]


# --- damage -------------------------------------------------------------------------------------------------------


def test_every_truncation_is_refused() -> None:
    for data in (DATA, TINY):
        for length in range(len(data)):
            with pytest.raises(ModelError):
                blm.from_bytes(data[:length])
            if 16 <= length != len(data) - 4:  # and with length and CRC made right: the contents no longer add up
                with pytest.raises(ModelError):
                    blm.from_bytes(_sealed(data[:length]))


def test_every_flipped_bit_is_refused() -> None:
    for bit in range(len(TINY) * 8):
        damaged = bytearray(TINY)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ModelError):
            blm.from_bytes(bytes(damaged))


def _valid_or_model_error(data: bytes) -> None:
    """Read what may be anything; what is accepted must be a model that gives the same bytes."""
    try:
        model = blm.from_bytes(data)
    except ModelError as error:
        message = str(error)
        if not 0 < len(message) < 2000:
            pytest.fail(f"a message of {len(message)} characters")
        return
    assert model.to_bytes() == data
    for tensor in model.tensors.values():
        assert np.isfinite(tensor.elements()).all()


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(DATA) - 5), st.integers(0, 255)), min_size=1, max_size=4))
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(DATA)
    for position, value in changes:
        damaged[position] = value
    if bytes(damaged) != DATA:
        with pytest.raises(ModelError):
            blm.from_bytes(bytes(damaged))
    _valid_or_model_error(_sealed(bytes(damaged[:-4])))


@settings(max_examples=200)
@given(st.integers(0, len(DATA)), st.integers(0, 40), st.binary(max_size=40))
def test_spliced_bytes(start: int, length: int, inserted: bytes) -> None:
    damaged = DATA[:start] + inserted + DATA[start + length :]
    if damaged != DATA:
        with pytest.raises(ModelError):
            blm.from_bytes(damaged)
    _valid_or_model_error(_sealed(damaged[:-4]))


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    _valid_or_model_error(data)
    _valid_or_model_error(_file(data, b""))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def _paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        items: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        items = []
    for key, inner in items:
        found += _paths(inner, (*path, key))
    return found


def _changed(header: dict[str, Any], path: tuple[Any, ...], value: object) -> dict[str, Any]:
    copy: Any = json.loads(json.dumps(header))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


PATHS = _paths(_parts()[0])
KEYS = [path for path in PATHS if isinstance(path[-1], str) and path[:-1] != ("recipe", "overrides")]


@settings(max_examples=500)
@given(
    st.sampled_from(PATHS), JSON | st.sampled_from(["int4", "trits", "bits", "channel", "none", "pow2", 0, 1, 2, 65535])
)
def test_any_value_anywhere_in_the_header(path: tuple[Any, ...], value: object) -> None:
    header, payload = _parts()
    _valid_or_model_error(_file(_changed(header, path, value), payload))


@pytest.mark.parametrize("path", KEYS, ids=str)
def test_missing_and_extra_keys(path: tuple[Any, ...]) -> None:
    header, payload = _parts()
    copy = json.loads(json.dumps(header))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    with pytest.raises(ModelError):
        blm.from_bytes(_file(copy, payload))
    extra = _changed(header, (*path[:-1], "surprise"), 1)
    with pytest.raises(ModelError):
        blm.from_bytes(_file(extra, payload))


def _tiny(path: tuple[Any, ...], value: object) -> bytes:
    return _file(_changed(TINY_HEADER, path, value), TINY_PAYLOAD)


def _payload(start: int, data: bytes) -> bytes:
    return _file(TINY_HEADER, TINY_PAYLOAD[:start] + data + TINY_PAYLOAD[start + len(data) :])


W = ("tensors", 0)
B = ("tensors", 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes; a model has at least 20"),
        (b"BLI1" + TINY[4:], "starts with b'BLI1'"),
        (_file(TINY_HEADER, TINY_PAYLOAD, version=2), "version 2, .* reads 1: update bitloop"),
        (_file(TINY_HEADER, TINY_PAYLOAD, reserved=1), "reserved"),
        (TINY + b"\0", "says"),
        (TINY[:-1] + bytes([TINY[-1] ^ 1]), "CRC-32.*damaged"),
        (_file(TINY_HEADER, TINY_PAYLOAD, header_length=5000), "header's length is 5000"),
        (_file(TINY_HEADER, TINY_PAYLOAD, header_length=0xFFFFFFFF), "header's length"),
        (_file(TINY_HEADER, TINY_PAYLOAD[:-1]), "ends at byte 13, but the payload has 12"),
        (_file(TINY_HEADER, TINY_PAYLOAD + b"\0"), "take 13 bytes, but the payload has 14"),
        (_file(b"{}", b""), "header has unknown keys"),
        (_file(b"[" * 100_000, b""), "no JSON"),
        (_file(b"\xff", b""), "no JSON"),
        (_file(b'{"a":1,"a":1}', b""), "canonical"),
        (_file(b'{"b":1,"a":1}', b""), "canonical"),
        (_file(b'{"a": 1}', b""), "canonical"),
        (_file(b'{"a":NaN}', b""), "no JSON"),
        (_file(b'{"a":' + b"9" * 5000 + b"}", b""), "no JSON"),
        (_file(b'"\\ud800"', b""), "no JSON"),
        (_tiny(("tensors",), {}), "no list"),
        (_tiny(("tensors",), []), "describes 0 tensors, but the architecture has 2"),
        (_tiny(("architecture", "layers", 0, "kind"), "lstm"), "unknown kind of layer 'lstm'"),
        (_tiny(("architecture", "layers", 0, "units"), 3), r"shape is \[3, 2\], expected \[3, 3\]"),
        (_tiny(("architecture", "layers", 0, "units"), True), "architecture cannot be"),
        (_tiny(("architecture", "layers", 0, "units"), 2.0), "architecture cannot be"),
        (_tiny(("architecture", "input_shape"), [60000, 60000, 1]), "7200000002 weights and biases; at most"),
        (_tiny((*W, "name"), "d.biases"), "name is 'd.biases', expected 'd.weights'"),
        (_tiny((*W, "shape"), [2, 3]), "shape is"),
        (_tiny((*W, "shape"), [3.0, 2]), "shape is"),
        (_tiny((*W, "format"), "int04"), "expected a canonical name"),
        (_tiny((*W, "format"), "e8m23"), "expected a canonical name"),
        (_tiny((*W, "format"), "int4x"), "unknown format"),
        (_tiny((*W, "format"), 4), "expected a canonical name"),
        (_tiny((*W, "format"), "x" * 5000), "unknown format"),
        (_tiny((*W, "format"), "int5"), "length is 3, expected 4"),
        (_tiny((*W, "scale"), "none"), "groups is 2, expected 0"),
        (_tiny((*W, "scale"), "fp64"), "expected one of none, pow2, fp32"),
        (_tiny((*W, "granularity"), "row"), "expected one of tensor, channel"),
        (_tiny((*W, "rounding"), "up"), "expected one of nearest"),
        (_tiny((*W, "packing"), "zip"), "expected one of bits, trits"),
        (_tiny((*W, "packing"), "trits"), "length is 3, expected 2"),
        (_tiny((*W, "offset"), 1), "offset is 1, expected 0"),
        (_tiny((*W, "offset"), False), "offset is False"),
        (_tiny((*B, "offset"), 0), "offset is 0, expected 11"),
        (_tiny((*W, "scales"), 4), "scales is 4, expected 3"),
        (_tiny((*W, "zero_points"), 11), "ends at byte 19, but the payload has 13"),
        (_tiny((*B, "granularity"), "channel"), "nothing that could differ by channel"),
        (_tiny(("name",), "a\nb"), "no printable text"),
        (_tiny(("name",), 7), "no printable text"),
        (_tiny(("dataset",), "x" * 300), "no printable text"),
        (_tiny(("recipe",), []), "recipe"),
        (_tiny(("recipe", "overrides"), {"a": 1}), "no printable text"),
        (_tiny(("recipe", "overrides"), "x"), "overrides"),
        (_payload(3, struct.pack("<f", 0.0)), "scale 0 is 0.0, expected a positive normal number"),
        (_payload(7, struct.pack("<f", -1.0)), "scale 1 is -1.0"),
        (_payload(7, struct.pack("<f", np.inf)), "scale 1 is inf"),
        (_payload(7, struct.pack("<f", np.nan)), "scale 1 is nan"),
        (_payload(7, struct.pack("<f", 1e-40)), "scale 1"),
        (_payload(12, b"\x78"), r"code 0x78 at index \(1,\) is no finite number of e4m3"),
        (_payload(11, b"\xff"), r"code 0xff at index \(0,\)"),
    ],
)
def test_named_errors(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        blm.from_bytes(data)


TRITS: dict[str, object] = {"format": "ternary", "packing": "trits", "length": 2, "scales": 2}


def _one_tensor(payload: bytes, **changes: object) -> bytes:
    header = json.loads(json.dumps(TINY_HEADER))
    header["architecture"]["layers"][0]["use_bias"] = False
    header["tensors"] = [{**header["tensors"][0], "granularity": "tensor", "groups": 1, **changes}]
    return _file(header, payload)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_one_tensor(bytes(3) + struct.pack("<f", 0.75), scale="pow2"), "scale 0 is 0.75, expected .* power of two"),
        (_one_tensor(bytes(3) + struct.pack("<fi", 1, 8), zero_points=7), "zero point 0 is 8, expected -8 to 7"),
        (_one_tensor(bytes(3) + struct.pack("<fi", 1, -9), zero_points=7), "zero point 0 is -9"),
        (
            _one_tensor(bytes(6) + struct.pack("<fi", 1, 1), format="e4m3", length=6, scales=6, zero_points=10),
            "no zero points",
        ),
        (_one_tensor(b"\x02\x00" + struct.pack("<f", 1), format="ternary", length=2, scales=2), "code 0x2 at index"),
        (_one_tensor(b"\x00\x10" + struct.pack("<f", 1), format="ternary", length=2, scales=2), "padding bits"),
        (_one_tensor(b"\xf3\x01" + struct.pack("<f", 1), **TRITS), "at most 242"),
        (_one_tensor(b"\x00\x03" + struct.pack("<f", 1), **TRITS), "padding digits"),
        (_one_tensor(bytes(2) + struct.pack("<f", 1), packing="trits", length=2, scales=2), "take|trits"),
        (_one_tensor(b"\x40" + struct.pack("<f", 1), format="binary", length=1, scales=1), "padding bits"),
    ],
)  # fmt: skip
def test_named_errors_of_contents(data: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        blm.from_bytes(data)


def test_zero_points_in_range_are_read() -> None:
    model = blm.from_bytes(_one_tensor(bytes(3) + struct.pack("<fi", 0.5, -8), zero_points=7))
    assert model.tensors["d.weights"].values().tolist() == [[4.0, 4.0]] * 3


# --- files --------------------------------------------------------------------------------------------------------


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.blm"
    with path.open("wb") as file:
        file.write(TINY)
        file.truncate(MAX_MODEL_BYTES + 1)  # sparse

    def parse(_data: bytes) -> Model:
        pytest.fail("the file was read")

    monkeypatch.setattr(blm, "from_bytes", parse)
    with pytest.raises(ModelError, match=f"has {MAX_MODEL_BYTES + 1} bytes; a model has at most {MAX_MODEL_BYTES}"):
        blm.load(path)


def test_too_large_to_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for limit in ("MAX_MODEL_BYTES", "MAX_ELEMENTS", "MAX_HEADER_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(blm, limit, 10)
            with pytest.raises(ModelError, match="at most"):
                blm.save(MODEL, tmp_path / "model.blm")
            with pytest.raises(ModelError, match=r"more than 10 bytes|at most 10|header's length"):
                blm.from_bytes(DATA)
    assert not list(tmp_path.iterdir())


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.blm"
    for missing in (path, tmp_path, Path("\0")):
        with pytest.raises(ModelError, match=r"no model file|cannot read"):
            blm.load(missing)
    path.write_bytes(DATA[:-1])
    with pytest.raises(ModelError, match=r"model\.blm: the file has .* it was cut"):
        blm.load(path)
    with pytest.raises(ModelError, match="folder that exists"):
        blm.save(MODEL, tmp_path / "nowhere/model.blm")


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.blm"
    blm.save(blm.from_bytes(TINY), path)

    def fail(_descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(blm.os, "fsync", fail)
    with pytest.raises(ModelError if isinstance(failure, OSError) else KeyboardInterrupt):
        blm.save(MODEL, path)
    assert path.read_bytes() == TINY
    assert [p.name for p in tmp_path.iterdir()] == ["model.blm"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no permission bits")
def test_a_saved_file_can_be_read_by_others(tmp_path: Path) -> None:
    path = tmp_path / "model.blm"
    blm.save(MODEL, path)
    assert path.stat().st_mode & 0o777 == 0o644


# --- models built in code -----------------------------------------------------------------------------------------


def test_parts_that_do_not_fit_are_refused() -> None:
    tensors = dict(MODEL.tensors)
    swapped = {**tensors, "conv1.biases": tensors["dense1.biases"]}
    reordered = dict(reversed(tensors.items()))
    dense = tensors["dense1.weights"]
    reshaped = {**tensors, dense.name: replace(dense, codes=dense.codes.reshape(4, -1))}
    for wrong in ({}, swapped, reordered, reshaped):
        with pytest.raises(ModelError):
            Model(MODEL.name, MODEL.dataset, MODEL.architecture, MODEL.recipe, wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codes": np.zeros((2, 2, 1, 2), np.int32)}, "expected uint32"),
        ({"codes": np.zeros((0, 2), np.uint32)}, "expected uint32, not none"),
        ({"codes": np.full((2, 2, 1, 2), 16, np.uint32)}, "4 bits"),
        ({"scales": None}, "do not go together"),
        ({"scales": np.ones(1, np.float32)}, r"expected float32 \(2,\)"),
        ({"scales": np.ones(2)}, "expected float32"),
        ({"zero_points": np.zeros(2, np.int64)}, "expected int32"),
        ({"name": "conv1.biases"}, "nothing that could differ by channel"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(MODEL.tensors["conv1.weights"], **changes)
