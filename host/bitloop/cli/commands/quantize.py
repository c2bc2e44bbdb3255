"""``bitloop quantize``: a network to a MODEL."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.tables import model_document, print_model
from bitloop.errors import UsageError


@console.handled
def quantize(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Zoo name, or a .npz, .keras or .tflite file.")],
    *,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    pixel_range: Annotated[
        int, typer.Option(help="What white is to a .keras or .tflite file's network: 1, or 255 if it takes bytes.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.blm", help="Default: NETWORK.blm in this directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Quantize the weights and biases of a network, each in a format of its own, and write a MODEL (.blm)."""
    from bitloop.quantize import blm  # noqa: PLC0415 - numpy

    if Path(network).suffix.lower() == sources.MODEL_SUFFIX:
        raise UsageError(f"{network} is quantized already; name the network that it was made from")
    target = out or Path(f"{Path(network).stem}{sources.MODEL_SUFFIX}")
    if target.suffix.lower() != sources.MODEL_SUFFIX:
        raise UsageError(f"{target} does not end with {sources.MODEL_SUFFIX}, as a MODEL's name does")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; name another file with --out, or say --force to replace it")
    model = sources.load_model(
        network, weights=weights, biases=biases, overrides=overrides or (), pixel_range=pixel_range
    )
    blm.save(model, target)
    if as_json:
        console.print_json({"path": str(target), **model_document(model)})
    else:
        print_model(model, f"{target}: {model.name}")
