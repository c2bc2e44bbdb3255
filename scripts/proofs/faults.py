"""The comparer itself: devices made to be wrong must be caught, and the right layer named."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bitloop.bench.record import RunRecord
from bitloop.bench.run import run
from bitloop.data import dataset
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.network import load_network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from proofs.page import Section, cells


@dataclass(frozen=True)
class Fault:
    """A wrong device: how it is asked for, and the first layer in which it must show (None: only a claim is false)."""

    what: str
    url: str
    layer: str | None
    reaches_logits: bool = True


FAULTS = (
    Fault("one ULP, first layer", "layer:0,ulp:1,element:672", "conv1"),
    Fault("one ULP, second convolution", "layer:1,ulp:1,element:192", "conv2"),
    Fault("one ULP, last layer", "layer:2,ulp:1,element:3", "dense1"),
    Fault("one ULP that no logit shows", "layer:0,ulp:1,element:5", "conv1", reaches_logits=False),
    Fault("one bit of one weight code", "code:0,element:3,bit:1", "conv1"),
    Fault("one bit of one weight code, last layer", "code:4,element:1203,bit:0", "dense1"),
    Fault("a wrong bias", "bias:3", "conv2"),
    Fault("a wrong scale", "scale:2", "conv2"),
    Fault("a lie about the image's hash", "hash:image", None),
    Fault("a wrong arithmetic probe", "probe:0", None),
)


def caught(fault: Fault, record: RunRecord) -> bool:
    """Tell whether a run against the wrong device says all that it must."""
    if record.exit_code != 3 or not record.headline.startswith("DISAGREE"):
        return False
    if fault.layer is None:
        return bool(record.reasons)
    found = record.exact.divergence
    return (
        record.exact.first_diverging_layer == fault.layer
        and record.exact.failing_count == record.exact.total - record.exact.matching
        and (record.exact.failing_count > 0) == fault.reaches_logits
        and found is not None
        and found.ulp > 0
    )


def records(faults: Sequence[Fault], images: Images) -> list[tuple[Fault, RunRecord]]:
    """Return the record of a run of `cnn` in int8 against each wrong device."""
    model = quantize(load_network("cnn"), parse_recipe("int8"))
    made = []
    for fault in faults:
        record = run(model, f"sim://native?fault={fault.url}", images)
        print(f"{fault.what}: {record.headline}", file=sys.stderr, flush=True)
        made.append((fault, record))
    return made


def prove() -> Section:
    """Run 1,000 images of the search split against each wrong device."""
    images = dataset.load("mnist").split(Split.SEARCH).first(1000)
    made = records(FAULTS, images)
    rows = []
    for fault, record in made:
        found = record.exact.divergence
        where = "none: logits agree" if found is None else f"{found.layer}, {found.ulp:,} ULP"
        rows.append((fault.what, record.exit_code, where, record.exact.failing_count, "; ".join(record.reasons)))
    return Section(
        "Devices made to be wrong",
        "`cnn`, int8, 1,000 images of the search split: `bitloop run` must exit with 3 and name the layer.",
        ("fault", "exit code", "first diverging layer", "failing images", "reasons"),
        cells(rows),
        all(caught(fault, record) for fault, record in made),
    )
