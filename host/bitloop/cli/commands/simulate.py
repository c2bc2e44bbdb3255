"""``bitloop simulate``: the host simulation alone."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from bitloop.cli import console, options, sources


@console.handled
def simulate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A .blm file, or a network to quantize on the fly.")],
    *,
    data: options.Data = None,
    split: options.SplitName = "search",
    limit: options.Limit = None,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    reason: options.Reason = None,
    as_json: options.Json = False,
) -> None:
    """Measure a MODEL's accuracy in the exact host simulation, without any device."""
    from bitloop.bench.checks import check_fit  # noqa: PLC0415 - numpy
    from bitloop.bench.metrics import wilson  # noqa: PLC0415 - numpy
    from bitloop.bench.select import select_images  # noqa: PLC0415 - numpy
    from bitloop.report import words  # noqa: PLC0415 - numpy
    from bitloop.simulate.reference import labels  # noqa: PLC0415 - numpy
    from bitloop.simulate.reference import simulate as simulate_model  # noqa: PLC0415 - numpy

    loaded = sources.load_model(model, weights=weights, biases=biases, overrides=overrides or ())
    default_data, _ = sources.names_of_model(loaded)
    dataset = sources.load_dataset(data, default_data)
    chosen = select_images(dataset, split, limit=limit, reason=reason or f"bitloop simulate {loaded.name}")
    images = chosen.images
    check_fit(loaded, images)
    right = 0
    began = time.monotonic()
    with console.progress() as step:
        for start in range(0, len(images), 500):
            block = slice(start, start + 500)
            right += int((labels(simulate_model(loaded, images.pixels[block])) == images.labels[block]).sum())
            step("images", min(start + 500, len(images)), len(images))
    seconds = time.monotonic() - began
    accuracy = wilson(right, len(images))
    if as_json:
        console.print_json(
            {
                "model": loaded.name,
                "model_sha256": loaded.sha256,
                "dataset": images.dataset,
                "dataset_sha256": images.sha256,
                "split": images.split.value,
                "accuracy": {
                    "value": accuracy.value,
                    "low": accuracy.low,
                    "high": accuracy.high,
                    "correct": accuracy.correct,
                    "total": accuracy.total,
                },
                "vault": [opening.count for opening in chosen.openings],
            }
        )
        return
    console.print_table(
        f"{loaded.name} in the host simulation, {images.dataset} {images.split.value}",
        ("", ""),
        [
            ("accuracy", words.percent(accuracy.value, total=accuracy.total)),
            ("95 % Wilson interval", words.interval(accuracy)),
            ("images", words.count(accuracy.total)),
            ("model", f"{words.size(loaded.sizes.total)}, SHA-256 {loaded.sha256}"),
            ("took", words.seconds(seconds)),
        ],
    )
