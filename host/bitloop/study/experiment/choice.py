"""What a section of a study chose: the formats of a network, by a margin or as declared."""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.quantize.model import Model
from bitloop.quantize.recipe import Recipe
from bitloop.study.experiment.networks import Instance

__all__ = ["Choice"]


@dataclass(frozen=True, eq=False)
class Choice:
    """A network with formats that is measured further: on the test set, and on devices.

    Attributes:
        section: of the study that chose it.
        margin: in points, by which it was chosen; None of what was declared.
        instance: the network.
        recipe: its formats.
        words: the formats, for people.
        model: the network quantized so.
    """

    section: str
    margin: float | None
    instance: Instance
    recipe: Recipe
    words: str
    model: Model

    @property
    def key(self) -> str:
        """A text that no other choice of the study has, and that a folder may bear."""
        margin = "" if self.margin is None else f"-{self.margin:g}"
        return f"{self.section}{margin}-{self.instance.label}-{self.model.sha256[:8]}"
