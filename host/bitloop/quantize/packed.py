"""MODELs that come with bitloop, quantized.

The binary32 parameters of their networks are too large to be carried along, or were trained for these very formats.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.network.settings import RecipeTexts
from bitloop.network.zoo import CNN2K_RECIPE, CNN6K_RECIPE, zoo_entry


@dataclass(frozen=True)
class PackedModel:
    """A MODEL of the package.

    Attributes:
        name: What it is called on the command line; its file's name without the suffix.
        network: Architecture of the zoo; its own settings trained the parameters.
        recipe: Formats of its weights and biases.
        summary: One line for a table.
    """

    name: str
    network: str
    recipe: RecipeTexts
    summary: str

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(__file__).parent / "packed_models" / f"{self.name}.blm"

    @property
    def commands(self) -> tuple[str, str]:
        """The commands that make it again: training, then quantization."""
        return (
            zoo_entry(self.network).train_command,
            f"bitloop quantize {self.network}.npz {self.recipe.quantize_arguments()} --out {self.name}.blm",
        )


PACKED_MODELS: dict[str, PackedModel] = {
    model.name: model
    for model in (
        PackedModel(
            "bitopt2018-e3m1",
            "bitopt2018",
            RecipeTexts("e3m1:pow2", "e3m1:pow2"),
            "the 2018 study's network in 5 bits",
        ),
        PackedModel("cnn2k", "cnn2k", CNN2K_RECIPE, "99 % of MNIST in 1,993 bytes, nearly all of it ternary"),
        PackedModel("cnn6k", "cnn6k", CNN6K_RECIPE, "99 % of MNIST in 5,281 bytes, nearly all of it ternary"),
    )
}
