"""Frames of one session over a transport: numbers them, drops what is not meant, remembers what was heard."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from bitloop import spec
from bitloop.errors import LinkError
from bitloop.hello import printable
from bitloop.link.causes import LastWords, Silence, excerpt, silence_error
from bitloop.link.refusals import error_from
from bitloop.link.transport import Transport
from bitloop.link.wire import messages
from bitloop.link.wire.frame import CorruptFrame, Decoder, Frame, Item, RawBytes, encode_frame, is_text
from bitloop.spec import MessageType

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=messages.Message)
Clock = Callable[[], float]
LogCallback = Callable[[int, str], None]
RawCallback = Callable[[bytes], None]

_NOISE_BYTES = 160
_RAW_IDLE_S = 0.3
MAX_RETRY_S = 1.0
_NOISE_S = spec.BAUD_NOISE_MS / 1000
_IDLE_S = 0.85 * spec.BAUD_SILENCE_MS / 1000
"""A device's clock may be off by a tenth: behind such a pause, it may be back at its boot rate."""


@dataclass
class Counters:
    """What crossed the line since the session was opened; bytes are encoded ones, as they travelled.

    ``streamed_bytes`` are those of ``bytes_up`` that carried weights with a batch of images.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    frames_up: int = 0
    frames_down: int = 0
    retransmissions: int = 0
    retransmitted_bytes: int = 0
    resend_requests: int = 0
    crc_errors: int = 0
    stale_frames: int = 0
    raw_bytes: int = 0
    log_frames: int = 0
    streamed_bytes: int = 0

    def as_dict(self) -> dict[str, int]:
        """Give all counters by name."""
        return asdict(self)


@dataclass(frozen=True)
class Timing:
    """How long to wait, in seconds.

    Attributes:
        timeout_s: Without any progress for so long, a request, an upload or a run fails.
        connect_timeout_s: How long a device may take until its first HELLO (boards reset when a port is opened).
        image_timeout_s: How much longer the first image of a run may take; the later ones are measured.
        retry_s: Without an answer for so long, a request is sent again; grows with the line's measured delay.
    """

    timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    image_timeout_s: float = 30.0
    retry_s: float = 0.25


@dataclass(frozen=True)
class Posted:
    """A frame that was sent: its number, and its bytes as they travel."""

    sequence: int
    size_bytes: int


class Channel:
    """Frames of one session.

    Args:
        transport: The byte stream.
        clock: Seconds that never go back.
        on_log: Gets level and text of each LOG frame.
        on_raw: Gets the bytes outside of frames.

    Attributes:
        boot_baud: The line's rate before anything was changed; 0 if it has none.
        failed_baud: The rate at which the device was last not heard any more; 0 if that never happened.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        clock: Clock,
        on_log: LogCallback | None = None,
        on_raw: RawCallback | None = None,
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.counters = Counters()
        self.session = 0
        self.rtt_s = 0.0
        self.decoder = Decoder()
        self.words = LastWords()
        self.boot_baud: int = getattr(transport, "baud", 0)
        self.failed_baud = 0
        self._on_log = on_log
        self._on_raw = on_raw
        self._sequence = 0
        self._out: list[bytes] = []
        self._heard = "nothing"
        self._heard_at = clock()
        self._read_at = self._changed_at = self._heard_at
        self._unanswered_at: float | None = None
        self._explained_until = self._heard_at
        self._noise_bytes = 0
        self._noise = b""

    def post(self, message: messages.Message) -> Posted:
        """Put a message into the send buffer; it leaves with the next :meth:`flush`.

        Behind a silence in which the device may have gone back to its boot rate, the host does so first.
        """
        self.check_baud()
        if self._unanswered_at is None:
            self._unanswered_at = self.clock()
        self._sequence = self._sequence % 255 + 1  # 0 is for events
        encoded = encode_frame(message.TYPE, self._sequence, self.session, message.encode())
        if not self._out:
            encoded = b"\0" + encoded  # ends whatever a broken line or an interrupted write left behind
        self._out.append(encoded)
        self.counters.frames_up += 1
        self.counters.bytes_up += len(encoded)
        if message.TYPE in (MessageType.STREAM_DATA, MessageType.STREAM_CODED):
            self.counters.streamed_bytes += len(encoded)
        return Posted(self._sequence, len(encoded))

    @property
    def baud(self) -> int:
        """The line's rate now, in bits a second; 0 if it has none."""
        return self.transport.baud if self.boot_baud else 0

    def set_baud(self, baud: int) -> None:
        """Change the host's rate, once everything posted has left.

        Raises:
            TransportError: The port cannot have this rate, or the stream broke.
        """
        if baud == self.baud:
            return
        self.flush()
        self.transport.set_baud(baud)
        self.decoder.flush()  # the beginning of a frame that came at another rate is noise
        self._changed_at = self.clock()
        self._unanswered_at = None

    def check_baud(self) -> None:
        """Return to the boot rate if the device may be there.

        That is so when nothing was exchanged for nearly :data:`bitloop.spec.BAUD_SILENCE_MS`, and when what was asked
        stays unanswered for longer than :data:`bitloop.spec.BAUD_NOISE_MS` and nothing explains that. If the device is
        not there, what it hears then is noise, which brings it there.
        """
        if self.baud == self.boot_baud:
            return
        now = self.clock()
        idle_s = now - max(self._heard_at, self._changed_at)
        if idle_s >= _IDLE_S and now >= self._explained_until:
            self._fall_back(logging.INFO, f"nothing was exchanged for {idle_s:.1f} s")
        elif self._unanswered_at is not None:
            silent_s = now - max(self._unanswered_at, self._explained_until)
            if silent_s >= max(_NOISE_S, 4 * self.rtt_s):
                self.failed_baud = self.baud
                self._fall_back(logging.WARNING, f"no answer for {now - self._unanswered_at:.1f} s")

    def explain(self, seconds: float) -> None:
        """Say that the device may well be silent for so long from now on: it computes."""
        self._explained_until = max(self._explained_until, self.clock() + seconds)

    def flush(self) -> None:
        """Send what was posted."""
        if self._out:
            data = b"".join(self._out)
            self._out.clear()
            self.transport.write(data)

    def receive(self, timeout_s: float) -> list[Frame]:
        """Give the frames of this session that have arrived, waiting up to ``timeout_s`` for the next bytes.

        LOG frames and raw bytes go to their callbacks; damaged frames and those of other sessions are counted.
        """
        self.flush()
        data = self.transport.read(max(timeout_s, 0.0))
        now = self.clock()
        if not data:
            if now - self._read_at >= _RAW_IDLE_S and is_text(self.decoder.pending):
                self._take(self.decoder.flush(), now)
            return []
        self._read_at = now
        self.counters.bytes_down += len(data)
        self._noise_bytes += len(data)
        self._noise = (self._noise + data)[-_NOISE_BYTES:]
        return self._take(self.decoder.feed(data), now)

    def request(
        self, message: messages.Message, answer: type[M], *, timeout_s: float, retry_s: float, doing: str
    ) -> tuple[M, int]:
        """Send a request until it is answered.

        Args:
            message: The request; it may reach the device several times.
            answer: The message that answers it.
            timeout_s: How long to try in all.
            retry_s: Pause before the first repetition; doubles up to 1 s.
            doing: What this is for, to be read in an error.

        Returns:
            The answer, and how often the request was sent.

        Raises:
            DeviceError: The device refused.
            DeviceTimeoutError: Nothing was answered in time.
            ProtocolError: What was answered is not this protocol.
        """
        started = self.clock()
        deadline = started + timeout_s
        retry_s = max(retry_s, 2 * self.rtt_s)
        self.explain(retry_s)
        attempts: dict[int, float] = {}
        while True:
            now = self.clock()
            if now >= deadline:
                raise self.silence(f"no answer to {message.TYPE.name} while {doing}", now - started)
            if attempts:
                self.counters.retransmissions += 1
            attempts[self.post(message).sequence] = now
            again_at = min(now + retry_s, deadline)
            retry_s = max(min(2 * retry_s, MAX_RETRY_S), 2 * self.rtt_s)
            while (now := self.clock()) < again_at:
                for frame in self.receive(again_at - now):
                    if frame.sequence not in attempts:
                        continue
                    if frame.type == MessageType.ERROR:
                        raise error_from(messages.Error.decode(frame.body))
                    if frame.type == answer.TYPE:
                        self.note_delay(self.clock() - attempts[frame.sequence])
                        return answer.decode(frame.body), len(attempts)

    def note_delay(self, seconds: float) -> None:
        """Remember how long an answer took; slower answers count at once, quicker ones bit by bit."""
        self.rtt_s = max(seconds, 0.9 * self.rtt_s)

    def silence(self, what: str, waited_s: float) -> LinkError:
        """Say what is wrong when nothing useful came for ``waited_s``."""
        return silence_error(
            Silence(
                name=self.transport.description,
                what=what,
                waited_s=waited_s,
                heard="" if self._heard == "nothing" else self._heard,
                heard_s_ago=self.clock() - self._heard_at,
                noise=self._noise,
                noise_bytes=self._noise_bytes,
                text=self.words.recent + self.decoder.pending,
                session=self.session,
                foreign=self.words.foreign,
                baud=getattr(self.transport, "baud", 0),
            )
        )

    def _take(self, items: list[Item], now: float) -> list[Frame]:
        frames: list[Frame] = []
        self.words.take(items, self.session)
        for item in items:
            if isinstance(item, RawBytes):
                self.counters.raw_bytes += len(item.data)
                logger.info("raw bytes: %s", excerpt(item.data))
                if self._on_raw is not None:
                    self._on_raw(item.data)
            elif isinstance(item, CorruptFrame):
                self.counters.crc_errors += 1
                logger.debug("damaged frame of %d bytes: %s", len(item.data), item.reason)
            elif self.session in (0, item.session) or (item.type == MessageType.LOG and not item.session):
                self._hear(item, now)
                if item.type == MessageType.LOG:
                    self._log(item)
                else:
                    frames.append(item)
            else:
                self.counters.stale_frames += 1
        return frames

    def _hear(self, frame: Frame, now: float) -> None:
        self.counters.frames_down += 1
        self._heard = messages.message_name(frame.type)
        self._heard_at = now
        self._unanswered_at = None
        self._noise_bytes = 0
        self._noise = b""

    def _fall_back(self, level: int, why: str) -> None:
        name = self.transport.description
        logger.log(level, "%s: %s at %d baud; back to %d", name, why, self.baud, self.boot_baud)
        self.set_baud(self.boot_baud)

    def _log(self, frame: Frame) -> None:
        log = messages.Log.decode(frame.body)
        self.counters.log_frames += 1
        if self._on_log is not None:
            self._on_log(log.level, printable(log.text))
