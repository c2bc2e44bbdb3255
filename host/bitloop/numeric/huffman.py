"""Lengths of canonical Huffman codes of limited length, for any alphabet.

The lengths are the best ones under the limit, by the package-merge algorithm (L. Larmore, D. Hirschberg, "A fast
algorithm for optimal length-limited Huffman codes", Journal of the ACM 37(3), 1990).
"""

from __future__ import annotations

from collections.abc import Sequence

from bitloop.spec import MAX_CODE_BITS


def code_lengths(weights: Sequence[int], most_bits: int = MAX_CODE_BITS) -> list[int]:
    """Give the lengths of the shortest prefix code: the sum of weight times length is the least there is.

    Args:
        weights: One a symbol, 0 for those that get no code; more than ``2 ** most_bits`` others have none.
        most_bits: No code is longer.

    Returns:
        A length for each symbol, 0 where it has no code. The code is complete (the sum of ``2 ** -length`` is 1), but
        for a single symbol, which gets length 1.
    """
    lengths = [0] * len(weights)
    coins = sorted((weight, (symbol,)) for symbol, weight in enumerate(weights) if weight)
    if len(coins) > 1 << most_bits:
        raise ValueError(f"{len(coins)} symbols have no codes of {most_bits} bits")
    if len(coins) < 2:
        for _, (symbol,) in coins:
            lengths[symbol] = 1
        return lengths
    merged: list[tuple[int, tuple[int, ...]]] = []
    for _ in range(most_bits):
        pairs = zip(merged[::2], merged[1::2], strict=False)
        packages = [(first[0] + second[0], first[1] + second[1]) for first, second in pairs]
        merged = sorted([*coins, *packages], key=lambda coin: coin[0])
    for _, symbols in merged[: 2 * len(coins) - 2]:
        for symbol in symbols:
            lengths[symbol] += 1
    return lengths
