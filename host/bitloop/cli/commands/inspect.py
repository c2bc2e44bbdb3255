"""``bitloop inspect``: what a MODEL holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bitloop.cli import console, options
from bitloop.cli.entropy import entropy_document, print_entropy
from bitloop.cli.tables import model_document, print_model


@console.handled
def inspect(
    model: Annotated[Path, typer.Argument(metavar="FILE.blm", help="A MODEL.")], as_json: options.Json = False
) -> None:
    """Show a MODEL's tensors, formats, bytes and hash, and the entropy of its codes."""
    from bitloop.quantize import blm  # noqa: PLC0415 - numpy

    loaded = blm.load(model)
    if as_json:
        console.print_json({"path": str(model), **model_document(loaded), "entropy": entropy_document(loaded)})
    else:
        print_model(loaded, f"{model}: {loaded.name}")
        print_entropy(loaded)
