"""Coded data (docs/protocol.md): runs of zeros, codes over bytes, or both, chosen by size for a whole stream."""

from bitloop.link.coding.choose import choose_pixels, choose_weights
from bitloop.link.coding.coder import HEAD_BYTES, Coder, Piece

__all__ = ["HEAD_BYTES", "Coder", "Piece", "choose_pixels", "choose_weights"]
