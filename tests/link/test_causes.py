"""Why a device does not answer: texts of real devices, bytes of a line at another rate, what a session makes of them.

The texts are those of the vendors' documentation; each table says which.
"""

import random
import re

import fake_device as fd
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bitloop import spec
from bitloop.errors import (
    Cause,
    DeviceError,
    DeviceResetError,
    DeviceTimeoutError,
    DoesNotFitError,
    LinkError,
    ProtocolError,
)
from bitloop.link.causes import LastWords, Silence, explain_line, find_boot, guess_baud, silence_error
from bitloop.link.channel import Timing
from bitloop.link.panics import find_panic, plain_text
from bitloop.link.session import Session
from bitloop.link.wire.frame import CorruptFrame, Frame, RawBytes, is_text
from bitloop.monitor import Monitor

ESP32_BOOT = (
    b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    b"configsip: 0, SPIWP:0xee\r\nclk_drv:0x00,q_drv:0x00,d_drv:0x00,cs0_drv:0x00,hd_drv:0x00,wp_drv:0x00\r\n"
    b"mode:DIO, clock div:1\r\nload:0x3fff0030,len:1184\r\nload:0x40078000,len:13232\r\nentry 0x400805e4\r\n"
)
LOGIN = b"\r\nDebian GNU/Linux 12 board ttyS0\r\n\r\nboard login: "
NMEA = b"$GPGGA,123519,4807.038,N,01131.000,E,1,08,0.9,545.4,M,46.9,M,,*47\r\n"

GURU = (
    b"Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.\r\n\r\n"
    b"Core  0 register dump:\r\n"
    b"PC      : 0x400d14f1  PS      : 0x00060030  A0      : 0x800d0805  A1      : 0x3ffb5030\r\n"
    b"EXCVADDR: 0x00000000  LBEG    : 0x4000c46c  LEND    : 0x4000c477  LCOUNT  : 0xffffffff\r\n\r\n"
    b"Backtrace: 0x400d14ee:0x3ffb5030 0x400d0802:0x3ffb5050\r\n\r\n"
    b"ELF file SHA256: 0123456789abcdef\r\n\r\nRebooting...\r\n"
)


# --- panics ---

# ESP-IDF Programming Guide, "Fatal Errors" and "Watchdogs"; Arduino core for ESP8266, "My ESP crashes"; Zephyr, "Fatal
# Errors"; Mbed OS, "Error handling"; NuttX, sched/misc/assert.c.
OTHERS = [
    (GURU, "Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.", "null pointer"),
    (
        b"Guru Meditation Error: Core  0 panic'ed (Load access fault). Exception was unhandled.\r\n"
        b"MEPC    : 0x42008a70  RA      : 0x42008a6e  SP      : 0x3fc94f70\r\n",
        "Guru Meditation Error: Core  0 panic'ed (Load access fault)",
        "MTVAL near 0 is a null pointer) | MEPC    : 0x42008a70",
    ),
    (
        b"Guru Meditation Error: Core  1 panic'ed (Interrupt wdt timeout on CPU1). \r\n",
        "panic'ed (Interrupt wdt timeout on CPU1)",
        "interrupts were off",
    ),
    (b"Guru Meditation Error: Core 0 panic'ed (Something new).\r\n", "(Something new)", ""),
    (
        b"abort() was called at PC 0x400d1a2f on core 0\r\n\r\nBacktrace: 0x40081d3d:0x3ffb5030\r\n",
        "abort() was called at PC 0x400d1a2f on core 0",
        "Backtrace: 0x40081d3d",
    ),
    (
        b"assert failed: xQueueGenericSend queue.c:820 (pxQueue)\r\n\r\nabort() was called at PC 0x4 on core 0\r\n",
        "assert failed: xQueueGenericSend queue.c:820 (pxQueue)",
        "did not hold) | abort() was called",
    ),
    (
        b"***ERROR*** A stack overflow in task main has been detected.\r\n",
        "***ERROR*** A stack overflow in task main has been detected.",
        "larger stack",
    ),
    (b"\r\nStack smashing protect failure!\r\n\r\n", "Stack smashing protect failure!", "overrun"),
    (b"CORRUPT HEAP: Bad head at 0x3ffe270a. Expected 0xabba1234 got 0xac\r\n", "CORRUPT HEAP: Bad head", "overrun"),
    (b"\r\nBrownout detector was triggered\r\n\r\n", "Brownout detector was triggered", "stronger supply"),
    (
        b"\x1b[0;31mE (10237) task_wdt: Task watchdog got triggered. The following tasks did not reset the watchdog "
        b"in time:\x1b[0m\r\nE (10237) task_wdt:  - IDLE (CPU 0)\r\n",
        "Task watchdog got triggered. The following tasks did not reset the watchdog in time:",
        "too long) | E (10237) task_wdt:  - IDLE (CPU 0)",
    ),
    (
        b"Exception (28):\r\nepc1=0x40201f0a epc2=0x00000000 epc3=0x00000000 excvaddr=0x00000014 depc=0x00000000\r\n",
        "Exception (28):",
        "LoadProhibited: a load from where nothing may be read) | epc1=0x40201f0a",
    ),
    (b"Fatal exception 9(LoadStoreAlignmentCause):\r\n", "Fatal exception 9", "LoadStoreAlignment"),
    (b"\r\nSoft WDT reset\r\n", "Soft WDT reset", "watchdog"),
    (b"\r\nUser exception (panic/abort/assert)\r\n", "User exception (panic/abort/assert)", "gave itself up"),
    (
        b"[00:00:00.1,000] <err> os: >>> ZEPHYR FATAL ERROR 2: Stack overflow on CPU 0\r\n",
        ">>> ZEPHYR FATAL ERROR 2",
        "stack overflow",
    ),
    (b"++ MbedOS Fault Handler ++\r\n\r\nFaultType: HardFault\r\n", "++ MbedOS Fault Handler ++", "see the registers"),
    (b"up_assert: Assertion failed at file:mm_free.c line: 101 task: init\r\n", "up_assert: Assertion", "NuttX"),
]


@pytest.mark.parametrize(("text", "words", "meaning"), OTHERS, ids=[words[:40] for _, words, _ in OTHERS])
def test_panics_of_others(text, words, meaning):
    for before in (b"", b"I (312) main: running\r\n", b"bad \xff\xfe bytes\r\n"):
        panic = find_panic(plain_text(before + text + b"ets Jul 29 2019 12:21:46\r\n"))
        assert words in panic.words
        assert meaning in str(panic)
        assert "ets Jul" not in str(panic)


def test_registers_and_backtrace_are_kept():
    text = str(find_panic(plain_text(GURU)))
    for kept in ("PC      : 0x400d14f1", "EXCVADDR: 0x00000000", "Backtrace: 0x400d14ee:0x3ffb5030 0x400d0802"):
        assert kept in text
    assert "Rebooting" not in text


def test_of_two_panics_the_last_counts():
    text = GURU + ESP32_BOOT + b"I (312) main: running\r\n" * 8 + b"Brownout detector was triggered\r\n"
    assert find_panic(plain_text(text)).words == "Brownout detector was triggered"


def last_words(name, **words):
    return f"\0bitloop: {name}{' ' if name else ''}{' '.join(f'{k}={v:08x}' for k, v in words.items())}\r\n\0".encode()


def cortex_m(cfsr, hfsr=0x40000000, *, pc=0x08001234, lr=0x08000FFF, bfar=0):
    return last_words("HardFault", pc=pc, lr=lr, sp=0x2001FF00, cfsr=cfsr, hfsr=hfsr, bfar=bfar)


# device/ports: cortex_m.c, virt.c, lx60.c write them. Bits: Arm DDI 0403E, B3.2.15 and B3.2.16. mcause: RISC-V
# Privileged Architecture, version 20211203, table 3.6. EXCCAUSE: Xtensa ISA Reference Manual, table 4-64.
OURS = [
    (cortex_m(0x00008200, bfar=0x20030000), ["PRECISERR", "at address 0x20030000", "0x08001234", "from 0x08000ffe"]),
    (cortex_m(0x00000200, bfar=0x20030000), ["PRECISERR"]),
    (cortex_m(0x00000400), ["IMPRECISERR"]),
    (cortex_m(0x00001000, pc=0, lr=0), ["STKERR", "stack overflow", "the stack had overflowed"]),
    (cortex_m(0x00000010), ["MSTKERR"]),
    (cortex_m(0x00000001), ["IACCVIOL"]),
    (cortex_m(0x00000002), ["DACCVIOL"]),
    (cortex_m(0x00000100), ["IBUSERR"]),
    (cortex_m(0x00010000), ["UNDEFINSTR"]),
    (cortex_m(0x00020000), ["INVSTATE"]),
    (cortex_m(0x00040000), ["INVPC"]),
    (cortex_m(0x00080000), ["NOCP"]),
    (cortex_m(0x01000000), ["UNALIGNED"]),
    (cortex_m(0x02000000), ["DIVBYZERO"]),
    (cortex_m(0x03000000), ["UNALIGNED", "DIVBYZERO"]),
    (cortex_m(0, hfsr=0x00000002), ["VECTTBL"]),
    (last_words("exception 00000016", pc=1, lr=2, sp=3, cfsr=0, hfsr=0, bfar=0), ["interrupt 6 taken"]),
    (last_words("exception 00000005", pc=1, lr=2, sp=3, cfsr=0x400, hfsr=0, bfar=0), ["BusFault taken", "IMPRECISERR"]),
    (last_words("trap", mcause=5, mepc=0x80000100, mtval=0x10), ["load access fault", "0x80000100", "0x00000010"]),
    (last_words("trap", mcause=2, mepc=0x80000100, mtval=0), ["illegal instruction"]),
    (last_words("trap", mcause=0x8000000B, mepc=0x80000100, mtval=0), ["interrupt 11"]),
    (last_words("trap", mcause=10, mepc=0x80000100, mtval=0), ["cause 10"]),
    (last_words("exception", exccause=28, epc1=0x60000010, excvaddr=4), ["LoadProhibited", "0x60000010", "0x00000004"]),
    (last_words("exception", exccause=6, epc1=1, excvaddr=4), ["IntegerDivideByZero"]),
    (last_words("exception", exccause=32, epc1=1, excvaddr=4), ["Coprocessor0Disabled"]),
    (last_words("exception", exccause=63, epc1=1, excvaddr=4), ["cause 63"]),
]


@pytest.mark.parametrize(("text", "meanings"), OURS)
def test_panics_of_our_own_ports(text, meanings):
    panic = find_panic(plain_text(text))
    assert panic.words == text.decode().strip("\0\r\n")
    for meaning in meanings:
        assert meaning in panic.meaning
    assert ("at address" in panic.meaning) == any("at address" in meaning for meaning in meanings)


@given(st.binary(max_size=300))
@example(b"bitloop: HardFault pc=zz cfsr=ffffffffff")
@example(b"bitloop: exception exccause=")
@example(b"rst cause:99999999999999999999, boot mode:(1,1)")
def test_no_text_is_too_strange(data):
    text = plain_text(data)
    assert all(c == "\n" or c.isprintable() for c in text)
    find_panic(text)
    find_boot(text)
    explain_line(data)
    guess_baud(data, 115200)
    assert isinstance(
        silence_error(Silence("x", "y", 1.0, noise=data, noise_bytes=99, text=data, baud=9600)), LinkError
    )


# --- boot ROMs ---

# ESP-IDF: esp_rom/include/esp32/rom/rtc.h and its like for other chips; esptool's documentation, "Boot Mode Selection"
# and "Troubleshooting"; Arduino core for ESP8266, "Boards: Boot Messages and Modes".
BOOTS = [
    (ESP32_BOOT, "rst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)", "power came on", True),
    (
        b"ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n",
        "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)",
        "power came on",
        True,
    ),
    (b"rst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "SW_CPU_RESET", "the firmware asked", True),
    (b"rst:0xf (RTCWDT_BROWN_OUT_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "BROWN", "supply voltage", True),
    (b"rst:0x8 (TG1WDT_SYS_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "TG1WDT", "timer's watchdog", True),
    (b"rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "RTCWDT", "RTC watchdog", True),
    (b"rst:0x5 (DEEPSLEEP_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "DEEPSLEEP", "deep sleep", True),
    (b"rst:0xe (EXT_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n", "EXT_CPU", "other core", True),
    (b"rst:0x15 (USB_UART_CHIP_RESET),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n", "USB_UART", "USB asked", True),
    (
        b"rst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\nwaiting for download\r\n",
        "DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2)",
        "release it, then reset",
        False,
    ),
    (b"rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\n", "DOWNLOAD", "release", False),
    (
        b"rst:0x10 (RTCWDT_RTC_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\ninvalid header: 0xffffffff\r\n" * 4,
        "invalid header: 0xffffffff",
        "no firmware in the flash",
        False,
    ),
    (b"flash read err, 1000\r\nets_main.c 371 \r\n", "flash read err, 1000", "no firmware in the flash", False),
    (b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n", "rst cause:2, boot mode:(3,6)", "reset pin", True),
    (b"\r\n ets Jan  8 2013,rst cause:4, boot mode:(3,7)\r\n\r\nwdt\r\n", "rst cause:4", "watchdog", True),
    (b"\r\n ets Jan  8 2013,rst cause:1, boot mode:(1,6)\r\n", "boot mode:(1,6)", "waits for a download", False),
    (b"ets Jun  8 2016 00:22:57\r\n", "ets Jun  8 2016 00:22:57", "", True),
]


@pytest.mark.parametrize(("text", "words", "meaning", "comes_up"), BOOTS)
def test_boot_roms(text, words, meaning, comes_up):
    boot = find_boot(plain_text(text))
    assert words in boot.words
    assert meaning in boot.meaning
    assert boot.comes_up == comes_up


def test_a_boot_loop_is_counted():
    assert "it booted 3 times" in find_boot(plain_text(ESP32_BOOT * 3)).meaning


@pytest.mark.parametrize("text", [LOGIN, NMEA, b"bitloop native: hello\r\n", b"", b"reset: the first, boot: later"])
def test_other_texts_are_no_boot_rom_and_no_panic(text):
    assert find_boot(plain_text(text)) is None
    assert find_panic(plain_text(text)) is None


# --- the rate ---


def sampled(data, device, port, *, seed=0):
    """Give what a port reads that samples a line of another rate: 8 data bits, no parity, one stop bit.

    The device sends bytes with pauses of up to 20 bits between some of them. The port takes a falling edge for the
    beginning of a start bit, samples eight bits in their middles, and looks for the next falling edge from the middle
    of the stop bit on, whatever that is.
    """
    generator = random.Random(seed)
    changes, now, level = [], 0.0, 1
    for byte in data:
        for bit in (0, *((byte >> k) & 1 for k in range(8)), 1):
            if bit != level:
                changes.append((now, bit))
                level = bit
            now += 1 / device
        if generator.random() < 0.2:
            now += generator.uniform(0, 20) / device
    read, at, k = bytearray(), 0.0, 0
    level_before = 1
    while k < len(changes):
        time, to = changes[k]
        if time < at or to == 1:
            k += 1
            continue
        position, value, level_before = k, 0, 0
        for bit in range(8):
            sample_at = time + (bit + 1.5) / port
            while position + 1 < len(changes) and changes[position + 1][0] <= sample_at:
                position += 1
                level_before = changes[position][1]
            value |= level_before << bit
        read.append(value)
        at = time + 9.5 / port
    return bytes(read)


def test_the_simulated_line_at_the_right_rate_loses_nothing():
    for text in (ESP32_BOOT, bytes(range(256))):
        assert sampled(text, 115200, 115200) == text
        assert sampled(text, 115200, 117000) == text  # 1.6 % off
    # By hand: 0x55 is 0101010101 on the line (start and stop bit too), at half its rate every second bit: 0 1010 1010.
    assert sampled(b"\x0f", 9600, 19200)[:1] == b"\xfe"  # start, start, then 1s: 00 11 11 11 11, the first 9 of them


RATES = [9600, 57600, 74880, 115200, 230400, 460800, 921600]


@pytest.mark.parametrize("text", [ESP32_BOOT, LOGIN, NMEA, GURU], ids=["esp32", "login", "nmea", "guru"])
@pytest.mark.parametrize("port", RATES)
@pytest.mark.parametrize("device", RATES)
def test_a_wrong_rate_is_told(text, device, port):
    enough = text * (3 + 40 * device // port // len(text))
    noise = sampled(enough, device, port, seed=device + port)[-160:]
    assert len(noise) >= 16
    if device == port:
        assert is_text(noise)
        return
    assert not is_text(noise)
    error = silence_error(Silence("/dev/ttyUSB0", "no answer", 5.0, noise=noise, noise_bytes=len(noise), baud=port))
    assert error.cause is Cause.WRONG_BAUD
    assert f"the port is at {port}" in str(error) or f"which is at {port} baud" in str(error)
    tried = [int(rate) for rate in re.findall(r"(\d+)(?: \(|, |$)", str(error).partition("--baud")[2])]
    assert port not in tried
    slower = "slower line" in str(error) or "far slower than the port" in str(error)
    assert slower or port < 2 * device
    assert port > device or not slower
    if slower:
        assert max(tried) < port
    if port != 115200 and (not slower or port > 115200):
        assert tried[0] == 115200


def test_an_esp8266s_boot_rom_at_the_usual_rate():
    noise = sampled(
        b"\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n\r\nload 0x4010f000, len 1384", 74880, 115200
    )
    text = guess_baud(noise, 115200)
    assert text.startswith("probably the wrong baud rate")
    assert "74880 (an ESP8266's boot ROM)" in text


@pytest.mark.parametrize("name", ["sim://native", "socket://10.0.0.5:1234", "qemu://stm32f405"])
def test_what_has_no_rate_is_not_told_to_change_it(name):
    noise = random.Random(4).randbytes(160)
    error = silence_error(Silence(name, "no answer", 5.0, noise=noise, noise_bytes=160, baud=115200))
    assert (error.cause, "--baud" in str(error)) == (Cause.GARBAGE, False)
    for port in ("/dev/ttyUSB0", "COM5", "rfc2217://host:1"):
        error = silence_error(Silence(port, "no answer", 5.0, noise=noise, noise_bytes=160, baud=115200))
        assert error.cause is Cause.WRONG_BAUD


def test_damaged_text_is_not_taken_for_a_wrong_rate():
    generator = random.Random(1)
    noise = bytes(byte ^ (0x80 if generator.random() < 0.15 else 0) for byte in LOGIN * 4)
    assert not is_text(noise)
    error = silence_error(Silence("/dev/ttyUSB0", "no answer", 5.0, noise=noise, noise_bytes=160, baud=115200))
    assert error.cause is Cause.GARBAGE
    assert "cable and ground" in str(error)


# --- what is collected ---


def test_last_words_are_bounded_and_marked():
    words = LastWords()
    words.take([RawBytes(b"first")], 5)
    mark = words.end
    assert words.since(mark) == b""
    words.take([CorruptFrame("no COBS", b"\x01\x02Brownout detector was triggered\r\n\xff\xff\x05")], 5)
    assert words.panic_since(mark).startswith("Brownout detector was triggered (")
    assert words.recent == b"first\nBrownout detector was triggered\r\n\n"
    words.take([Frame(0x81, 1, 5, b"")], 5)
    assert words.recent == b""
    assert words.panic_since(mark)
    words.take([RawBytes(b"x" * 100)] * 1000, 5)
    assert len(words.since(0)) == 4096
    assert words.panic_since(mark) == ""


def test_frames_of_other_sessions():
    words = LastWords()
    words.take([Frame(0xA2, 0, 9, b"")], 0)  # nobody has a session yet
    assert words.foreign == 0
    words.take([Frame(0xA2, 0, 7, b"")], 5)
    assert words.foreign == 7
    words.take([Frame(0x81, 1, 5, b"")], 5)
    assert words.foreign == 0
    words.take([Frame(0xA2, 0, 5, b"")], 6)  # one's own session of before
    assert words.foreign == 0
    words.take([Frame(0xC0, 0, 0, b"\1x")], 6)  # a device that boots
    assert words.foreign == 0


# --- in a session ---


class Talker(fd.FakeTransport):
    """Something that says its piece over and over, and listens to nobody."""

    def __init__(self, piece, *, name="/dev/ttyUSB0", baud=115200):
        super().__init__(fd.FakeDevice())
        self.piece, self.description, self.baud = piece, name, baud

    def read(self, timeout_s):
        self.now += max(timeout_s, 0.001)
        return self.piece


def connect_error(transport):
    with pytest.raises(LinkError) as caught:
        Session(transport, clock=transport.clock).connect()
    return caught.value


ENDINGS = [
    (b"", DeviceTimeoutError, Cause.NO_ANSWER, "last heard: nothing. Check cable and power"),
    (ESP32_BOOT, ProtocolError, Cause.BOOT_ROM, "power came on, or the reset pin was pulled; it booted"),
    (BOOTS[9][0], ProtocolError, Cause.BOOT_ROM, "it waits for a download, since the BOOT button"),
    (BOOTS[11][0], ProtocolError, Cause.BOOT_ROM, "'invalid header: 0xffffffff', that is: there is no firmware in"),
    (GURU + ESP32_BOOT, DeviceTimeoutError, Cause.PANIC, "the firmware panicked: Guru Meditation Error: Core  0"),
    (cortex_m(0x00010000), DeviceTimeoutError, Cause.PANIC, "UNDEFINSTR"),
    (LOGIN, ProtocolError, Cause.OTHER_FIRMWARE, "Debian GNU/Linux.*the text of another program: flash"),
    (sampled(ESP32_BOOT, 115200, 921600), ProtocolError, Cause.WRONG_BAUD, "only zero|probably the wrong baud rate"),
    (sampled(ESP32_BOOT, 57600, 115200), ProtocolError, Cause.WRONG_BAUD, "the port is at 115200, .* slower line; try"),
    (sampled(ESP32_BOOT, 921600, 115200), ProtocolError, Cause.WRONG_BAUD, "probably the wrong baud rate.*230400"),
    (b"\xff", DeviceTimeoutError, Cause.NO_ANSWER, "last heard: nothing"),
]


@pytest.mark.parametrize(("piece", "kind", "cause", "text"), ENDINGS)
def test_what_a_session_says_of_a_device_that_does_not_answer(piece, kind, cause, text):
    transport = Talker(piece)
    if piece == b"\xff":  # one stray byte, as when a cable is put in
        transport.read = lambda timeout_s, read=transport.read: (
            read(timeout_s) if transport.now < 0.01 else (setattr(transport, "now", transport.now + timeout_s) or b"")
        )
    error = connect_error(transport)
    assert type(error) is kind
    assert error.cause is cause
    assert re.search(text, str(error), re.DOTALL), str(error)
    assert str(error).count("/dev/ttyUSB0") >= 1


def test_another_program_uses_the_device():
    other = Talker(fd.encode(0xA2, 0, 4711, b"\0" * 20))
    session = Session(other, clock=other.clock)
    with pytest.raises(
        LinkError, match=r"another program uses the device: it answers session 4711, not this"
    ) as caught:
        session.connect()
    assert type(caught.value) is LinkError
    assert caught.value.cause is Cause.SHARED


def ready(device, **options):
    transport = fd.FakeTransport(device)
    session = Session(transport, clock=transport.clock, **options)
    session.connect()
    session.upload(fd.make_image(), 4096)
    return session, transport


def images(count):
    return np.zeros((count, 4, 5, 1), np.uint8)


def test_another_program_takes_the_device_in_the_middle_of_a_run():
    class Taken(fd.FakeDevice):
        def handle(self, kind, sequence, session, body):
            super().handle(kind, sequence, session, body)
            if self.frames == 14:
                self.session = 4711

        def poll(self, now):
            super().poll(now)
            if self.session == 4711 and now > self.later:
                self.later = now + 0.5
                self.out.append(fd.encode(0xA1, 0, 4711, bytes(12)))

        later = 0.0

    session, transport = ready(Taken(image_s=0.01))
    with pytest.raises(LinkError, match="another program uses the device: it answers session 4711") as caught:
        list(session.run(images(60)))
    assert caught.value.cause is Cause.SHARED
    assert transport.device.session == 4711  # it is left alone


@pytest.mark.parametrize(
    ("banner", "panic"),
    [
        (b"\0" + GURU + b"\0" + ESP32_BOOT + b"\0", "Guru Meditation Error: Core  0 panic'ed (LoadProhibited)"),
        (cortex_m(0x00008200, bfar=0x20030000), "PRECISERR: bus error of a load or store; at address 0x20030000"),
        (last_words("trap", mcause=5, mepc=0x80000100, mtval=0x10), "load access fault"),
        (b"", ""),
    ],
)
def test_a_reset_in_the_middle_of_a_run_quotes_the_panic(banner, panic):
    session, transport = ready(fd.FakeDevice(image_s=0.01, banner=banner))
    session._channel.words.take([RawBytes(b"Brownout detector was triggered")], 1)  # long ago: not of this run
    transport.script[18] = lambda line: line.device.reset()
    with pytest.raises(DeviceResetError, match=r"restarted during the run \(boot 1 → 2, cause: watchdog\)") as caught:
        list(session.run(images(60)))
    error = caught.value
    assert (error.boots, error.reset_cause) == ((1, 2), spec.ResetCause.WATCHDOG)
    assert error.cause is (Cause.PANIC if panic else Cause.RESET)
    assert panic in error.panic
    assert ("It had panicked: " in str(error)) == bool(panic)
    assert panic in str(error)
    assert "Brownout" not in str(error)
    assert isinstance(error, LinkError)


def test_a_panic_without_a_reset():
    session, transport = ready(fd.FakeDevice(image_s=0.01), timing=Timing(timeout_s=1.0, image_timeout_s=1.0))

    def panic(line):
        line.device.out.append(b"\0" + GURU + b"\0")
        line.device.busy_until = 1e9

    transport.script[18] = panic
    with pytest.raises(DeviceTimeoutError, match=r"the firmware panicked: Guru Meditation Error.*Backtrace") as caught:
        list(session.run(images(60)))
    assert caught.value.cause is Cause.PANIC


def test_a_firmware_that_hangs_in_a_run():
    class Hangs(fd.FakeDevice):
        def work(self, now):
            if self.frames < 20:
                super().work(now)

        def on_run_data(self, sequence, body):
            pass

        on_run_ack = on_run_data

    session, _ = ready(Hangs(), timing=Timing(timeout_s=1.0, image_timeout_s=1.0))
    with pytest.raises(
        DeviceTimeoutError, match="It answers a hello, so the line is good: the firmware hangs"
    ) as caught:
        list(session.run(images(60)))
    assert caught.value.cause is Cause.HANG


@pytest.mark.parametrize(("major", "cause"), [(0, Cause.OLD_FIRMWARE), (2, Cause.NEW_FIRMWARE)])
def test_another_version_has_its_cause(major, cause):
    transport = fd.FakeTransport(fd.FakeDevice(protocol_major=major))
    assert connect_error(transport).cause is cause


def test_a_model_that_does_not_fit_tells_both_sizes():
    transport = fd.FakeTransport(fd.FakeDevice(arena_bytes=100))
    session = Session(transport, clock=transport.clock)
    session.connect()
    with pytest.raises(DoesNotFitError, match="needs 4096 bytes of memory, the device has 100: 3996 are missing"):
        session.upload(fd.make_image(), 4096)
    assert issubclass(DoesNotFitError, DeviceError)


def test_lost_state_has_its_cause():
    session, transport = ready(fd.FakeDevice(image_s=0.01))

    def lose(line):
        line.device.run = False

    transport.script[18] = lose
    with pytest.raises(LinkError, match="lost its state during the run") as caught:
        list(session.run(images(60)))
    assert caught.value.cause is Cause.SHARED


# --- the monitor ---


def test_the_monitor_explains_a_panic_and_a_boot():
    pieces = [b"\0" + GURU + b"\0", b"\0" + ESP32_BOOT + b"\0", cortex_m(0x02000000), b"\0hello there\r\n\0"]

    class Line(fd.FakeTransport):
        def read(self, timeout_s):
            self.now += timeout_s
            return pieces.pop(0) if pieces else b""

    with Monitor(Line(fd.FakeDevice())) as monitor:
        seen = [(event.kind, event.text) for event in monitor.events(seconds=2.0)]
    meanings = [text for kind, text in seen if kind == "meaning"]
    assert meanings == [
        "the firmware panicked: a load from where nothing may be read: EXCVADDR near 0 is a null pointer",
        "boot ROM: power came on, or the reset pin was pulled",
        "the firmware panicked: DIVBYZERO: a division by zero; the instruction is at 0x08001234, called from "
        "0x08000ffe",
    ]
    at = seen.index(("meaning", meanings[0]))
    assert seen[at - 1][1].startswith("Guru Meditation Error")
    assert ("raw", "hello there") in seen
