"""Which tensor gets which spec (docs/formats.md, "Recipes")."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from bitloop.errors import FormatError
from bitloop.numeric.formats import close_matches
from bitloop.quantize.spec import RoundingSearch, TensorSpec, parse_tensor_spec
from bitloop.spec import Granularity

BIASES_SUFFIX = ".biases"
_UNQUANTIZED = "fp32"


@dataclass(frozen=True)
class Recipe:
    """Specs for weights and for biases, and the tensors that differ.

    Attributes:
        weights: for every ``<layer>.weights``.
        biases: for every ``<layer>.biases``; one scale a tensor.
        overrides: by the tensor's name.

    Raises:
        FormatError: biases were asked for with one scale a channel, or with what only weights have, or the reverse.
    """

    weights: TensorSpec
    biases: TensorSpec
    overrides: Mapping[str, TensorSpec] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_biases("biases", self.biases)
        _check_weights("weights", self.weights)
        for name, spec in self.overrides.items():
            (_check_biases if name.endswith(BIASES_SUFFIX) else _check_weights)(name, spec)
        object.__setattr__(self, "overrides", MappingProxyType(dict(self.overrides)))

    def spec_for(self, tensor: str) -> TensorSpec:
        """Return the spec of a tensor named ``<layer>.weights`` or ``<layer>.biases``."""
        override = self.overrides.get(tensor)
        if override is not None:
            return override
        return self.biases if tensor.endswith(BIASES_SUFFIX) else self.weights

    def check_names(self, tensors: Iterable[str]) -> None:
        """Check that every override names one of a network's tensors.

        Raises:
            FormatError: one does not; the message lists the tensors there are.
        """
        names = tuple(tensors)
        for name in self.overrides:
            if name not in names:
                raise FormatError(
                    f"the network has no tensor {name!r} to override{close_matches(name, names)} "
                    f"(it has {', '.join(names) or 'none'})"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as a MODEL's header has it: canonical texts."""
        return {
            "weights": str(self.weights),
            "biases": str(self.biases),
            "overrides": {name: str(spec) for name, spec in sorted(self.overrides.items())},
        }


def parse_recipe(weights: str, biases: str | None = None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe that a command line asks for.

    Args:
        weights: a tensor spec.
        biases: a tensor spec. Where None, biases get what the weights get if that is a signed float (with one scale a
            tensor), and fp32 otherwise.
        overrides: texts such as ``dense1.weights=int4:channel``.

    Raises:
        FormatError: a text cannot be read, a tensor is overridden twice, or biases were given a scale a channel.
    """
    weight_spec = parse_tensor_spec(weights)
    if biases is not None:
        bias_spec = parse_tensor_spec(biases)
    elif weight_spec.format.is_float and weight_spec.format.signed:
        bias_spec = weight_spec.for_biases()
    else:
        bias_spec = parse_tensor_spec(_UNQUANTIZED)
    specs: dict[str, TensorSpec] = {}
    for text in overrides:
        name, equals, spec = (part.strip() for part in text.partition("="))
        if not (name and equals and spec):
            raise FormatError(f"cannot read the override {text!r}; expected TENSOR=SPEC as in dense1.weights=int4")
        if name in specs:
            raise FormatError(f"tensor {name!r} is overridden twice; leave one out")
        specs[name] = parse_tensor_spec(spec)
    return Recipe(weight_spec, bias_spec, specs)


def _check_biases(what: str, spec: TensorSpec) -> None:
    _refuse_channels(what, spec)
    if spec.rule.takes_images or spec.search is not RoundingSearch.NONE:
        token = spec.rule.value if spec.rule.takes_images else spec.search.value
        raise FormatError(
            f"{what} cannot have {token!r} ({spec}): a bias is added to the output as it is, so its own error is the "
            "output's; take 'mse', or leave it out"
        )


def _check_weights(what: str, spec: TensorSpec) -> None:
    if spec.corrected:
        raise FormatError(f"{what} cannot be 'corrected' ({spec}): the mean shift of an output is taken off its biases")


def _refuse_channels(what: str, spec: TensorSpec) -> None:
    if spec.granularity is Granularity.CHANNEL:
        raise FormatError(
            f"{what} cannot have a scale per channel ({spec}): biases have one value a channel, so each scale would "
            "stand for one value; leave out 'channel'"
        )
