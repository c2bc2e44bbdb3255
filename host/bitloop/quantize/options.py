"""Steps of post-training quantization, each of which can be switched on alone, and what they make of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from bitloop.numeric.formats import parse_format
from bitloop.quantize.recipe import BIASES_SUFFIX, Recipe
from bitloop.quantize.spec import RoundingSearch, ScaleRule, TensorSpec
from bitloop.spec import ScaleKind

_UNQUANTIZED = parse_format("fp32")


@dataclass(frozen=True)
class PtqOptions:
    """What is added to every spec of a recipe; fp32 without a scale stays as it is but for pruning and correction.

    Attributes:
        scales: rule of the scales. Weights without a scale get one of binary32; biases follow (``output`` as ``mse``)
            where they have a scale.
        bias_correction: whether biases make good for the mean shift of their layer's output.
        rounding: search for the rounding of the weights.
        prune: threshold for weights; 0 prunes none.
        prune_biases: threshold for biases.
    """

    scales: ScaleRule = ScaleRule.COVER
    bias_correction: bool = False
    rounding: RoundingSearch = RoundingSearch.NONE
    prune: float = 0.0
    prune_biases: float = 0.0

    def stages(self) -> tuple[tuple[str, PtqOptions], ...]:
        """Return the steps by name, one after the other, each with all before it; "default", with none, comes first."""
        found = [("default", PtqOptions())]
        steps: dict[str, dict[str, Any]] = {
            "prune": {"prune": self.prune, "prune_biases": self.prune_biases},
            self.scales.value: {"scales": self.scales},
            "bias correction": {"bias_correction": self.bias_correction},
            self.rounding.value: {"rounding": self.rounding},
        }
        for name, fields in steps.items():
            following = replace(found[-1][1], **fields)
            if following != found[-1][1]:
                found.append((name, following))
        return tuple(found)

    def applied_to(self, recipe: Recipe) -> Recipe:
        """Return a recipe with these steps.

        Raises:
            FormatError: a step does not go with a spec.
        """
        overrides = {
            name: self._biases(spec) if name.endswith(BIASES_SUFFIX) else self._weights(spec)
            for name, spec in recipe.overrides.items()
        }
        return Recipe(self._weights(recipe.weights), self._biases(recipe.biases), overrides)

    def _weights(self, spec: TensorSpec) -> TensorSpec:
        if self.prune:
            spec = replace(spec, prune=self.prune)
        if spec.format == _UNQUANTIZED and spec.scale is ScaleKind.NONE:
            return spec
        if self.scales is not ScaleRule.COVER:
            scale = ScaleKind.FP32 if spec.scale is ScaleKind.NONE else spec.scale
            spec = replace(spec, rule=self.scales, scale=scale)
        return spec if self.rounding is RoundingSearch.NONE else replace(spec, search=self.rounding)

    def _biases(self, spec: TensorSpec) -> TensorSpec:
        if self.scales is not ScaleRule.COVER and spec.scale is not ScaleKind.NONE:
            spec = replace(spec, rule=ScaleRule.MSE)
        if self.prune_biases:
            spec = replace(spec, prune=self.prune_biases)
        return replace(spec, corrected=True) if self.bias_correction else spec
