"""Samples as CSV (RFC 4180), and a run as JUnit XML for continuous integration."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from xml.etree import ElementTree

from bitloop.bench.journal import Sample, logits_from_hex
from bitloop.bench.record import RunRecord

__all__ = ["junit_xml", "samples_csv"]

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def samples_csv(samples: Iterable[Sample]) -> str:
    """Return one line an image; logits in decimal, in as few digits as tell them apart from all other binary32 numbers.

    Columns: index, label, device, host, match, ulp, ticks, then ``logit_0`` and so on.
    """
    rows = list(samples)
    classes = len(rows[0].logits) if rows else 0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(
        ["index", "label", "device", "host", "match", "ulp", "ticks", *(f"logit_{number}" for number in range(classes))]
    )
    for sample in rows:
        logits = [str(value) for value in logits_from_hex(sample.logits)]
        match = "true" if sample.match else "false"
        writer.writerow(
            [sample.index, sample.label, sample.device, sample.host, match, sample.ulp, sample.ticks, *logits]
        )
    return text.getvalue()


def junit_xml(record: RunRecord) -> str:
    """Return a test suite: the run's end, its logits, audited layers, labels, and what the device says of itself."""
    suite = ElementTree.Element("testsuite", name=_clean(f"bitloop {record.model.name} on {record.device.board}"))
    labels = record.labels
    agree = labels.agreeing == labels.total and not labels.impossible
    differ = f"{labels.agreeing} of {labels.total} labels agree; {labels.impossible} do not follow from their logits"
    hidden = record.exact.divergence is not None and not record.exact.failing_count
    lies = record.verdict == "disagree" and not record.exact.failing_count and not hidden
    cases: list[tuple[str, str | None]] = [
        ("run complete", None if record.status == "complete" else record.headline),
        ("logits bit-identical", record.headline if record.exact.failing_count else None),
        ("audited layers bit-identical", record.headline if hidden else None),
        ("labels agree", None if agree else differ),
        ("device tells the truth", record.headline if lies else None),
    ]
    failures = 0
    for name, problem in cases:
        case = ElementTree.SubElement(suite, "testcase", classname="bitloop.run", name=name)
        case.set("time", f"{record.seconds if name == 'run complete' else 0.0:.3f}")
        if problem is not None:
            failures += 1
            failure = ElementTree.SubElement(case, "failure", message=_clean(problem))
            failure.text = _clean("\n".join(record.reasons) or problem)
    suite.set("tests", str(len(cases)))
    suite.set("failures", str(failures))
    suite.set("errors", "0")
    suite.set("skipped", "0")
    suite.set("time", f"{record.seconds:.3f}")
    suite.set("timestamp", record.started.removesuffix("Z"))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(suites, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold."""
    return _NOT_IN_XML.sub("\ufffd", text)
