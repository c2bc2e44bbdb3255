"""A board of the tests' own (board.c): the core in this process, with a line, a clock and a rate that a test moves."""

from __future__ import annotations

import ctypes
import hashlib
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitloop.native import device_dir
from bitloop.native.build import find_compiler
from bitloop.spec import MessageType, Status

_U32, _U16, _POINTER = ctypes.c_uint32, ctypes.c_uint16, ctypes.c_void_p
_SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "board_new": (_POINTER, (_U32, _U16, _U16, _U32, _U32, ctypes.c_bool)),
    "board_free": (None, (_POINTER,)),
    "board_poll": (None, (_POINTER, ctypes.c_char_p, _U32, _U32)),
    "board_take": (_U32, (_POINTER, ctypes.c_char_p, _U32)),
    "board_set_clock": (None, (_POINTER, _U32, _U32)),
    "board_baud": (_U32, (_POINTER,)),
    "board_arena": (_POINTER, (_POINTER,)),
    "board_is_intact": (ctypes.c_bool, (_POINTER,)),
    "board_ranges": (_U32, ()),
}
HELLO = struct.pack("<HH", 1, 2)


def compile_board(folder: Path, *flags: str) -> ctypes.CDLL:
    """Compile the core with the board into `folder`."""
    library = folder / f"{tempfile.mktemp(prefix='board', dir='')}.so"
    core = device_dir() / "core"
    sources = [*sorted(map(str, core.glob("*.c"))), str(Path(__file__).parent / "board.c")]
    command = [*find_compiler(), "-std=c11", "-O1", "-g", "-ffp-contract=off", "-shared", "-fPIC", f"-I{core}", *flags]
    warnings = ["-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wshadow"]
    subprocess.run([*command, *warnings, *sources, "-o", str(library)], check=True, timeout=200)
    loaded = ctypes.CDLL(str(library))
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    return loaded


@dataclass(frozen=True)
class Answer:
    """A frame from the board."""

    type: int
    sequence: int
    session: int
    body: bytes

    @property
    def words(self) -> tuple[int, ...]:
        return struct.unpack(f"<{len(self.body) // 4}I", self.body)

    @property
    def error(self) -> tuple[Status, int, int]:
        """Of an ERROR: status and details."""
        assert self.type == MessageType.ERROR, self
        status, _, first, second = struct.unpack("<hBxII", self.body)
        return Status(status), first, second


class Board:
    """A board and its host. Every frame is answered before the next one is sent, unless it is sent by `put`."""

    def __init__(
        self,
        library: ctypes.CDLL,
        cobs: Any,
        *,
        arena: int = 20000,
        body: int = 512,
        send_body: int | None = None,
        boot_baud: int = 0,
        max_baud: int = 0,
        codes: bool = True,
    ) -> None:
        self._c = library
        self._cobs = cobs
        self._board = library.board_new(arena, body, send_body or body, boot_baud, max_baud, codes)
        self._out = ctypes.create_string_buffer(1 << 20)
        self.arena_bytes = arena
        self.boot_baud = boot_baud
        self.baud = boot_baud  # the host's
        self.clock_ms = 0
        self.compute_ms = 0
        self.session = 0x4A4B
        self.sequence = 0
        self.events: list[Answer] = []
        self.fields: dict[int, bytes] = {}

    def close(self) -> None:
        self._c.board_free(self._board)

    # --- the line

    def frame(self, kind: int, body: bytes = b"") -> bytes:
        self.sequence = self.sequence % 255 + 1
        data = struct.pack("<BBH", kind, self.sequence, self.session) + body
        return b"\0" + self._cobs.encode(data + struct.pack("<I", zlib.crc32(data))) + b"\0"

    def put(self, data: bytes, *, turns: int = 0) -> list[Answer]:
        """Put bytes on the line and let the board work; give the frames that come back."""
        if self.baud != self.device_baud:
            data = bytes(0x80 | byte for byte in data)  # at a wrong rate nothing is what it was
        self._c.board_set_clock(self._board, self.clock_ms & 0xFFFFFFFF, self.compute_ms)
        before = self.device_baud
        self._c.board_poll(self._board, data, len(data), turns)
        assert self._c.board_is_intact(self._board)
        length = self._c.board_take(self._board, self._out, len(self._out))
        raw = ctypes.string_at(self._out, length)
        if self.baud != before:
            return []
        frames = []
        for piece in filter(None, raw.split(b"\0")):
            decoded = self._cobs.decode(piece)
            assert zlib.crc32(decoded[:-4]) == struct.unpack("<I", decoded[-4:])[0]
            frames.append(Answer(*struct.unpack("<BBH", decoded[:4]), decoded[4:-4]))
        return frames

    def ask(self, kind: int, body: bytes = b"", *, turns: int = 0) -> Answer:
        """Send a request; give its answer. Events go to `events`."""
        answers = []
        for frame in self.put(self.frame(kind, body), turns=turns):
            (answers if frame.sequence == self.sequence else self.events).append(frame)
        assert len(answers) == 1, answers
        return answers[0]

    def wait(self, milliseconds: int, *, every: int = 100, noise: bytes = b"") -> None:
        """Let time pass; the board is polled, with some noise on its line, as a port promises."""
        end = self.clock_ms + milliseconds
        while self.clock_ms < end:
            self.clock_ms = min(self.clock_ms + every, end)
            self.events += self.put(noise)

    @property
    def device_baud(self) -> int:
        return int(self._c.board_baud(self._board))

    @property
    def arena(self) -> bytes:
        return ctypes.string_at(self._c.board_arena(self._board), self.arena_bytes)

    # --- what a host does

    def hello(self) -> Board:
        frames = self.put(self.frame(MessageType.HELLO_REQUEST, HELLO))
        assert [frame.body[:2] for frame in frames] == [bytes([i, len(frames)]) for i in range(len(frames))]
        self.fields = {}
        for frame in frames:
            data = frame.body[2:]
            while data:
                self.fields[data[0]] = data[2 : 2 + data[1]]
                data = data[2 + data[1] :]
        return self

    def offer(self, image: bytes, *, base: bytes | None = None) -> Answer:
        """UPLOAD_BEGIN, or UPLOAD_DELTA where the image held is `base`."""
        body = struct.pack("<I", len(image)) + image[28:32] + hashlib.sha256(image).digest()
        if base is None:
            return self.ask(MessageType.UPLOAD_BEGIN, body)
        return self.ask(MessageType.UPLOAD_DELTA, body + hashlib.sha256(base).digest()[:16])

    def data(self, image: bytes, begin: int, end: int) -> tuple[int, ...]:
        """UPLOAD_DATA; gives next and the ranges."""
        answer = self.ask(MessageType.UPLOAD_DATA, struct.pack("<I", begin) + image[begin:end])
        assert answer.type == MessageType.UPLOAD_ACK, answer
        assert answer.words[1] == len(image)
        return answer.words[0], *answer.words[2:]

    def upload(self, image: bytes, *, piece: int = 60) -> Answer:
        position = self.offer(image).words[0]
        while position < len(image):
            position = self.data(image, position, position + piece)[0]
        done = self.ask(MessageType.UPLOAD_END)
        assert done.type == MessageType.UPLOAD_DONE, done
        return done

    def code_table(self, table: int, lengths: bytes) -> Answer:
        for offset in range(0, 128, 60):
            piece = lengths[offset : offset + 60]
            answer = self.ask(MessageType.CODE_TABLE, struct.pack("<BBH", table, 0, offset) + piece)
        return answer


Start = Callable[..., Board]
