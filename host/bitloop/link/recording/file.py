"""The file of a recorded session (docs/recording.md).

Events are written as they come and read back one by one. What was written before a crash can be read; a file that is
damaged is refused where the damage begins.
"""

from __future__ import annotations

import logging
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

from bitloop.errors import DataError, UsageError
from bitloop.link.recording.events import Event, Kind, decode_event, encode_event
from bitloop.link.recording.header import Header

logger = logging.getLogger(__name__)

__all__ = ["Reader", "Writer", "check_free"]

MAGIC = b"bitloop recording 1\n"
MAX_HEADER_BYTES = 1 << 16
MAX_BLOCK_BYTES = 1 << 24
"""Most bytes of events in a block, before compression."""

_BLOCK = struct.Struct("<IIII")  # number of its first event, bytes compressed, bytes of events, CRC-32
_BLOCK_FULL_BYTES = 1 << 16
_FLUSH_US = 500_000
_COMPRESSION = 3


class _Block(NamedTuple):
    first: int
    events: list[bytes]


class Writer:
    """Writes a recording, a block at a time, each readable by itself.

    A disk that is full ends the recording, with a warning; it does not end the session.

    Args:
        path: The file.
        header: What stands at its beginning.
        force: Whether an older file may be replaced.

    Raises:
        UsageError: The file is there already, or cannot be made.
    """

    def __init__(self, path: Path, header: Header, *, force: bool = False) -> None:
        check_free(path, force=force)
        self._path = path
        self._block = _Block(0, [])
        self._bytes = self._us = 0
        self._file: BinaryIO | None
        try:
            self._file = path.open("wb" if force else "xb", buffering=0)
            self._file.write(MAGIC + header.encode())
        except OSError as error:
            raise UsageError(f"the recording {path} cannot be written: {error}") from error

    def put(self, event: Event) -> None:
        """Add an event. It is in the file half a second later at most, as the events' own clock tells."""
        encoded = encode_event(event)
        self._block.events.append(encoded)
        self._bytes += len(encoded)
        if event.kind is Kind.CLOCK:
            self._us += event.number
        if self._us >= _FLUSH_US or self._bytes >= _BLOCK_FULL_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is pending.

        Ctrl-C between any two steps leaves a file that can be read: a block that is then written twice is told apart by
        the number of its first event.
        """
        first, events = self._block
        if self._file is None or not events:
            return
        raw = b"".join(events)
        packed = zlib.compress(raw, _COMPRESSION)
        numbers = (first & 0xFFFFFFFF, len(packed), len(raw))
        crc = zlib.crc32(packed, zlib.crc32(_BLOCK.pack(*numbers, 0)))
        try:
            self._file.write(_BLOCK.pack(*numbers, crc) + packed)
        except OSError as error:
            logger.warning("the recording %s ends here, the session goes on: %s", self._path, error)
            self._file.close()
            self._file = None
        self._block = _Block(first + len(events), [])
        self._bytes = self._us = 0

    def close(self) -> None:
        """Write the end. Closing twice is no error."""
        if self._file is None:
            return
        self.put(Event(Kind.END))
        self.flush()
        file, self._file = self._file, None
        if file is not None:
            file.close()


def check_free(path: Path, *, force: bool) -> None:
    """See that a recording may be written there.

    Raises:
        UsageError: The file is there already and ``force`` is not said, or it is a directory.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a directory; name a file for the recording")
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; name another file for the recording, or say --force")


class Reader:
    """Reads a recording, an event at a time; keeps one block in memory.

    Args:
        path: The file.

    Raises:
        DataError: There is no such file, or it is no recording.

    Attributes:
        header: What stands at its beginning.
        number: How many events were read.
        offset: Where in the file the block of the last event begins.
        complete: Whether the end was read; without it the recording was cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._block = b""
        self._at = 0
        self._ahead: Event | None = None
        self.number = 0
        self.offset = 0
        self.complete = False
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise DataError(f"the recording {path} cannot be read: {error}") from error
        try:
            self.header = self._read_header()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def next(self) -> Event | None:
        """Give the next event, None where there is none any more.

        Raises:
            DataError: The file is damaged.
        """
        event = self.peek()
        self._ahead = None
        if event is not None:
            self.number += 1
        return event

    def peek(self) -> Event | None:
        """Give the next event, and let it be next still.

        Raises:
            DataError: The file is damaged.
        """
        if self._ahead is None and not self.complete:
            while self._at == len(self._block):
                if not self._read_block():
                    return None
            try:
                self._ahead, self._at = decode_event(self._block, self._at)
            except (ValueError, IndexError) as error:
                text = "it is cut off" if isinstance(error, IndexError) else str(error)
                raise self._damaged(f"event {self.number} cannot be read: {text}") from error
            self.complete = self._ahead.kind is Kind.END
        return self._ahead

    def _read_header(self) -> Header:
        try:
            magic = self._file.read(len(MAGIC))
            if magic != MAGIC:
                older = magic.startswith(MAGIC[:-2])
                raise DataError(
                    f"{self._path} is a recording of another version than this bitloop reads; replay it with its own"
                    if older and len(magic) == len(MAGIC)
                    else f"{self._path} is no recording of bitloop; --record FILE makes one"
                )
            line = self._file.readline(MAX_HEADER_BYTES + 1)
            self.offset = self._file.tell()
        except OSError as error:
            raise DataError(f"the recording {self._path} cannot be read: {error}") from error
        if not line.endswith(b"\n"):
            why = "it is too long" if len(line) > MAX_HEADER_BYTES else "the file ends in it"
            raise DataError(f"the recording {self._path} has no whole header: {why}; nothing can be replayed of it")
        try:
            return Header.decode(line)
        except ValueError as error:
            raise DataError(f"the header of the recording {self._path} is damaged: {error}") from error

    def _read_block(self) -> bool:
        """Read the next block; False at the end of the file, also where that is in the middle of a block."""
        try:
            self.offset = self._file.tell()
            head = self._file.read(_BLOCK.size)
            if len(head) < _BLOCK.size:
                return False
            first, packed_bytes, raw_bytes, crc = _BLOCK.unpack(head)
            if not 0 < raw_bytes <= MAX_BLOCK_BYTES or not 0 < packed_bytes <= MAX_BLOCK_BYTES + (MAX_BLOCK_BYTES >> 3):
                raise self._damaged(f"a block of {packed_bytes} bytes that holds {raw_bytes}")
            packed = self._file.read(packed_bytes)
        except OSError as error:
            raise DataError(f"the recording {self._path} cannot be read: {error}") from error
        if len(packed) < packed_bytes:
            return False
        if zlib.crc32(packed, zlib.crc32(_BLOCK.pack(first, packed_bytes, raw_bytes, 0))) != crc:
            raise self._damaged("the checksum of a block is wrong")
        try:
            unpacker = zlib.decompressobj()
            block = unpacker.decompress(packed, raw_bytes)
        except zlib.error as error:
            raise self._damaged(f"a block cannot be unpacked: {error}") from error
        if len(block) != raw_bytes or not unpacker.eof:
            raise self._damaged(f"a block holds other than the {raw_bytes} bytes that it announces")
        self._block, self._at = block, 0
        self._skip_known(first)
        return True

    def _skip_known(self, first: int) -> None:
        """Leave out what an interrupted writer wrote twice."""
        known = (self.number - first) & 0xFFFFFFFF
        if known > 0x7FFFFFFF:
            raise self._damaged(f"events {self.number} to {first} are missing")
        try:
            for _ in range(known):
                if self._at == len(self._block):
                    break
                _, self._at = decode_event(self._block, self._at)
        except (ValueError, IndexError) as error:
            raise self._damaged(f"a block that repeats events cannot be read: {error}") from error

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"the recording {self._path} is damaged at byte {self.offset}: {what}; what comes before can be replayed, "
            "get the file anew for the rest"
        )
