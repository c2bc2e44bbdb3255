"""Device and host simulation, bit for bit: every network of the zoo in every format, over the serial byte stream."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bitloop.bench.record import RunRecord
from bitloop.bench.run import run
from bitloop.data import dataset, vault
from bitloop.data.dataset import Images
from bitloop.network import load_network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from proofs.page import Section, cells

NETWORKS = ("mlp", "mlp8k", "cnn")
FORMATS = (
    "fp32",
    "fp16",
    "bf16",
    "e4m3:pow2",
    "e5m2",
    "e8m2:toward_zero",
    "e3m1:pow2",
    "int8:channel",
    "int4:channel",
    "ternary",
)


def records(networks: Sequence[str], formats: Sequence[str], images: Images) -> list[tuple[str, str, RunRecord]]:
    """Return the record of a run for each network and weight format (biases by default of the recipe)."""
    made = []
    for name in networks:
        network = load_network(name)
        for text in formats:
            record = run(quantize(network, parse_recipe(text)), "sim://native", images)
            print(f"{name} {text}: {record.headline}", file=sys.stderr, flush=True)
            made.append((name, text, record))
    return made


def exact(record: RunRecord, count: int) -> bool:
    """Tell whether every logit vector was compared and equal."""
    return record.verdict == "exact" and record.exact.matching == record.exact.total == count


def prove(networks: Sequence[str] = NETWORKS, formats: Sequence[str] = FORMATS) -> Section:
    """Run all 10,000 test images of MNIST."""
    images = vault.Vault(dataset.load("mnist")).open("verify native")
    made = records(networks, formats, images)
    rows = []
    for name, text, record in made:
        accuracy = "" if record.accuracy is None else f"{100 * record.accuracy.device.value:.2f} %"
        size = f"{record.sizes.total:,}"
        rows.append((name, text, f"{record.exact.matching:,} of {record.exact.total:,}", accuracy, size))
    return Section(
        "Device equals host simulation",
        "Logit vectors on `sim://native` that are bit-identical to the numpy simulation, on MNIST's test set. "
        "Quantized after training, as a whole, with the default scales: accuracies are no recommendation of a format.",
        ("network", "weights", "bit-identical", "accuracy", "bytes (weights, biases, scales)"),
        cells(rows),
        all(exact(record, len(images.pixels)) for _, _, record in made),
    )
