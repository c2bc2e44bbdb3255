"""Recorded sessions: the file, and what a replay of it does, against the device in Python and its clock."""

import contextlib
import hashlib
import json
import logging
import random
import re
import struct
import time
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path

import fake_device as fd
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import bitloop
from bitloop.errors import (
    BitloopError,
    Cause,
    DataError,
    DeviceTimeoutError,
    LinkError,
    PortError,
    TransportError,
    UsageError,
)
from bitloop.link.channel import Timing
from bitloop.link.recording import file, recorder
from bitloop.link.recording.events import Event, Kind, decode_event, encode_event
from bitloop.link.recording.file import MAGIC, MAX_BLOCK_BYTES, Reader, Writer
from bitloop.link.recording.header import Header, without_user
from bitloop.link.recording.recorder import RecordingTransport
from bitloop.link.recording.replay import ReplayTransport
from bitloop.link.session import Session
from bitloop.link.urls.emulation import Emulation
from bitloop.spec import RunMode

HEADER = Header("0.1", "1.2", "sim://native", "bitloop run mlp", "2026-01-02T03:04:05Z", "3.11", "Linux", 115200)
NOISE = fd.LineFaults(drop=0.03, flip=0.03, duplicate=0.03, truncate=0.02, noise=0.03)

numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))
events = st.one_of(
    st.tuples(st.sampled_from([Kind.CLOCK, Kind.SESSION_NUMBER, Kind.BAUD]), numbers, st.just(b"")),
    st.tuples(st.sampled_from([Kind.READ, Kind.WRITE]), st.just(0), st.binary(max_size=300)),
    st.tuples(st.just(Kind.FAILED), st.sampled_from([int(kind) for kind in Kind]), st.binary(max_size=30)),
    st.just((Kind.REOPEN,)),
).map(lambda parts: Event(*parts))


@pytest.fixture(scope="module", autouse=True)
def _nothing_stays_open():
    """What a test lets lie, as a program that crashes does, is closed behind the last one."""
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Reader, Writer):

            def note(self, *arguments, initialize=kind.__init__, **options):
                initialize(self, *arguments, **options)
                opened.append(self)

            patch.setattr(kind, "__init__", note)
        yield
    for one in opened:
        one.close()


class Line(fd.FakeTransport):
    """The fake device's line, as a port that has a rate and can be opened again."""

    baud = 115200
    broken = False

    def set_baud(self, baud):
        if baud > 1_000_000:
            raise TransportError(f"cannot be set to {baud} baud")
        self.baud = baud

    def reopen(self):
        if self.now < 3.0:
            raise PortError("there is no port", cause=Cause.NO_PORT)
        self.broken = False
        self.baud = 115200

    def read(self, timeout_s):
        if self.broken:
            raise TransportError("the cable is out")
        return super().read(timeout_s)


def images(count):
    return np.random.default_rng(3).integers(0, 256, (count, 4, 5, 1), dtype=np.uint8)


def everything(session, pixels, mode):
    """All that a session can do; give all that came back."""
    info = session.connect()
    report = session.upload(fd.make_image(), 4096)
    results = [
        (result.index, result.label, result.ticks, result.logits.tobytes()) for result in session.run(pixels, mode)
    ]
    trace = session.trace(pixels[0], 1).tobytes()
    return info, report, results, trace, session.echo(b"abc"), session.stats(), session.counters.as_dict()


def record(path, transport, *, facts=None):
    return Session(RecordingTransport(transport, path, facts=facts))


def replay(path, *, facts=None):
    return Session(ReplayTransport(f"replay://{path}", facts=facts))


def read_all(path):
    reader = Reader(path)
    found = list(iter(reader.next, None))
    reader.close()
    return found


def write_all(path, recorded, header=HEADER):
    writer = Writer(path, header)
    for event in recorded:
        writer.put(event)
    writer.flush()
    return path


# --- events ---


@given(st.lists(events, max_size=20))
@example([Event(Kind.CLOCK, 127), Event(Kind.CLOCK, 128), Event(Kind.READ), Event(Kind.CLOCK, 2**63 - 1)])
def test_events_are_read_as_they_were_written(written):
    data = b"".join(encode_event(event) for event in written)
    position, found = 0, []
    while position < len(data):
        event, position = decode_event(data, position)
        found.append(event)
    assert found == written


def test_events_by_hand():
    # 624485 is the example of LEB128 in DWARF 5, section 7.6 (figure 7.7 has smaller ones, such as 129: 81 01).
    assert encode_event(Event(Kind.BAUD, 624485)) == bytes.fromhex("84 e5 8e 26")
    assert encode_event(Event(Kind.CLOCK, 5)) == b"\x05"
    assert encode_event(Event(Kind.CLOCK, 129)) == bytes.fromhex("80 81 01")
    assert encode_event(Event(Kind.READ, data=b"ab")) == bytes.fromhex("81 02 61 62")
    assert encode_event(Event(Kind.FAILED, Kind.READ, b"E")) == bytes.fromhex("86 81 01 01 45")
    assert encode_event(Event(Kind.END)) == b"\x87"


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_are_an_event_or_an_error(data):
    try:
        event, position = decode_event(data, 0)
    except (ValueError, IndexError):
        return
    assert 0 < position <= len(data)
    assert decode_event(encode_event(event), 0)[0] == event


# --- the file ---


def test_a_file_holds_header_and_events(tmp_path):
    header = replace(
        HEADER,
        command="bitloop run --device 'größer'",
        emulation={"emulator": "qemu", "icount_shift": 3},
        facts={"model": "mlp"},
    )
    generator = random.Random(1)
    written = [Event(Kind.READ, data=generator.randbytes(9000)) for _ in range(30)] + [Event(Kind.CLOCK, 600_000)] * 3
    writer = Writer(tmp_path / "a.rec", header)
    for event in written:
        writer.put(event)
    writer.close()
    writer.close()
    reader = Reader(tmp_path / "a.rec")
    assert reader.header == header
    assert list(iter(reader.next, None)) == [*written, Event(Kind.END)]
    assert (reader.complete, reader.number) == (True, 34)
    blocks = (tmp_path / "a.rec").read_bytes().count(b"\x78\x5e")
    assert blocks > 5  # several blocks, so that a crash loses little


def test_what_is_older_than_half_a_second_is_in_the_file(tmp_path):
    writer = Writer(tmp_path / "a.rec", HEADER)
    written = [Event(Kind.READ, data=b"x"), Event(Kind.CLOCK, 499_999), Event(Kind.CLOCK, 1), Event(Kind.WRITE)]
    for event in written:
        writer.put(event)
    assert read_all(tmp_path / "a.rec") == written[:3]


@given(data=st.data(), written=st.lists(events, min_size=1, max_size=12))
def test_a_file_cut_anywhere_gives_a_beginning(data, written, tmp_path_factory):
    path = tmp_path_factory.mktemp("cut") / "a.rec"
    writer = Writer(path, HEADER)
    for event in written:
        writer.put(event)
        writer.flush()
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:size])
    head = len(MAGIC + HEADER.encode())
    if size < head:
        with pytest.raises(DataError, match=r"no recording|no whole header"):
            Reader(path)
        return
    reader = Reader(path)
    found = list(iter(reader.next, None))
    assert found == written[: len(found)]
    assert len(found) < len(written)
    assert not reader.complete


@given(data=st.data())
def test_a_damaged_file_is_refused_where_the_damage_is(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("damage") / "a.rec"
    written = [Event(Kind.READ, data=bytes((k,) * 20)) for k in range(8)]
    writer = Writer(path, HEADER)
    begins = []
    for event in written:
        begins.append(path.stat().st_size)
        writer.put(event)
        writer.flush()
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(begins[0], len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    reader = Reader(path)
    block = sum(begin <= at for begin in begins) - 1
    for event in written[:block]:
        assert reader.next() == event
    try:
        found = reader.next()
    except DataError as error:
        assert f"damaged at byte {begins[block]}" in str(error)  # noqa: PT017 - a length may also point behind the end
    else:
        assert found is None
        assert not reader.complete


def test_a_block_that_was_written_twice_counts_once(tmp_path, monkeypatch):
    """Ctrl-C behind the writing of a block, before the writer has noted it."""
    path = tmp_path / "a.rec"
    writer = Writer(path, HEADER)
    file = writer._file

    class Interrupted:
        def write(self, data):
            file.write(data)
            raise KeyboardInterrupt

    written = [Event(Kind.CLOCK, k) for k in range(5)]
    writer.put(written[0])
    writer.put(written[1])
    writer._file = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        writer.flush()
    writer._file = file
    for event in written[2:]:
        writer.put(event)
    writer.close()
    assert read_all(path) == [*written, Event(Kind.END)]


def test_a_block_that_is_missing_is_noticed(tmp_path):
    path = tmp_path / "a.rec"
    writer = Writer(path, HEADER)
    sizes = []
    for k in range(3):
        writer.put(Event(Kind.CLOCK, k))
        writer.flush()
        sizes.append(path.stat().st_size)
    whole = path.read_bytes()
    path.write_bytes(whole[: sizes[0]] + whole[sizes[1] :])
    reader = Reader(path)
    reader.next()
    with pytest.raises(DataError, match=f"damaged at byte {sizes[0]}: events 1 to 2 are missing"):
        reader.next()


def block(first, raw_bytes, packed, *, packed_bytes=None):
    size = len(packed) if packed_bytes is None else packed_bytes
    crc = zlib.crc32(packed, zlib.crc32(struct.pack("<IIII", first, size, raw_bytes, 0)))
    return struct.pack("<IIII", first, size, raw_bytes, crc) + packed


@pytest.mark.parametrize(
    ("blocks", "text"),
    [
        (block(0, 1 << 31, b"x"), "holds 2147483648"),
        (block(0, 10, b"x", packed_bytes=1 << 31), "a block of 2147483648 bytes"),
        (block(0, 0, b"x"), "holds 0"),
        (block(0, 10, b"no deflate"), "cannot be unpacked"),
        (block(0, 10, zlib.compress(bytes(1 << 26))), "holds other than the 10 bytes"),
        (block(0, MAX_BLOCK_BYTES, zlib.compress(bytes(10))), "holds other than the 16777216 bytes"),
        (block(0, 1, zlib.compress(b"\x99")), "event 0 cannot be read: unknown kind 0x99"),
        (block(0, 2, zlib.compress(b"\x81\x05")), "5 bytes are announced, 0 are there"),
        (block(0, 1, zlib.compress(b"\x84")), "it is cut off"),
        (block(0, 11, zlib.compress(b"\x84" + b"\xff" * 10)), "a number of more than 9 bytes"),
        (block(7, 1, zlib.compress(b"\x01")), "events 0 to 7 are missing"),
    ],
)
def test_hostile_blocks(blocks, text, tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(MAGIC + HEADER.encode() + blocks)
    with pytest.raises(DataError, match=rf"damaged at byte {len(MAGIC + HEADER.encode())}: .*{text}"):
        Reader(path).next()


def test_a_block_is_not_unpacked_beyond_what_it_announces(tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(MAGIC + HEADER.encode() + block(0, 10, zlib.compress(bytes(1 << 26))))
    reader = Reader(path)
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            reader.next()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        reader.close()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "no recording of bitloop"),
        (b"PK\x03\x04 something else altogether", "no recording of bitloop"),
        (b"bitloop recording 2\n{}\n", "of another version"),
        (MAGIC + b"{", "no whole header: the file ends in it"),
        (MAGIC + b"x" * 100_000 + b"\n", "no whole header: it is too long"),
        (MAGIC + b"[" * 60_000 + b"\n", "header .* is damaged: no JSON"),
        (MAGIC + b"[]\n", "no object"),
        (MAGIC + b"{}\n", "no text 'bitloop'"),
        (MAGIC + HEADER.encode().replace(b"115200", b"-1"), "no number 'baud'"),
        (MAGIC + HEADER.encode().replace(b"115200, ", b"true, "), "no number 'baud'"),
        (MAGIC + HEADER.encode().replace(b'"has_fixed_baud": false', b'"has_fixed_baud": 0'), "no truth value"),
        (MAGIC + HEADER.encode().replace(b'"facts": {}', b'"facts": 5'), "no texts in 'facts'"),
        (MAGIC + HEADER.encode().replace(b'"emulation": null', b'"emulation": 5'), "'emulation' is no object"),
    ],
)
def test_what_is_no_recording(content, text, tmp_path):
    path = tmp_path / "a.rec"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        Reader(path)


def test_a_header_shows_no_control_characters(tmp_path):
    path = tmp_path / "a.rec"
    Writer(path, replace(HEADER, command="\x1b[2Jboo", facts={"model\x07": "\x1b]0;x"}))
    header = Reader(path).header
    assert header.command == "\ufffd[2Jboo"
    assert header.facts == {"model\ufffd": "\ufffd]0;x"}


def test_no_file_and_no_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.rec cannot be read"):
        Session(f"replay://{tmp_path}/none.rec")
    with pytest.raises(DataError, match="cannot be read"):
        Session(f"replay://{tmp_path}")
    with pytest.raises(UsageError, match="replay:// names no file"):
        Session("replay://")


def test_user_names_and_passwords_stay_out():
    text = "bitloop run mlp --device rfc2217://me:secret@host:23 -o me@x socket://host:5"
    assert without_user(text) == "bitloop run mlp --device rfc2217://host:23 -o me@x socket://host:5"


def test_no_file_is_replaced_unless_asked(tmp_path):
    path = tmp_path / "a.rec"
    path.write_text("mine")
    with pytest.raises(UsageError, match=r"a\.rec is there already; .*--force"):
        RecordingTransport(Line(fd.FakeDevice()), path)
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="is a directory"):
        RecordingTransport(Line(fd.FakeDevice()), tmp_path, force=True)
    with pytest.raises(UsageError, match="cannot be written"):
        RecordingTransport(Line(fd.FakeDevice()), tmp_path / "no/a.rec")
    RecordingTransport(Line(fd.FakeDevice()), path, force=True).close()
    assert read_all(path) == [Event(Kind.END)]


def test_a_file_that_comes_meanwhile_is_not_replaced_either(tmp_path, monkeypatch):
    path = tmp_path / "a.rec"
    path.write_text("mine")
    monkeypatch.setattr(file, "check_free", lambda path, force: None)
    with pytest.raises(UsageError, match="cannot be written"):
        Writer(path, HEADER)
    assert path.read_text() == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_disk_is_told_before_anything_is_done():
    with pytest.raises(UsageError, match=r"/dev/full cannot be written: .*No space"):
        Writer(Path("/dev/full"), HEADER, force=True)


def test_a_disk_that_fills_up_ends_the_recording_and_not_the_session(tmp_path, caplog):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    line = RecordingTransport(Line(fd.FakeDevice()), tmp_path / "a.rec")
    line._writer._file = Full()
    with caplog.at_level(logging.WARNING), Session(line) as session:
        expected = images(20)
        *_, results, _, _, _, _ = everything(session, expected, RunMode.TIMING)[:7]
    assert len(results) == 20
    assert [r.message for r in caplog.records if "ends here, the session goes on" in r.message]
    assert read_all(tmp_path / "a.rec") == []


# --- record and replay ---


@pytest.mark.parametrize("mode", [RunMode.TIMING, RunMode.THROUGHPUT])
@pytest.mark.parametrize("seed", range(4))
def test_a_replay_does_what_was_recorded(seed, mode, tmp_path):
    path, pixels = tmp_path / "a.rec", images(40)
    line = Line(fd.FakeDevice(image_s=0.01), NOISE if seed else None, seed)
    with record(path, line) as session:
        there = everything(session, pixels, mode)
    assert not seed or there[-1]["crc_errors"] > 0
    del line  # nothing is left but the file
    with replay(path) as session:
        assert everything(session, pixels, mode) == there
        assert session._transport.finished


def test_a_replay_is_equal_a_second_time_and_can_be_recorded(tmp_path):
    path, again, pixels = tmp_path / "a.rec", tmp_path / "b.rec", images(10)
    with record(path, Line(fd.FakeDevice(), NOISE, 5)) as session:
        there = everything(session, pixels, RunMode.TIMING)
    with Session(f"replay://{path}", record=again) as session:
        assert everything(session, pixels, RunMode.TIMING) == there
    with Session(f"REPLAY://{again}") as session:
        assert everything(session, pixels, RunMode.TIMING) == there
    assert read_all(again) == read_all(path)
    with pytest.raises(UsageError, match="is replayed; record into another file"):
        Session(f"replay://{path}", record=path, overwrite=True)
    assert read_all(again) == read_all(path)


def test_recorded_errors_come_again_and_nobody_sleeps(tmp_path, monkeypatch):
    def work(session):
        session.connect()
        session.upload(fd.make_image(), 4096)
        with pytest.raises(TransportError, match="the cable is out") as caught:
            list(session.run(pixels))
        info = session.recover(20.0)
        report = session.upload(fd.make_image(), 4096)
        with pytest.raises(TransportError, match="2000000 baud"):
            session._transport.set_baud(2_000_000)
        session._transport.set_baud(500_000)
        return type(caught.value), info, report, session._transport.baud, session.counters.as_dict()

    path, pixels = tmp_path / "a.rec", images(30)
    line = Line(fd.FakeDevice(image_s=0.01))
    line.script[20] = lambda line: setattr(line, "broken", True)
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(line, "now", line.now + seconds))
    with record(path, line) as session:
        there = work(session)
    failed = [event for event in read_all(path) if event.kind is Kind.FAILED]
    assert [event.number for event in failed].count(Kind.REOPEN) > 3
    assert b"PortError\0there is no port\0NO_PORT" in [event.data for event in failed]
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("a replay sleeps"))
    with replay(path) as session:
        assert work(session) == there
    assert session._transport.finished  # closing brings the rate back, there as here


def test_a_write_that_failed_fails_again(tmp_path):
    class Stuck(Line):
        def write(self, data):
            raise DeviceTimeoutError("takes no more bytes")

    path = tmp_path / "a.rec"
    with record(path, Stuck(fd.FakeDevice())) as session, pytest.raises(DeviceTimeoutError, match="takes no more"):
        session.connect()
    with replay(path) as session:
        with pytest.raises(DeviceTimeoutError, match="takes no more"):
            session.connect()
        assert session._transport.finished


def test_a_recorded_error_has_its_cause(tmp_path):
    words = b"PortError\0it is busy\0PORT_BUSY"
    path = write_all(tmp_path / "a.rec", [Event(Kind.REOPEN), Event(Kind.FAILED, Kind.REOPEN, words)])
    with pytest.raises(PortError, match="it is busy") as caught:
        ReplayTransport(f"replay://{path}").reopen()
    assert caught.value.cause is Cause.PORT_BUSY


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        (b"DeviceTimeoutError\0takes no more\0", DeviceTimeoutError, "takes no more"),
        (b"SystemExit\0gone\0", RuntimeError, "SystemExit: gone"),
        (b"BitloopError", BitloopError, "^$"),
        (b"DeviceResetError\0boo\0RESET", LinkError, "boo"),
        (b"Cause\0boo\0", RuntimeError, "Cause: boo"),
        (b"", RuntimeError, "^: $"),
        (b"\xff\xfe\0\0NO_CAUSE\0\0\0", RuntimeError, "^..: $"),
        (b"KeyboardInterrupt\0\0", KeyboardInterrupt, "^$"),
    ],
)
def test_recorded_errors_of_any_kind(words, kind, text, tmp_path):
    path = write_all(tmp_path / "a.rec", [Event(Kind.FAILED, Kind.READ, words)])
    with pytest.raises(kind, match=text):
        ReplayTransport(f"replay://{path}").read(1.0)


def test_a_recording_cut_at_any_event_says_so(tmp_path):
    path, cut, pixels = tmp_path / "a.rec", tmp_path / "cut.rec", images(6)
    with record(path, Line(fd.FakeDevice(), NOISE, 2)) as session:
        everything(session, pixels, RunMode.TIMING)
    header, recorded = Reader(path).header, read_all(path)
    assert recorded.pop() == Event(Kind.END)
    for count in range(len(recorded)):
        cut.unlink(missing_ok=True)
        write_all(cut, recorded[:count], header)
        with (
            pytest.raises(DataError, match=rf"was cut off: it ends behind event {count}, at byte \d+ of the file"),
            replay(cut) as session,
        ):
            everything(session, pixels, RunMode.TIMING)


def test_a_session_that_goes_on_behind_the_end(tmp_path):
    path = tmp_path / "a.rec"
    with record(path, Line(fd.FakeDevice())) as session:
        session.connect()
    with replay(path) as session:
        session.connect()
        with pytest.raises(DataError, match="the recorded session ends there, this one looks at the clock"):
            session.stats()


def test_a_departure_names_event_byte_and_what_differs(tmp_path):
    path = tmp_path / "a.rec"
    facts = {"model": "mlp", "images": "5"}
    with record(path, Line(fd.FakeDevice()), facts=facts) as session:
        session.connect()
        session.upload(fd.make_image(seed=1), 4096)
    with replay(path, facts={**facts, "model": "cnn"}) as session:
        session.connect()
        with pytest.raises(DataError) as caught:
            session.upload(fd.make_image(seed=2), 4096)
        text = str(caught.value)
        recorded = read_all(path)
        number = next(
            k for k, e in enumerate(recorded) if e.kind is Kind.WRITE and fd.decode(e.data.strip(b"\0"))[0] == 0x10
        )
        mine = Reader(path).header
        sent = recorded[number].data
        _, sequence, session_number, body = fd.decode(sent.strip(b"\0"))
        other = body[:8] + hashlib.sha256(fd.make_image(seed=2)).digest()
        other = fd.encode(0x10, sequence, session_number, other)
        at = next(k for k, (a, b) in enumerate(zip(sent, other, strict=True)) if a != b)
        for part in (
            f"replay://{path}: the replay departs from the recording at event {number}, 0.0",
            f"byte {at} of what is written; recorded {sent[at : at + 8].hex(' ')} …",
            f"now {other[at : at + 8].hex(' ')} …",
            "in UPLOAD_BEGIN",
            "What differs: model 'mlp' then, 'cnn' now.",
            f"by bitloop {bitloop.__version__} (protocol 1.2) from fake://device",
            f"with: {mine.command} (model mlp, images 5)",
        ):
            assert part in text
        # It is not forgotten: nothing that follows can hide it.
        with pytest.raises(DataError, match="the replay departs"):
            session.stats()


def test_a_departure_names_another_version(tmp_path):
    header = replace(HEADER, bitloop="0.0.1")
    path = write_all(tmp_path / "a.rec", [Event(Kind.WRITE, data=b"abc")], header)
    with pytest.raises(DataError, match=f"What differs: bitloop 0.0.1 then, {bitloop.__version__} now"):
        ReplayTransport(f"replay://{path}").write(b"abd")


@pytest.mark.parametrize(
    ("recorded", "act", "text"),
    [
        (Event(Kind.READ), lambda line: line.clock(), "the recorded session reads there, this one looks at the clock"),
        (Event(Kind.BAUD, 9600), lambda line: line.set_baud(300), "changes the rate to 9600 baud, this one to 300"),
        (Event(Kind.WRITE, data=b"ab"), lambda line: line.write(b"abc"), r"byte 2 .* recorded nothing more \(2 bytes"),
        (Event(Kind.WRITE, data=b"ab"), lambda line: line.write(b"a"), r"byte 1 .* now nothing more \(1 bytes"),
        (
            Event(Kind.FAILED, Kind.READ, b"X"),
            lambda line: line.reopen(),
            "the recorded session reads and fails there, this one opens the port again",
        ),
        (Event(Kind.FAILED, 3, b"X"), lambda line: line.write(b""), "does something and fails there, this one writes"),
    ],
)
def test_every_departure_is_told(recorded, act, text, tmp_path):
    path = write_all(tmp_path / "a.rec", [recorded, Event(Kind.CLOCK, 5), Event(Kind.READ)])
    line = ReplayTransport(f"replay://{path}")
    with pytest.raises(DataError, match=f"at event 0, .*{text}") as caught:
        act(line)
    for again in (line.clock, lambda: line.read(1.0), lambda: line.write(b"ab"), line.session_number, line.reopen):
        with pytest.raises(DataError, match=re.escape(str(caught.value))):  # whatever comes, it has departed
            again()
    assert not line.finished


def test_damage_in_the_middle_of_a_replay(tmp_path):
    path, pixels = tmp_path / "a.rec", images(60)
    with record(path, Line(fd.FakeDevice())) as session:
        everything(session, pixels, RunMode.TIMING)
    whole = bytearray(path.read_bytes())
    whole[-40] ^= 4
    path.write_bytes(whole)
    with pytest.raises(DataError, match="damaged at byte"), replay(path) as session:
        everything(session, pixels, RunMode.TIMING)


def test_an_emulated_device_is_known_in_a_replay(tmp_path):
    line = Line(fd.FakeDevice())
    line.emulation = Emulation("qemu-system-arm", "8.0", "a board", 3, 4711)
    path = tmp_path / "a.rec"
    with record(path, line) as session:
        there = session.connect()
    with replay(path) as session:
        assert session.connect() == there
    assert there.emulator == "qemu-system-arm 8.0, a board, icount shift 3"
    assert b"4711" not in path.read_bytes()
    for wrong in ({"icount_shift": 1000}, {"icount_shift": "3"}, {}):
        described = {"emulator": "q", "version": "1", "machine": "m", **wrong}
        bad = write_all(tmp_path / f"{len(str(wrong))}.rec", [], replace(HEADER, emulation=described))
        with pytest.raises(DataError, match="its emulation has no"):
            _ = ReplayTransport(f"replay://{bad}").emulation


def test_the_recorded_clock_is_the_sessions_to_the_last_bit(tmp_path):
    ticks = iter([100.0, 100.0000004, 100.1, 100.1 + 1e-9, 250.7777777, 250.0])
    line = Line(fd.FakeDevice())
    line.clock = lambda: next(ticks)
    recorded = RecordingTransport(line, tmp_path / "a.rec")
    there = [recorded.clock() for _ in range(6)]
    recorded.close()
    assert there == sorted(there)
    assert there == pytest.approx([0.0, 0.0, 0.1, 0.1, 150.777777, 150.777777], abs=2e-6)
    again = ReplayTransport(f"replay://{tmp_path}/a.rec")
    assert [again.clock() for _ in range(6)] == there


def test_a_port_that_cannot_be_opened_leaves_no_file(tmp_path):
    with pytest.raises(PortError):
        Session("/dev/no-such-port", record=tmp_path / "a.rec")
    assert not list(tmp_path.iterdir())


def test_a_replay_knows_what_the_line_could_do(tmp_path):
    """Whether a session climbs depends on it, so it must be as it was."""
    for baud, fixed in ((0, False), (9600, True), (115200, False)):
        path = tmp_path / f"{baud}.rec"
        line = Line(fd.FakeDevice())
        line.baud, line.has_fixed_baud = baud, fixed
        with record(path, line) as session:
            session.connect()
        assert (Reader(path).header.baud, Reader(path).header.has_fixed_baud) == (baud, fixed)
        with contextlib.closing(ReplayTransport(f"replay://{path}")) as transport:
            assert (transport.baud, transport.has_fixed_baud) == (baud, fixed)


def test_the_header_tells_what_a_reader_of_a_report_wants_to_know(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/usr/bin/bitloop", "run", "a b", "--device", "socket://me:pw@host:1"])
    line = Line(fd.FakeDevice())
    line.description = "socket://me:pw@host:1"
    recorder.RecordingTransport(line, tmp_path / "a.rec", facts={"model": "m"}).close()
    document = json.loads((tmp_path / "a.rec").read_bytes().split(b"\n")[1])
    assert document["command"] == "bitloop run 'a b' --device socket://host:1"
    assert document["url"] == "socket://host:1"
    assert (document["bitloop"], document["protocol"]) == (bitloop.__version__, "1.2")
    assert document["facts"] == {"model": "m"}
    assert b"pw" not in (tmp_path / "a.rec").read_bytes()


def test_a_timeout_is_replayed_without_waiting(tmp_path):
    path = tmp_path / "a.rec"
    line = Line(fd.FakeDevice())
    line.silent = True
    timing = Timing(connect_timeout_s=300.0)
    with pytest.raises(DeviceTimeoutError, match=r"no answer to HELLO_REQUEST for 300\.0 s"):
        Session(RecordingTransport(line, path), timing=timing).connect()
    session = Session(RecordingTransport(line, tmp_path / "b.rec"), timing=timing)
    with pytest.raises(DeviceTimeoutError):
        session.connect()
    session.close()
    began = time.monotonic()
    with pytest.raises(DeviceTimeoutError, match=r"no answer to HELLO_REQUEST for 300\.0 s"):
        Session(f"replay://{tmp_path}/b.rec", timing=timing).connect()
    assert time.monotonic() - began < 5.0
