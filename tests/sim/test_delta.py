"""Delta uploads to the real core: what a changed model costs on the line, and that it runs exactly thereafter."""

from __future__ import annotations

import numpy as np
import pytest

from bitloop.errors import ToolchainError
from bitloop.link.session import Session
from bitloop.link.upload import UploadReport
from bitloop.native.build import simulator_binary
from bitloop.network.network import load_network
from bitloop.plan.planner import plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import simulate
from bitloop.spec import RunMode, RunOutput

OVERHEAD_BYTES = 900
"""Besides what changed: header, records of layers and tensors, the copies' requests, hashes, frames."""
LOSSY = "?drop=5e-4&flip=5e-5&frame_swap=0.03&frame_dup=0.03"
NARROWER = {
    "conv1.weights": "e3m1:pow2",
    "conv2.weights": "int4:channel",
    "dense1.weights": "e2m1:pow2",
    "dense1.biases": "fp16",
}


@pytest.fixture(scope="module", autouse=True)
def _compiler() -> None:
    try:
        simulator_binary()
    except ToolchainError as error:
        pytest.skip(str(error))


def cnn(*overrides: str) -> Model:
    """The zoo's cnn in e4m3, some of its tensors in other formats."""
    return quantize(load_network("cnn"), parse_recipe("e4m3:pow2", biases="fp32", overrides=overrides))


def upload(session: Session, model: Model, pixels: np.ndarray) -> UploadReport:
    """Upload a model, uncoded, and see that it is the one that runs."""
    planned = plan(model, session.connect())
    report = session.upload(planned.image, planned.memory.total_bytes, coded=False)
    assert report.device_sha256 == planned.sha256
    results = list(session.run(pixels, RunMode.TIMING, RunOutput.LOGITS))
    logits = np.stack([result.logits for result in results])
    assert logits.tobytes() == simulate(model, pixels).tobytes()
    return report


@pytest.fixture
def pixels() -> np.ndarray:
    rng = np.random.default_rng(12)
    return np.where(rng.random((3, 28, 28, 1)) < 0.7, 0, rng.integers(0, 256, (3, 28, 28, 1))).astype(np.uint8)


@pytest.mark.parametrize(("tensor", "spec"), NARROWER.items())
def test_one_tensor_in_another_format_is_all_that_travels(tensor: str, spec: str, pixels: np.ndarray) -> None:
    first, second = cnn(), cnn(f"{tensor}={spec}")
    changed = second.tensors[tensor].codes_bytes + second.tensors[tensor].scales_bytes
    with Session("sim://native") as session:
        whole = upload(session, first, pixels)
        delta = upload(session, second, pixels)
        back = upload(session, first, pixels)
    assert whole.copied_bytes == 0
    assert whole.line_bytes > first.sizes.total
    assert delta.line_bytes <= changed + OVERHEAD_BYTES
    assert delta.copied_bytes >= second.sizes.total - changed
    wider = first.tensors[tensor].codes_bytes + first.tensors[tensor].scales_bytes
    assert back.line_bytes <= wider + OVERHEAD_BYTES


@pytest.mark.parametrize("seed", range(6))
def test_on_a_bad_line_every_step_is_exact(seed: int, pixels: np.ndarray) -> None:
    rng = np.random.default_rng(seed)
    with Session(f"sim://native{LOSSY}&seed={seed}") as session:
        upload(session, cnn(), pixels)
        for _ in range(4):
            chosen = [f"{name}={spec}" for name, spec in NARROWER.items() if rng.random() < 0.5]
            upload(session, cnn(*chosen), pixels)
        assert session.counters.retransmissions > 0


def test_a_device_that_cannot_gets_all_of_it(pixels: np.ndarray) -> None:
    with Session("sim://native?delta=off") as session:
        upload(session, cnn(), pixels)
        report = upload(session, cnn("conv1.weights=e3m1:pow2"), pixels)
    assert report.copied_bytes == 0
    assert report.sent_bytes == report.image_bytes
