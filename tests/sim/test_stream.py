"""Models larger than the device's memory, on the simulated device: weights travel with each batch, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from bitloop.bench.record import read_record, schema_path
from bitloop.bench.run import RunOptions, run
from bitloop.data.dataset import Images
from bitloop.errors import DeviceError, DoesNotFitError, LinkError, UsageError
from bitloop.hello import DeviceInfo
from bitloop.link.channel import Timing
from bitloop.link.session import Session
from bitloop.plan import Plan, plan
from bitloop.quantize.model import Model
from bitloop.report.page import write_report
from bitloop.simulate import activations, simulate
from bitloop.spec import Packing, RunMode, Status

from .conftest import Command

Models = Callable[..., Model]
NATIVE = DeviceInfo.native_default()
NETWORKS = ("mlp", "mlp8k", "cnn")
FORMATS = ("fp32", "e4m3:pow2", "e8m2", "e3m1:pow2", "int8:channel", "int4:channel", "int4:affine:channel", "ternary")
QUICK = Timing(timeout_s=1.0, connect_timeout_s=2.0, image_timeout_s=0.5)


def least_arena(model: Model, placement: str = "auto", slots: int | None = None) -> int:
    """Return the bytes of the smallest arena that a model runs in."""
    with pytest.raises(DoesNotFitError) as refused:
        plan(model, NATIVE.with_arena(0), slots=slots, placement=placement)  # type: ignore[arg-type]
    return refused.value.needed_bytes


def load(session: Session, model: Model, **options: object) -> Plan:
    info = session.connect()
    planned = plan(model, replace(info, **options.pop("info", {})), **options)  # type: ignore[arg-type]
    assert planned.streamed is not None
    report = session.upload(planned.image, planned.memory.total_bytes, weights=planned.streamed)
    assert report.device_sha256 == planned.sha256
    return planned


def assert_exact(session: Session, model: Model, pixels: np.ndarray) -> None:
    expected = simulate(model, pixels)
    results = list(session.run(pixels))
    assert [result.index for result in results] == list(range(len(pixels)))
    for result, logits in zip(results, expected, strict=True):
        assert result.logits is not None
        np.testing.assert_array_equal(result.logits.view(np.uint32), logits.view(np.uint32))
        assert result.label == int(logits.argmax())


def assert_layers_exact(session: Session, model: Model, planned: Plan, pixels: np.ndarray) -> None:
    each = activations(model, pixels)
    for number, operation in enumerate(planned.operations):
        values = session.trace(pixels[0], number)
        np.testing.assert_array_equal(
            values.view(np.uint32), each[operation.layers[-1]][0].ravel().view(np.uint32), err_msg=operation.name
        )


# --- exact ---


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exact_in_every_layer(models: Models, drawn_images: Images, name: str, weights: str) -> None:
    """All weights streamed in batches of 4, the last of which has one image."""
    model = models(name, weights)
    with Session("sim://native") as session:
        planned = load(session, model, slots=4, placement="stream")
        assert planned.memory.slots == 4
        assert_exact(session, model, drawn_images.pixels[:13])
        assert_layers_exact(session, model, planned, drawn_images.pixels[:1])
        assert session.counters.retransmissions == session.counters.resend_requests == 0


@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_exact_in_the_least_memory(models: Models, drawn_images: Images, name: str, weights: str) -> None:
    model = models(name, weights)
    arena = least_arena(model)
    assert arena < least_arena(model, "resident")
    with Session(f"sim://native?arena={arena}") as session:
        planned = load(session, model)
        assert planned.memory.total_bytes <= arena
        assert_exact(session, model, drawn_images.pixels[:5])
        assert_layers_exact(session, model, planned, drawn_images.pixels[:1])


@pytest.mark.parametrize("packing", list(Packing))
@pytest.mark.parametrize("name", NETWORKS)
def test_ternary_weights_in_each_packing(models: Models, drawn_images: Images, name: str, packing: Packing) -> None:
    model = models(name, "ternary")
    with Session("sim://native") as session:
        load(session, model, placement="stream", slots=3, info={"packings": (packing,)})
        assert_exact(session, model, drawn_images.pixels[:7])


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
@pytest.mark.parametrize("slots", [1, 4, None])
def test_batches_that_are_full_or_not(models: Models, drawn_images: Images, slots: int | None, count: int) -> None:
    model = models("cnn", "int8:channel")
    with Session("sim://native") as session:
        load(session, model, slots=slots, placement="stream")
        assert_exact(session, model, drawn_images.pixels[:count])


@pytest.mark.parametrize(("body", "window"), [(64, "74"), (100, "300"), (1024, "16k")])
def test_bodies_and_windows(models: Models, drawn_images: Images, body: int, window: str) -> None:
    model = models("mlp8k", "int4:channel")
    with Session(f"sim://native?body={body}&window={window}") as session:
        load(session, model, slots=3, placement="stream")
        assert_exact(session, model, drawn_images.pixels[:7])


@pytest.mark.parametrize("seed", range(1, 5))
def test_a_line_that_loses_and_flips(models: Models, drawn_images: Images, seed: int) -> None:
    model = models("mlp8k", "int8:channel")
    url = f"sim://native?body=256&window=2k&fault=drop=0.0003,flip=0.0003,seed={seed}"
    with Session(url) as session:
        planned = load(session, model, slots=5, placement="stream")
        assert_exact(session, model, drawn_images.pixels[:60])
        assert_layers_exact(session, model, planned, drawn_images.pixels[:1])
        assert session.counters.crc_errors > 0


# --- the record ---


def test_the_record_says_what_travelled(models: Models, drawn_images: Images, tmp_path: Path) -> None:
    model = models("mlp8k", "int8:channel")
    options = RunOptions(placement="stream", slots=8)
    record = run(model, "sim://native", drawn_images.first(20), out_dir=tmp_path / "run", options=options)
    assert (record.verdict, record.exact.total, record.exact.audited) == ("exact", 20, 1)
    # A byte a weight, of each layer: 784 inputs of 5 units, and 5 of 10 (the network of the name); three batches.
    weights = sum(tensor.elements for tensor in record.sizes.tensors if tensor.name.endswith(".weights"))
    where = record.placement
    assert (where.kind, where.batch, where.batch_bytes) == ("stream", 8, weights)
    assert where.image_bytes == weights / 8
    assert 0.7 * 3 * weights < where.streamed_bytes < 3 * weights  # coded: what is drawn has no more than that to save
    assert where.streamed_bytes < record.link.stream_bytes_up < record.link.bytes_up
    first = record.sizes.tensors[0].elements
    assert 0.7 * (first + weights) < where.traced_bytes < first + weights  # up to the first layer, up to the second
    arena = record.ram.arena
    assert arena.buffers == arena.tables + arena.chunks + arena.queue
    assert arena.chunks > 0
    assert arena.weights + arena.activations + arena.buffers == record.ram.predicted == record.ram.measured
    jsonschema.validate(record.to_dict(), json.loads(schema_path().read_text()))
    assert read_record(tmp_path / "run/run.json") == record
    page = write_report(tmp_path / "run").read_text()
    assert f"streamed: {weights:,} B a batch of 8, {weights / 8:,.0f} B an image" in page
    assert "decode table, chunk of weights" in page


def test_the_record_of_a_resident_model(models: Models, drawn_images: Images) -> None:
    where = run(models("mlp8k", "int8"), "sim://native", drawn_images.first(20), options=RunOptions(slots=6)).placement
    assert (where.kind, where.batch, where.batch_bytes, where.image_bytes) == ("resident", 6, 0, 0.0)
    assert where.streamed_bytes == where.traced_bytes == 0


@pytest.mark.parametrize("placement", ["auto", "resident"])
def test_what_fits_stays_on_the_device(models: Models, drawn_images: Images, placement: str) -> None:
    model = models("mlp8k", "int8")
    url = f"sim://native?arena={least_arena(model, 'resident', 2)}"
    record = run(model, url, drawn_images.first(5), options=RunOptions(placement=placement))
    assert (record.placement.kind, record.verdict) == ("resident", "exact")


# --- what is refused before anything of the image is sent ---


@pytest.fixture
def uploads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of the images that were sent."""
    lengths: list[int] = []
    upload = Session.upload

    def counted(session: Session, image: bytes, *arguments: object, **options: object) -> object:
        lengths.append(len(image))
        return upload(session, image, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Session, "upload", counted)
    return lengths


def test_resident_and_too_large(bitloop: Command, model_file: Path, models: Models, uploads: list[int]) -> None:
    needed = least_arena(models("mlp", "int8:channel", "fp16"), "resident")
    arguments = ("run", str(model_file), "--device", f"sim://native?arena={needed - 4}", "--limit", "9")
    outcome = bitloop(*arguments, "--placement", "resident")
    assert outcome.code == 7
    words = outcome.err.replace("\n", " ")
    assert "4 bytes are missing" in words
    assert "let weights travel with each batch" in words
    assert uploads == []
    assert not Path("runs").exists()
    outcome = bitloop(*arguments, "--json")
    assert outcome.code == 0
    document = json.loads(outcome.out)
    assert (document["placement"]["kind"], document["verdict"]) == ("stream", "exact")


def test_streamed_weights_run_in_timing_mode(models: Models, drawn_images: Images, uploads: list[int]) -> None:
    model = models("mlp8k", "int8")
    for url, placement in ((f"sim://native?arena={least_arena(model)}", "auto"), ("sim://native", "stream")):
        options = RunOptions(mode="throughput", placement=placement)
        with pytest.raises(UsageError, match="streamed weights run in timing mode"):
            run(model, url, drawn_images.first(5), options=options)
    assert uploads == []


def test_the_session_refuses_throughput_too(models: Models, drawn_images: Images) -> None:
    with Session("sim://native") as session:
        load(session, models("mlp8k"), placement="stream")
        with pytest.raises(UsageError, match="timing mode"):
            session.run(drawn_images.pixels[:3], RunMode.THROUGHPUT)


@pytest.mark.parametrize("command", ["run", "demo"])
def test_no_such_placement(bitloop: Command, command: str) -> None:
    model = ["mlp8k"] if command == "run" else []
    outcome = bitloop(command, *model, "--device", "sim://native", "--placement", "there")
    assert outcome.code == 2
    assert "unknown placement 'there'; there are auto, resident, stream" in outcome.err.replace("\n", " ")


def test_commands_stream(bitloop: Command, model_file: Path) -> None:
    outcome = bitloop("run", str(model_file), "--placement", "stream", "--slots", "5", "--limit", "11")
    assert outcome.code == 0
    assert outcome.out.startswith("EXACT: 11 of 11 logit vectors bit-identical")
    assert "a batch of 5" in outcome.out


# --- devices that are wrong, or fail in the middle ---


@pytest.mark.parametrize(
    ("fault", "layer", "ulp"),
    [("layer:0,ulp:1", "dense1", 1), ("layer:1,ulp:3", "dense2", 3), ("bias:1,element:3,bit:14", "dense1", None)],
)
def test_a_wrong_layer_is_named(models: Models, drawn_images: Images, fault: str, layer: str, ulp: int | None) -> None:
    url = f"sim://native?fault={fault}"
    options = RunOptions(placement="stream", slots=4)
    record = run(models("mlp", "int8:channel", "fp16"), url, drawn_images.first(20), options=options)
    assert (record.verdict, record.exit_code) == ("disagree", 3)
    assert record.exact.first_diverging_layer == layer
    assert record.exact.divergence is not None
    assert ulp in (None, record.exact.divergence.ulp)


def test_codes_that_are_not_on_the_device_cannot_be_damaged_there(models: Models, drawn_images: Images) -> None:
    logs: list[str] = []
    options = RunOptions(placement="stream")
    url = "sim://native?fault=code:0"
    run(models("mlp8k", "int8"), url, drawn_images.first(3), options=options, on_log=lambda _, text: logs.append(text))
    assert any("the tensor's codes are not in the image: its weights are streamed" in text for text in logs)


@pytest.mark.parametrize("weights", ["int8", "ternary", "fp32"])
def test_other_weights_than_the_image_s_are_refused(models: Models, drawn_images: Images, weights: str) -> None:
    model = models("mlp8k", weights)
    with Session("sim://native") as session:
        planned = plan(model, session.connect(), slots=4, placement="stream")
        assert planned.streamed is not None
        data = bytearray(planned.streamed.data)
        data[700] ^= 1
        damaged = replace(planned.streamed, data=bytes(data))
        session.upload(planned.image, planned.memory.total_bytes, weights=damaged)
        with pytest.raises(DeviceError, match=r"refused STREAM_(DATA|CODED)") as refused:
            list(session.run(drawn_images.pixels[:9]))
        assert refused.value.status in (Status.BAD_CRC, Status.BAD_CODE)
        # The device is there, and takes the right ones.
        session.upload(planned.image, planned.memory.total_bytes, weights=planned.streamed)
        assert_exact(session, model, drawn_images.pixels[:9])


def test_reset_in_the_middle_of_a_pass(models: Models, drawn_images: Images) -> None:
    model = models("mlp8k", "int8")
    with Session("sim://native?body=128&window=1k&fault=reset:after=190", timing=QUICK) as session:
        planned = load(session, model, slots=4, placement="stream")
        with pytest.raises(LinkError, match="restarted during the run"):
            list(session.run(drawn_images.pixels))
        assert session.counters.streamed_bytes > 0
        session.upload(planned.image, planned.memory.total_bytes, weights=planned.streamed)
        assert_exact(session, model, drawn_images.pixels[:9])


@pytest.mark.parametrize("fault", ["crash", "silent", "garbage", "reset"])
@pytest.mark.parametrize("after", [60, 160, 400])
def test_what_was_measured_is_kept(models: Models, drawn_images: Images, fault: str, after: int) -> None:
    """Frames by the hundred: within the first batches, and within a later one."""
    options = RunOptions(placement="stream", slots=4, timing=QUICK, warm_up_images=0, reconnect_s=0.0)
    url = f"sim://native?body=256&window=2k&fault={fault}:after={after}"
    record = run(models("mlp8k", "int8"), url, drawn_images, options=options)
    assert (record.status, record.verdict, record.exit_code) == ("failed", "failed", 6)
    assert record.exact.matching == record.exact.total < 120
    assert record.exact.total % 4 == 0
    assert record.seconds < 20
