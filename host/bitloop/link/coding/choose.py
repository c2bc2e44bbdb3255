"""Which coding a stream is sent in: the one that is smallest, of those that the device decodes."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from bitloop.hello import DeviceInfo
from bitloop.link.coding.coder import U8, Coder
from bitloop.link.coding.huffman import Code, CodesCoder, codes_size, histogram
from bitloop.link.coding.runs import RunsCoder, Tokens, token_code
from bitloop.spec import Coding

logger = logging.getLogger(__name__)


def choose_weights(data: bytes, info: DeviceInfo) -> Coder | None:
    """Choose how weights travel: those of an image of a model, or those streamed with each batch.

    Args:
        data: All of them.
        info: The device.

    Returns:
        None if plain bytes are smallest, or the device decodes nothing.
    """
    return _choose(np.frombuffer(data, np.uint8), info, "weights")


def choose_pixels(pixels: U8 | bytes, info: DeviceInfo) -> Coder | None:
    """Choose how images travel.

    Args:
        pixels: uint8 [N, H, W, C] or [N, H * W * C], or the same as bytes.
        info: The device.

    Returns:
        None if plain bytes are smallest, or the device decodes nothing.
    """
    if isinstance(pixels, np.ndarray):
        return _choose(np.ascontiguousarray(pixels, np.uint8).reshape(-1), info, "pixels")
    return _choose(np.frombuffer(pixels, np.uint8), info, "pixels")


def _choose(data: U8, info: DeviceInfo, what: str) -> Coder | None:
    codings = info.codings & (Coding.RUNS | Coding.CODES)
    if not len(data) or not codings:
        return None
    best_size = len(data)
    best: Callable[[], Coder] | None = None
    words = [f"plain {len(data)}"]

    def offer(name: str, size: int, make: Callable[[], Coder]) -> None:
        nonlocal best_size, best
        words.append(f"{name} {size}")
        if size < best_size:
            best_size, best = size, make

    if codings & Coding.CODES:
        counts = histogram(data)
        offer("codes", codes_size(Code(counts.tolist()), counts), lambda: CodesCoder(data, counts))
    if codings & Coding.RUNS:
        tokens = Tokens(data)
        offer("runs", len(tokens.written), lambda: RunsCoder(tokens, None))
        if codings & Coding.CODES:
            counts_of_tokens = histogram(tokens.written)
            code = token_code(tokens, counts_of_tokens)
            offer("both", codes_size(code, counts_of_tokens), lambda: RunsCoder(tokens, code))
    logger.debug("bytes of %s: %s", what, ", ".join(words))
    return None if best is None else best()
