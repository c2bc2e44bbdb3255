"""The exact host simulation, written from docs/arithmetic.md alone, and LiteRT as an outside oracle."""

from bitloop.simulate.reference import activations, activations_upto, labels, simulate, softmax

__all__ = ["activations", "activations_upto", "labels", "simulate", "softmax"]
