"""The neutral graph of a network, its parameters, the zoo, and the import of Keras and LiteRT files."""

from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.network.network import Network, load_network
from bitloop.network.zoo import ZOO, zoo_architecture, zoo_entry, zoo_names

__all__ = [
    "ZOO",
    "Architecture",
    "AveragePool2D",
    "Conv2D",
    "Dense",
    "Flatten",
    "Layer",
    "MaxPool2D",
    "Network",
    "ReLU",
    "Softmax",
    "load_network",
    "zoo_architecture",
    "zoo_entry",
    "zoo_names",
]
