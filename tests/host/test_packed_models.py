"""MODELs that come with the package are what their commands say, and whole."""

from __future__ import annotations

import pytest

from bitloop import api
from bitloop.network.zoo import zoo_architecture
from bitloop.numeric.formats import parse_format
from bitloop.quantize.packed import PACKED_MODELS, PackedModel


@pytest.mark.parametrize("packed", PACKED_MODELS.values(), ids=lambda packed: packed.name)
def test_every_packed_model_is_what_it_says(packed: PackedModel) -> None:
    model = api.load_model(packed.name)
    assert model.architecture == zoo_architecture(packed.network)
    assert model.recipe["weights"] == packed.weights
    assert model.recipe["biases"] == packed.biases
    for name, tensor in model.tensors.items():
        asked = packed.biases if name.endswith(".biases") else packed.weights
        assert tensor.format == parse_format(asked.split(":")[0])


def test_the_five_bit_network_of_2018_in_bytes() -> None:
    # 288 + 18,432 + 73,728 + 1,280,000 + 6,250 weights and 635 biases of 5 bits, each tensor in whole bytes; 7 scales.
    weights = sum(-(-5 * count // 8) for count in (288, 18_432, 73_728, 1_280_000, 6_250))
    sizes = api.load_model("bitopt2018-e3m1").sizes
    assert (sizes.weights, sizes.biases, sizes.scales) == (weights, 391 + 7, 28)
