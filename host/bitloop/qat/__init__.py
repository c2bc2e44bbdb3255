"""Quantization-aware training: the zoo's trainer, with weights and biases quantized in the forward pass."""

from bitloop.qat.fake_quantize import FakeQuantized, fake_quantize
from bitloop.qat.train import find_start, train_quantized

__all__ = ["FakeQuantized", "fake_quantize", "find_start", "train_quantized"]
