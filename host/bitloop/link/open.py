"""Where a device's URL becomes a transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bitloop.errors import PortError, UsageError
from bitloop.link.line import options as line_options
from bitloop.link.line.shaper import ShapedTransport
from bitloop.link.recording.file import check_free
from bitloop.link.recording.recorder import RecordingTransport
from bitloop.link.recording.replay import ReplayTransport, file_of, is_replay
from bitloop.link.transport import DEFAULT_BAUD, SerialTransport, Transport
from bitloop.link.urls import protocol_qemu, protocol_sim

WRITE_TIMEOUT_S = 10.0


def open_transport(
    url: str,
    *,
    baud: int = DEFAULT_BAUD,
    write_timeout_s: float = WRITE_TIMEOUT_S,
    record: Path | None = None,
    force: bool = False,
    clock: Callable[[], float] = time.monotonic,
    facts: Mapping[str, str] | None = None,
) -> Transport:
    """Open a device's port; with options of the line in the URL's query, behind such a line (docs/urls.md).

    Args:
        url: A port (``/dev/ttyUSB0``, ``COM5``), any pyserial URL (``sim://…`` and ``qemu://…`` among them), or
            ``replay://FILE``.
        baud: Bits a second that the port is set to at first.
        write_timeout_s: How long the other side may take nothing at all.
        record: Where to record what happens (docs/recording.md).
        force: Whether the recording may replace a file.
        clock: Of a recorded session.
        facts: What the session is about, for who finds that a replay departs from its recording.

    Raises:
        PortError: The port does not exist, is busy, may not be opened, or has no such option.
        DataError: There is no such recording, or it is damaged.
        UsageError: An argument or an option of the line makes no sense, or the recording is there already.
    """
    if record is not None:
        check_free(record, force=force)
        if is_replay(url) and record.exists() and record.samefile(file_of(url)):
            raise UsageError(f"{record} is replayed; record into another file")
    transport = ReplayTransport(url, facts=facts) if is_replay(url) else _open_line(url, baud, write_timeout_s)
    if record is None:
        return transport
    try:
        return RecordingTransport(transport, record, force=force, clock=clock, facts=facts)
    except BaseException:
        transport.close()
        raise


def _open_line(url: str, baud: int, write_timeout_s: float) -> Transport:
    port, line = line_options.split_url(url)
    _check_options(url, port, line)
    transport = SerialTransport(port, baud=baud, write_timeout_s=write_timeout_s)
    if line is None:
        return transport
    return ShapedTransport(transport, line, url=url, write_timeout_s=write_timeout_s)


def _check_options(url: str, port: str, line: line_options.LineOptions | None) -> None:
    """Refuse what neither the line nor the port knows; pyserial's own URLs look after their options themselves."""
    scheme = port.partition("://")[0].lower() if "://" in port else ""
    known: tuple[str, ...] | None = {"sim": protocol_sim.OPTIONS, "qemu": protocol_qemu.OPTIONS, "": ()}.get(scheme)
    if known is not None:
        for name in line_options.port_option_names(port):
            if name not in known:
                its_own = f"the port has {', '.join(known)}; " if known else ""
                raise PortError(
                    f"{url}: unknown option '{name}'; {its_own}the line has {', '.join(line_options.NAMES)}"
                )
    if line is None:
        return
    if line.real_rates and scheme != "sim":
        raise PortError(
            f"{url}: with baud=auto the port must tell its device's rate, and only sim://native can; name a rate, such "
            "as baud=921600"
        )
    if any(moment.power for moment in line.vanishings) and scheme not in ("sim", "qemu"):
        raise UsageError(f"{url}: only a simulated or emulated device can lose its power; leave ':power' out")
