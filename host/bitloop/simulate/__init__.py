"""The exact host simulation, written from docs/arithmetic.md alone, and LiteRT as an outside oracle."""

from bitloop.simulate.reference import (
    Prefix,
    activations,
    activations_upto,
    labels,
    prefix_of,
    simulate,
    simulate_from,
    softmax,
)

__all__ = [
    "Prefix",
    "activations",
    "activations_upto",
    "labels",
    "prefix_of",
    "simulate",
    "simulate_from",
    "softmax",
]
