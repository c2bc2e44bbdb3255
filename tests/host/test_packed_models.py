"""MODELs that come with the package are what their commands say, and whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bitloop import api
from bitloop.cli import sources
from bitloop.cli.app import app
from bitloop.errors import UsageError
from bitloop.network.zoo import ZOO, zoo_architecture
from bitloop.quantize import blm
from bitloop.quantize.apply import quantize
from bitloop.quantize.packed import PACKED_MODELS, PackedModel
from bitloop.quantize.recipe import Recipe, parse_recipe


def recipe_of(packed: PackedModel) -> Recipe:
    texts = packed.recipe
    return parse_recipe(texts.weights, texts.biases, texts.overrides)


@pytest.mark.parametrize("packed", PACKED_MODELS.values(), ids=lambda packed: packed.name)
def test_every_packed_model_is_what_it_says(packed: PackedModel) -> None:
    model, recipe = api.load_model(packed.name), recipe_of(packed)
    assert model.architecture == zoo_architecture(packed.network)
    assert model.recipe == recipe.to_dict()
    for name, tensor in model.tensors.items():
        assert tensor.format == recipe.spec_for(name).format


@pytest.mark.parametrize("packed", PACKED_MODELS.values(), ids=lambda packed: packed.name)
def test_a_packed_model_is_that_of_the_committed_parameters(packed: PackedModel) -> None:
    if not ZOO[packed.network].committed:
        pytest.skip(f"the parameters of {packed.network} are not committed")
    model, made = api.load_model(packed.name), quantize(api.load(packed.network), recipe_of(packed))
    assert blm.to_bytes(made) == packed.path.read_bytes()
    assert model.sha256 == made.sha256


def test_the_five_bit_network_of_2018_in_bytes() -> None:
    # 288 + 18,432 + 73,728 + 1,280,000 + 6,250 weights and 635 biases of 5 bits, each tensor in whole bytes; 7 scales.
    weights = sum(-(-5 * count // 8) for count in (288, 18_432, 73_728, 1_280_000, 6_250))
    sizes = api.load_model("bitopt2018-e3m1").sizes
    assert (sizes.weights, sizes.biases, sizes.scales) == (weights, 391 + 7, 28)


def test_the_ternary_networks_in_bytes() -> None:
    # conv1: 72 weights of 4 bits; then 1,296, 5,184 and 2,880 trits, five a byte. 68 outputs: a bias of a byte each.
    # A binary32 scale for each of the four weight tensors; e4m3 takes none.
    sizes = api.load_model("cnn2k").sizes
    assert (sizes.weights, sizes.biases, sizes.scales) == (36 + 260 + 1037 + 576, 68, 4 * 4)
    assert sizes.weights + sizes.biases + sizes.scales == 1993
    # conv1: 400 weights of 4 bits; then 4,608, 13,824 and 4,320 trits, five a byte. 106 outputs: a bias of a byte and
    # a binary32 scale each.
    sizes = api.load_model("cnn6k").sizes
    assert (sizes.weights, sizes.biases, sizes.scales) == (200 + 922 + 2765 + 864, 106, 4 * 106)
    assert sizes.weights + sizes.biases + sizes.scales == 5281


def test_a_name_that_is_a_network_too(tmp_path: Path) -> None:
    """Without formats it is the MODEL, with formats the network in them; to quantize it alone makes the MODEL."""
    packed = sources.load_model("cnn6k", weights=None, biases=None, overrides=())
    assert packed.sha256 == api.load_model("cnn6k").sha256
    other = sources.load_model("cnn6k", weights="int8:channel", biases=None, overrides=())
    assert other.recipe == parse_recipe("int8:channel").to_dict()
    with pytest.raises(UsageError, match="bitopt2018-e3m1 is quantized already"):
        sources.load_model("bitopt2018-e3m1", weights="int8", biases=None, overrides=())
    out = tmp_path / "a.blm"
    result = CliRunner().invoke(app, ["quantize", "cnn6k", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert out.read_bytes() == PACKED_MODELS["cnn6k"].path.read_bytes()
    result = CliRunner().invoke(app, ["quantize", "cnn6k", "--biases", "fp16", "--out", str(out), "--force"])
    assert result.exit_code == 0, result.stderr
    assert api.load_model(out).recipe == parse_recipe("fp32", "fp16").to_dict()
    result = CliRunner().invoke(app, ["quantize", "bitopt2018-e3m1", "--out", str(tmp_path / "b.blm")])
    assert result.exit_code == 2
    assert "is quantized already" in result.stderr
