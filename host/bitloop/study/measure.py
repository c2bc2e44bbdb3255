"""One MODEL, measured: which images it labels right, what its logits are worth, and that they are exact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.quantize.model import Model
from bitloop.study.evaluate import Evaluator
from bitloop.study.results import Measured, pack_right

__all__ = ["measure_model"]


def measure_model(evaluator: Evaluator, model: Model, labels: npt.NDArray[np.uint8], checked: int) -> Measured:
    """Return what a MODEL is worth on the evaluator's images.

    Args:
        evaluator: of the images, and of the MODEL's architecture.
        model: what is measured.
        labels: uint8 ``[N]``, of the same images.
        checked: images that are computed again in full, by core and reference.

    Raises:
        DisagreementError: core and reference differ.
        BitloopError: whatever else keeps the MODEL from being evaluated.
    """
    worth = evaluator.score(model, labels)
    sizes = model.sizes
    return Measured(
        model_sha256=model.sha256,
        correct=worth.correct,
        cross_entropy=worth.cross_entropy,
        weights_bytes=sizes.weights,
        biases_bytes=sizes.biases,
        scales_bytes=sizes.scales,
        checked=evaluator.check(model, worth, checked),
        right=pack_right(worth.right),
    )
