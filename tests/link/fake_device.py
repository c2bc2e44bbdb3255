"""A device in Python, written from docs/protocol.md alone, behind a line with seeded faults and a clock of its own.

It shares no code with bitloop.link: framing, messages and rules are spelled out again, slowly and plainly. What it
computes is no network but an arithmetic that depends on every pixel, so that a lost or doubled byte shows.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np

HELLO_REQUEST, ECHO_REQUEST, STATS_REQUEST = 0x01, 0x02, 0x30
UPLOAD_BEGIN, UPLOAD_DATA, UPLOAD_END = 0x10, 0x11, 0x12
RUN_BEGIN, RUN_DATA, RUN_ACK, RUN_END, READ_ACTIVATION, STREAM_DATA = 0x20, 0x21, 0x22, 0x23, 0x24, 0x50
HELLO, ECHO, STATS, LOG, ERROR = 0x81, 0x82, 0xB0, 0xC0, 0xFF
UPLOAD_READY, UPLOAD_ACK, UPLOAD_DONE = 0x90, 0x91, 0x92
UPLOAD_CODED, RUN_CODED, STREAM_CODED = 0x71, 0x72, 0x73
RUN_READY, RUN_CREDIT, RESULT, RUN_DONE, ACTIVATION = 0xA0, 0xA1, 0xA2, 0xA3, 0xA4
NO_MEMORY, BAD_HASH, BAD_LENGTH, BAD_TYPE, BAD_STATE, BAD_PROTOCOL, NO_MODEL, BAD_ARGUMENT, BAD_CRC = (
    -17, -5, -3, -33, -35, -37, -38, -39, -4,
)  # fmt: skip


def cobs_encode(data: bytes) -> bytes:
    """Byte by byte."""
    out, block = bytearray(), bytearray()
    for byte in data:
        if byte:
            block.append(byte)
        if not byte or len(block) == 254:
            out.append(len(block) + 1)
            out += block
            block.clear()
            if byte:
                full = True
                continue
        full = False
    if block or not data or not full:
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def cobs_decode(data: bytes) -> bytes | None:
    out = bytearray()
    position = 0
    while position < len(data):
        code = data[position]
        if not code or position + code > len(data):
            return None
        out += data[position + 1 : position + code]
        position += code
        if code < 255 and position < len(data):
            out.append(0)
    return bytes(out)


def encode(kind: int, sequence: int, session: int, body: bytes) -> bytes:
    content = struct.pack("<BBH", kind, sequence, session) + body
    return b"\0" + cobs_encode(content + struct.pack("<I", zlib.crc32(content))) + b"\0"


def decode(chunk: bytes) -> tuple[int, int, int, bytes] | None:
    content = cobs_decode(chunk)
    if content is None or len(content) < 8 or zlib.crc32(content[:-4]) != struct.unpack("<I", content[-4:])[0]:
        return None
    return (*struct.unpack("<BBH", content[:4]), content[4:-4])


def make_image(shape=(4, 5, 1), layers=3, logits=10, payload=200, seed=0, *, slots=4, streamed=0) -> bytes:
    """A header as docs/model.md has it, then noise for a payload."""
    length = 64 + payload + 4
    head = struct.pack(
        "<4sHHIHHHHHHHHIIHHIIII", b"BLI1", 2, 64, length, layers, 0, 56, 52, *shape, 0, 0, 0, slots, 0, 0, 0, logits,
        streamed,
    )  # fmt: skip
    content = head.ljust(64, b"\0") + random.Random(seed).randbytes(payload)
    return content + struct.pack("<I", zlib.crc32(content))


def compute(pixels: np.ndarray, logits: int, weights: bytes = b"") -> np.ndarray:
    """Logits of one image: each depends on every pixel and its place, and on every byte of streamed weights."""
    values = pixels.astype(np.int64).ravel()
    places = np.arange(1, values.size + 1)
    seed = zlib.crc32(weights) % 9973 if weights else 0
    sums = [(np.sum(values * (places * (k + 3) % 101)) + seed * (k + 1)) % 9973 for k in range(logits)]
    return np.array(sums, dtype=np.float32) / 7


@dataclass
class FakeDevice:
    body_bytes: int = 128
    window_bytes: int = 512
    arena_bytes: int = 65536
    slots: int = 4
    image_s: float = 0.0
    chunks: tuple[tuple[int, int], ...] = ()  # of streamed weights: (layer, bytes), in order
    boot_count: int = 1
    protocol_major: int = 1
    extra_hello: list[tuple[int, bytes]] = field(default_factory=list)
    hello_body: int = 64
    board: str = "fake"
    banner: bytes = b"boot: fake device\r\n"

    def __post_init__(self) -> None:
        self.out: list[bytes] = []
        self.pending = bytearray()
        self.busy_until = 0.0
        self.session = 0
        self.frames = self.bad_frames = self.stale = self.disturbances = self.computed_total = 0
        self.most_pending = 0
        self.reset(first=True)

    def reset(self, *, first: bool = False) -> None:
        self.image_hash: bytes | None = None
        self.image = b""
        self.announced = (0, 0, b"")
        self.loaded = self.run = False
        self.session = 0
        if not first:
            self.boot_count += 1
            self.out.append(self.banner)

    # --- the line ---

    def receive(self, data: bytes, now: float) -> None:
        if self.run and self.timing and now < self.busy_until:
            self.disturbances += 1
        self.pending += data
        self.most_pending = max(self.most_pending, len(self.pending))

    def poll(self, now: float) -> None:
        if now < self.busy_until:
            return
        while 0 in self.pending:
            chunk, _, rest = bytes(self.pending).partition(b"\0")
            self.pending = bytearray(rest)
            if not chunk:
                continue
            frame = decode(chunk)
            if frame is None or len(frame[3]) > self.body_bytes:
                self.bad_frames += 1
            elif frame[2] != self.session and frame[0] != HELLO_REQUEST:
                self.stale += 1
            else:
                self.frames += 1
                self.handle(*frame)
        self.work(now)

    def send(self, kind: int, sequence: int, body: bytes) -> None:
        assert len(body) <= self.body_bytes
        self.out.append(encode(kind, sequence, self.session, body))

    def error(self, request: int, sequence: int, status: int, first: int = 0, second: int = 0) -> None:
        self.send(ERROR, sequence, struct.pack("<hBBII", status, request, 0, first, second))

    # --- requests ---

    def handle(self, kind: int, sequence: int, session: int, body: bytes) -> None:
        names = {HELLO_REQUEST: "hello", ECHO_REQUEST: "echo", STATS_REQUEST: "stats", UPLOAD_BEGIN: "upload_begin",
                 UPLOAD_DATA: "upload_data", UPLOAD_END: "upload_end", RUN_BEGIN: "run_begin", RUN_DATA: "run_data",
                 RUN_ACK: "run_ack", RUN_END: "run_end", READ_ACTIVATION: "read_activation",
                 STREAM_DATA: "stream_data"}  # fmt: skip
        if kind == HELLO_REQUEST:
            self.session = session
        if kind not in names:
            self.error(kind, sequence, BAD_TYPE, kind)
            return
        getattr(self, "on_" + names[kind])(sequence, body)

    def on_hello(self, sequence: int, body: bytes) -> None:
        major, _ = struct.unpack("<HH", body)
        if major != self.protocol_major:
            self.error(HELLO_REQUEST, sequence, BAD_PROTOCOL, self.protocol_major, 0)
            return
        self.run = False
        fields = [(1, struct.pack("<HH", self.protocol_major, 0)), (2, b"fake 1"),
                  (4, self.board.encode()), (5, b"python"), (7, struct.pack("<BI", 1, 1000)),
                  (10, struct.pack("<I", self.arena_bytes)),
                  (11, struct.pack("<H", self.body_bytes)), (12, struct.pack("<I", self.window_bytes)),
                  (19, b"\4"), (20, struct.pack("<I", self.boot_count)), *self.extra_hello]  # fmt: skip
        if self.loaded:
            fields.append((21, hashlib.sha256(self.image).digest()))
        bodies = [b""]
        for tag, value in fields:
            coded = bytes((tag, len(value))) + value
            if len(bodies[-1]) + len(coded) + 2 > self.hello_body:
                bodies.append(b"")
            bodies[-1] += coded
        for part, content in enumerate(bodies):
            self.send(HELLO, sequence, bytes((part, len(bodies))) + content)

    def on_echo(self, sequence: int, body: bytes) -> None:
        self.send(ECHO, sequence, body)

    def on_stats(self, sequence: int, body: bytes) -> None:
        values = ((1, self.frames), (3, self.bad_frames), (6, self.stale), (200, 5))
        self.send(STATS, sequence, b"".join(struct.pack("<BBI", tag, 4, value) for tag, value in values))

    def on_upload_begin(self, sequence: int, body: bytes) -> None:
        length, arena, digest = struct.unpack("<II32s", body)
        if max(length, arena) > self.arena_bytes:
            self.error(UPLOAD_BEGIN, sequence, NO_MEMORY, max(length, arena), self.arena_bytes)
            return
        self.run = False
        if (length, digest) != (self.announced[0], self.announced[2]):
            self.image, self.loaded = b"", False
        self.announced = (length, arena, digest)
        self.send(UPLOAD_READY, sequence, struct.pack("<II", len(self.image), length))

    def on_upload_data(self, sequence: int, body: bytes) -> None:
        if not self.announced[0]:
            self.error(UPLOAD_DATA, sequence, BAD_STATE)
            return
        (offset,) = struct.unpack("<I", body[:4])
        if offset == len(self.image):
            self.image += body[4:]
        self.send(UPLOAD_ACK, sequence, struct.pack("<II", len(self.image), self.announced[0]))

    def on_upload_end(self, sequence: int, body: bytes) -> None:
        length, arena, digest = self.announced
        found = hashlib.sha256(self.image).digest()
        if not length:
            self.error(UPLOAD_END, sequence, BAD_STATE)
        elif len(self.image) != length:
            self.error(UPLOAD_END, sequence, BAD_LENGTH, len(self.image), length)
        elif found != digest:
            self.error(UPLOAD_END, sequence, BAD_HASH)
        else:
            self.loaded = True
            (self.layers,) = struct.unpack_from("<H", self.image, 12)
            self.pixels = int(np.prod(struct.unpack_from("<HHH", self.image, 20)))
            (self.logits,) = struct.unpack_from("<I", self.image, 48)
            self.send(UPLOAD_DONE, sequence, found + struct.pack("<I", arena))

    def on_run_begin(self, sequence: int, body: bytes) -> None:
        mode, self.outputs, stop, self.images = struct.unpack("<BBHI", body)
        if not self.loaded:
            self.error(RUN_BEGIN, sequence, NO_MODEL)
            return
        if stop != 0xFFFF and stop >= self.layers:
            self.error(RUN_BEGIN, sequence, BAD_ARGUMENT, 2)
            return
        if self.chunks and mode != 0:
            self.error(RUN_BEGIN, sequence, BAD_ARGUMENT, 0)
            return
        self.number, self.asked, self.weights, self.computing = 0, 0, b"", False
        self.sizes = [size for layer, size in self.chunks if layer <= stop]
        self.run, self.timing, self.stops = True, mode == 0, stop != 0xFFFF
        self.run_slots = 1 if self.stops else self.slots
        self.stream = bytearray()
        self.records: list[bytes] = []
        self.sent = self.acknowledged = self.limit = 0
        self.grant()
        record = (
            12
            + (4 * self.logits if self.outputs & 1 and not self.stops else 0)
            + (4 * self.layers if self.outputs & 2 else 0)
        )
        self.send(RUN_READY, sequence, struct.pack("<HHI", self.run_slots, record, self.limit))

    def grant(self) -> None:
        if self.timing and self.acknowledged * self.pixels != self.limit:
            return
        self.limit = min(self.acknowledged + self.run_slots, self.images) * self.pixels

    def credit(self, sequence: int) -> None:
        body = struct.pack("<III", len(self.stream), self.limit, len(self.records))
        if self.chunks:
            body += struct.pack("<III", self.number, len(self.weights), sum(self.sizes[: self.asked]))
        self.send(RUN_CREDIT, sequence, body)

    def on_run_data(self, sequence: int, body: bytes) -> None:
        if not self.run:
            self.error(RUN_DATA, sequence, BAD_STATE)
            return
        (offset,) = struct.unpack("<I", body[:4])
        if offset == len(self.stream):
            self.stream += body[4 : 4 + self.limit - len(self.stream)]
        self.credit(sequence)

    def on_stream_data(self, sequence: int, body: bytes) -> None:
        if not self.run:
            self.error(STREAM_DATA, sequence, BAD_STATE)
            return
        number, offset = struct.unpack("<II", body[:8])
        assert number <= self.number, "the host streams a pass that nobody asked for"
        if number == self.number and offset == len(self.weights):
            self.weights += body[8 : 8 + sum(self.sizes[: self.asked]) - offset]
        self.credit(sequence)

    def on_run_ack(self, sequence: int, body: bytes) -> None:
        if not self.run:
            self.error(RUN_ACK, sequence, BAD_STATE)
            return
        index, resend = struct.unpack("<IB", body)
        assert index <= len(self.records), "the host acknowledges what was never computed"
        self.acknowledged = max(self.acknowledged, index)
        if resend:
            self.sent = self.acknowledged
        self.sent = max(self.sent, self.acknowledged)
        self.grant()
        self.credit(sequence)

    def on_run_end(self, sequence: int, body: bytes) -> None:
        self.run = False
        self.send(RUN_DONE, sequence, struct.pack("<I", len(self.records) if hasattr(self, "records") else 0))

    def on_read_activation(self, sequence: int, body: bytes) -> None:
        if not self.run or not self.stops or len(self.records) == self.acknowledged:
            self.error(READ_ACTIVATION, sequence, BAD_STATE)
            return
        offset, size = struct.unpack("<IH", body)
        data = self.activation.astype("<f4").tobytes()
        size = min(size, self.body_bytes - 8)
        self.send(ACTIVATION, sequence, struct.pack("<II", offset, len(data)) + data[offset : offset + size])

    # --- computing ---

    def work(self, now: float) -> None:
        if not self.run:
            return
        if self.chunks and len(self.stream) == self.limit and len(self.records) * self.pixels < self.limit:
            self.work_streamed(now)
            return
        done = len(self.records)
        full = len(self.stream) // self.pixels
        batch_full = not self.timing or len(self.stream) == self.limit
        if done < full and batch_full:
            self.compute_one(done)
            self.busy_until = now + self.image_s
        batch_done = not self.timing or len(self.records) * self.pixels == self.limit
        if self.sent < len(self.records) and batch_done and now >= self.busy_until:
            record = len(self.records[0])
            count = min(len(self.records) - self.sent, (self.body_bytes - 6) // record, 255)
            body = b"".join(self.records[self.sent : self.sent + count])
            self.send(RESULT, 0, struct.pack("<IBB", self.sent, count, 0) + body)
            self.sent += count
            if self.sent < len(self.records):
                self.work(now)
        elif done < full and batch_full and now >= self.busy_until:
            self.work(now)

    def work_streamed(self, now: float) -> None:
        """A batch: ask for a chunk, compute it for all images, ask for the next one."""
        done, end = len(self.records), self.limit // self.pixels
        if len(self.weights) < sum(self.sizes[: self.asked]):
            return
        if self.asked and self.image_s and not self.computing:
            self.computing = True
            self.busy_until = now + self.image_s * (end - done)
            return
        self.computing = False
        if self.asked < len(self.sizes):
            self.asked += 1
            self.credit(0)
            return
        for index in range(done, end):
            self.compute_one(index)
        self.number, self.asked, self.weights = self.number + 1, 0, b""
        self.work(now)

    def compute_one(self, index: int) -> None:
        self.computed_total += 1
        pixels = np.frombuffer(bytes(self.stream[index * self.pixels : (index + 1) * self.pixels]), np.uint8)
        logits = compute(pixels, self.logits, self.weights)
        self.activation = compute(pixels[::-1], 3 * self.logits, self.weights)
        label = 0 if self.stops else int(np.argmax(logits))
        record = struct.pack("<HHQ", label, 0, int(pixels.sum()) + (1 << 33))
        if self.outputs & 1 and not self.stops:
            record += logits.astype("<f4").tobytes()
        if self.outputs & 2:
            record += struct.pack(f"<{self.layers}I", *range(label, label + self.layers))
        self.records.append(record)


@dataclass
class LineFaults:
    """Probabilities a frame, each way."""

    drop: float = 0.0
    flip: float = 0.0
    duplicate: float = 0.0
    truncate: float = 0.0
    noise: float = 0.0


class FakeTransport:
    """A bitloop transport to a :class:`FakeDevice`; ``now`` is the time that passes for both."""

    description = "fake://device"
    baud = 115200

    def __init__(self, device: FakeDevice, faults: LineFaults | None = None, seed: int = 0) -> None:
        self.device = device
        self.faults = faults or LineFaults()
        self.random = random.Random(seed)
        self.now = 0.0
        self.closed = False
        self.silent = False
        self.script = {}  # frame count of the device -> what happens then
        self.read_limit = 1 << 30
        self._inbox = bytearray()

    def clock(self) -> float:
        return self.now

    def write(self, data: bytes) -> None:
        self.device.receive(self._disturb(data), self.now)

    def read(self, timeout_s: float) -> bytes:
        end = self.now + timeout_s
        while True:
            self.device.poll(self.now)
            for frames in [count for count in self.script if self.device.frames >= count]:
                self.script.pop(frames)(self)
            out, self.device.out = b"".join(self.device.out), []
            if self.silent:
                out = b""
            self._inbox += self._disturb(out)
            if self._inbox:
                data = bytes(self._inbox[: self.read_limit])
                del self._inbox[: self.read_limit]
                self.now += 0.0005
                return data
            if self.now < self.device.busy_until <= end:
                self.now = self.device.busy_until
                continue
            self.now = max(end, self.now + 1e-4)
            return b""

    def close(self) -> None:
        self.closed = True

    def _disturb(self, data: bytes) -> bytes:
        f = self.faults
        if not (f.drop or f.flip or f.duplicate or f.truncate or f.noise):
            return data
        out = bytearray()
        for chunk in data.split(b"\0"):
            if not chunk:
                continue
            piece = bytearray(chunk + b"\0")
            if self.random.random() < f.drop:
                continue
            if self.random.random() < f.flip:
                piece[self.random.randrange(len(piece))] ^= 1 << self.random.randrange(8)
            if self.random.random() < f.truncate:
                del piece[self.random.randrange(len(piece)) :]
            if self.random.random() < f.duplicate:
                piece = piece + piece
            if self.random.random() < f.noise:
                piece = bytearray(self.random.randbytes(self.random.randrange(1, 30))) + piece
            out += piece
        return bytes(out)
