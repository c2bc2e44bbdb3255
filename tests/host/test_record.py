"""The record of a run: its schema, its strict reader, and files that are whole or not there."""

from __future__ import annotations

import copy
import errno
import json
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import jsonschema
import pytest

from bitloop.bench import record as records
from bitloop.bench.files import RunDirectory, write_file
from bitloop.bench.record import RunRecord, read_record, schema_path
from bitloop.bench.run import run
from bitloop.data.dataset import Images
from bitloop.errors import DataError, UsageError
from bitloop.quantize.model import Model

SCHEMA = json.loads(schema_path().read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


@pytest.fixture(scope="module")
def document(models: Callable[..., Model], drawn_images: Images) -> dict[str, Any]:
    """A real record, of a run on the simulated device."""
    return run(models("mlp", "int4:channel", "fp16"), "sim://native", drawn_images.first(20)).to_dict()


def test_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_a_real_record_fits_the_schema(document: dict[str, Any]) -> None:
    VALIDATOR.validate(document)


# The keys that the issue asks for by name.
@pytest.mark.parametrize(
    "path",
    [
        *(f"exact.{key}" for key in ("matching", "total", "max_ulp", "first_diverging_layer")),
        *(f"accuracy.{side}.{key}" for side in ("device", "host") for key in ("value", "low", "high")),
        "labels.agreeing",
        *(f"latency.{key}" for key in ("unit", "min", "median", "mean", "p95", "p99", "max", "per_layer")),
        *(f"ram.{key}" for key in ("static", "stack_peak", "predicted", "measured", "build")),
        *(f"ram.arena.{key}" for key in ("weights", "activations", "buffers")),
        *(f"link.{key}" for key in ("bytes_up", "bytes_down", "seconds", "retransmissions")),
        *(f"link.share.{key}" for key in ("line", "queue", "compute")),
        *(f"sizes.{key}" for key in ("weights", "biases", "scales")),
        *("dataset", "model.sha256", "image.sha256", "firmware", "device", "vault"),
    ],
)
def test_promised_keys_are_there(document: dict[str, Any], path: str) -> None:
    found: Any = document
    for key in path.split("."):
        assert key in found
        found = found[key]


def test_schema_and_dataclasses_have_the_same_keys() -> None:
    def walk(kind: Any, schema: dict[str, Any]) -> None:
        assert schema["additionalProperties"] is False
        assert list(schema["properties"]) == schema["required"] == [field.name for field in fields(kind)]
        for hint in get_type_hints(kind).values():
            for inner in (hint, *get_args(hint)):
                if is_dataclass(inner):
                    walk(inner, SCHEMA["$defs"][inner.__name__])

    walk(RunRecord, SCHEMA)
    used = {name for name in SCHEMA["$defs"] if name != "Proportion"}
    assert used == {
        kind.__name__
        for kind in vars(records).values()
        if isinstance(kind, type) and kind.__module__ == records.__name__ and kind is not RunRecord
    }


def _set(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *way, last = path.split(".")
    target = changed
    for key in way:
        target = target[key]
    target[last] = value
    return changed


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("verdict", "fine"),
        ("verdict", "disagree"),  # without a reason
        ("status", "failed"),  # exact, and no error
        ("accuracy.device.value", 1.5),
        ("exact.matching", -1),
        ("model.sha256", "abc"),
        ("latency.unit", "cycles"),  # of a simulated device, and not said
        ("latency.simulated", False),
        ("surprise", 1),
    ],
)
def test_schema_refuses(document: dict[str, Any], path: str, value: object) -> None:
    assert not VALIDATOR.is_valid(_set(document, path, value))


def test_record_round_trips(document: dict[str, Any], tmp_path: Path) -> None:
    record = RunRecord.from_dict(document)
    record.write(tmp_path / "run.json")
    assert read_record(tmp_path / "run.json") == record
    assert json.loads((tmp_path / "run.json").read_text()) == document


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        ("exact.matching", "many", "run.exact.matching"),
        ("exact.matching", True, "run.exact.matching"),
        ("exact.matching", None, "run.exact.matching"),
        ("sizes.tensors", {}, "run.sizes.tensors"),
        ("dataset.image_shape", [28, 28], "run.dataset.image_shape"),
        ("device", [], "run.device"),
        ("surprise", 1, "run.surprise"),
        ("version", 3, "version 3"),
    ],
)
def test_reader_names_what_is_wrong(document: dict[str, Any], path: str, value: object, named: str) -> None:
    with pytest.raises(DataError, match=named):
        RunRecord.from_dict(_set(document, path, value))


def test_a_record_of_version_1_is_read(document: dict[str, Any], tmp_path: Path) -> None:
    old = copy.deepcopy(document)
    old["version"] = 1
    del old["interruptions"]
    for key in ("upload_line_bytes", "copied_bytes", "codings", "baud"):
        del old["link"][key]
    for key in ("pixel_bits", "sent_sha256"):
        del old["dataset"][key]
    (tmp_path / "run.json").write_text(json.dumps(old))
    record = read_record(tmp_path / "run.json")
    assert record.interruptions == ()
    assert record.link.codings == ()
    assert (record.link.upload_line_bytes, record.link.baud, record.link.copied_bytes) == (None, None, None)
    assert (record.dataset.pixel_bits, record.dataset.sent_sha256) == (None, None)
    VALIDATOR.validate(record.to_dict())
    changed = record.to_dict()
    for key in ("version", "interruptions", "link", "dataset"):
        changed[key] = document[key]
    assert changed == document
    # What is no record of any version is told as before.
    del old["link"]["share"]
    with pytest.raises(DataError, match=r"run\.link\.share is missing"):
        RunRecord.from_dict(old)
    with pytest.raises(DataError, match=r"run\.link is"):
        RunRecord.from_dict({**old, "link": 5})


def test_reader_names_what_is_missing(document: dict[str, Any], tmp_path: Path) -> None:
    changed = copy.deepcopy(document)
    del changed["link"]["share"]
    with pytest.raises(DataError, match=r"run\.link\.share is missing"):
        RunRecord.from_dict(changed)
    with pytest.raises(DataError, match="is not there"):
        read_record(tmp_path / "run.json")
    (tmp_path / "run.json").write_text('{"version": 1')
    with pytest.raises(DataError, match="JSON"):
        read_record(tmp_path / "run.json")


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "file"
    write_file(target, b"old")

    def broken(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(UsageError, match=r"file cannot be written: No space left on device"):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_run_directory_refuses_what_holds_a_run(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.create()
    directory.check()
    directory.samples.write_text("x")
    (directory.path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds a run"):
        directory.check()
    directory.create(force=True)
    assert [path.name for path in directory.path.iterdir()] == ["notes.txt"]
    with pytest.raises(UsageError, match="is a file"):
        RunDirectory(directory.path / "notes.txt").check()
