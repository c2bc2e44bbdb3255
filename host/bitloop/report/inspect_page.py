"""The page of a MODEL, and of what quantization did to it, as one HTML file without anything from outside."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.bench.identity import sizes_of, tensor_words, versions
from bitloop.errors import UsageError
from bitloop.quantize.entropy import ModelEntropy, model_entropy
from bitloop.quantize.inspection import Inspection
from bitloop.quantize.quality import Reach, TensorCodes
from bitloop.report import tensor_plots, words
from bitloop.report.environment import page_environment
from bitloop.report.page import Card

__all__ = [
    "check_page",
    "codes_words",
    "ratio_words",
    "reach_words",
    "render_inspection",
    "share_words",
    "write_inspect_page",
]

PAGE_SUFFIXES = (".html", ".htm")


def check_page(path: Path) -> None:
    """Check the name of a page's file.

    Raises:
        UsageError: it does not end with ``.html``.
    """
    if path.suffix.lower() not in PAGE_SUFFIXES:
        raise UsageError(f"{path} does not end with {PAGE_SUFFIXES[0]}, as a page's name does")


def write_inspect_page(inspection: Inspection, path: Path, *, source: str, command: str = "") -> None:
    """Write the page of a MODEL, whole or not at all.

    Args:
        inspection: what is shown.
        path: of the file, which ends with ``.html``.
        source: what the MODEL is called: its file, or the network and formats it was quantized from.
        command: how the page is made again.

    Raises:
        UsageError: the path has another end, or cannot be written.
    """
    check_page(path)
    write_file(path, render_inspection(inspection, source=source, command=command).encode())


def render_inspection(inspection: Inspection, *, source: str, command: str = "") -> str:
    """Return the page of a MODEL; all text from outside is escaped. Arguments as :func:`write_inspect_page`."""
    model = inspection.model
    entropy = model_entropy(model)
    return (
        page_environment()
        .get_template("inspect.html.j2")
        .render(
            headline=_headline(inspection),
            source=source,
            known=inspection.network is not None,
            cards=_cards(inspection, entropy),
            sqnr=tensor_plots.sqnr_bars(inspection.errors) if inspection.errors else "",
            histograms=_histograms(inspection),
            codes=inspection.codes,
            errors=inspection.errors,
            formats={name: tensor_words(tensor) for name, tensor in model.tensors.items()},
            entropy={tensor.name: tensor for tensor in entropy.tensors},
            by_channel=any(tensor.groups > 1 for tensor in model.tensors.values()),
            provenance=_provenance(inspection, source, command),
            words=words,
            codes_words=codes_words,
            reach_words=reach_words,
            share_words=share_words,
            decibel_words=tensor_plots.decibel_words,
        )
    )


def codes_words(tensor: TensorCodes) -> str:
    """Return how many codes a tensor uses of those that its format has."""
    codes = f"{tensor.codes:,}" if tensor.codes < 100_000 else f"{tensor.codes:.1e}".replace("e+0", "e")
    return f"{tensor.used_codes:,} of {codes}"


def ratio_words(ratio: float) -> str:
    """Return what a ratio of signal to quantization noise says of all tensors."""
    shown = tensor_plots.decibel_words(ratio)
    return f"{shown} signal to quantization noise" if math.isfinite(ratio) else shown


def reach_words(reach: Reach) -> str:
    """Return from which magnitude to which."""
    return f"{reach.least:.3g} – {reach.greatest:.3g}"


def share_words(count: int, total: int) -> str:
    """Return a share in percent: none is 0, and what is above none is not told as 0."""
    if not count:
        return "0"
    return "< 0.01 %" if count / total < 0.0001 else f"{100 * count / total:.2f} %"


def _headline(inspection: Inspection) -> str:
    model = inspection.model
    formats = f"{model.name}: weights {model.recipe['weights']}, biases {model.recipe['biases']}"
    return formats if inspection.sqnr_db is None else f"{formats}: {ratio_words(inspection.sqnr_db)}"


def _cards(inspection: Inspection, entropy: ModelEntropy) -> list[Card]:
    sizes = sizes_of(inspection.model)
    elements = sum(tensor.elements for tensor in inspection.codes)
    cards = []
    if inspection.sqnr_db is not None:
        worst = min(inspection.errors, key=lambda error: error.sqnr_db)
        changed = sum(error.saturated for error in inspection.errors), sum(error.zeroed for error in inspection.errors)
        farthest = max(inspection.errors, key=lambda error: error.max_error)
        cards += [
            Card(
                "Signal to quantization noise",
                tensor_plots.decibel_words(inspection.sqnr_db),
                (
                    f"all tensors taken as one; least: {worst.name}, {tensor_plots.decibel_words(worst.sqnr_db)}",
                    f"greatest error: {farthest.max_error:.3g} in {farthest.name}",
                ),
            ),
            Card("Saturated", share_words(changed[0], elements), (f"{changed[0]:,} of {elements:,} values",)),
            Card(
                "Became zero",
                share_words(changed[1], elements),
                (f"{changed[1]:,} of {elements:,} values that were not",),
            ),
        ]
    bits = sum(tensor.bits * tensor.elements for tensor in entropy.tensors) / elements
    smaller = f", {sizes.fp32 / sizes.total:.1f}× smaller than fp32" if sizes.total else ""
    cards += [
        Card("Weights, biases and scales", words.size(sizes.total), (f"{elements:,} values{smaller}",)),
        Card(
            "Entropy",
            f"{bits:.2f} bits a value",
            (f"stored: {8 * (sizes.weights + sizes.biases) / elements:.2f}", f"coded: {entropy.coded_bytes:,} B"),
        ),
    ]
    return cards


def _histograms(inspection: Inspection) -> Sequence[tuple[str, str, str]]:
    """Return name, what it is stored as, and drawing of each tensor."""
    found = []
    for number, (name, histogram) in enumerate(inspection.histograms.items(), start=1):
        spec = tensor_words(inspection.model.tensors[name])
        drawing = tensor_plots.tensor_histogram(histogram, name=f"tensor{number}", title=f"{name}, {spec}")
        found.append((name, spec, drawing))
    return found


def _provenance(inspection: Inspection, source: str, command: str) -> list[tuple[str, str]]:
    model, network = inspection.model, inspection.network
    made = versions()
    rows = [("Command", command or "–"), ("MODEL", source), ("MODEL SHA-256", model.sha256)]
    overrides = [f"{name}={spec}" for name, spec in model.recipe["overrides"].items()]
    if overrides:
        rows.append(("Tensors that differ", ", ".join(overrides)))
    if network is not None:
        rows.append(("Quantized from", network.name))
    rows.append(("Software", f"bitloop {made.bitloop}, Python {made.python}, numpy {made.numpy}"))
    return rows
