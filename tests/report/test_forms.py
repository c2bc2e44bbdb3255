"""The other forms of a report: CSV read back bit for bit, JUnit as continuous integration reads it."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from bitloop.bench.journal import Sample, logits_from_hex
from bitloop.report.page import load_run
from bitloop.report.table import junit_xml, samples_csv


def test_csv_gives_every_logit_back(runs: dict[str, Path]) -> None:
    _, samples = load_run(runs["exact"])
    rows = list(csv.DictReader(io.StringIO(samples_csv(samples), newline="")))
    assert len(rows) == 120
    for row, sample in zip(rows, samples, strict=True):
        assert (int(row["index"]), int(row["label"]), int(row["device"])) == (sample.index, sample.label, sample.device)
        assert (row["match"], int(row["ticks"])) == ("true", sample.ticks)
        logits = np.array([np.float32(row[f"logit_{k}"]) for k in range(10)], np.float32)
        np.testing.assert_array_equal(logits.view(np.uint32), logits_from_hex(sample.logits).view(np.uint32))


def test_csv_of_numbers_that_are_none() -> None:
    sample = Sample(0, 1, 2, 3, False, 4, 5, logits=("7fc00000", "ff800000", "80000000", "00000001"))
    assert samples_csv([sample]).splitlines()[1] == "0,1,2,3,false,4,5,nan,-inf,-0.0,1e-45"
    assert samples_csv([]).splitlines() == ["index,label,device,host,match,ulp,ticks"]


@pytest.mark.parametrize(
    ("name", "failing"),
    [
        ("exact", set()),
        ("disagree", {"logits bit-identical"}),
        ("lying", {"device tells the truth"}),
        ("failed", {"run complete"}),
    ],
)
def test_junit_fails_what_failed(runs: dict[str, Path], name: str, failing: set[str]) -> None:
    record, _ = load_run(runs[name])
    root = ElementTree.fromstring(junit_xml(record))
    assert root.tag == "testsuites"
    (suite,) = root
    cases = suite.findall("testcase")
    assert {case.get("name") for case in cases if case.find("failure") is not None} - {"labels agree"} == failing
    assert int(suite.get("tests", "")) == len(cases)
    assert int(suite.get("failures", "")) == sum(case.find("failure") is not None for case in cases)
    messages = [failure.get("message") for failure in suite.iter("failure")]
    assert not failing or record.headline in messages


def test_junit_survives_what_xml_cannot_hold(runs: dict[str, Path]) -> None:
    record, _ = load_run(runs["failed"])
    poisoned = dataclasses.replace(record, headline="FAILED \x00\x1b[31m <&>\ud800", reasons=("\x07",))
    root = ElementTree.fromstring(junit_xml(poisoned))
    (message,) = [failure.get("message") for failure in root.iter("failure") if "FAILED" in failure.get("message", "")]
    assert message == "FAILED \ufffd\ufffd[31m <&>\ufffd"
