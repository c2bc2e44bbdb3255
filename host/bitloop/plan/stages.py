"""Stages of an image whose weights are streamed (docs/model.md, "Streamed weights")."""

from __future__ import annotations

from collections.abc import Sequence


def stages(streamed: Sequence[bool]) -> list[int]:
    """Number the stages of a chain of layers.

    Args:
        streamed: for each layer, whether its weights travel with each batch.

    Returns:
        For each layer the number of its stage, from 0 on: a streamed layer is one by itself, and so is each longest
        run of layers that are not.
    """
    numbers: list[int] = []
    for index, own in enumerate(streamed):
        if index == 0:
            numbers.append(0)
        else:
            numbers.append(numbers[-1] + (own or streamed[index - 1]))
    return numbers
