"""The float32 host simulation against Keras and LiteRT: the same label wherever the top two logits are apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitloop.data import dataset, vault
from bitloop.network import export, load_network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate import litert, reference
from proofs.page import Section, cells

MARGIN = 1e-4  # where the top two logits are closer, another order of summation may choose another label

Logits = npt.NDArray[np.float32]


def compare(ours: Logits, theirs: Logits) -> tuple[int, int, float]:
    """Return decided images, those among them with another label, and the greatest difference of a logit."""
    top = np.sort(ours, axis=1)
    decided = top[:, -1] - top[:, -2] > MARGIN
    other = reference.labels(ours) != np.argmax(theirs, axis=1)
    return int(decided.sum()), int((decided & other).sum()), float(np.abs(ours - theirs).max())


def prove(networks: Sequence[str] = ("mlp", "mlp8k", "cnn")) -> Section:
    """Run all 10,000 test images of MNIST through three implementations."""
    images = vault.Vault(dataset.load("mnist")).open("verify labels")
    pixels = images.pixels.astype(np.float32) / np.float32(255)
    rows, holds = [], True
    for name in networks:
        network = load_network(name)
        ours = reference.simulate(quantize(network, parse_recipe("fp32", None, ())), images.pixels)
        others = {
            "Keras": np.asarray(export.to_keras(network, softmax=False).predict(pixels, batch_size=500, verbose=0)),
            "LiteRT": litert.run_tflite(export.to_tflite_bytes(network, softmax=False), images.pixels),
        }
        for oracle, theirs in others.items():
            decided, wrong, distance = compare(ours, theirs)
            holds = holds and wrong == 0 and distance < 1e-2
            rows.append((name, oracle, len(ours), decided, wrong, f"{distance:.2g}"))
    return Section(
        "Float32 simulation against Keras and LiteRT",
        f"Predicted labels agree on every image whose top two logits differ by more than {MARGIN:g}.",
        ("network", "oracle", "images", "decided", "other label", "greatest difference of a logit"),
        cells(rows),
        holds,
    )
