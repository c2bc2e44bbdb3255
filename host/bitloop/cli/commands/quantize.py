"""``bitloop quantize``: a network to a MODEL."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitloop.cli import console, options, sources
from bitloop.cli.entropy import entropy_document, print_entropy
from bitloop.cli.tables import model_document, print_model
from bitloop.errors import UsageError
from bitloop.report import words

if TYPE_CHECKING:
    from bitloop.bench.metrics import Proportion
    from bitloop.data.dataset import Dataset, Images
    from bitloop.network.network import Network
    from bitloop.quantize.model import Model
    from bitloop.quantize.options import PtqOptions
    from bitloop.quantize.ptq import Gain, Progress, Quantized
    from bitloop.quantize.recipe import Recipe

_BLOCK = 500  # images


@console.handled
def quantize(
    network: Annotated[str, typer.Argument(metavar="NETWORK", help="Zoo name, or a .npz, .keras or .tflite file.")],
    *,
    weights: options.Weights = None,
    biases: options.Biases = None,
    overrides: options.Overrides = None,
    scales: Annotated[
        str,
        typer.Option(
            help="Rule of the scales: cover (clips nothing), mse (least squared error of the tensor), output (of the "
            "layer's output on calibration images)."
        ),
    ] = "cover",
    bias_correction: Annotated[
        bool, typer.Option("--bias-correction", help="Biases make good for the mean shift of their layer's output.")
    ] = False,
    rounding_search: Annotated[
        str,
        typer.Option(
            help="How weights are rounded together for the least error of the layer's output: none, adaround (element "
            "below or above), quantease (any element)."
        ),
    ] = "none",
    prune: Annotated[
        float, typer.Option(min=0.0, metavar="THRESHOLD", help="Set weights of a smaller magnitude to zero first.")
    ] = 0.0,
    prune_biases: Annotated[float, typer.Option(min=0.0, metavar="THRESHOLD", help="The same for biases.")] = 0.0,
    calibration: Annotated[
        int, typer.Option(min=1, metavar="N", help="Calibration images: the first N of the train split.")
    ] = 1000,
    data: options.Data = None,
    limit: options.Limit = None,
    accuracy: Annotated[
        bool,
        typer.Option("--accuracy/--no-accuracy", help="With any of these steps: measure each on the search split."),
    ] = True,
    pixel_range: Annotated[
        int, typer.Option(help="What white is to a .keras or .tflite file's network: 1, or 255 if it takes bytes.")
    ] = 1,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE.blm", help="Default: NETWORK.blm in this directory.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Quantize the weights and biases of a network, each in a format of its own, and write a MODEL (.blm)."""
    from bitloop.quantize import blm  # noqa: PLC0415 - numpy
    from bitloop.quantize.options import PtqOptions  # noqa: PLC0415 - numpy
    from bitloop.quantize.packed import PACKED_MODELS  # noqa: PLC0415 - numpy
    from bitloop.quantize.spec import RoundingSearch, ScaleRule  # noqa: PLC0415 - numpy

    is_model = network in PACKED_MODELS and not sources.has_network(network)
    if is_model or Path(network).suffix.lower() == sources.MODEL_SUFFIX:
        raise UsageError(f"{network} is quantized already; name the network that it was made from")
    target = out or Path(f"{Path(network).stem}{sources.MODEL_SUFFIX}")
    if target.suffix.lower() != sources.MODEL_SUFFIX:
        raise UsageError(f"{target} does not end with {sources.MODEL_SUFFIX}, as a MODEL's name does")
    if target.exists() and not force:
        raise UsageError(f"{target} is there already; name another file with --out, or say --force to replace it")
    steps = PtqOptions(
        scales=ScaleRule(_choice("--scales", scales, [rule.value for rule in ScaleRule])),
        bias_correction=bias_correction,
        rounding=RoundingSearch(_choice("--rounding-search", rounding_search, [how.value for how in RoundingSearch])),
        prune=prune,
        prune_biases=prune_biases,
    )
    recipe = sources.recipe_for(network, weights, biases, overrides or ())
    loaded = sources.load_network(network, pixel_range=pixel_range)
    work = _Work(loaded, recipe, steps, calibration)
    if work.calibrated or (accuracy and steps != PtqOptions()):
        work.dataset = sources.load_dataset(data, loaded.dataset or "mnist")
    results = work.stages(accuracy=accuracy, limit=limit)
    model = results[-1].quantized.model
    blm.save(model, target)
    tells = steps != PtqOptions() or bool(results[-1].quantized.gains)
    if as_json:
        document = {"path": str(target), **model_document(model), "entropy": entropy_document(model)}
        console.print_json({**document, **work.document(results)} if tells else document)
        return
    print_model(model, f"{target}: {model.name}")
    if tells:
        print_entropy(model)
        work.show(results)


@dataclass(frozen=True)
class _Stage:
    """A step of the quantization, with all before it."""

    name: str
    quantized: Quantized
    accuracy: Proportion | None


class _Work:
    """Quantizes step by step, and measures."""

    def __init__(self, network: Network, recipe: Recipe, steps: PtqOptions, calibration: int) -> None:
        self._network = network
        self._recipe = recipe
        self._steps = steps
        self._count = calibration
        full = steps.applied_to(recipe)
        full.check_names(network.parameters)
        self.calibrated = any(full.spec_for(name).calibrated for name in network.parameters)
        self.dataset: Dataset | None = None
        self._images: Images | None = None

    def stages(self, *, accuracy: bool, limit: int | None) -> list[_Stage]:
        """Quantize: with every step's stage if accuracy is measured, else the last stage alone."""
        from bitloop.data.splits import Split  # noqa: PLC0415 - numpy
        from bitloop.quantize import ptq  # noqa: PLC0415 - numpy

        search = None
        if self.dataset is not None:
            if self.calibrated:
                self._images = self.dataset.split(Split.TRAIN).first(self._count)
            search = self.dataset.split(Split.SEARCH) if accuracy else None
            search = search if search is None or limit is None else search.first(limit)
        stages = self._steps.stages()
        found = []
        with console.progress() as step:
            for name, options_of_stage in stages if search is not None else stages[-1:]:
                quantized = ptq.quantize(
                    self._network,
                    self._recipe,
                    calibration=None if self._images is None else self._images.pixels,
                    options=options_of_stage,
                    progress=_named(step, name),
                )
                found.append(_Stage(name, quantized, None if search is None else _accuracy(quantized.model, search)))
        return found

    def document(self, results: list[_Stage]) -> dict[str, object]:
        """Return what the steps did, for programs."""
        images = self._images
        return {
            "calibration": None
            if images is None
            else {"dataset": images.dataset, "sha256": images.sha256, "split": "train", "images": len(images)},
            "steps": [
                {
                    "step": stage.name,
                    "accuracy": None if stage.accuracy is None else asdict(stage.accuracy),
                    "bytes": stage.quantized.model.sizes.total,
                    "coded_bytes": entropy_document(stage.quantized.model)["coded_bytes"],
                }
                for stage in results
            ],
            "gains": [asdict(gain) for gain in results[-1].quantized.gains],
        }

    def show(self, results: list[_Stage]) -> None:
        """Print what the steps did."""
        gains = results[-1].quantized.gains
        if gains:
            title = "What each step did"
            if self._images is not None:
                title += f", on {len(self._images):,} images of {self._images.dataset} train"
            columns = ("tensor", "step", "of", "before", "after")
            console.print_table(title, columns, [_row(gain) for gain in gains], right=(3, 4))
        if results[-1].accuracy is None:
            return
        rows = [
            (
                "default" if number == 0 else f"+ {stage.name}",
                words.percent(stage.accuracy.value, total=stage.accuracy.total),
                words.interval(stage.accuracy),
                f"{stage.quantized.model.sizes.total:,}",
                f"{entropy_document(stage.quantized.model)['coded_bytes']:,}",
            )
            for number, stage in enumerate(results)
            if stage.accuracy is not None
        ]
        columns = ("", "accuracy", "95 % Wilson interval", "bytes", "coded")
        title = f"Accuracy on the search split, {results[-1].accuracy.total:,} images"
        console.print_table(title, columns, rows, right=(1, 2, 3, 4))


def _named(step: Progress, name: str) -> Progress:
    """Give progress of the layers under the name of the step that they go through."""
    return lambda _, done, total: step(name, done, total)


def _row(gain: Gain) -> tuple[str, ...]:
    return (gain.tensor, gain.step, gain.measure, f"{gain.before:.4g}", f"{gain.after:.4g}")


def _accuracy(model: Model, images: Images) -> Proportion:
    """Measure in the exact host simulation."""
    from bitloop.bench.checks import check_fit  # noqa: PLC0415 - numpy
    from bitloop.bench.metrics import wilson  # noqa: PLC0415 - numpy
    from bitloop.simulate.reference import labels, simulate  # noqa: PLC0415 - numpy

    check_fit(model, images)
    right = 0
    for start in range(0, len(images), _BLOCK):
        block = slice(start, start + _BLOCK)
        right += int((labels(simulate(model, images.pixels[block])) == images.labels[block]).sum())
    return wilson(right, len(images))


def _choice(option: str, text: str, choices: list[str]) -> str:
    if text.lower() not in choices:
        raise UsageError(f"{option} is {text!r}; expected one of {', '.join(choices)}")
    return text.lower()
