"""What a MODEL's codes hold, and their bytes after entropy coding, for people and for programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from bitloop.cli import console

if TYPE_CHECKING:
    from bitloop.quantize.model import Model

__all__ = ["entropy_document", "print_entropy"]


def entropy_document(model: Model) -> dict[str, object]:
    """Return entropy and coded bytes of each tensor and of all."""
    from bitloop.quantize.entropy import model_entropy  # noqa: PLC0415 - numpy

    found = model_entropy(model)
    return {
        "tensors": [{**asdict(tensor), "coded_bytes": tensor.coded_bytes} for tensor in found.tensors],
        "scales_bytes": found.scales_bytes,
        "packed_bytes": found.packed_bytes,
        "coded_bytes": found.coded_bytes,
    }


def print_entropy(model: Model) -> None:
    """Print entropy and coded bytes of each tensor and of all."""
    from bitloop.quantize.entropy import model_entropy  # noqa: PLC0415 - numpy

    found = model_entropy(model)
    rows = [
        (
            tensor.name,
            f"{100 * tensor.zeros / tensor.elements:.1f} %",
            f"{tensor.bits:.3f}",
            f"{8 * tensor.packed_bytes / tensor.elements:.3f}",
            f"{tensor.packed_bytes:,}",
            f"{tensor.huffman_bytes:,}",
            f"{tensor.coded_bytes:,}",
        )
        for tensor in found.tensors
    ]
    scales = f"{found.scales_bytes:,}"
    rows.append(("scales", "", "", "", scales, "", scales))
    rows.append(("in all", "", "", "", f"{found.packed_bytes:,}", "", f"{found.coded_bytes:,}"))
    columns = ("tensor", "zeros", "entropy", "stored", "packed", "Huffman", "smaller")
    title = "Entropy and bits stored, an element; bytes packed, and in a Huffman code with its table"
    console.print_table(title, columns, rows, right=(1, 2, 3, 4, 5, 6))
