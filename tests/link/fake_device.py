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
TENSORS_REQUEST, UPLOAD_DELTA, UPLOAD_COPY, TENSORS, UPLOAD_COPIED = 0x60, 0x61, 0x62, 0xE0, 0xE2
CODE_TABLE, CODE_READY, UPLOAD_CODED, RUN_CODED, STREAM_CODED = 0x70, 0xF0, 0x71, 0x72, 0x73
RUN_READY, RUN_CREDIT, RESULT, RUN_DONE, ACTIVATION = 0xA0, 0xA1, 0xA2, 0xA3, 0xA4
NO_MEMORY, BAD_HASH, BAD_LENGTH, BAD_TYPE, BAD_STATE, BAD_PROTOCOL, NO_MODEL, BAD_ARGUMENT, BAD_CRC = (
    -17, -5, -3, -33, -35, -37, -38, -39, -4,
)  # fmt: skip
TOO_MANY, BAD_OFFSET, BAD_CODING, BAD_CODE_TABLE = -16, -36, -41, -42
RUNS, CODES, DELTA = 1, 2, 32


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


def make_tensors(tensors, *, seed=0, slots=4) -> bytes:
    """An image with real tensor records: of each tensor its data, scales and zero points; None where there are none."""
    head = struct.pack(
        "<4sHHIHHHHHHHHIIHHIIII", b"BLI1", 2, 64, 0, 3, len(tensors), 56, 52, 4, 5, 1, 0, 0, 0, slots, 0, 0, 0, 10, 0
    ).ljust(64, b"\0")
    at = 64 + 3 * 56 + 52 * len(tensors)
    records, body = b"", b""
    for pieces in tensors:
        places = []
        for piece in pieces:
            places.append(0xFFFFFFFF if piece is None else at + len(body))
            body += (piece or b"") + bytes(-len(piece or b"") % 4)
        groups = max(len(piece or b"") for piece in pieces[1:]) // 4
        places.insert(1, len(pieces[0]))
        records += bytes(24) + struct.pack("<IIIII", *places, groups) + bytes(8)
    content = head + random.Random(seed).randbytes(3 * 56) + records + body
    content = content[:8] + struct.pack("<I", len(content) + 4) + content[12:]
    return content + struct.pack("<I", zlib.crc32(content))


class Store:
    """Bytes of a stream, those that are there and those that are not."""

    def __init__(self, size: int) -> None:
        self.data = np.zeros(size, np.uint8)
        self.has = np.zeros(size, bool)
        self.next = 0

    def stretches(self, has=None) -> list[tuple[int, int]]:
        """Those beyond ``next``."""
        has = self.has if has is None else has
        edges = np.flatnonzero(np.diff(np.concatenate(([False], has, [False]))))
        return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if a]

    def put(self, offset: int, data: bytes, limit: int, most: int) -> None:
        """Keep what is below the limit, has a place, and is not there yet."""
        data = data[: max(limit - offset, 0)]
        if not data:
            return
        span = slice(offset, offset + len(data))
        if offset > self.next:
            has = self.has.copy()
            has[span] = True
            if len(self.stretches(has)) > most:
                return
        fresh = ~self.has[span]
        self.data[span][fresh] = np.frombuffer(data, np.uint8)[fresh]
        self.has[span] = True
        if offset <= self.next:
            missing = np.flatnonzero(~self.has[self.next :])
            self.next += int(missing[0]) if len(missing) else len(self.has) - self.next

    @property
    def prefix(self) -> bytes:
        return self.data[: self.next].tobytes()


def decode_runs(data, count: int) -> bytes | None:
    out = bytearray()
    data = iter(data)
    while len(out) < count:
        token = next(data, None)
        if token is None:
            return None
        for _ in range(token + 1 if token < 128 else token - 127):
            byte = next(data, None) if token < 128 else 0
            if byte is None:
                return None
            out.append(byte)
    return bytes(out) if len(out) == count and next(data, None) is None else None


def codes_of(lengths: list[int]) -> dict[tuple[int, int], int] | None:
    """Symbols by length and code: RFC 1951, 3.2.2."""
    codes, code = {}, 0
    for length in range(1, 16):
        for symbol in range(256):
            if lengths[symbol] == length:
                codes[length, code] = symbol
                code += 1
        code <<= 1
    whole = sum(1 << (15 - length) for length in lengths if length) == 1 << 15
    return codes if whole or [length for length in lengths if length] == [1] else None


def symbols_of(data: bytes, codes) -> iter:
    code = length = 0
    for byte in data:
        for bit in range(8):
            code, length = code << 1 | byte >> bit & 1, length + 1
            if (length, code) in codes:
                yield codes[length, code]
                code = length = 0


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
    send_body_bytes: int = 0
    ranges: int = 0
    codings: int = 0
    delta: bool = False
    early_credit: bool = False  # of throughput mode as it is since 1.2
    banner: bytes = b"boot: fake device\r\n"

    def __post_init__(self) -> None:
        self.out: list[bytes] = []
        self.pending = bytearray()
        self.busy_until = 0.0
        self.session = 0
        self.frames = self.bad_frames = self.stale = self.disturbances = self.computed_total = 0
        self.most_pending = 0
        self.refused = 0
        self.reset(first=True)

    def reset(self, *, first: bool = False) -> None:
        self.store = Store(0)
        self.base: bytes | None = None
        self.copies, self.written = 0, False
        self.announced = (0, 0, b"")
        self.tables: dict[int, bytes] = {}
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

    @property
    def image(self) -> bytes:
        return self.store.prefix

    @property
    def stream(self) -> bytes:
        return self.pixel_store.prefix

    @property
    def weights(self) -> bytes:
        return self.weight_store.prefix

    @property
    def longest_sent(self) -> int:
        return self.send_body_bytes or self.body_bytes

    def kept(self, head: int) -> int:
        """How many ranges there are: as many as an answer has room for behind its head."""
        return min(self.ranges, (self.longest_sent - head) // 8)

    def send(self, kind: int, sequence: int, body: bytes) -> None:
        assert len(body) <= self.longest_sent
        self.out.append(encode(kind, sequence, self.session, body))

    def error(self, request: int, sequence: int, status: int, first: int = 0, second: int = 0) -> None:
        self.send(ERROR, sequence, struct.pack("<hBBII", status, request, 0, first, second))

    # --- requests ---

    def handle(self, kind: int, sequence: int, session: int, body: bytes) -> None:
        names = {HELLO_REQUEST: "hello", ECHO_REQUEST: "echo", STATS_REQUEST: "stats", UPLOAD_BEGIN: "upload_begin",
                 UPLOAD_DATA: "upload_data", UPLOAD_END: "upload_end", RUN_BEGIN: "run_begin", RUN_DATA: "run_data",
                 RUN_ACK: "run_ack", RUN_END: "run_end", READ_ACTIVATION: "read_activation",
                 STREAM_DATA: "stream_data"}  # fmt: skip
        if self.codings:
            names |= {CODE_TABLE: "code_table", UPLOAD_CODED: "coded", RUN_CODED: "coded", STREAM_CODED: "coded"}
        if self.delta:
            names |= {TENSORS_REQUEST: "tensors_request", UPLOAD_DELTA: "upload_delta", UPLOAD_COPY: "upload_copy"}
        if kind == HELLO_REQUEST:
            self.session = session
        if kind not in names:
            self.error(kind, sequence, BAD_TYPE, kind)
            return
        if names[kind] == "coded":
            self.on_coded(kind, sequence, body)
            return
        getattr(self, "on_" + names[kind])(sequence, body)

    def on_hello(self, sequence: int, body: bytes) -> None:
        major, _ = struct.unpack("<HH", body)
        if major != self.protocol_major:
            self.error(HELLO_REQUEST, sequence, BAD_PROTOCOL, self.protocol_major, 0)
            return
        self.run = False
        self.tables = {}
        fields = [(1, struct.pack("<HH", self.protocol_major, 0)), (2, b"fake 1"),
                  (4, self.board.encode()), (5, b"python"), (7, struct.pack("<BI", 1, 1000)),
                  (10, struct.pack("<I", self.arena_bytes)),
                  (11, struct.pack("<H", self.body_bytes)), (12, struct.pack("<I", self.window_bytes)),
                  (19, b"\4"), (20, struct.pack("<I", self.boot_count)), *self.extra_hello]  # fmt: skip
        if self.loaded:
            fields.append((21, hashlib.sha256(self.image).digest()))
        if self.send_body_bytes:
            fields.append((25, struct.pack("<H", self.send_body_bytes)))
        if self.codings:
            fields.append((26, bytes([self.codings])))
        if self.ranges:
            fields.append((27, bytes([self.ranges])))
        if self.delta:
            fields.append((13, struct.pack("<I", DELTA)))
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
        if (length, digest) != (self.announced[0], self.announced[2]) or self.refused == digest:
            self.store, self.loaded = Store(length), False
        self.base, self.refused = None, None
        self.announced = (length, arena, digest)
        self.send(UPLOAD_READY, sequence, self.held())

    def held(self) -> bytes:
        body = struct.pack("<II", self.store.next, self.announced[0])
        return body + b"".join(struct.pack("<II", *bounds) for bounds in self.store.stretches())

    def on_upload_data(self, sequence: int, body: bytes) -> None:
        (offset,) = struct.unpack("<I", body[:4])
        self.take_image(UPLOAD_DATA, sequence, offset, body[4:])

    def take_image(self, kind: int, sequence: int, offset: int, data: bytes) -> None:
        length = self.announced[0]
        if not length:
            self.error(kind, sequence, BAD_STATE)
            return
        if offset + len(data) > length:
            self.error(kind, sequence, BAD_OFFSET, offset, length)
            return
        self.written = True
        self.store.put(offset, data, length, self.kept(8))
        self.send(UPLOAD_ACK, sequence, self.held())

    # --- delta ---

    def on_tensors_request(self, sequence: int, body: bytes) -> None:
        if not self.loaded:
            self.error(TENSORS_REQUEST, sequence, NO_MODEL)
            return
        (first,) = struct.unpack("<H", body)
        layers, tensors = struct.unpack_from("<HH", self.image, 12)
        records = []
        for index in range(tensors):
            at = 64 + 56 * layers + 52 * index
            data, size, scales, zeros, groups, chunk = struct.unpack_from("<IIIIII", self.image, at + 24)
            for begin, length in ((data, 0 if chunk else size), (scales, 4 * groups), (zeros, 4 * groups)):
                if begin == 0xFFFFFFFF or not length:
                    records.append(bytes(16))
                    continue
                digest = hashlib.sha256(self.image[begin : begin + length]).digest()
                records.append(struct.pack("<II8s", begin, length, digest))
        shown = records[first : first + (self.longest_sent - 4) // 16]
        self.send(TENSORS, sequence, struct.pack("<HH", first, len(records)) + b"".join(shown))

    def on_upload_delta(self, sequence: int, body: bytes) -> None:
        length, arena, digest, base = struct.unpack("<II32s16s", body)
        again = self.base is not None and not self.copies and not self.written and digest == self.announced[2]
        held = self.loaded and hashlib.sha256(self.image).digest()[:16] == base
        if not held and not (again and hashlib.sha256(self.base).digest()[:16] == base):
            self.error(UPLOAD_DELTA, sequence, NO_MODEL)
            return
        if max(length, arena) > self.arena_bytes:
            self.error(UPLOAD_DELTA, sequence, NO_MEMORY, max(length, arena), self.arena_bytes)
            return
        if held:
            self.base = self.image
        self.run = self.loaded = self.written = False
        self.copies = 0
        self.store = Store(length)
        self.arena = np.zeros(self.arena_bytes, np.uint8)
        self.arena[: len(self.base)] = np.frombuffer(self.base, np.uint8)
        self.announced = (length, arena, digest)
        self.send(UPLOAD_READY, sequence, struct.pack("<II", 0, length))

    def on_upload_copy(self, sequence: int, body: bytes) -> None:
        number, source, target, size = struct.unpack("<HIII", body)
        if self.base is None or (self.written and number >= self.copies):
            self.error(UPLOAD_COPY, sequence, BAD_STATE)
            return
        if source + size > len(self.base) or target + size > self.announced[0]:
            self.error(UPLOAD_COPY, sequence, BAD_OFFSET, source, target)
            return
        if number == self.copies:
            has = self.store.has.copy()
            has[target : target + size] = True
            if len(self.store.stretches(has)) > self.kept(10):
                self.error(UPLOAD_COPY, sequence, TOO_MANY)
                return
            self.arena[target : target + size] = self.arena[source : source + size].copy()
            self.store.has[:] = has
            self.store.data[target : target + size] = self.arena[target : target + size]
            self.copies += 1
        self.send(UPLOAD_COPIED, sequence, struct.pack("<H", self.copies) + self.held())

    # --- coded data ---

    def on_code_table(self, sequence: int, body: bytes) -> None:
        table, _, offset = struct.unpack("<BBH", body[:4])
        piece, there = body[4:], self.tables.get(table, b"")
        if there[offset : offset + len(piece)] != piece or offset + len(piece) > len(there):
            if offset == 0:
                there = piece
            elif offset == len(there):
                there += piece
            self.tables[table] = there
        if len(there) == 128 and codes_of([there[i // 2] >> 4 * (i & 1) & 15 for i in range(256)]) is None:
            self.tables[table] = b""
            self.error(CODE_TABLE, sequence, BAD_CODE_TABLE, table)
            return
        self.send(CODE_READY, sequence, struct.pack("<BBH", table, 0, len(self.tables[table])))

    def on_coded(self, kind: int, sequence: int, body: bytes) -> None:
        number = 0
        if kind == STREAM_CODED:
            (number,) = struct.unpack("<I", body[:4])
            body = body[4:]
        offset, count, coding = struct.unpack("<IHB", body[:7])
        data, table = body[7:], self.tables.get(kind == RUN_CODED, b"")
        if not count or not coding & self.codings or coding & ~self.codings:
            self.error(kind, sequence, BAD_CODING, coding)
            return
        if coding & CODES:
            if len(table) != 128:
                self.error(kind, sequence, BAD_CODE_TABLE)
                return
            codes = codes_of([table[i // 2] >> 4 * (i & 1) & 15 for i in range(256)])
            symbols = symbols_of(data, codes)
            decoded = self.of_symbols(symbols, count, coding)
        else:
            decoded = decode_runs(data, count)
        if decoded is None:
            self.error(kind, sequence, BAD_CODING, coding)
        elif kind == UPLOAD_CODED:
            self.take_image(kind, sequence, offset, decoded)
        elif kind == RUN_CODED:
            self.take_pixels(kind, sequence, offset, decoded)
        else:
            self.take_weights(kind, sequence, number, offset, decoded)

    def of_symbols(self, symbols, count: int, coding: int) -> bytes | None:
        """What bits are left over is not looked at: only a device in C must refuse them."""
        if not coding & RUNS:
            found = bytes(symbol for symbol, _ in zip(symbols, range(count), strict=False))
            return found if len(found) == count else None
        out = bytearray()
        while len(out) < count:
            token = next(symbols, None)
            if token is None:
                return None
            if token >= 128:
                out += bytes(token - 127)
            else:
                literals = [next(symbols, None) for _ in range(token + 1)]
                if None in literals:
                    return None
                out += bytes(literals)
        return bytes(out) if len(out) == count else None

    # --- the verdict ---

    def on_upload_end(self, sequence: int, body: bytes) -> None:
        length, arena, digest = self.announced
        found = hashlib.sha256(self.image).digest()
        if not length:
            self.error(UPLOAD_END, sequence, BAD_STATE)
        elif len(self.image) != length:
            self.error(UPLOAD_END, sequence, BAD_LENGTH, len(self.image), length)
        elif found != digest:
            self.refused = digest
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
        self.number, self.asked, self.computing, self.under_way = 0, 0, False, False
        self.sizes = [size for layer, size in self.chunks if layer <= stop]
        self.weight_store = Store(sum(self.sizes))
        self.run, self.timing, self.stops = True, mode == 0, stop != 0xFFFF
        self.run_slots = 1 if self.stops else self.slots
        self.pixel_store = Store(self.images * self.pixels)
        self.records: list[bytes] = []
        self.sent = self.acknowledged = self.limit = 0
        self.grant()
        self.told = self.limit
        record = (
            12
            + (4 * self.logits if self.outputs & 1 and not self.stops else 0)
            + (4 * self.layers if self.outputs & 2 else 0)
        )
        self.send(RUN_READY, sequence, struct.pack("<HHI", self.run_slots, record, self.limit))

    def grant(self) -> None:
        if self.timing and self.acknowledged * self.pixels != self.limit:
            return
        early = self.early_credit and not self.timing
        free = len(self.records) if early else self.acknowledged
        self.limit = min(free + self.run_slots, self.images) * self.pixels

    def credit(self, sequence: int) -> None:
        self.told = self.limit
        body = struct.pack("<III", self.pixel_store.next, self.limit, len(self.records))
        store = self.pixel_store
        if self.chunks:
            body += struct.pack("<III", self.number, self.weight_store.next, sum(self.sizes[: self.asked]))
            store = self.pixel_store if self.pixel_store.next < self.limit else self.weight_store
        self.send(RUN_CREDIT, sequence, body + b"".join(struct.pack("<II", *bounds) for bounds in store.stretches()))

    def on_run_data(self, sequence: int, body: bytes) -> None:
        (offset,) = struct.unpack("<I", body[:4])
        self.take_pixels(RUN_DATA, sequence, offset, body[4:])

    def take_pixels(self, kind: int, sequence: int, offset: int, data: bytes) -> None:
        if not self.run:
            self.error(kind, sequence, BAD_STATE)
            return
        self.pixel_store.put(offset, data, self.limit, self.kept(24 if self.chunks else 12))
        self.credit(sequence)

    def on_stream_data(self, sequence: int, body: bytes) -> None:
        number, offset = struct.unpack("<II", body[:8])
        self.take_weights(STREAM_DATA, sequence, number, offset, body[8:])

    def take_weights(self, kind: int, sequence: int, number: int, offset: int, data: bytes) -> None:
        if not self.run:
            self.error(kind, sequence, BAD_STATE)
            return
        assert number <= self.number, "the host streams a pass that nobody asked for"
        if number == self.number:
            self.weight_store.put(offset, data, sum(self.sizes[: self.asked]), self.kept(24))
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
        size = min(size, self.longest_sent - 8)
        self.send(ACTIVATION, sequence, struct.pack("<II", offset, len(data)) + data[offset : offset + size])

    # --- computing ---

    def work(self, now: float) -> None:
        while self.run and now >= self.busy_until and self.step(now):
            pass

    def step(self, now: float) -> bool:
        """Do one thing; give False where there is nothing to do."""
        if self.under_way:
            self.under_way = False
            self.compute_one(len(self.records))
            self.grant()
            if not self.timing and self.limit - self.told >= (self.run_slots + 1) // 2 * self.pixels:
                self.credit(0)
            return True
        done = len(self.records)
        if self.chunks and self.pixel_store.next == self.limit and done * self.pixels < self.limit:
            return self.work_streamed(now)
        if self.timing:
            ready = self.pixel_store.next == self.limit and done * self.pixels < self.limit
            pending = done - self.sent if done * self.pixels == self.limit else 0
        else:
            ready = done < min(self.pixel_store.next // self.pixels, self.acknowledged + self.run_slots)
            pending = done - self.sent
        most = min((self.longest_sent - 6) // len(self.records[0]), 255) if self.records else 1
        if ready and pending < most and 2 * pending < self.run_slots:
            self.under_way = True
            self.busy_until = now + self.image_s
            return True
        if pending:
            count = min(pending, most)
            body = b"".join(self.records[self.sent : self.sent + count])
            self.send(RESULT, 0, struct.pack("<IBB", self.sent, count, 0) + body)
            self.sent += count
        return bool(pending)

    def work_streamed(self, now: float) -> bool:
        """A batch: ask for a chunk, compute it for all images, ask for the next one."""
        done, end = len(self.records), self.limit // self.pixels
        if len(self.weights) < sum(self.sizes[: self.asked]):
            return False
        if self.asked and self.image_s and not self.computing:
            self.computing = True
            self.busy_until = now + self.image_s * (end - done)
            return True
        self.computing = False
        if self.asked < len(self.sizes):
            self.asked += 1
            self.credit(0)
            return True
        for index in range(done, end):
            self.compute_one(index)
        self.number, self.asked, self.weight_store = self.number + 1, 0, Store(sum(self.sizes))
        return True

    def compute_one(self, index: int) -> None:
        self.computed_total += 1
        pixels = self.pixel_store.data[index * self.pixels : (index + 1) * self.pixels]
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
        *chunks, rest = data.split(b"\0")
        assert not rest, "both sides write whole frames"
        for chunk in chunks:
            if not chunk:
                out += b"\0"
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
