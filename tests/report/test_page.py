"""The page: the verdict first, nothing from outside, nothing unescaped, every figure marked as what it is."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from bitloop.bench.record import RunRecord, read_record
from bitloop.errors import DataError
from bitloop.report import plots, words
from bitloop.report.images import png
from bitloop.report.page import load_run, render, write_report

VOID = {"meta", "link", "br", "img"}


class Page(HTMLParser):
    """Tags that open and close in order, their attributes, and the text of the body."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and "head" not in self.stack and "style" not in self.stack:
            self.texts.append((self.stack[-1], data.strip()))

    @property
    def text(self) -> str:
        return " ".join(text for _, text in self.texts)


@pytest.mark.parametrize(
    ("name", "words_of_it"),
    [
        ("exact", r"EXACT: 120 of 120 logit vectors bit-identical"),
        ("disagree", r"DISAGREE: \d+ of 120 logit vectors differ, .*; first diverging layer conv1, 1 ULP"),
        ("lying", r"DISAGREE: the device reports image hash [0-9a-f]{64}, the host sent [0-9a-f]{64}; .*"),
        ("failed", r"FAILED after \d+ of 120 images: .*"),
    ],
)
def test_verdict_is_the_first_thing_on_the_page(runs: dict[str, Path], name: str, words_of_it: str) -> None:
    page = Page((runs[name] / "report.html").read_text(encoding="utf-8"))
    tag, text = page.texts[0]
    assert tag == "h1"
    assert re.fullmatch(words_of_it, text)
    assert text == read_record(runs[name] / "run.json").headline


@pytest.mark.parametrize("name", ["exact", "disagree", "lying", "failed"])
def test_nothing_comes_from_outside(runs: dict[str, Path], name: str) -> None:
    text = (runs[name] / "report.html").read_text(encoding="utf-8")
    for tag, attributes in Page(text).tags:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for attribute in ("src", "href", "xlink:href", "data", "poster"):
            value = attributes.get(attribute)
            assert value is None or value.startswith(("data:", "#")), (tag, value)
        assert not any(attribute.startswith("on") for attribute in attributes)
    assert "@import" not in text
    assert not re.search(r"url\((?!#|\"?data:)", text)


def test_what_cannot_be_seen_is_said(runs: dict[str, Path]) -> None:
    page = Page((runs["disagree"] / "report.html").read_text(encoding="utf-8"))
    for tag, attributes in page.tags:
        if tag == "img":
            assert attributes["alt"]
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in page.tags:
        for key in ("aria-labelledby", "href", "xlink:href"):
            value = attributes.get(key)
            if value is not None and not value.startswith("data:"):
                assert value.removeprefix("#") in ids
    headings = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(headings))


def test_simulated_figures_say_so(runs: dict[str, Path]) -> None:
    page = Page((runs["exact"] / "report.html").read_text(encoding="utf-8"))
    assert "simulated device" in page.text
    assert "Times on this page are not those of a chip." in page.text
    assert page.text.count("host nanoseconds") == page.text.count("host nanoseconds (simulated device)") >= 3
    assert "belongs to the host process" in page.text


def test_figures_of_the_record_are_on_the_page(runs: dict[str, Path]) -> None:
    record, samples = load_run(runs["exact"])
    text = Page((runs["exact"] / "report.html").read_text(encoding="utf-8")).text
    assert record.accuracy is not None
    assert record.latency is not None
    for figure in (
        words.percent(record.accuracy.device.value, total=120),
        words.interval(record.accuracy.device),
        words.ticks(record.latency.median),
        words.ticks(record.latency.p99),
        f"{record.ram.predicted:,}",
        f"{record.link.stream_bytes_up:,}",
        record.model.sha256,
        record.image.sha256,
        record.dataset.sha256,
        record.firmware.hash,
        *(tensor.name for tensor in record.sizes.tensors),
    ):
        assert figure in text
    wrong = sum(sample.device != sample.label for sample in samples)
    assert f"of {wrong}" in text or f"All {wrong}" in text


def _hostile(record: RunRecord, poison: str) -> RunRecord:
    """Put a text into every text of a record."""

    def poisoned(value: object) -> object:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(
                value, **{field.name: poisoned(getattr(value, field.name)) for field in dataclasses.fields(value)}
            )
        if isinstance(value, tuple):
            return tuple(poisoned(item) for item in value)
        return value + poison if isinstance(value, str) else value

    result = poisoned(record)
    assert isinstance(result, RunRecord)
    return result


def test_text_from_outside_is_escaped(runs: dict[str, Path]) -> None:
    record, samples = load_run(runs["disagree"])
    poison = "<script>alert(1)</script>\"'><img src=x onerror=y>&amp;$x^2$"
    text = render(_hostile(record, poison), samples)
    render(_hostile(record, "long " * 500), samples)
    page = Page(text)
    assert all(tag != "script" for tag, _ in page.tags)
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert all((attributes.get("src") or "data:").startswith("data:") for _, attributes in page.tags)
    assert poison in page.text


def test_report_can_be_made_again_from_the_directory_alone(copy_of: Callable[[str], Path]) -> None:
    directory = copy_of("exact")
    before = (directory / "report.html").read_bytes()
    (directory / "report.html").unlink()
    assert write_report(directory).read_bytes() == before


def test_files_that_do_not_belong_together_are_refused(copy_of: Callable[[str], Path], runs: dict[str, Path]) -> None:
    directory = copy_of("exact")
    lines = (directory / "samples.jsonl").read_text().splitlines(keepends=True)
    (directory / "samples.jsonl").write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="119 samples"):
        write_report(directory)
    (directory / "samples.jsonl").write_text((runs["disagree"] / "samples.jsonl").read_text())
    with pytest.raises(DataError, match="matching"):
        write_report(directory)
    document = json.loads((directory / "run.json").read_text())
    del document["ram"]
    (directory / "run.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match="ram"):
        write_report(directory)


def test_a_run_without_a_single_result_has_a_report(runs: dict[str, Path]) -> None:
    record, _ = load_run(runs["failed"])
    empty = dataclasses.replace(record, accuracy=None, confusion=None, latency=None)
    page = Page(render(empty, []))
    assert page.texts[0] == ("h1", record.headline)


def test_png_is_what_the_standard_says() -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow, the oracle for PNG, is not installed")
    pixels = np.random.default_rng(3).integers(0, 256, (9, 5)).astype(np.uint8)
    opened = image.open(io.BytesIO(png(pixels)))
    assert opened.mode == "L"
    np.testing.assert_array_equal(np.asarray(opened), pixels)


def test_drawings_are_well_formed_and_in_the_colours_of_the_page(runs: dict[str, Path]) -> None:
    text = (runs["exact"] / "report.html").read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 4
    for drawing in drawings:
        ElementTree.fromstring(drawing)
        assert "var(--" in drawing
        assert not re.search(r"(fill|stroke): #[0-9a-f]{6}", drawing)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"baud": None, "codings": (), "copied_bytes": None}, ""),
        ({"baud": 921600, "codings": ("model: plain",), "copied_bytes": 0}, "921,600 baud; model: plain"),
        (
            {"baud": 0, "codings": ("model: codes", "pixels: runs"), "copied_bytes": 20480},
            "model: codes; pixels: runs; 20.0 KiB of the model taken over on the device",
        ),
    ],
)
def test_the_line_in_words(runs: dict[str, Path], changes: dict[str, Any], text: str) -> None:
    record, _ = load_run(runs["exact"])
    assert words.line(dataclasses.replace(record.link, **changes)) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0, "0 B"), (9_999, "9,999 B"), (10_240, "10.0 KiB"), (12 << 20, "12.0 MiB")]
)
def test_sizes_in_words(value: int | None, text: str) -> None:
    assert words.size(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0123, "12.3 ms"), (2.34, "2.3 s"), (119.0, "119.0 s"), (185.0, "3 min 5 s")]
)
def test_durations_in_words(value: float, text: str) -> None:
    assert words.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "total", "text"), [(0.98765, None, "98.77 %"), (0.98765, 1000, "98.77 %"), (0.987, 300, "98.7 %")]
)
def test_shares_in_words_carry_the_digits_that_their_number_allows(value: float, total: int | None, text: str) -> None:
    assert words.percent(value, total=total) == text


def test_ticks_of_an_emulator_are_drawn_as_instructions(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(plots, "latency_histogram", lambda values, **_: drawn.append(values) or "")
    record, samples = load_run(runs["exact"])
    assert record.latency is not None
    render(record, samples)
    emulated = dataclasses.replace(record, latency=dataclasses.replace(record.latency, units_per_tick=0.5))
    page = render(emulated, samples)
    ticks = np.array([sample.ticks for sample in samples])
    assert (drawn[0] == ticks).all()
    assert (np.abs(drawn[1] - ticks / 2) <= 0.5).all()
    assert "a tick is 0.5 instructions, and figures are rounded to whole ones" in page
