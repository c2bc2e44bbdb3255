"""What a device says about itself: the tagged fields of HELLO as a typed record.

The planner lays an image out for it, the link keeps to its buffer sizes, and a run records it. This module knows
bytes of fields only, neither frames nor ports, so that a plan can be made without a device.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.spec import Capability, Coding, FormatKind, HelloTag, LayerKind, Layout, Packing, ResetCause, TimerUnit

NATIVE_ARENA_BYTES = 16 << 20
NATIVE_BODY_BYTES = 4096
NATIVE_WINDOW_BYTES = 1 << 16

MIN_WINDOW_BYTES = spec.MIN_BODY_BYTES + spec.FRAME_OVERHEAD_BYTES + 2
"""One frame with the shortest body a device may offer: COBS adds a byte, the end another."""

_NO_CAPABILITIES = Capability(0)
_NO_CODINGS = Coding(0)

_TIMER_WORDS = {
    int(TimerUnit.CYCLES): "cycles",
    int(TimerUnit.INSTRUCTIONS_SCALED): "instructions",
    int(TimerUnit.HOST_NANOSECONDS): "host ns",
    int(TimerUnit.MICROSECONDS): "µs",
}


@dataclass(frozen=True)
class DeviceInfo:
    """Everything a HELLO can hold; a field that the device left out keeps the default given here.

    Attributes:
        protocol_major: Protocol version of the firmware; another major version is not spoken with.
        protocol_minor: Minor version of the same.
        firmware_version: Text, as the firmware was built.
        firmware_hash: SHA-256 over the firmware's sources, 64 hex digits, or "" when not sent.
        board: Name of the board.
        isa: Name of the instruction set.
        clock_hz: Core clock in Hz, 0 when unknown.
        timer_unit: What a tick is (:class:`bitloop.spec.TimerUnit`); an int for one this host does not know.
        ticks_per_second: Rate of the timer, 0 when unknown.
        probe_crc: CRC-32 of the arithmetic probe's results as little-endian words; None when not sent.
        probe_results: Bits of each result of the probe.
        arena_bytes: Memory for image, activations, tables and queue.
        body_bytes: Longest frame body that it receives.
        window_bytes: Encoded bytes the device can buffer while busy.
        capabilities: What it can do beyond the minimum.
        layer_kinds: Bit ``k`` is set when it runs :class:`bitloop.spec.LayerKind` ``k``.
        format_kinds: Bit ``k`` is set when it decodes :class:`bitloop.spec.FormatKind` ``k``.
        layouts: Layouts of weights it takes, preferred first.
        packings: Packings of ternary weights it takes, preferred first.
        table_bits: Widest code for which it wants a decode table in the arena; 0 is never.
        reset_cause: Why it last started; an int for a cause this host does not know.
        boot_count: How often it has started.
        image_hash: SHA-256 of the image it holds, 64 hex digits, or None.
        static_bytes: The firmware's own state, without the arena; 0 when not sent.
        max_layers: Most layers of an image.
        max_tensors: Most tensors of an image.
        simulated: True when this is no chip.
        send_body_bytes: Longest frame body that it sends; 0 when not sent (:attr:`longest_sent`).
        codings: What it decodes (:class:`bitloop.spec.Coding`).
        ranges: Most ranges of bytes that it keeps beyond a gap; 0: it keeps nothing behind one.
        baud: Rate that it has now, in bits a second; 0: the rate cannot be changed.
        max_baud: The most that it can change to.
        emulator: What emulates it, in words, or ""; no field of HELLO, known where ``qemu://`` started it.
        instructions_per_tick: Of an emulated device; None where ticks are what ``timer_unit`` says.
    """

    protocol_major: int = spec.PROTOCOL_MAJOR
    protocol_minor: int = spec.PROTOCOL_MINOR
    firmware_version: str = ""
    firmware_hash: str = ""
    board: str = "unknown"
    isa: str = "unknown"
    clock_hz: int = 0
    timer_unit: int = TimerUnit.CYCLES
    ticks_per_second: int = 0
    probe_crc: int | None = None
    probe_results: tuple[int, ...] = ()
    arena_bytes: int = 0
    body_bytes: int = spec.MIN_BODY_BYTES
    window_bytes: int = MIN_WINDOW_BYTES
    capabilities: Capability = _NO_CAPABILITIES
    layer_kinds: int = 0
    format_kinds: int = 0
    layouts: tuple[int, ...] = (int(Layout.IN_MAJOR),)
    packings: tuple[int, ...] = (int(Packing.BITS),)
    table_bits: int = 0
    reset_cause: int = ResetCause.UNKNOWN
    boot_count: int = 0
    image_hash: str | None = None
    static_bytes: int = 0
    max_layers: int = spec.NO_INDEX - 1
    max_tensors: int = spec.NO_INDEX - 1
    simulated: bool = False
    send_body_bytes: int = 0
    codings: Coding = _NO_CODINGS
    ranges: int = 0
    baud: int = 0
    max_baud: int = 0
    emulator: str = ""
    instructions_per_tick: float | None = None

    @classmethod
    def from_fields(cls, fields: Iterable[tuple[int, bytes]]) -> DeviceInfo:
        """Read tagged fields; unknown tags are skipped.

        Args:
            fields: Pairs of tag and value, in any order.

        Raises:
            ProtocolError: A known tag comes twice, has the wrong length, or holds a value that cannot be.
        """
        values: dict[str, Any] = {}
        seen: set[int] = set()
        for tag, value in fields:
            reader = _READERS.get(tag)
            if reader is None:
                continue
            name = HelloTag(tag).name
            if tag in seen:
                raise ProtocolError(f"the device's HELLO holds {name} twice; its firmware is faulty, flash it again")
            seen.add(tag)
            try:
                values.update(reader(value))
            except (struct.error, ValueError) as error:
                raise ProtocolError(
                    f"the device's HELLO has a bad {name} ({value.hex() or 'empty'}): {error}"
                ) from error
        info = cls(**values)
        if info.body_bytes < spec.MIN_BODY_BYTES:
            raise ProtocolError(
                f"the device offers frame bodies of {info.body_bytes} bytes, the least is {spec.MIN_BODY_BYTES}; "
                "its firmware is faulty, flash it again"
            )
        if info.send_body_bytes and info.send_body_bytes < spec.MIN_BODY_BYTES:
            raise ProtocolError(
                f"the device sends frame bodies of {info.send_body_bytes} bytes at most, {spec.MIN_BODY_BYTES} are the "
                "least; its firmware is faulty, flash it again"
            )
        if info.ranges > spec.MAX_RANGES:
            raise ProtocolError(
                f"the device says that it keeps {info.ranges} ranges, {spec.MAX_RANGES} are the most; its firmware is "
                "faulty, flash it again"
            )
        if info.window_bytes < MIN_WINDOW_BYTES:
            raise ProtocolError(
                f"the device offers a window of {info.window_bytes} bytes, the least is {MIN_WINDOW_BYTES}; "
                "its firmware is faulty, flash it again"
            )
        return info

    def to_fields(self) -> list[tuple[int, bytes]]:
        """Give the tagged fields a device with these facts sends; :meth:`from_fields` reads them back."""
        fields = [
            (HelloTag.PROTOCOL, struct.pack("<HH", self.protocol_major, self.protocol_minor)),
            (HelloTag.FIRMWARE_VERSION, self.firmware_version.encode()),
            (HelloTag.BOARD, self.board.encode()),
            (HelloTag.ISA, self.isa.encode()),
            (HelloTag.CLOCK_HZ, struct.pack("<I", self.clock_hz)),
            (HelloTag.TIMER, struct.pack("<BI", self.timer_unit, self.ticks_per_second)),
            (HelloTag.PROBE_RESULTS, struct.pack(f"<{len(self.probe_results)}I", *self.probe_results)),
            (HelloTag.ARENA_BYTES, struct.pack("<I", self.arena_bytes)),
            (HelloTag.BODY_BYTES, struct.pack("<H", self.body_bytes)),
            (HelloTag.WINDOW_BYTES, struct.pack("<I", self.window_bytes)),
            (HelloTag.CAPABILITIES, struct.pack("<I", self.capabilities)),
            (HelloTag.LAYER_KINDS, struct.pack("<I", self.layer_kinds)),
            (HelloTag.FORMAT_KINDS, struct.pack("<I", self.format_kinds)),
            (HelloTag.LAYOUTS, bytes(self.layouts)),
            (HelloTag.PACKINGS, bytes(self.packings)),
            (HelloTag.TABLE_BITS, struct.pack("<B", self.table_bits)),
            (HelloTag.RESET_CAUSE, struct.pack("<B", self.reset_cause)),
            (HelloTag.BOOT_COUNT, struct.pack("<I", self.boot_count)),
            (HelloTag.STATIC_BYTES, struct.pack("<I", self.static_bytes)),
            (HelloTag.LIMITS, struct.pack("<HH", self.max_layers, self.max_tensors)),
            (HelloTag.SIMULATED, struct.pack("<B", self.simulated)),
        ]
        if self.send_body_bytes:
            fields.append((HelloTag.SEND_BODY_BYTES, struct.pack("<H", self.send_body_bytes)))
        if self.codings:
            fields.append((HelloTag.CODINGS, struct.pack("<B", self.codings)))
        if self.ranges:
            fields.append((HelloTag.RANGES, struct.pack("<B", self.ranges)))
        if self.baud:
            fields.append((HelloTag.BAUD, struct.pack("<II", self.baud, self.max_baud)))
        if self.firmware_hash:
            fields.append((HelloTag.FIRMWARE_HASH, bytes.fromhex(self.firmware_hash)))
        if self.probe_crc is not None:
            fields.append((HelloTag.PROBE_CRC, struct.pack("<I", self.probe_crc)))
        if self.image_hash is not None:
            fields.append((HelloTag.IMAGE_HASH, bytes.fromhex(self.image_hash)))
        return sorted((int(tag), value) for tag, value in fields)

    @classmethod
    def native_default(
        cls,
        arena_bytes: int = NATIVE_ARENA_BYTES,
        body_bytes: int = NATIVE_BODY_BYTES,
        window_bytes: int = NATIVE_WINDOW_BYTES,
    ) -> DeviceInfo:
        """Give the facts of ``sim://native``, for planning and host simulation where no device is connected."""
        results = tuple(bits for _, bits in spec.PROBE_CASES)
        return cls(
            firmware_version="none",
            board="native",
            isa="host",
            timer_unit=TimerUnit.HOST_NANOSECONDS,
            ticks_per_second=1_000_000_000,
            probe_crc=probe_crc(results),
            probe_results=results,
            arena_bytes=arena_bytes,
            body_bytes=body_bytes,
            send_body_bytes=body_bytes,
            window_bytes=window_bytes,
            capabilities=Capability.LAYER_TICKS
            | Capability.ACTIVATIONS
            | Capability.THROUGHPUT
            | Capability.STREAMED_WEIGHTS
            | Capability.DELTA_UPLOAD,
            codings=Coding.RUNS | Coding.CODES,
            ranges=spec.MAX_RANGES,
            layer_kinds=_bits(LayerKind),
            format_kinds=_bits(FormatKind),
            packings=(int(Packing.BITS), int(Packing.TRITS)),
            table_bits=8,
            max_layers=256,
            max_tensors=512,
            simulated=True,
        )

    def with_arena(self, arena_bytes: int) -> DeviceInfo:
        """Give the same device with another amount of memory."""
        return replace(self, arena_bytes=arena_bytes)

    def supports_layer(self, kind: LayerKind) -> bool:
        """Tell whether the device runs layers of this kind."""
        return bool(self.layer_kinds >> kind & 1)

    def supports_format(self, kind: FormatKind) -> bool:
        """Tell whether the device decodes elements of this kind."""
        return bool(self.format_kinds >> kind & 1)

    def probe_failures(self) -> list[str]:
        """Name the arithmetic cases the device computed wrongly; with any, its results are not exact.

        A missing case, a case too many and a CRC that is missing or does not fit the results count as failures too:
        what was not shown is not believed.
        """
        failures = [
            f"{name}: found 0x{found:08X}, expected 0x{expected:08X}"
            for (name, expected), found in zip(spec.PROBE_CASES, self.probe_results, strict=False)
            if found != expected
        ]
        if len(self.probe_results) != len(spec.PROBE_CASES):
            failures.append(f"{len(self.probe_results)} results sent, {len(spec.PROBE_CASES)} expected")
        if self.probe_crc is None:
            failures.append("no CRC-32 of the results sent")
        elif self.probe_crc != probe_crc(self.probe_results):
            failures.append(
                f"CRC-32 of the results: sent 0x{self.probe_crc:08X}, computed 0x{probe_crc(self.probe_results):08X}"
            )
        return failures

    def emulated(self, emulator: str, instructions_per_tick: float | None) -> DeviceInfo:
        """Give the same device, known to be an emulated one, whatever it takes itself for."""
        return replace(self, simulated=True, emulator=emulator, instructions_per_tick=instructions_per_tick)

    @property
    def ticks_word(self) -> str:
        """What a tick is called; the cycles of a simulated device are none."""
        if self.simulated and self.timer_unit != TimerUnit.HOST_NANOSECONDS:
            return "ticks of virtual time"
        return _TIMER_WORDS.get(self.timer_unit, f"unknown unit {self.timer_unit}")

    @property
    def longest_sent(self) -> int:
        """Longest frame body that the device sends."""
        return self.send_body_bytes or self.body_bytes

    @property
    def protocol(self) -> str:
        """Protocol version as text."""
        return f"{self.protocol_major}.{self.protocol_minor}"


def probe_crc(results: Iterable[int]) -> int:
    """CRC-32 (IEEE) of the probe's results, each as four little-endian bytes."""
    return zlib.crc32(b"".join(struct.pack("<I", bits) for bits in results))


def _bits(kinds: type[LayerKind] | type[FormatKind]) -> int:
    return sum(1 << int(kind) for kind in kinds)


def printable(value: bytes) -> str:
    """Decode text of a device for a terminal: bad UTF-8 and control characters become U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in value.decode("utf-8", "replace"))


def _known(enumeration: type[TimerUnit] | type[ResetCause], value: int) -> int:
    try:
        return enumeration(value)
    except ValueError:
        return value


def _unpack(layout: str, *names: str) -> Callable[[bytes], dict[str, Any]]:
    def read(value: bytes) -> dict[str, Any]:
        return dict(zip(names, struct.unpack(layout, value), strict=True))

    return read


def _text(name: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda value: {name: printable(value)}


def _hash(name: str) -> Callable[[bytes], dict[str, Any]]:
    def read(value: bytes) -> dict[str, Any]:
        if len(value) != spec.HASH_BYTES:
            raise ValueError(f"{len(value)} bytes, {spec.HASH_BYTES} expected")
        return {name: value.hex()}

    return read


def _bytes(name: str) -> Callable[[bytes], dict[str, Any]]:
    return lambda value: {name: tuple(value)}


def _timer(value: bytes) -> dict[str, Any]:
    unit, ticks_per_second = struct.unpack("<BI", value)
    return {"timer_unit": _known(TimerUnit, unit), "ticks_per_second": ticks_per_second}


def _words(value: bytes) -> dict[str, Any]:
    if len(value) % 4:
        raise ValueError(f"{len(value)} bytes, a multiple of 4 expected")
    return {"probe_results": struct.unpack(f"<{len(value) // 4}I", value)}


def _capabilities(value: bytes) -> dict[str, Any]:
    return {"capabilities": Capability(struct.unpack("<I", value)[0])}


def _reset_cause(value: bytes) -> dict[str, Any]:
    return {"reset_cause": _known(ResetCause, struct.unpack("<B", value)[0])}


def _codings(value: bytes) -> dict[str, Any]:
    return {"codings": Coding(struct.unpack("<B", value)[0])}


def _simulated(value: bytes) -> dict[str, Any]:
    return {"simulated": bool(struct.unpack("<B", value)[0])}


_READERS: dict[int, Callable[[bytes], dict[str, Any]]] = {
    HelloTag.PROTOCOL: _unpack("<HH", "protocol_major", "protocol_minor"),
    HelloTag.FIRMWARE_VERSION: _text("firmware_version"),
    HelloTag.FIRMWARE_HASH: _hash("firmware_hash"),
    HelloTag.BOARD: _text("board"),
    HelloTag.ISA: _text("isa"),
    HelloTag.CLOCK_HZ: _unpack("<I", "clock_hz"),
    HelloTag.TIMER: _timer,
    HelloTag.PROBE_CRC: _unpack("<I", "probe_crc"),
    HelloTag.PROBE_RESULTS: _words,
    HelloTag.ARENA_BYTES: _unpack("<I", "arena_bytes"),
    HelloTag.BODY_BYTES: _unpack("<H", "body_bytes"),
    HelloTag.WINDOW_BYTES: _unpack("<I", "window_bytes"),
    HelloTag.CAPABILITIES: _capabilities,
    HelloTag.LAYER_KINDS: _unpack("<I", "layer_kinds"),
    HelloTag.FORMAT_KINDS: _unpack("<I", "format_kinds"),
    HelloTag.LAYOUTS: _bytes("layouts"),
    HelloTag.PACKINGS: _bytes("packings"),
    HelloTag.TABLE_BITS: _unpack("<B", "table_bits"),
    HelloTag.RESET_CAUSE: _reset_cause,
    HelloTag.BOOT_COUNT: _unpack("<I", "boot_count"),
    HelloTag.IMAGE_HASH: _hash("image_hash"),
    HelloTag.STATIC_BYTES: _unpack("<I", "static_bytes"),
    HelloTag.LIMITS: _unpack("<HH", "max_layers", "max_tensors"),
    HelloTag.SIMULATED: _simulated,
    HelloTag.SEND_BODY_BYTES: _unpack("<H", "send_body_bytes"),
    HelloTag.CODINGS: _codings,
    HelloTag.RANGES: _unpack("<B", "ranges"),
    HelloTag.BAUD: _unpack("<II", "baud", "max_baud"),
}
