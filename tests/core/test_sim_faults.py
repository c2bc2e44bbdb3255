"""The simulated device's faults do what they say: a comparer that is tested with them is tested."""

from __future__ import annotations

import hashlib
import struct
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitloop import spec
from bitloop.native import Evaluator, simulator_binary
from bitloop.spec import HelloTag, LogLevel, MessageType, ResetCause, Status

Start = Callable[..., Any]
INPUTS, HIDDEN, CLASSES = 4, 6, 3


@pytest.fixture(scope="session")
def tensors(images: SimpleNamespace) -> list[Any]:
    """Weights and biases of two dense layers: int4 a channel and fp32; e4m3 and fp32."""
    rng = np.random.default_rng(8)
    first = images.integer(
        rng.integers(-7, 8, (INPUTS, HIDDEN)).tolist(), 4, scale_kind=2, scales=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    )
    second = images.Tensor(rng.integers(1, 0x70, (HIDDEN, CLASSES)).tolist(), 1, 8, 4, 3, 3, 0, 0, 7)
    return [first, images.fp32([[3.0] * HIDDEN]), second, images.fp32([[0.5, 0.25, 0.125]])]


def build(images: SimpleNamespace, tensors: list[Any]) -> bytes:
    return images.build(
        [
            images.dense((2, 2, 1), tensors[0], tensors[1], relu=True),
            images.dense((1, 1, HIDDEN), tensors[2], tensors[3]),
        ],
        slots=2,
    )


def pixels() -> np.ndarray:
    return np.random.default_rng(9).integers(1, 256, (6, 2, 2, 1), dtype=np.uint8)


def logits_of(device: Any, image: bytes) -> np.ndarray:
    """Upload and run six images; gives uint32 [6, classes]."""
    assert device.upload(image).type == MessageType.UPLOAD_DONE
    data = pixels().tobytes()
    device.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 1, spec.NO_LAYER, 6))
    out: list[bytes] = []
    for first in range(0, 6, 2):
        piece = struct.pack("<I", first * INPUTS) + data[first * INPUTS : (first + 2) * INPUTS]
        device.ask(MessageType.RUN_DATA, piece)
        body = next(device.events(MessageType.RESULT)).body
        size = 12 + 4 * CLASSES
        out += [body[6 + i * size + 12 : 6 + (i + 1) * size] for i in range(body[4])]
        device.ask(MessageType.RUN_ACK, struct.pack("<IB", len(out), 0))
    return np.frombuffer(b"".join(out), np.uint32).reshape(6, CLASSES)


def faulty(start_device: Start, image: bytes, *faults: str) -> np.ndarray:
    device = start_device(*(argument for fault in faults for argument in ("--fault", fault)))
    device.hello()
    return logits_of(device, image)


def exact(image: bytes) -> np.ndarray:
    return Evaluator(image).run(pixels()).view(np.uint32)


def test_without_faults_all_agree(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    np.testing.assert_array_equal(faulty(start_device, image), exact(image))


def test_an_ulp_in_the_last_layer_is_an_ulp(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    good = exact(image)
    for ulp in (1, -3):
        bad = faulty(start_device, image, f"layer:1,ulp:{ulp},element:2,image:4")
        difference = bad.astype(np.int64) - good
        assert (good < 0x80000000).all()
        assert difference[4].tolist() == [0, 0, ulp]
        assert not difference[[0, 1, 2, 3, 5]].any()
    bad = faulty(start_device, image, "layer:1,ulp:1")
    assert (np.abs(bad.astype(np.int64) - good).sum(axis=1) == 1).all()
    assert [int(np.argmax(row)) for row in bad != good] == [int(np.argmax(row)) for row in good.view(np.float32)]


def test_an_ulp_in_a_hidden_layer_goes_on(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    bad = faulty(start_device, image, "layer:0,ulp:1000")
    assert (bad != exact(image)).any(axis=1).all()


def test_a_flipped_code(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    """The same logits as an image whose code really is another."""
    image = build(images, tensors)
    for tensor, element, bit in [(0, 13, 0), (0, 13, 3), (2, 5, 2), (2, 17, 7), (0, 0, None), (2, 0, None)]:
        rows = [list(row) for row in tensors[tensor].rows]
        columns = len(rows[0])
        # int4: half of the width; e4m3: the greatest mantissa bit.
        rows[element // columns][element % columns] ^= 1 << (bit if bit is not None else 2)
        other = [*tensors]
        other[tensor] = images.replace(tensors[tensor], rows=rows)
        fault = f"code:{tensor},element:{element}" + (f",bit:{bit}" if bit is not None else "")
        bad = faulty(start_device, image, fault)
        np.testing.assert_array_equal(bad, exact(build(images, other)))
        assert (bad != exact(image)).any()


def test_a_wrong_bias_and_a_wrong_scale(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    other = [*tensors]
    other[3] = images.replace(tensors[3], rows=[[*tensors[3].rows[0][:2], tensors[3].rows[0][2] ^ (1 << 22)]])
    np.testing.assert_array_equal(faulty(start_device, image, "bias:3,element:2"), exact(build(images, other)))
    for fault, ulp, wrong in [("scale:0", 1, range(HIDDEN)), ("scale:0,element:4,ulp:-2000", -2000, [4])]:
        scales = np.array(tensors[0].scales, np.float32)
        scales.view(np.int32)[list(wrong)] += ulp
        other = [images.replace(tensors[0], scales=scales.tolist()), *tensors[1:]]
        bad = faulty(start_device, image, fault)
        np.testing.assert_array_equal(bad, exact(build(images, other)))
        assert (bad != exact(image)).any()


def test_a_wrong_trit(start_device: Start, images: SimpleNamespace) -> None:
    rows = [[1, 0, 3, 1, 0, 3, 1], [0, 1, 3, 3, 1, 0, 0], [1] * 7, [3] * 7]

    def image_of(rows: list[list[int]]) -> bytes:
        weights = images.Tensor(rows, spec.FormatKind.TERNARY, 2, 0, 0, 1, 0, spec.Packing.TRITS, 0)
        last = images.fp32([[1.0, 2.0, 3.0]] * 7)
        return images.build([images.dense((2, 2, 1), weights), images.dense((1, 1, 7), last)])

    for element in (0, 5, 9, 13, 20, 27):
        other = [list(row) for row in rows]
        code = other[element // 7][element % 7]
        other[element // 7][element % 7] = {3: 0, 0: 1, 1: 3}[code]
        bad = faulty(start_device, image_of(rows), f"code:0,element:{element}")
        np.testing.assert_array_equal(bad, exact(image_of(other)))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("code:9", "no such tensor"),
        ("code:1", "holds biases"),
        ("bias:0", "holds no biases"),
        ("code:0,element:24", "no such element"),
        ("code:0,bit:4", "no such bit"),
        ("scale:1", "no such scale"),
        ("layer:2,ulp:1", "no such layer"),
    ],
)
def test_a_fault_that_does_not_fit_is_told(
    start_device: Start, images: SimpleNamespace, tensors: list[Any], *, fault: str, words: str
) -> None:
    device = start_device("--fault", fault)
    device.hello()
    device.upload(build(images, tensors))
    log = device.pending[-1]
    assert log.type == MessageType.LOG
    assert log.body[0] == LogLevel.ERROR
    assert words in log.body[1:].decode()


def test_lying_hashes(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    digest = hashlib.sha256(image).digest()
    device = start_device("--fault", "hash:image", "--body", "100")
    honest = device.hello()[HelloTag.FIRMWARE_HASH]
    assert device.upload(image, piece=90).body[:32] != digest
    assert device.hello()[HelloTag.IMAGE_HASH] != digest
    device = start_device("--fault", "hash:firmware", "--body", "100")
    assert device.hello()[HelloTag.FIRMWARE_HASH] != honest
    assert device.upload(image, piece=90).body[:32] == digest


def test_wrong_probe(start_device: Start) -> None:
    for case in (0, 10):
        fields = start_device("--fault", f"probe:{case}").hello()
        results = struct.unpack("<11I", fields[HelloTag.PROBE_RESULTS])
        wrong = [i for i, (_, bits) in enumerate(spec.PROBE_CASES) if results[i] != bits]
        assert wrong == [case]
        good = start_device().hello()
        assert fields[HelloTag.PROBE_CRC] != good[HelloTag.PROBE_CRC]


@pytest.mark.parametrize("body", ["64", "4096"])
def test_another_version(start_device: Start, body: str) -> None:
    device = start_device("--fault", "version:7", "--body", body)
    answer = device.ask(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0))
    assert answer.status == (Status.BAD_PROTOCOL, MessageType.HELLO_REQUEST, 7, 0)


def test_silence(start_device: Start) -> None:
    device = start_device("--fault", "silent:after=3")
    device.hello()
    for _ in range(2):
        device.ask(MessageType.ECHO_REQUEST)
    device.send(MessageType.ECHO_REQUEST)
    device.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        device.receive()


def test_garbage(start_device: Start) -> None:
    device = start_device("--fault", "garbage:after=2")
    device.hello()
    device.ask(MessageType.ECHO_REQUEST, b"good")
    device.send(MessageType.ECHO_REQUEST, bytes(1000))
    device.socket.settimeout(0.2)
    with pytest.raises(TimeoutError):
        device.receive()
    assert device.raw


def test_crash(start_device: Start) -> None:
    device = start_device("--fault", "crash:after=1")
    device.hello()
    device.send(MessageType.ECHO_REQUEST)
    with pytest.raises(EOFError):
        device.receive()
    assert device.process.wait(10) == 70


def test_reset(start_device: Start, images: SimpleNamespace, tensors: list[Any]) -> None:
    image = build(images, tensors)
    device = start_device("--fault", "reset:after=6", "--boot-count", "41")
    assert device.hello()[HelloTag.BOOT_COUNT] == struct.pack("<I", 41)
    device.upload(image, piece=1000)
    while True:
        device.send(MessageType.ECHO_REQUEST)
        device.socket.settimeout(0.2)
        try:
            device.receive()
        except TimeoutError:
            break
    device.socket.settimeout(10)
    fields = device.hello()
    assert any(b"bitloop-sim: boot\r\n" in raw for raw in device.raw)
    assert fields[HelloTag.BOOT_COUNT] == struct.pack("<I", 42)
    assert fields[HelloTag.RESET_CAUSE] == bytes([ResetCause.SOFTWARE])
    assert HelloTag.IMAGE_HASH not in fields
    for _ in range(20):
        device.ask(MessageType.ECHO_REQUEST)  # only once


def test_log(start_device: Start) -> None:
    device = start_device("--fault", "log")
    frame = device.receive()
    assert (frame.type, frame.sequence, frame.session) == (MessageType.LOG, 0, 0)
    assert frame.body == bytes([LogLevel.INFO]) + b"booted"
    assert device.raw == [b"bitloop-sim: boot\r\n"]
    assert device.hello()


def test_noise_is_seen_and_the_same_every_time(start_device: Start) -> None:
    def noisy(*arguments: str) -> tuple[bytes, int]:
        device = start_device(*arguments)
        for _ in range(3):  # HELLO itself may be hit
            device.send(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0))
        for _ in range(30):
            device.send(MessageType.ECHO_REQUEST, bytes(range(200)))
        device.socket.settimeout(0.3)
        got = bytearray()
        try:
            while True:
                got += device.socket.recv(65536)
        except TimeoutError:
            return bytes(got), len(got)

    clean, length = noisy()
    for fault in ("drop=0.01,seed=3", "flip=0.01,seed=3", "drop=0.01,flip=0.01,seed=3"):
        first, dropped = noisy("--fault", fault)
        assert first != clean
        assert (dropped < length) == ("drop" in fault)
        assert noisy("--fault", fault)[0] == first
    assert noisy("--fault", "drop=0,seed=5")[0] == clean


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fd"],
        ["--fd", "x"],
        ["--fd", "3", "--port", "0"],
        ["--fd", "3", "--body", "63"],
        ["--fd", "3", "--arena", "-1"],
        ["--fd", "3", "--unknown", "1"],
        *(
            ["--fd", "3", "--fault", fault]
            for fault in (
                *("", "nonsense", "layer", "layer:x", "layer:1,ulp:0", "layer:1,ulp", "code:1,what:2", "code:1,bit:32"),
                *("hash:other", "silent:later=1", "drop=2", "flip=nan", "drop=0.1,seed=0", "layerx:1", "logs"),
            )
        ),
    ],
)
def test_wrong_arguments(arguments: list[str]) -> None:
    done = subprocess.run([simulator_binary(), *arguments], capture_output=True, timeout=10, check=False)
    assert done.returncode == 2
    assert done.stderr
    assert done.stdout == b""


def test_help_names_every_fault() -> None:
    text = subprocess.run([simulator_binary(), "--help"], capture_output=True, text=True, timeout=10, check=True).stdout
    for word in ("layer:", "code:", "bias:", "scale:", "hash:", "probe:", "version:", "silent:", "garbage:", "crash:"):
        assert word in text
    for word in ("reset:", "drop=", "flip=", "log", "--arena", "--body", "--window", "--boot-count", "--port", "--fd"):
        assert word in text


def test_listening_on_a_port() -> None:
    import socket

    process = subprocess.Popen([simulator_binary(), "--port", "0"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            peer.sendall(b"\0")
        assert process.wait(10) == 0
    finally:
        process.kill()
        assert process.stdout is not None
        process.stdout.close()
