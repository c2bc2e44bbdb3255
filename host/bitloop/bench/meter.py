"""Counts what crosses the line in one part of a run, and apart from that what the streaming of images takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager

from bitloop.bench.parts import Traffic
from bitloop.link.channel import Counters
from bitloop.link.session import Session
from bitloop.link.upload import UploadReport

__all__ = ["Meter"]


class Meter:
    """Reads the counters of a session at the right moments.

    Its clock is read as often in every run of the same, whenever someone asks for figures: a recording counts on that.

    Args:
        session: whose line it is; its counters go on over reconnections.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._done = Traffic()
        self._open: tuple[Counters, float] | None = None
        self._waited_s = 0.0
        self._images = 0
        self._now = 0.0

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """Count what happens inside as streaming of images, also if it breaks off."""
        self._now = self._session.clock()
        self._open = (dataclasses.replace(self._session.counters), self._now)
        self._waited_s, self._images = 0.0, 0
        try:
            yield
        finally:
            self._now = self._session.clock()
            self._done = self._with_open()
            self._open = None

    def waited(self, since: float, now: float) -> None:
        """Add time, by the session's clock, in which the host waited for the device."""
        self._waited_s += now - since
        self._now = now

    def image(self) -> None:
        """Count an image that came."""
        self._images += 1

    @contextmanager
    def tracing(self) -> Iterator[None]:
        """Count weights that travel inside as sent to compare layers."""
        before = self._session.counters.streamed_bytes
        try:
            yield
        finally:
            traced = self._session.counters.streamed_bytes - before
            self._done += Traffic(traced_bytes=traced)

    def uploaded(self, report: UploadReport, line_bytes: int) -> None:
        """Add an upload, and the bytes that it took on the line."""
        self._done += Traffic(
            upload_seconds=report.seconds, upload_line_bytes=line_bytes, copied_bytes=report.copied_bytes
        )

    def traffic(self) -> Traffic:
        """Return everything until now."""
        now = self._session.counters
        return dataclasses.replace(
            self._with_open(),
            bytes_up=now.bytes_up,
            bytes_down=now.bytes_down,
            retransmissions=now.retransmissions,
            crc_errors=now.crc_errors,
        )

    def _with_open(self) -> Traffic:
        if self._open is None:
            return self._done
        (before, began), now = self._open, self._session.counters
        return self._done + Traffic(
            images=self._images,
            stream_bytes_up=now.bytes_up - before.bytes_up,
            stream_bytes_down=now.bytes_down - before.bytes_down,
            streamed_bytes=now.streamed_bytes - before.streamed_bytes,
            stream_seconds=self._now - began,
            waited_s=self._waited_s,
        )
