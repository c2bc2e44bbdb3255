"""What the measurements of the line share: models, images, sessions, and the line's rate in bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bitloop.data import dataset
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.link.session import Session
from bitloop.network.architecture import Architecture, Dense, Flatten, ReLU
from bitloop.network.network import Network, load_network
from bitloop.plan.planner import Plan, plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe

BITS_A_BYTE = 10
"""8N1: a start bit, eight of data, a stop bit."""

FAST_BAUD = 921_600
SLOW_BAUD = 115_200


def line_seconds(payload_bytes: int, baud: int) -> float:
    """Return how long a line takes for so many bytes, one behind another."""
    return payload_bytes * BITS_A_BYTE / baud


def share(payload_bytes: int, seconds: float, baud: int) -> float:
    """Return the part of the line's rate that was payload."""
    return line_seconds(payload_bytes, baud) / seconds


def large_model(seed: int = 4) -> Model:
    """Return a model of 400 KB in binary32: random weights, which nothing can compress by much."""
    layers = (Flatten(name="flatten"), Dense(name="hidden", units=126), ReLU(name="relu"), Dense(name="out", units=10))
    architecture = Architecture(name="line400k", input_shape=(28, 28, 1), layers=layers)
    random = np.random.default_rng(seed)
    parameters = {
        name: random.standard_normal(shape).astype(np.float32) / np.float32(28)
        for name, shape in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, parameters), parse_recipe("fp32"))


def zoo_model(name: str, weights: str) -> Model:
    """Return a network of the zoo, quantized."""
    return quantize(load_network(name), parse_recipe(weights))


def mnist(count: int) -> Images:
    """Return images of MNIST's training split: nothing is measured here that could be tuned to them."""
    return dataset.load("mnist").split(Split.TRAIN).first(count)


@dataclass(frozen=True)
class Loaded:
    """A connected device, and the model as it was planned for it."""

    session: Session
    plan: Plan


@contextlib.contextmanager
def connected(url: str, model: Model) -> Iterator[Loaded]:
    """Connect to a device and plan the model for it; nothing is sent of it yet."""
    with Session(url) as session:
        yield Loaded(session, plan(model, session.connect()))
