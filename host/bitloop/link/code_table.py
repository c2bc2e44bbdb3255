"""The table of codes that a device decodes with: sent in pieces, before the first coded frame."""

from __future__ import annotations

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link import messages
from bitloop.link.channel import Channel, Timing
from bitloop.link.coding import Coder
from bitloop.spec import CodeTable, Coding

_TABLE_COST_BYTES = spec.CODE_LENGTHS_BYTES + 40
"""A table with the framing of its pieces, roughly."""


def send_table(channel: Channel, info: DeviceInfo, coder: Coder | None, table: CodeTable, timing: Timing) -> None:
    """Send the table that a coder's frames are decoded with, if it has one.

    Raises:
        DeviceError: The device refuses it.
        ProtocolError: The device takes pieces that it was not sent.
    """
    if coder is None or coder.table is None:
        return
    lengths = coder.table
    room = info.body_bytes - messages.CodeTable.LAYOUT.size
    offset = 0
    while offset < spec.CODE_LENGTHS_BYTES:
        piece = lengths[offset : offset + room]
        ready, _ = channel.request(
            messages.CodeTable(table, offset, piece),
            messages.CodeReady,
            timeout_s=timing.timeout_s,
            retry_s=timing.retry_s,
            doing="sending a table of codes",
        )
        offset += len(piece)
        if (ready.table, ready.next) != (table, offset):
            raise ProtocolError(
                f"the device has byte {ready.next} of table {ready.table}, {offset} bytes of table {int(table)} were "
                "sent; its firmware is faulty"
            )


def worth_its_table(coder: Coder | None, left: int, total: int) -> bool:
    """Tell whether coding the ``left`` bytes of a stream of ``total`` saves more than its table costs."""
    if coder is None or not total:
        return False
    return coder.table is None or (total - coder.size_bytes) * left > _TABLE_COST_BYTES * total


def coding_name(coder: Coder | None) -> str:
    """Name how a stream travels, for a person."""
    if coder is None:
        return "plain"
    return " and ".join(coding.name.lower() for coding in Coding if coding in coder.coding and coding.name)
