"""``bitloop inspect``: what a MODEL holds, and what quantization did to its network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.entropy import entropy_document, print_entropy
from bitloop.cli.tables import model_document, print_model
from bitloop.errors import UsageError

if TYPE_CHECKING:
    from bitloop.network.network import Network
    from bitloop.quantize.inspection import Inspection
    from bitloop.quantize.model import Model


@console.handled
def inspect(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A .blm file, or a network that is quantized on the fly (--weights)."),
    ],
    *,
    network: Annotated[
        str | None,
        typer.Option(
            "--network",
            metavar="NETWORK",
            help="What the .blm file was quantized from: a zoo name, or a .npz, .keras or .tflite file.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    pixel_range: Annotated[
        int, typer.Option(help="What white is to a .keras or .tflite file's network: 1, or 255 if it takes bytes.")
    ] = 1,
    page: Annotated[
        Path | None,
        typer.Option(
            "--page", metavar="FILE.html", help="Write histograms and tables as one page.", show_default=False
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show a MODEL's tensors, formats, bytes and hash, the entropy of its codes, and what quantization did to each."""
    from bitloop.quantize.inspection import inspect_model  # noqa: PLC0415 - numpy
    from bitloop.report.inspect_page import check_page, write_inspect_page  # noqa: PLC0415 - numpy

    if page is not None:
        check_page(page)
    loaded, known = _load(
        model, network, weights=weights, biases=biases, overrides=overrides or [], pixel_range=pixel_range
    )
    found = inspect_model(loaded, known)
    if found.sqnr_db is not None and found.sqnr_db < 0:
        console.warn(
            f"more noise than signal ({found.sqnr_db:.1f} dB): is {network or model} what {model} was quantized from?"
        )
    if page is not None:
        source = model if network is not None or known is None else f"{model}, quantized on the fly"
        write_inspect_page(found, page, source=source, command=console.command_line())
    if as_json:
        document = {"path": model, **model_document(loaded), "entropy": entropy_document(loaded)}
        console.print_json({**document, "quality": found.document(), **({} if page is None else {"page": str(page)})})
        return
    print_model(loaded, f"{model}: {loaded.name}")
    print_entropy(loaded)
    _print_quality(found)
    if page is not None:
        console.print_text(f"Page: {page}")


def _load(
    source: str,
    network: str | None,
    *,
    weights: str | None,
    biases: str | None,
    overrides: list[str],
    pixel_range: int,
) -> tuple[Model, Network | None]:
    """Return a MODEL, and the network that it was quantized from if that is known.

    Raises:
        UsageError: a network was named for one that is quantized on the fly, or formats for a MODEL.
        BitloopError: one of them cannot be read or quantized.
    """
    from bitloop.quantize.apply import quantize  # noqa: PLC0415 - numpy
    from bitloop.quantize.packed import PACKED_MODELS  # noqa: PLC0415 - numpy
    from bitloop.quantize.recipe import parse_recipe  # noqa: PLC0415 - numpy

    if source in PACKED_MODELS or Path(source).suffix.lower() == sources.MODEL_SUFFIX:
        model = sources.load_model(source, weights=weights, biases=biases, overrides=overrides)
        if network is not None:
            return model, sources.load_network(network, pixel_range=pixel_range)
        if pixel_range != 1:
            raise UsageError(f"--pixel-range is for a network's file; {source} is quantized already: leave it out")
        return model, None
    if network is not None:
        raise UsageError(
            f"--network says what a {sources.MODEL_SUFFIX} file was quantized from; {source} is a network itself: "
            "leave it out"
        )
    if weights is None and biases is None and not overrides:
        raise UsageError(
            f"{source} is no {sources.MODEL_SUFFIX} file; a network is quantized with --weights, --biases or --set"
        )
    loaded = sources.load_network(source, pixel_range=pixel_range)
    return quantize(loaded, parse_recipe(weights or "fp32", biases, overrides)), loaded


def _print_quality(found: Inspection) -> None:
    from bitloop.report.inspect_page import codes_words, ratio_words, reach_words, share_words  # noqa: PLC0415 - numpy
    from bitloop.report.tensor_plots import decibel_words  # noqa: PLC0415 - numpy

    used = [codes_words(tensor) for tensor in found.codes]
    reach = [reach_words(tensor.format_reach) for tensor in found.codes]
    if found.sqnr_db is None:
        console.print_table(
            "Codes used of those there are, and their values: from the least magnitude above zero to the greatest",
            ("tensor", "codes", "RMS", "values", "format"),
            [
                (tensor.name, codes, f"{tensor.rms:.3g}", reach_words(tensor.reach), most)
                for tensor, codes, most in zip(found.codes, used, reach, strict=True)
            ],
            right=(1, 2, 3, 4),
        )
        return
    console.print_table(
        f"What quantization did: {ratio_words(found.sqnr_db)}",
        ("tensor", "SQNR", "error", "saturated", "to zero", "codes", "RMS", "values", "format"),
        [
            (
                error.name,
                decibel_words(error.sqnr_db),
                f"{error.max_error:.3g}",
                share_words(error.saturated, error.elements),
                share_words(error.zeroed, error.elements),
                codes,
                f"{error.rms:.3g}",
                reach_words(error.reach),
                most,
            )
            for error, codes, most in zip(found.errors, used, reach, strict=True)
        ],
        right=(1, 2, 3, 4, 5, 6, 7, 8),
    )
    console.print_text(
        "SQNR: 10·log10 of Σw² / Σ(w - ŵ)²; error: the greatest; saturated: beyond what the format reaches; to zero: "
        "were not zero; values, format: from the least magnitude above zero to the greatest"
    )
