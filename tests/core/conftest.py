"""Images written by hand (from docs/model.md, apart from the planner), and a device that can be talked to."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the tests are collected with importmode=importlib

from board import Board, compile_board

from bitloop import spec
from bitloop.native import simulator_binary

NONE16 = 0xFFFF
NONE32 = 0xFFFFFFFF


@dataclass
class Tensor:
    """Codes [rows][columns], and a record's fields as in docs/model.md."""

    rows: list[list[int]]
    kind: int = spec.FormatKind.FLOAT
    width: int = 32
    exponent: int = 8
    mantissa: int = 23
    flags: int = spec.TensorFlag.SIGNED | spec.TensorFlag.SUBNORMALS
    top: int = spec.TopCodes.IEEE
    packing: int = spec.Packing.BITS
    bias: int = 127
    scale_kind: int = spec.ScaleKind.NONE
    scales: list[float] = field(default_factory=list)
    zero_points: list[int] = field(default_factory=list)
    chunk: int = 0  # columns a chunk; 0: not streamed

    def chunks(self) -> list[bytes]:
        """The chunks of a streamed tensor: whole columns, each packed as a tensor of its own."""
        columns = len(self.rows[0])
        parts = [[row[at : at + self.chunk] for row in self.rows] for at in range(0, columns, self.chunk)]
        return [b"".join(replace(self, rows=part).packed()) for part in parts]

    def packed(self) -> list[bytes]:
        if self.packing == spec.Packing.TRITS:
            digits = [[{0: 1, 1: 2, 3: 0}[c] for c in row] for row in self.rows]
            return [
                bytes(sum(d * 3**k for k, d in enumerate(row[i : i + 5])) for i in range(0, len(row), 5))
                for row in digits
            ]
        streams = [sum(code << (i * self.width) for i, code in enumerate(row)) for row in self.rows]
        size = -(-len(self.rows[0]) * self.width // 8)
        return [stream.to_bytes(size, "little") for stream in streams]


def fp32(rows: list[list[float]], **fields: object) -> Tensor:
    codes = [[struct.unpack("<I", struct.pack("<f", v))[0] for v in row] for row in rows]
    return Tensor(codes, **fields)


def integer(rows: list[list[int]], width: int, fraction: int = 0, *, signed: bool = True, **fields: object) -> Tensor:
    flags = (spec.TensorFlag.SIGNED if signed else 0) | (spec.TensorFlag.AFFINE if fields.get("zero_points") else 0)
    codes = [[v & ((1 << width) - 1) for v in row] for row in rows]
    return Tensor(codes, spec.FormatKind.INTEGER, width, 0, 0, flags, 0, bias=fraction, **fields)


@dataclass
class Layer:
    kind: int
    inputs: tuple[int, int, int]
    outputs: tuple[int, int, int]
    kernel: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (0, 0)
    padding: tuple[int, int] = (0, 0)
    weights: Tensor | None = None
    biases: Tensor | None = None
    relu: bool = False
    table: bool = False
    in_place: bool = False
    pool: int = 0  # kind of a fused pooling
    pool_kernel: tuple[int, int] = (0, 0)
    pool_stride: tuple[int, int] = (0, 0)
    pool_padding: tuple[int, int] = (0, 0)
    map: tuple[int, int] = (0, 0)


def align4(n: int) -> int:
    return -(-n // 4) * 4


LAYER_BYTES = 56
TENSOR_BYTES = 52


def build(layers: list[Layer], *, slots: int = 2) -> bytes:
    """Lay out an image: each layer's output, table, tile and chunk in a region of its own, then the queue.

    Where weights are streamed every output has a batch stride.
    """
    tensors = [t for layer in layers for t in (layer.weights, layer.biases) if t is not None]
    streamed = sum(len(chunk) for t in tensors if t.chunk for chunk in t.chunks())
    head = spec.IMAGE_HEADER_BYTES + LAYER_BYTES * len(layers) + TENSOR_BYTES * len(tensors)
    data = bytearray()
    places = []
    for t in tensors:
        begin = len(data)
        data += b"" if t.chunk else b"".join(t.packed())
        length = len(data) - begin
        data += bytes(align4(len(data)) - len(data))
        scales = head + len(data) if t.scales else NONE32
        data += struct.pack(f"<{len(t.scales)}f", *t.scales)
        zero_points = head + len(data) if t.zero_points else NONE32
        data += struct.pack(f"<{len(t.zero_points)}i", *t.zero_points)
        places.append((head + begin, length, scales, zero_points))
    length = head + len(data) + 4
    free = align4(length)
    for number, t in enumerate(tensors):
        if t.chunk:
            size = len(t.chunks()[0])
            places[number] = (free, size, *places[number][2:])
            free += align4(size) + 4
    records = b""
    for t, place in zip(tensors, places, strict=True):
        columns = len(t.rows[0])
        groups = len(t.scales) or len(t.zero_points)
        row_bytes = (len(t.chunks()[0]) if t.chunk else len(b"".join(t.packed()))) // len(t.rows)
        crc = zlib.crc32(b"".join(t.chunks())) if t.chunk else 0
        records += struct.pack(
            "<8BhBB10I",
            *(t.kind, t.width, t.exponent, t.mantissa, t.flags, t.top, t.packing, spec.Layout.IN_MAJOR, t.bias),
            *(t.scale_kind, int(groups > 1 or (groups == 1 == columns)), len(t.rows), columns, row_bytes),
            *(*place, groups, t.chunk, crc),
        )
    body = b""
    before = NONE32
    number = itertools.count()
    for layer in layers:
        size = 4 * int(np.prod(layer.outputs))
        output = before if layer.in_place else free
        free += 0 if layer.in_place else size * (slots if streamed else 1)
        table = tile = NONE32
        if layer.table:
            assert layer.weights is not None
            table = free
            free += 4 << layer.weights.width
        if layer.pool:
            assert layer.weights is not None
            tile = free
            free += 4 * layer.pool_kernel[0] * layer.pool_kernel[1] * (layer.weights.chunk or layer.outputs[2])
        weights = next(number) if layer.weights else NONE16
        biases = next(number) if layer.biases else NONE16
        body += struct.pack(
            "<8B6HHHIII8BHHII",
            *(layer.kind, int(layer.relu), *layer.kernel, *layer.stride, *layer.padding),
            *(*layer.inputs, *layer.outputs, weights, biases, before, output, table),
            *(layer.pool, 0, *layer.pool_kernel, *layer.pool_stride, *layer.pool_padding, *layer.map),
            *(tile, size if streamed else 0),
        )
        before = output
    logits = int(np.prod(layers[-1].outputs))
    slot = align4(int(np.prod(layers[0].inputs))) + align4(12 + 4 * logits + 4 * len(layers))
    header = struct.pack(
        "<4sHHIHHHH4HIIHHIIII8x",
        *(b"BLI1", 2, 64, length, len(layers), len(tensors), LAYER_BYTES, TENSOR_BYTES, *layers[0].inputs, 0),
        *(free + slots * slot, free, slots, 0, slot, before, logits, streamed),
    )
    return seal(header + body + records + bytes(data) + bytes(4))


def seal(image: bytes) -> bytes:
    """Give an image the right CRC."""
    return image[:-4] + struct.pack("<I", zlib.crc32(image[:-4]))


def dense(inputs: tuple[int, int, int], weights: Tensor, biases: Tensor | None = None, **fields: object) -> Layer:
    return Layer(spec.LayerKind.DENSE, inputs, (1, 1, len(weights.rows[0])), weights=weights, biases=biases, **fields)


@pytest.fixture(scope="session")
def images() -> SimpleNamespace:
    """What builds images: Tensor, Layer, fp32, integer, dense, build, seal."""
    return SimpleNamespace(
        Tensor=Tensor, Layer=Layer, fp32=fp32, integer=integer, dense=dense, build=build, seal=seal, replace=replace
    )


# --- a device, spoken to with an encoder and decoder of the tests' own --------------------------------------------


def cobs_encode(data: bytes) -> bytes:
    """S. Cheshire and M. Baker, section 3: written from the paper, apart from the core and the host's link."""
    out = bytearray()
    for block in data.split(b"\0"):
        while len(block) > 253:
            out += b"\xff" + block[:254]
            block = block[254:]  # noqa: PLW2901
        out += bytes([len(block) + 1]) + block
    return bytes(out)


def cobs_decode(data: bytes) -> bytes:
    out = bytearray()
    while data:
        code, data = data[0], data[1:]
        out += data[: code - 1]
        data = data[code - 1 :]
        if code != 0xFF and data:
            out += b"\0"
    return bytes(out)


@dataclass(frozen=True)
class Frame:
    type: int
    sequence: int
    session: int
    body: bytes

    @property
    def status(self) -> tuple[int, int, int, int]:
        """Of an ERROR: status, request, details."""
        assert self.type == spec.MessageType.ERROR, self
        return struct.unpack("<hBxII", self.body)


class Device:
    """A simulated device behind a socket pair; every wait has a deadline."""

    def __init__(self, *arguments: str, timeout_s: float = 10.0, descriptors: tuple[int, ...] = ()) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(timeout_s)
        self.socket = ours
        self.process = subprocess.Popen(
            [simulator_binary(), "--fd", str(theirs.fileno()), *arguments],
            pass_fds=[theirs.fileno(), *descriptors],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self.session = 0x1234
        self.sequence = 0
        self.pending: list[Frame] = []
        self.raw: list[bytes] = []
        self.longest_hello = 0
        self._buffer = b""

    def close(self) -> int:
        self.socket.close()
        assert self.process.stderr is not None
        self.process.stderr.close()
        try:
            return self.process.wait(10)
        finally:
            self.process.kill()

    def frame(self, kind: int, body: bytes, *, session: int | None = None) -> bytes:
        self.sequence = (self.sequence + 1) & 0xFF
        data = struct.pack("<BBH", kind, self.sequence, self.session if session is None else session) + body
        return cobs_encode(data + struct.pack("<I", zlib.crc32(data))) + b"\0"

    def send(self, kind: int, body: bytes = b"", *, session: int | None = None) -> None:
        self.socket.sendall(self.frame(kind, body, session=session))

    def receive(self) -> Frame:
        """Return the next good frame; what is no frame goes to ``raw``."""
        while True:
            while b"\0" in self._buffer:
                piece, self._buffer = self._buffer.split(b"\0", 1)
                if not piece:
                    continue
                data = cobs_decode(piece)
                if len(data) >= 8 and zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0]:
                    return Frame(*struct.unpack("<BBH", data[:4]), data[4:-4])
                self.raw.append(piece)
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._buffer += data

    def ask(self, kind: int, body: bytes = b"") -> Frame:
        """Send a request and return its answer; events before it go to ``pending``."""
        self.send(kind, body)
        while True:
            frame = self.receive()
            if frame.sequence == self.sequence:
                return frame
            self.pending.append(frame)

    def hello(self) -> dict[int, bytes]:
        """Begin a session; return HELLO's fields."""
        frame = self.ask(spec.MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0))
        fields: dict[int, bytes] = {}
        for part in range(frame.body[1] if frame.type == spec.MessageType.HELLO else 0):
            if part > 0:
                frame = self.receive()
            assert frame.body[:2] == bytes([part, frame.body[1]])
            self.longest_hello = max(self.longest_hello, len(frame.body))
            data = frame.body[2:]
            while data:
                fields[data[0]] = data[2 : 2 + data[1]]
                data = data[2 + data[1] :]
        return fields

    def upload(self, image: bytes, *, arena: int | None = None, piece: int = 1000) -> Frame:
        """Upload an image and return the answer to UPLOAD_END."""
        arena = struct.unpack_from("<I", image, 28)[0] if arena is None else arena
        ready = self.ask(
            spec.MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), arena) + hashlib.sha256(image).digest()
        )
        if ready.type == spec.MessageType.ERROR:
            return ready
        offset = struct.unpack("<II", ready.body)[0]
        while offset < len(image):
            ack = self.ask(spec.MessageType.UPLOAD_DATA, struct.pack("<I", offset) + image[offset : offset + piece])
            assert struct.unpack("<II", ack.body) == (min(offset + piece, len(image)), len(image))
            offset += piece
        return self.ask(spec.MessageType.UPLOAD_END)

    def events(self, kind: int) -> Iterator[Frame]:
        """Give the events of one kind as they come, for ever."""
        while True:
            frame = self.pending.pop(0) if self.pending else self.receive()
            if frame.type == kind:
                yield frame


@pytest.fixture
def start_device() -> Iterator[Callable[..., Device]]:
    """Give a function that starts a device; all are ended afterwards."""
    if sys.platform == "win32":
        pytest.skip("the simulated device needs POSIX sockets")
    devices: list[Device] = []

    def start(*arguments: str, descriptors: tuple[int, ...] = ()) -> Device:
        devices.append(Device(*arguments, descriptors=descriptors))
        return devices[-1]

    yield start
    for device in devices:
        if device.process.poll() is None:
            device.close()


@pytest.fixture(scope="session")
def cobs() -> SimpleNamespace:
    """COBS by the paper: encode, decode."""
    return SimpleNamespace(encode=cobs_encode, decode=cobs_decode)


@pytest.fixture(scope="session")
def board_library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The core with a board of the tests' own."""
    return compile_board(tmp_path_factory.mktemp("board"))


@pytest.fixture
def start_board(board_library: ctypes.CDLL, cobs: SimpleNamespace) -> Iterator[Callable[..., Board]]:
    """Give a function that starts a board; all are freed afterwards."""
    boards: list[Board] = []

    def start(library: ctypes.CDLL = board_library, **options: Any) -> Board:
        boards.append(Board(library, cobs, **options))
        return boards[-1].hello()

    yield start
    for board in boards:
        board.close()
