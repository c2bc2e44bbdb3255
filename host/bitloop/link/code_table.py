"""The table of codes that a device decodes with: sent in pieces, before the first coded frame."""

from __future__ import annotations

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Channel, Timing
from bitloop.link.coding import Coder
from bitloop.link.wire import messages
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
    sender = _TableSender(channel, info, table, timing)
    if not sender.send(coder.table):
        sender.begin_anew(coder.table)
        if not sender.send(coder.table):
            raise ProtocolError(
                f"the device takes other pieces of the table of codes {int(table)} than it was sent; its firmware is "
                "faulty"
            )


class _TableSender:
    def __init__(self, channel: Channel, info: DeviceInfo, table: CodeTable, timing: Timing) -> None:
        self._channel = channel
        self._room = info.body_bytes - messages.CodeTable.LAYOUT.size
        self._table = table
        self._timing = timing

    def send(self, lengths: bytes) -> bool:
        """Send all pieces; give False if the device has kept another table that begins alike."""
        for offset in range(0, len(lengths), self._room):
            piece = lengths[offset : offset + self._room]
            if self._request(offset, piece) != offset + len(piece):
                return False
        return True

    def begin_anew(self, lengths: bytes) -> None:
        """Send a piece that no table of ours begins with: a piece that is there already does not begin a new table."""
        self._request(0, bytes((lengths[0] ^ 1,)))

    def _request(self, offset: int, piece: bytes) -> int:
        ready, _ = self._channel.request(
            messages.CodeTable(self._table, offset, piece),
            messages.CodeReady,
            timeout_s=self._timing.timeout_s,
            retry_s=self._timing.retry_s,
            doing="sending a table of codes",
        )
        return ready.next if ready.table == self._table else -1


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
