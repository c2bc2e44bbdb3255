"""Why a device does not answer: from what it says outside of frames to an error with a cause.

Pure functions, but for :class:`LastWords`, which collects what was heard.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.errors import Cause, DeviceTimeoutError, LinkError, ProtocolError
from bitloop.hello import printable
from bitloop.link.panics import find_panic, plain_text
from bitloop.link.wire.frame import CorruptFrame, Frame, Item, RawBytes, is_text
from bitloop.spec import MessageType

__all__ = ["Boot", "LastWords", "Silence", "excerpt", "explain_line", "find_boot", "guess_baud", "silence_error"]

_KEPT_BYTES = 4096
_EXCERPT_BYTES = 160
_GARBAGE_BYTES = 16  # from something that never sent a frame
_GARBAGE_LATER_BYTES = 48  # from something that did: a frame or two may be damaged
_WORDS = re.compile(rb"[\t\n\r\x1b\x20-\x7e]{12,}")

_BOOT_BAUD = 115200
_RATES = (9600, 19200, 38400, 57600, 74880, 115200, 230400, 460800, 921600, 1_000_000, 2_000_000)
_KNOWN_FOR = {_BOOT_BAUD: "bitloop's firmware begins there", 74880: "an ESP8266's boot ROM"}
_AFTER_A_PANIC = "Reset the device; report the panic with a recording (--record FILE) if it is bitloop's firmware"
_NOT_A_LINE = re.compile(r"^(?!rfc2217:)\w+://", re.IGNORECASE)

_EDGES = tuple((((byte << 1 | 0x200) ^ (byte | 0x100)) & 0x1FF).bit_count() for byte in range(256))
"""Changes of level from the start bit (0) over eight data bits to the stop bit (1)."""

_MOST_PRINTABLE = 0.75
_FEW_EDGES = 3.2
"""Changes of level in a byte's start bit, data and stop bit, on average: 4.5 in random bytes, about as many in text.
Where a port samples twice as fast as the line runs or faster, no bit stands alone: 3 or less."""


# --- the boot ROM ---


@dataclass(frozen=True)
class Boot:
    """What a boot ROM said.

    Attributes:
        words: Its lines that matter.
        meaning: The same for a person.
        comes_up: Whether the firmware should run after it.
    """

    words: str
    meaning: str
    comes_up: bool = True


_RESETS = (
    ("BROWN_OUT", "the supply voltage sank: use a shorter cable, another port or a stronger supply"),
    ("BROWNOUT", "the supply voltage sank: use a shorter cable, another port or a stronger supply"),
    ("POWERON", "power came on, or the reset pin was pulled"),
    ("DEEPSLEEP", "it woke from deep sleep"),
    ("DSLEEP", "it woke from deep sleep"),
    ("SDIO", "SDIO asked for a reset"),
    ("USB", "USB asked for a reset"),
    ("JTAG", "a debugger asked for a reset"),
    ("INTRUSION", "an intrusion was detected"),
    ("GLITCH", "a glitch of clock or power was detected"),
    ("EFUSE", "the fuses are damaged"),
    ("EXT_CPU", "the other core asked for a reset"),
    ("TG", "a timer's watchdog was not served in time: a task or an interrupt took too long"),
    ("RTCWDT", "the RTC watchdog was not served in time: the firmware hangs, or its flash cannot be read"),
    ("WDT", "a watchdog was not served in time"),
    ("SW", "the firmware asked for a reset, as it does after a panic"),
)
"""Parts of the names that ESP32's boot ROMs print behind rst: (esp_rom/include/*/rom/rtc.h of ESP-IDF: RESET_REASON),
the first that fits."""

_ESP8266_RESETS = {1: "power came on", 2: "the reset pin was pulled", 3: "software", 4: "a watchdog struck"}
"""Arduino core for ESP8266, "Boards", "rst cause"."""

_ESP_RESET = re.compile(r"rst:0x([0-9a-f]+) \(([A-Z0-9_]+)\),boot:0x([0-9a-f]+) \(([^\n]*)\)")
_ESP8266_RESET = re.compile(r"rst cause:(\d+), boot mode:\((\d+),(\d+)\)")
_ROM_BANNER = re.compile(r"^\s*(?:ets \w{3} +\d+ \d{4}.*|ESP-ROM:.*)$", re.MULTILINE)
_NO_FIRMWARE = re.compile(
    r"invalid header: 0x[0-9a-f]+|flash read err, \d+|csum err:\S*|ets_main\.c \d+|No bootable app"
)


def find_boot(text: str) -> Boot | None:
    """Find the last words of a boot ROM in a text; None if there are none.

    Known are those of Espressif's chips. STM32's and RP2040's boot ROMs and Arduino's boot loaders print nothing.
    """
    resets = list(_ESP_RESET.finditer(text))
    flash = _NO_FIRMWARE.search(text)
    if flash is not None:
        meaning = "there is no firmware in the flash, or it cannot be read: flash it (bitloop firmware flash)"
        return Boot(flash[0], meaning, comes_up=False)
    if resets:
        reset, again = resets[-1], len(resets)
        if "DOWNLOAD" in reset[4] or "waiting for download" in text[reset.end() :]:
            meaning = (
                "it waits for a download, since the BOOT button or GPIO0 was held at reset: release it, then reset"
            )
            return Boot(reset[0], meaning, comes_up=False)
        meaning = next((words for part, words in _RESETS if part in reset[2]), "")
        if again > 1:
            meaning = f"{meaning}; it booted {again} times" if meaning else f"it booted {again} times"
        return Boot(reset[0], meaning)
    old = list(_ESP8266_RESET.finditer(text))
    if old:
        cause, mode = int(old[-1][1]), int(old[-1][2])
        if mode == 1:
            return Boot(old[-1][0], "it waits for a download, since GPIO0 was low at reset", comes_up=False)
        return Boot(old[-1][0], _ESP8266_RESETS.get(cause, f"cause {cause}"))
    banner = list(_ROM_BANNER.finditer(text))
    return Boot(banner[-1][0].strip(), "") if banner else None


def explain_line(line: bytes) -> str:
    """Say what a line that came outside of frames means, "" if that is not known; for who watches a device."""
    text = plain_text(line)
    panic = find_panic(text)
    if panic is not None:
        return f"the firmware panicked: {panic.meaning}" if panic.meaning else "the firmware panicked"
    boot = find_boot(text)
    return f"boot ROM: {boot.meaning}" if boot is not None and boot.meaning else ""


# --- the rate ---


def guess_baud(data: bytes, baud: int) -> str:
    """Say why bytes that are no text look as if the port had the wrong rate, "" if they do not.

    Args:
        data: What was read, some 16 bytes or more.
        baud: The port's rate.
    """
    if not data:
        return ""
    edges = sum(_EDGES[byte] for byte in data) / len(data)
    printable_share = sum(byte in b"\t\n\r" or 0x20 <= byte < 0x7F for byte in data) / len(data)
    if not any(data):
        return (
            f"only zero bytes: the line is far slower than the port, which is at {baud} baud, or it is held low "
            f"(a board without power, no common ground); {_to_try(baud, lower=True)}"
        )
    if edges <= _FEW_EDGES:
        return (
            f"probably the wrong baud rate: the port is at {baud}, and the bytes ({edges:.1f} changes of level each, "
            f"where 4.5 are usual) look like a slower line; {_to_try(baud, lower=True)}"
        )
    if printable_share <= _MOST_PRINTABLE:
        return (
            f"probably the wrong baud rate, or another program's binary data: the port is at {baud}, and the bytes "
            f"({100 * printable_share:.0f} % printable) look like a line of another rate; {_to_try(baud, lower=False)}"
        )
    return ""


def _to_try(baud: int, *, lower: bool) -> str:
    rates = [rate for rate in _RATES if (rate < baud if lower else rate != baud)]
    rates.sort(key=lambda rate: (rate != _BOOT_BAUD, rate not in _KNOWN_FOR, rate < baud, abs(rate - baud)))
    if not rates:
        return f"bitloop's firmware begins at {_BOOT_BAUD}"
    named = [f"{rate} ({_KNOWN_FOR[rate]})" if rate in _KNOWN_FOR else str(rate) for rate in rates[:4]]
    return f"try --baud {', '.join(named)}"


# --- what was heard ---


class LastWords:
    """Text that came outside of frames, the last 4 KiB of it, and frames of other sessions.

    Attributes:
        foreign: Session of the last frame that was another program's, 0 if the last frames were this one's.
        end: How many bytes came in all; what is heard later lies behind it.
    """

    def __init__(self) -> None:
        self._text = b""
        self._own: set[int] = set()
        self._frame_at = 0
        self.foreign = 0
        self.end = 0

    def take(self, items: Sequence[Item], session: int) -> None:
        """Note what came while ``session`` was this side's number, 0 if it had none yet."""
        self._own.add(session)
        for item in items:
            if isinstance(item, RawBytes):
                self._add(item.data)
            elif isinstance(item, CorruptFrame):
                for match in _WORDS.finditer(item.data):
                    self._add(match[0])
            elif isinstance(item, Frame):
                if session in (0, item.session) or (item.type == MessageType.LOG and not item.session):
                    self._frame_at, self.foreign = self.end, 0
                elif item.session not in self._own:
                    self.foreign = item.session

    def since(self, mark: int) -> bytes:
        """Give the text that came behind a mark (an earlier ``end``), as far as it is kept."""
        return self._text[max(len(self._text) - (self.end - mark), 0) :]

    @property
    def recent(self) -> bytes:
        """The text that came behind the last frame."""
        return self.since(self._frame_at)

    def panic_since(self, mark: int) -> str:
        """Give the panic that was heard behind a mark in words, "" if there was none."""
        panic = find_panic(plain_text(self.since(mark)))
        return "" if panic is None else str(panic)

    def _add(self, data: bytes) -> None:
        self._text = (self._text + data + b"\n")[-_KEPT_BYTES:]
        self.end += len(data) + 1


@dataclass(frozen=True)
class Silence:
    """What is known when nothing useful came.

    Attributes:
        name: The port's name.
        what: What was waited for.
        waited_s: How long.
        heard: The last frame's name, "" if there was none.
        heard_s_ago: How long ago it came.
        noise: The last bytes that came since.
        noise_bytes: How many of them came.
        text: Text outside of frames that came since.
        session: This side's session number.
        foreign: Session number of another program whose frames came since, or 0.
        baud: The port's rate, 0 if it has none.
    """

    name: str
    what: str
    waited_s: float
    heard: str = ""
    heard_s_ago: float = 0.0
    noise: bytes = b""
    noise_bytes: int = 0
    text: bytes = b""
    session: int = 0
    foreign: int = 0
    baud: int = 0


def silence_error(silence: Silence) -> LinkError:
    """Say what is wrong when nothing useful came: an error with a cause.

    Returns:
        A :class:`ProtocolError` if something came that is no answer, a :class:`DeviceTimeoutError` if nothing did or
        the firmware panicked, a plain :class:`LinkError` if another program uses the device.
    """
    name = silence.name
    heard = f"{silence.heard}, {silence.heard_s_ago:.1f} s ago" if silence.heard else "nothing"
    waited = f"{silence.what} for {silence.waited_s:.1f} s; last heard: {heard}"
    text = plain_text(silence.text[-_KEPT_BYTES:])
    if silence.foreign:
        return LinkError(
            f"{name}: another program uses the device: it answers session {silence.foreign}, not this one "
            f"({silence.session}); {waited}. Close the other program, or wait until it is done",
            cause=Cause.SHARED,
        )
    panic = find_panic(text)
    if panic is not None:
        return DeviceTimeoutError(
            f"{name}: the firmware panicked: {panic}. Then: {waited}. {_AFTER_A_PANIC}", cause=Cause.PANIC
        )
    if silence.noise_bytes >= (_GARBAGE_LATER_BYTES if silence.heard else _GARBAGE_BYTES):
        return _no_frames(silence, text, heard)
    return DeviceTimeoutError(
        f"{name}: {waited}. Check cable and power, reset the device, and see that it is the right port, and that "
        "bitloop's firmware is on it"
        if not silence.heard
        else f"{name}: {waited}. Check cable and power, and reset the device",
        cause=Cause.NO_ANSWER,
    )


def _no_frames(silence: Silence, text: str, heard: str) -> ProtocolError:
    who = (
        f"{silence.name} has begun to send garbage"
        if silence.heard
        else f"something answers on {silence.name}, but not bitloop firmware"
    )
    seen = (
        f"{silence.noise_bytes} bytes without a valid frame ({silence.what}; last heard: {heard}). "
        f"Seen: {excerpt(silence.noise)}. "
    )
    boot = find_boot(text)
    if boot is not None:
        meaning = f", that is: {boot.meaning}" if boot.meaning else ""
        advice = (
            ""
            if not boot.comes_up
            else (
                ". Behind it bitloop's firmware does not answer: flash it (bitloop firmware flash), or reset the device"
            )
        )
        return ProtocolError(f"{who}: the boot ROM says '{boot.words}'{meaning}{advice}; {seen}", cause=Cause.BOOT_ROM)
    if is_text(silence.noise):
        return ProtocolError(
            f"{who}: {seen}It is the text of another program: flash bitloop's firmware (bitloop firmware flash), or "
            "name another port",
            cause=Cause.OTHER_FIRMWARE,
        )
    rate = guess_baud(silence.noise, silence.baud) if silence.baud and not _NOT_A_LINE.match(silence.name) else ""
    if rate:
        return ProtocolError(f"{who}: {seen}It is {rate}", cause=Cause.WRONG_BAUD)
    return ProtocolError(
        f"{who}: {seen}Check the baud rate, cable and ground, and that the board is flashed with bitloop's firmware",
        cause=Cause.GARBAGE,
    )


def excerpt(data: bytes) -> str:
    """Show bytes for a person: as text where they read as text, else in hexadecimal; long ones are cut."""
    shown = data[:_EXCERPT_BYTES]
    dots = "…" if len(data) > len(shown) else ""
    if is_text(shown):
        return f"'{printable(shown.replace(chr(10).encode(), b' ').replace(chr(13).encode(), b''))}{dots}'"
    return f"{shown[:48].hex(' ')}{'…' if len(shown) > 48 else dots}"
