"""What a UART hears of a byte that was sent at another rate than its own."""

from __future__ import annotations

import functools

_BITS = 10  # start, eight data, stop


@functools.lru_cache(maxsize=32)
def heard(sent_baud: int, heard_baud: int) -> tuple[bytes, ...]:
    """Give, for each byte, what a receiver of ``heard_baud`` makes of it when it is sent at ``sent_baud`` (8N1).

    The receiver waits for the line to fall, and samples the middle of each of its bits; a start bit that is high in
    its middle is none. A stop bit that is low is taken for good, as drivers do that ignore framing errors. The line
    is idle before the byte and behind it. Up to about 5 % between the rates go unnoticed, as on a real line.
    """
    return tuple(_heard(byte, sent_baud / heard_baud) for byte in range(256))


def _heard(byte: int, bit: float) -> bytes:
    """Receive one byte; ``bit`` is the receiver's bit in units of the sender's."""
    levels = [1, 0, *((byte >> k) & 1 for k in range(8)), 1]  # from one bit before the start bit on

    def level(at: float) -> int:
        return levels[int(at) + 1] if at < _BITS - 1 else 1

    falls = [k for k in range(_BITS - 1) if levels[k] and not levels[k + 1]]
    out = bytearray()
    now = -1.0
    for fall in falls:
        if fall < now:
            continue
        if level(fall + bit / 2):
            now = fall + bit / 2
            continue
        out.append(sum(level(fall + (k + 1.5) * bit) << k for k in range(8)))
        now = fall + 9.5 * bit
    return bytes(out)


def garble(data: bytes, sent_baud: int, heard_baud: int) -> bytes:
    """Give what a receiver makes of bytes; where the rates are the same, these bytes."""
    if sent_baud == heard_baud:
        return data
    table = heard(sent_baud, heard_baud)
    return b"".join([table[byte] for byte in data])
