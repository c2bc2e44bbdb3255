"""MODELs that come with bitloop, quantized: of networks whose binary32 parameters are too large to be carried along."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.network.zoo import zoo_entry


@dataclass(frozen=True)
class PackedModel:
    """A MODEL of the package.

    Attributes:
        name: What it is called on the command line; its file's name without the suffix.
        network: Architecture of the zoo; its own settings trained the parameters.
        weights: Format of the weights.
        biases: Format of the biases.
        summary: One line for a table.
    """

    name: str
    network: str
    weights: str
    biases: str
    summary: str

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return Path(__file__).parent / "packed_models" / f"{self.name}.blm"

    @property
    def commands(self) -> tuple[str, str]:
        """The commands that make it again: training, then quantization."""
        formats = f"--weights {self.weights} --biases {self.biases}"
        return (
            zoo_entry(self.network).train_command,
            f"bitloop quantize {self.network}.npz {formats} --out {self.name}.blm",
        )


PACKED_MODELS: dict[str, PackedModel] = {
    model.name: model
    for model in (
        PackedModel("bitopt2018-e3m1", "bitopt2018", "e3m1:pow2", "e3m1:pow2", "the 2018 study's network in 5 bits"),
    )
}
