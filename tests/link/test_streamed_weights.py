"""Weights that travel with each batch, against a device in Python, written from the protocol's page."""

import struct
from dataclasses import dataclass

import fake_device as fd
import numpy as np
import pytest

from bitloop.errors import BitloopError, DeviceError, DeviceTimeoutError, LinkError, ProtocolError, UsageError
from bitloop.link.channel import Timing
from bitloop.link.session import Session
from bitloop.spec import RunMode, Status

SHAPE = (4, 5, 1)
CHUNKS = ((0, 300), (0, 120), (2, 47))
"""Of the fake network's three layers the middle one has nothing to stream."""


@dataclass(frozen=True)
class Streamed:
    data: bytes
    ends: tuple[int, ...]


def weights_of(seed=0):
    return Streamed(np.random.default_rng(seed).bytes(467), (420, 420, 467))


def images(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def device_of(slots=4, kind=fd.FakeDevice, **options):
    return kind(slots=slots, chunks=CHUNKS, **options)


def opened(device, *, faults=None, seed=0, timing=None):
    transport = fd.FakeTransport(device, faults, seed)
    session = Session(transport, timing=timing, clock=transport.clock)
    session.connect()
    return session, transport


def ready(device, **options):
    session, transport = opened(device, **options)
    session.upload(fd.make_image(slots=device.slots, streamed=467), 4096, weights=weights_of())
    return session, transport


def assert_right(results, pixels):
    assert [result.index for result in results] == list(range(len(pixels)))
    for result, image in zip(results, pixels, strict=True):
        assert result.logits.tobytes() == fd.compute(image, 10, weights_of().data).tobytes()
        assert result.ticks == int(image.sum()) + (1 << 33)


# --- runs ---


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("body", [64, 512])
@pytest.mark.parametrize("image_s", [0.0, 0.01])
@pytest.mark.parametrize("count", [0, 1, 8, 11])
def test_run(slots, body, image_s, count):
    device = device_of(slots, body_bytes=body, window_bytes=600, image_s=image_s)
    session, _ = ready(device)
    pixels = images(count)
    assert_right(list(session.run(pixels)), pixels)
    counters = session.counters
    assert device.computed_total == count
    assert device.disturbances == 0
    assert device.most_pending <= 600
    assert counters.retransmissions == counters.resend_requests == 0
    assert not device.run
    passes = -(-count // slots)
    payload = body - 8 if body == 64 else 252 - 8  # half of the window
    frames = sum(-(-size // payload) for _, size in CHUNKS) * passes
    # Of each frame: 16 bytes beside the weights, and what the framing adds: 2 zeros at most, 1 to 3 bytes of COBS.
    least = passes * 467 + 17 * frames
    assert least <= counters.streamed_bytes <= least + 4 * frames


def test_nothing_of_the_weights_is_sent_with_the_image():
    session, _ = ready(device_of())
    assert session.counters.streamed_bytes == 0


@pytest.mark.parametrize("body", [64, 256])
@pytest.mark.parametrize(("layer", "end"), [(0, 420), (1, 420), (2, 467)])
def test_trace_ends_behind_the_layer_s_weights(body, layer, end):
    device = device_of(body_bytes=body)
    session, _ = ready(device)
    image = images(1)[0]
    values = session.trace(image, layer)
    assert values.tobytes() == fd.compute(image.ravel()[::-1], 30, weights_of().data[:end]).tobytes()
    assert not device.run
    assert end < session.counters.streamed_bytes < end + 25 * (end // (body - 8) + 3)


def test_a_layer_before_all_streamed_ones_needs_none():
    device = fd.FakeDevice(slots=2, chunks=((2, 40),))
    session, _ = opened(device)
    weights = Streamed(bytes(range(40)), (0, 0, 40))
    session.upload(fd.make_image(slots=2, streamed=40), 4096, weights=weights)
    image = images(1)[0]
    assert session.trace(image, 1).tobytes() == fd.compute(image.ravel()[::-1], 30).tobytes()
    assert session.counters.streamed_bytes == 0
    (result,) = session.run(images(1))
    assert result.logits.tobytes() == fd.compute(image, 10, weights.data).tobytes()


def test_a_slow_device_is_waited_for_and_not_disturbed():
    """32 s a chunk without a word, longer than the timeout: only while the first batch runs is the pace unknown."""
    device = device_of(image_s=8.0)
    session, transport = ready(device, timing=Timing(image_timeout_s=60))
    pixels = images(8)
    assert_right(list(session.run(pixels)), pixels)
    assert device.disturbances <= 3 * 6
    before, began = device.disturbances, transport.now
    assert_right(list(session.run(images(12))), images(12))
    assert device.disturbances == before
    assert transport.now - began < 3 * 3 * 32 + 2


def test_streamed_weights_run_in_timing_mode():
    session, _ = ready(device_of())
    frames = session.counters.frames_up
    with pytest.raises(UsageError, match="streamed weights run in timing mode"):
        session.run(images(3), RunMode.THROUGHPUT)
    assert session.counters.frames_up == frames


def test_a_run_that_is_left_frees_the_device():
    device = device_of(image_s=0.01)
    session, _ = ready(device)
    pixels = images(13)
    for result in session.run(pixels):
        if result.index == 5:
            break
    assert_right(list(session.run(pixels)), pixels)
    assert not device.run


@pytest.mark.parametrize(
    ("streamed", "weights", "what"),
    [
        (467, None, "leaves out 467 bytes of weights"),
        (0, weights_of(), "467 bytes of weights to stream, the image leaves out 0"),
        (466, weights_of(), "467 bytes of weights to stream, the image leaves out 466"),
        (467, Streamed(bytes(467), (420, 467)), "the image has 3 layers"),
        (467, Streamed(bytes(467), (420, 467, 420)), "leaves out 467 bytes"),
        (467, Streamed(bytes(467), (420, 420, 466)), "leaves out 467 bytes"),
        (467, Streamed(bytes(467), (-1, 420, 467)), "leaves out 467 bytes"),
    ],
)
def test_an_image_goes_with_its_own_weights(streamed, weights, what):
    session, _ = opened(device_of())
    frames = session.counters.frames_up
    with pytest.raises(UsageError, match=what):
        session.upload(fd.make_image(streamed=streamed), 4096, weights=weights)
    assert session.counters.frames_up == frames


# --- lines that lose ---


KINDS = {
    "drops": fd.LineFaults(drop=0.05),
    "flips": fd.LineFaults(flip=0.05),
    "doubles": fd.LineFaults(duplicate=0.2),
    "cuts": fd.LineFaults(truncate=0.05),
    "noise": fd.LineFaults(noise=0.1),
    "all": fd.LineFaults(drop=0.03, flip=0.03, duplicate=0.05, truncate=0.03, noise=0.03),
}


def whole_session(faults, seed, *, read_limit=1 << 30, count=22, slots=5, transports=None):
    device = device_of(slots, body_bytes=100, window_bytes=400, image_s=0.004)
    transport = fd.FakeTransport(device, faults, seed)
    transport.read_limit = read_limit
    if transports is not None:
        transports.append(transport)
    session = Session(transport, clock=transport.clock)
    session.connect()
    session.upload(fd.make_image(slots=slots, streamed=467), 4096, weights=weights_of())
    pixels = images(count, seed)
    assert_right(list(session.run(pixels)), pixels)
    for layer, end in enumerate(weights_of().ends):
        values = session.trace(pixels[0], layer)
        assert values.tobytes() == fd.compute(pixels[0].ravel()[::-1], 30, weights_of().data[:end]).tobytes()
    session.close()
    return session, transport


def outcome(faults, seed):
    """The error that a short session ended with, or None, and how long it took."""
    transports = []
    try:
        whole_session(faults, seed, count=9, transports=transports)
    except BitloopError as error:
        return error, transports[0].now
    return None, transports[0].now


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(12))
def test_results_are_those_of_an_undisturbed_line(kind, seed):
    session, transport = whole_session(KINDS[kind], seed, slots=1 + seed % 5)
    assert transport.now < 120
    if kind != "doubles":
        assert session.counters.crc_errors + transport.device.bad_frames + session.counters.retransmissions > 0


@pytest.mark.parametrize("read_limit", [1, 3, 17])
def test_bytes_in_any_pieces(read_limit):
    whole_session(KINDS["all"], 99, read_limit=read_limit)


@pytest.mark.parametrize("seed", range(30))
def test_very_bad_lines_end_well_or_with_a_name(seed):
    strength = 0.05 + 0.02 * (seed % 10)
    faults = fd.LineFaults(drop=strength, flip=strength, duplicate=strength, truncate=strength, noise=strength)
    error, elapsed_s = outcome(faults, seed)
    assert elapsed_s < 600
    if error is not None:
        assert isinstance(error, LinkError | DeviceError)
        assert "fake://device" in str(error) or "the device" in str(error)


def test_most_bad_lines_end_well():
    faults = fd.LineFaults(drop=0.05, flip=0.05)
    errors = [outcome(faults, 1000 + seed)[0] for seed in range(20)]
    assert errors.count(None) >= 19


LOSSES = {
    "the credit that opens a chunk": lambda kind, sequence, body: kind == fd.RUN_CREDIT and not sequence,
    "the answer to weights": lambda kind, sequence, body: (
        kind == fd.RUN_CREDIT and sequence and body[16:20] != bytes(4)
    ),
    "results": lambda kind, sequence, body: kind == fd.RESULT,
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("which", range(6))
def test_each_lost_frame_of_the_device_is_repaired(loss, which):
    class Lossy(fd.FakeDevice):
        seen = 0

        def send(self, kind, sequence, body):
            if LOSSES[loss](kind, sequence, body):
                self.seen += 1
                if self.seen == which + 1:
                    return
            super().send(kind, sequence, body)

    device = device_of(2, Lossy, body_bytes=512, window_bytes=1024, image_s=0.01)
    session, transport = ready(device)
    pixels = images(11)
    assert_right(list(session.run(pixels)), pixels)
    assert device.seen > which
    assert transport.now < 10


@pytest.mark.parametrize("which", range(8))
def test_each_lost_frame_of_weights_is_sent_again(which):
    class Deaf(fd.FakeDevice):
        seen = 0

        def on_stream_data(self, sequence, body):
            self.seen += 1
            if self.seen != which + 1:
                super().on_stream_data(sequence, body)

    device = device_of(2, Deaf, image_s=0.01)
    session, transport = ready(device)
    pixels = images(4)
    assert_right(list(session.run(pixels)), pixels)
    assert session.counters.retransmissions > 0
    assert transport.now < 10


@pytest.mark.parametrize("which", [12, 14, 17])
def test_a_lost_piece_of_a_chunk_is_not_taken_for_computing(which):
    """Frames go one by one through so small a window: the host knows that the device lacks some."""

    class Deaf(fd.FakeDevice):
        seen = 0

        def on_stream_data(self, sequence, body):
            self.seen += 1
            if self.seen != which:
                super().on_stream_data(sequence, body)

    def seconds(kind):
        device = device_of(2, kind, body_bytes=64, window_bytes=74, image_s=3.0)
        session, transport = ready(device)
        list(session.run(images(6)))
        return transport.now

    assert 0.2 < seconds(Deaf) - seconds(fd.FakeDevice) < 4  # computing would be given 9 s


def test_a_stage_that_is_slower_than_those_before():
    """20 s a chunk after some of 20 ms: waited for, and from then on not disturbed."""

    class Uneven(fd.FakeDevice):
        def work_streamed(self, now):
            self.image_s = 10.0 if self.asked == 3 else 0.01
            super().work_streamed(now)

    device = device_of(2, Uneven)
    session, _ = ready(device)
    assert_right(list(session.run(images(2))), images(2))
    before = device.disturbances
    assert 0 < before < 20
    assert_right(list(session.run(images(4))), images(4))
    assert device.disturbances == before


# --- devices that fail in the middle ---


def test_silence_while_weights_travel():
    device = device_of(image_s=0.1)
    session, transport = ready(device)
    results = session.run(images(50))
    next(results)
    transport.silent = True
    began = transport.now
    with pytest.raises(DeviceTimeoutError, match=r"no progress of the run after result \d+ of 50"):
        list(results)
    assert transport.now - began < 15


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_a_device_that_hangs_in_a_chunk(asked):
    class Hangs(fd.FakeDevice):
        def work_streamed(self, now):
            if self.asked < asked or len(self.weights) < sum(self.sizes[:asked]):
                super().work_streamed(now)

    session, transport = ready(device_of(kind=Hangs))
    with pytest.raises(DeviceTimeoutError, match="the firmware hangs"):
        list(session.run(images(5)))
    assert transport.now < 60


def test_reset_in_the_middle_of_a_pass():
    device = device_of(image_s=0.01)
    session, transport = ready(device)
    transport.script[device.frames + 20] = lambda line: line.device.reset()
    with pytest.raises(LinkError, match=r"restarted during the run \(boot 1 → 2, cause: watchdog\)"):
        list(session.run(images(50)))
    with pytest.raises(UsageError, match="upload first"):
        session.run(images(5))


def test_weights_that_the_device_refuses():
    class Refuses(fd.FakeDevice):
        def on_stream_data(self, sequence, body):
            self.run = False
            self.error(fd.STREAM_DATA, sequence, fd.BAD_CRC, 3, 0)

    session, _ = ready(device_of(kind=Refuses))
    with pytest.raises(DeviceError, match=r"refused STREAM_DATA: .*CRC-32.*tensor 3") as caught:
        list(session.run(images(5)))
    assert caught.value.status == Status.BAD_CRC


def credit_of(number, at, limit):
    return lambda body: body[:12] + struct.pack("<III", number, at, limit)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda body: body[:12], "does not ask for weights with each batch"),
        (credit_of(2, 0, 0), "in pass 2 over the weights, but cannot be done with pass 0"),
        (credit_of(1, 0, 0), "in pass 1 over the weights, but cannot be done with pass 0"),
        (credit_of(0xFFFFFFFF, 0, 0), "in pass 4294967295"),
        (credit_of(0, 0, 468), "asks for them up to 468, a pass has 467"),
        (credit_of(0, 301, 300), "at byte 301 of the weights and asks for them up to 300"),
        (credit_of(0, 300, 300), "has 300 bytes, but only 0 were sent"),
    ],
)
def test_impossible_credit(change, what):
    class Wrong(fd.FakeDevice):
        def send(self, kind, sequence, body):
            wrong = kind == fd.RUN_CREDIT and len(self.stream) == self.limit
            super().send(kind, sequence, change(body) if wrong else body)

    session, _ = ready(device_of(kind=Wrong))
    with pytest.raises(ProtocolError, match=what):
        list(session.run(images(6)))


def test_weights_that_are_asked_for_before_the_images_were_sent():
    class Hasty(fd.FakeDevice):
        def send(self, kind, sequence, body):
            hasty = kind == fd.RUN_CREDIT and len(self.stream) < self.limit
            super().send(kind, sequence, credit_of(0, 0, 300)(body) if hasty else body)

    session, _ = ready(device_of(4, Hasty, body_bytes=64, window_bytes=74))
    with pytest.raises(ProtocolError, match="asks for weights of pass 0, but its images were not sent in full"):
        list(session.run(images(6)))


class Talks(fd.FakeDevice):
    """Sends one more RUN_CREDIT in front of the results of its second batch, of whatever pass."""

    says: tuple[int, int, int]

    def step(self, now):
        if self.number == 2 and self.sent == 3:
            for weights in ((2, 0, 0), self.says):
                body = struct.pack("<IIIIII", len(self.stream), self.limit, len(self.records), *weights)
                self.send(fd.RUN_CREDIT, 0, body)
        return super().step(now)


def test_a_pass_behind_the_last_one():
    device = device_of(3, Talks)
    device.says = (3, 0, 0)
    session, _ = ready(device)
    with pytest.raises(ProtocolError, match="in pass 3 over the weights, but cannot be done with pass 2"):
        list(session.run(images(6)))


@pytest.mark.parametrize("number", [0, 1])
def test_what_is_said_of_an_earlier_pass_is_past(number):
    device = device_of(3, Talks)
    device.says = (number, 420, 467)
    session, _ = ready(device)
    pixels = images(9)
    assert_right(list(session.run(pixels)), pixels)


def test_a_result_for_which_weights_are_missing():
    class Guesses(fd.FakeDevice):
        def work_streamed(self, now):
            for index in range(4):
                self.compute_one(index)
            self.work(now)

    session, _ = ready(device_of(kind=Guesses))
    with pytest.raises(ProtocolError, match="a result of image 1, for which it has not received all weights"):
        list(session.run(images(6)))


def test_other_batches_than_the_image_says():
    device = device_of(4)
    session, _ = ready(device)
    device.slots = 3
    with pytest.raises(ProtocolError, match="batches of 3 images, the image says 4"):
        list(session.run(images(6)))


def test_weights_that_no_image_asks_for():
    class Wrong(fd.FakeDevice):
        def send(self, kind, sequence, body):
            super().send(kind, sequence, body + bytes(12) if kind == fd.RUN_CREDIT else body)

    session, _ = opened(Wrong())
    session.upload(fd.make_image(), 4096)
    with pytest.raises(ProtocolError, match="asks for weights with each batch, the image says otherwise"):
        list(session.run(images(6)))
