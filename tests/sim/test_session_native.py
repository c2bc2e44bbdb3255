"""Sessions with the real core behind sim://native: exact results, faults on request, processes that never stay."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import serial
import serial.rfc2217

from bitloop import spec
from bitloop.errors import (
    DeviceError,
    DeviceTimeoutError,
    DoesNotFitError,
    LinkError,
    PortError,
    ProtocolError,
    ToolchainError,
    TransportError,
    UsageError,
)
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Timing
from bitloop.link.session import Session
from bitloop.native.build import firmware_hash, simulator_binary
from bitloop.network.architecture import Architecture, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.plan import plan as plan_image
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import activations, simulate
from bitloop.spec import RunMode, RunOutput, Status

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are looked at as on POSIX")
QUICK = Timing(timeout_s=1.0, connect_timeout_s=2.0, image_timeout_s=0.5)


@pytest.fixture(scope="module", autouse=True)
def _compiler():
    try:
        simulator_binary()
    except ToolchainError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def model():
    architecture = Architecture(
        "small",
        (12, 10, 1),
        (
            Conv2D("conv1", 4, (3, 3)), ReLU("relu1"), MaxPool2D("pool1", (2, 2), (2, 2)),
            Flatten("flatten"), Dense("dense1", 12), ReLU("relu2"), Dense("dense2", 10),
        ),
    )  # fmt: skip
    rng = np.random.default_rng(5)
    parameters = {
        name: (rng.standard_normal(shape) / 3).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, parameters, "none", {}), parse_recipe("int8:channel"))


@pytest.fixture(scope="module")
def pixels():
    rng = np.random.default_rng(6)
    return np.where(rng.random((300, 12, 10, 1)) < 0.5, 0, rng.integers(0, 256, (300, 12, 10, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def expected(model, pixels):
    return simulate(model, pixels)


def connect(url="sim://native", **options):
    session = Session(url, **options)
    session.connect()
    return session


def load(session, model, slots=None):
    planned = plan_image(model, session.info, slots=slots)
    report = session.upload(planned.image, planned.memory.total_bytes)
    assert report.device_sha256 == planned.sha256
    assert report.arena_bytes == planned.memory.total_bytes
    return planned


def process_of(session):
    return session._transport._serial._process


# --- hello ---


def test_hello_says_what_planning_without_a_device_assumes():
    with connect() as session:
        info = session.info
        assert session._timing.image_timeout_s == 5.0  # a process on this machine is no slow board
    assert info.probe_failures() == []
    assert info.firmware_hash == firmware_hash()
    assert info.static_bytes > 0
    default = DeviceInfo.native_default()
    assert (
        replace(
            info, firmware_version=default.firmware_version, firmware_hash="", isa=default.isa, static_bytes=0,
            boot_count=0, reset_cause=spec.ResetCause.UNKNOWN,
        )
        == default
    )  # fmt: skip


def test_options_reach_the_device():
    with connect("sim://native?arena=64k&body=300&window=2k&boot_count=41&board=bench") as session:
        info = session.info
    assert (info.arena_bytes, info.body_bytes, info.window_bytes) == (65536, 300, 2048)
    assert (info.boot_count, info.board) == (41, "bench")


@pytest.mark.parametrize("option", ["body=10", "fault=nonsense", "fault=layer:x"])
def test_options_that_the_simulator_refuses(option):
    with pytest.raises(PortError, match="the simulator refuses its options: bitloop-sim: "):
        Session(f"sim://native?{option}")


@pytest.mark.parametrize(("version", "side"), [(0, "firmware is older"), (2, "host is older")])
def test_a_device_of_another_version(version, side):
    with Session(f"sim://native?fault=version:{version}") as session, pytest.raises(ProtocolError, match=side):
        session.connect()


def test_a_device_that_computes_wrongly_says_so_itself():
    with connect("sim://native?fault=probe:7") as session:
        (failure,) = session.info.probe_failures()
    assert failure.startswith("division: fl(1 / 3)")


def test_logs_and_text_at_boot():
    logs, raw = [], []
    with connect("sim://native?fault=log", on_log=lambda *log: logs.append(log), on_raw=raw.append) as session:
        session.stats()
    assert logs == [(1, "booted")]
    assert b"bitloop-sim: boot" in b"".join(raw)


# --- the loop ---


@pytest.mark.parametrize("options", ["", "?body=64&window=74", "?body=100&window=300", "?arena=32k&window=1k"])
@pytest.mark.parametrize("mode", RunMode)
def test_results_are_exact_on_any_line(options, mode, model, pixels, expected):
    with connect("sim://native" + options) as session:
        load(session, model, slots=7)
        results = list(session.run(pixels, mode))
        counters = session.counters
        stats = session.stats()
    assert [result.index for result in results] == list(range(len(pixels)))
    logits = np.stack([result.logits for result in results])
    assert logits.view(np.uint32).tolist() == expected.view(np.uint32).tolist()
    assert [result.label for result in results] == expected.argmax(axis=1).tolist()
    assert all(result.ticks > 0 for result in results)
    assert stats["images_run"] == len(pixels)
    assert stats["crc_errors"] == stats["framing_errors"] == stats["stale_frames"] == stats["overruns"] == 0
    assert counters.crc_errors == counters.stale_frames == 0


def test_layer_ticks_add_up(model, pixels):
    with connect() as session:
        planned = load(session, model)
        for result in session.run(pixels[:20], RunMode.TIMING, RunOutput.LAYER_TICKS):
            assert result.logits is None
            assert result.layer_ticks.shape == (len(planned.operations),)
            assert 0 < int(result.layer_ticks.sum()) <= result.ticks


def test_traces_are_exact(model, pixels):
    host = activations(model, pixels[:1])
    with connect("sim://native?body=200") as session:
        planned = load(session, model)
        for number, operation in enumerate(planned.operations):
            device = session.trace(pixels[0], number)
            layer = host[operation.layers[-1]][0]
            assert device.view(np.uint32).tolist() == layer.ravel().view(np.uint32).tolist(), operation.name
        assert len(list(session.run(pixels[:3]))) == 3
        with pytest.raises(DeviceError) as caught:
            session.trace(pixels[0], len(planned.operations))
    assert caught.value.status == Status.BAD_ARGUMENT


def test_results_too_long_for_a_frame_are_refused_in_words(model, pixels):
    with connect("sim://native?body=64") as session:
        load(session, model)
        with pytest.raises(
            UsageError, match="a result of 64 bytes does not fit the device's frames, which have room for 58"
        ):
            session.run(pixels[:2], RunMode.TIMING, RunOutput.LOGITS | RunOutput.LAYER_TICKS)
        assert len(list(session.run(pixels[:2]))) == 2


def test_an_image_is_kept_across_sessions_on_one_line(model, pixels, expected):
    with connect() as session:
        planned = load(session, model)
        info = session.connect()
        assert info.image_hash == planned.sha256
        sent = session.counters.bytes_up
        load(session, model)
        assert session.counters.bytes_up - sent < 200
        (result,) = session.run(pixels[:1])
        assert result.logits.tobytes() == expected[0].tobytes()


def test_a_model_that_does_not_fit_is_refused_by_the_device(model):
    with connect() as session:
        planned = plan_image(model, session.info)
    with connect("sim://native?ram=1k") as session, pytest.raises(DoesNotFitError) as caught:
        session.upload(planned.image, planned.memory.total_bytes)
    assert caught.value.available_bytes == 1024
    assert caught.value.needed_bytes == planned.memory.total_bytes


def test_a_damaged_image_is_refused_with_its_reason(model):
    with connect() as session:
        planned = plan_image(model, session.info)
        image = bytearray(planned.image)
        image[200] ^= 1
        with pytest.raises(DeviceError, match="the CRC-32 of the image, or of a streamed tensor, is wrong") as caught:
            session.upload(bytes(image), planned.memory.total_bytes)
        assert caught.value.status == Status.BAD_CRC
        load(session, model)


# --- faults ---


@pytest.mark.parametrize("seed", range(1, 5))
def test_noise_on_the_line_is_repaired(seed, model, pixels, expected):
    """Sent bytes are lost or flipped by the device's own line, one in 1,700: a frame in twenty is damaged."""
    url = f"sim://native?body=256&window=2k&fault=drop=0.0003,flip=0.0003,seed={seed}"
    with connect(url, timing=Timing(retry_s=0.02)) as session:
        load(session, model, slots=8)
        results = list(session.run(pixels, RunMode(seed % 2)))
        assert session.counters.crc_errors > 0
    logits = np.stack([result.logits for result in results])
    assert logits.tobytes() == expected.tobytes()


def test_silence(model, pixels):
    with connect("sim://native?fault=silent:after=60", timing=QUICK) as session:
        load(session, model, slots=4)
        began = time.monotonic()
        with pytest.raises(DeviceTimeoutError, match=r"no progress of the run after result \d+ of 300 .*last heard: "):
            list(session.run(pixels))
        assert time.monotonic() - began < 8


def test_silence_from_the_start():
    with (
        Session("sim://native?fault=silent:after=0", timing=QUICK) as session,
        pytest.raises(DeviceTimeoutError, match=r"no answer to HELLO_REQUEST for .*last heard: nothing"),
    ):
        session.connect()


def test_garbage(model, pixels):
    with connect("sim://native?fault=garbage:after=60", timing=replace(QUICK, timeout_s=2.0)) as session:
        load(session, model, slots=4)
        with pytest.raises(ProtocolError, match="begun to send garbage"):
            list(session.run(pixels))


def test_garbage_from_the_start():
    with (
        Session("sim://native?fault=garbage:after=0", timing=QUICK) as session,
        pytest.raises(ProtocolError, match=r"something answers on sim://native.*but not bitloop firmware"),
    ):
        session.connect()


def test_a_crash_names_the_exit_code(model, pixels):
    with connect("sim://native?fault=crash:after=60", timing=QUICK) as session:
        load(session, model, slots=4)
        with pytest.raises(TransportError, match="the simulated device ended with exit code 70"):
            list(session.run(pixels))


def test_a_reset_is_named_and_survived(model, pixels, expected):
    with connect("sim://native?fault=reset:after=60", timing=QUICK) as session:
        load(session, model, slots=4)
        with pytest.raises(LinkError, match=r"restarted during the run \(boot 1 → 2, cause: software\)"):
            list(session.run(pixels))
        load(session, model)
        (result,) = session.run(pixels[:1])
        assert result.logits.tobytes() == expected[0].tobytes()


def test_a_lie_about_the_image_is_for_the_caller_to_see(model):
    with connect("sim://native?fault=hash:image") as session:
        planned = plan_image(model, session.info)
        report = session.upload(planned.image, planned.memory.total_bytes)
    assert report.device_sha256 != planned.sha256
    assert len(report.device_sha256) == 64


# --- processes and streams ---


def gone(pid, within_s=5.0):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


def test_close_ends_the_process():
    session = connect()
    process = process_of(session)
    assert process.poll() is None
    assert os.getpgid(process.pid) != os.getpgid(0)  # Ctrl-C in the terminal does not reach it
    session.close()
    assert process.returncode is not None
    assert gone(process.pid)


def test_a_frozen_process_is_ended_too(monkeypatch):
    monkeypatch.setattr("bitloop.link.urls.stream_port._END_S", 0.2)
    session = connect()
    process = process_of(session)
    os.kill(process.pid, signal.SIGSTOP)
    session.close()
    assert gone(process.pid)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_no_orphan_when_the_host_dies(kill, tmp_path):
    script = tmp_path / "host.py"
    script.write_text(
        textwrap.dedent("""
            import time
            from bitloop.link.session import Session
            session = Session("sim://native")
            session.connect()
            print(session._transport._serial._process.pid, flush=True)
            time.sleep(60)
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    host = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        pid = int(host.stdout.readline())
        assert not gone(pid, 0.05)
        host.send_signal(kill)
        host.wait(10)
        assert gone(pid)
    finally:
        host.kill()
        host.wait()
        host.stdout.close()


def test_a_killed_simulator_is_a_broken_stream(model):
    with connect() as session:
        os.kill(process_of(session).pid, signal.SIGKILL)
        with pytest.raises(TransportError, match="the simulated device was ended by signal 9"):
            session.stats()


def test_the_fallback_over_a_port(monkeypatch, model, pixels, expected):
    monkeypatch.setattr("bitloop.link.urls.protocol_sim._has_pairs", lambda: False)
    with connect() as session:
        load(session, model)
        results = list(session.run(pixels[:20]))
        process = process_of(session)
    assert np.stack([result.logits for result in results]).tobytes() == expected[:20].tobytes()
    assert gone(process.pid)


def test_over_a_socket_url(model, pixels, expected):
    with subprocess.Popen([simulator_binary(), "--port", "0"], stdout=subprocess.PIPE) as process:
        try:
            port = int(process.stdout.readline())
            with connect(f"socket://127.0.0.1:{port}") as session:
                load(session, model)
                results = list(session.run(pixels))
            assert process.wait(5) == 0
        finally:
            process.kill()
    assert np.stack([result.logits for result in results]).tobytes() == expected.tobytes()


def test_over_a_real_serial_port(model, pixels, expected):
    """A pty is what a USB adapter is to pyserial."""
    ours, theirs = os.openpty()
    device, host = socket.socketpair()
    process = subprocess.Popen(
        [simulator_binary(), "--fd", str(device.fileno()), "--body", "512", "--window", "4096"],
        pass_fds=[device.fileno()],
    )
    device.close()

    def pump(read, write):
        with contextlib.suppress(OSError):
            while data := read(4096):
                view = memoryview(data)
                while view:
                    view = view[write(view) :]
        with contextlib.suppress(OSError):
            host.shutdown(socket.SHUT_RDWR)

    threads = [
        threading.Thread(target=pump, args=(lambda size: os.read(ours, size), host.send), daemon=True),
        threading.Thread(target=pump, args=(host.recv, lambda data: os.write(ours, data)), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        with connect(os.ttyname(theirs)) as session:
            load(session, model)
            results = list(session.run(pixels))
            assert session.counters.crc_errors == 0
    finally:
        host.shutdown(socket.SHUT_RDWR)
        process.wait(5)
        os.close(theirs)
        os.close(ours)
        for thread in threads:
            thread.join(5)
        host.close()
    assert np.stack([result.logits for result in results]).tobytes() == expected.tobytes()


def serve_rfc2217(listener):
    """What pyserial's own example server does, with the simulated device for a port."""
    stream, _ = listener.accept()
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port = serial.serial_for_url("sim://native?body=512&window=4k", timeout=0.5)
    lock = threading.Lock()

    class Connection:
        def write(self, data):
            with lock:
                stream.sendall(data)

    manager = serial.rfc2217.PortManager(port, Connection())

    def down():
        with contextlib.suppress(OSError):
            while True:
                data = port.read(1)
                data += port.read(port.in_waiting)
                Connection().write(b"".join(manager.escape(data)))

    thread = threading.Thread(target=down, daemon=True)
    thread.start()
    with contextlib.suppress(OSError):
        while data := stream.recv(4096):
            port.write(b"".join(manager.filter(data)))
    port.close()
    thread.join(5)
    stream.close()


@pytest.mark.filterwarnings("ignore:set(Daemon|Name)..:DeprecationWarning")  # pyserial's own
def test_over_rfc2217(model, pixels, expected):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve_rfc2217, args=(listener,), daemon=True)
        server.start()
        with connect(f"rfc2217://127.0.0.1:{listener.getsockname()[1]}") as session:
            load(session, model)
            results = list(session.run(pixels[:100]))
        server.join(10)
    assert np.stack([result.logits for result in results]).tobytes() == expected[:100].tobytes()
    assert not server.is_alive()


# --- the pyserial face ---


VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())
HELLO_REQUEST = b"\0" + bytes.fromhex(VECTORS["frames"][0]["wire"])


def test_it_behaves_as_a_pyserial_port():
    port = serial.serial_for_url("sim://native", timeout=0.2)
    assert port.is_open
    assert port.in_waiting == port.out_waiting == 0
    began = time.monotonic()
    assert port.read(10) == b""
    assert 0.15 < time.monotonic() - began < 2
    assert port.write(HELLO_REQUEST) == len(HELLO_REQUEST)
    port.flush()
    port.timeout = 5
    first = port.read(4)
    assert len(first) == 4
    assert first[0] == 0
    time.sleep(0.05)
    assert port.in_waiting > 20
    port.reset_input_buffer()
    port.timeout = 0
    assert port.read(10) == b""
    port.reset_output_buffer()
    assert (port.cts, port.dsr, port.ri, port.cd) == (True, True, False, True)
    port.rts = port.dtr = False
    port.baudrate = 9600
    port.timeout = None
    timer = threading.Timer(0.1, port.cancel_read)
    timer.start()
    assert port.read(1) == b""
    with pytest.raises(serial.SerialException, match="already open"):
        port.open()
    port.close()
    port.close()
    for use in (lambda: port.read(1), lambda: port.write(b"x"), lambda: port.in_waiting, port.fileno, port.flush):
        with pytest.raises(serial.PortNotOpenError):
            use()
    port.open()
    port.close()


def test_a_write_that_nobody_takes():
    port = serial.serial_for_url("sim://native", write_timeout=0.2)
    os.kill(port._process.pid, signal.SIGSTOP)
    with pytest.raises(serial.SerialTimeoutException):
        port.write(bytes(1 << 22))
    os.kill(port._process.pid, signal.SIGCONT)
    port.close()


def test_a_line_that_ends_after_some_bytes_gives_them_first():
    port = serial.serial_for_url("sim://native?fault=crash:after=1", timeout=5)
    port.write(HELLO_REQUEST + HELLO_REQUEST)
    assert len(port.read(100000)) > 100
    with pytest.raises(serial.SerialException, match="exit code 70"):
        port.read(1)
    with pytest.raises(serial.SerialException, match="exit code 70"):
        port.write(b"x")
    port.close()


def test_a_compiler_that_is_missing_is_a_toolchain_error(monkeypatch):
    def fail():
        raise ToolchainError("no C compiler was found")

    monkeypatch.setattr("bitloop.native.build.simulator_binary", fail)
    with pytest.raises(ToolchainError):
        Session("sim://native")
