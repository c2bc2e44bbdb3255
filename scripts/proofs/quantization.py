"""What each step of post-training quantization is worth on MNIST: writes tables into docs/quantization.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from bitloop.bench.metrics import wilson
from bitloop.data import dataset
from bitloop.data.dataset import Images
from bitloop.data.splits import Split
from bitloop.network import Network, load_network
from bitloop.quantize import ptq
from bitloop.quantize.apply import quantize
from bitloop.quantize.entropy import model_entropy
from bitloop.quantize.model import Model
from bitloop.quantize.options import PtqOptions
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.spec import RoundingSearch, ScaleRule
from bitloop.simulate import reference
from proofs import page
from proofs.page import Section, cells

NETWORKS = ("mlp", "mlp8k", "cnn")
FORMATS = ("int4", "int3", "e3m0:fp32", "e2m1:fp32", "int2", "ternary")
CALIBRATION = 1000
BIASES = "fp32"

MSE, OUTPUT, LOSS = ScaleRule.MSE, ScaleRule.OUTPUT, ScaleRule.LOSS
ADAROUND, QUANTEASE = RoundingSearch.ADAROUND, RoundingSearch.QUANTEASE
STEPS = {
    "default": PtqOptions(),
    "mse": PtqOptions(MSE),
    "mse, bias": PtqOptions(MSE, bias_correction=True),
    "mse, bias, adaround": PtqOptions(MSE, bias_correction=True, rounding=ADAROUND),
    "mse, bias, quantease": PtqOptions(MSE, bias_correction=True, rounding=QUANTEASE),
    "output": PtqOptions(OUTPUT),
    "output, bias, adaround": PtqOptions(OUTPUT, bias_correction=True, rounding=ADAROUND),
    "output, bias, quantease": PtqOptions(OUTPUT, bias_correction=True, rounding=QUANTEASE),
}
SCALES = {
    "default": PtqOptions(),
    "mse": PtqOptions(MSE),
    "output": PtqOptions(OUTPUT),
    "loss": PtqOptions(LOSS),
    "loss, bias": PtqOptions(LOSS, bias_correction=True),
    "loss, bias, adaround": PtqOptions(LOSS, bias_correction=True, rounding=ADAROUND),
}
_INTERVAL = "At n = 5,000 half a 95 % Wilson interval is 0.3 points at 99 %, 0.5 at 97 %, 0.8 at 90 %, 1.4 at 50 %."


def accuracy(model: Model, images: Images) -> float:
    """Return the accuracy in the exact host simulation, in percent."""
    found = reference.labels(reference.simulate(model, images.pixels))
    return 100 * wilson(int((found == images.labels).sum()), len(images)).value


def splits(count: int = CALIBRATION) -> tuple[Images, Images]:
    """Return calibration images of the train split, and the search split."""
    data = dataset.load("mnist")
    return data.split(Split.TRAIN).first(count), data.split(Split.SEARCH)


def quantized(network: Network, weights: str, options: PtqOptions, images: Images) -> Model:
    """Return a MODEL; biases stay in binary32, so that what is seen is the weights' doing."""
    return ptq.quantize(network, parse_recipe(weights, BIASES), calibration=images.pixels, options=options).model


def prove_steps(
    networks: Sequence[str] = NETWORKS,
    formats: Sequence[str] = FORMATS,
    suffix: str = "",
    *,
    steps: Mapping[str, PtqOptions] = STEPS,
    title: str = "Each step",
) -> Section:
    """Measure each step for each network and format."""
    calibration, search = splits()
    rows = []
    for name in networks:
        network = load_network(name)
        fp32 = accuracy(quantize(network, parse_recipe("fp32")), search)
        for text in formats:
            weights = text.replace(":fp32", "") + suffix if suffix else text
            figures = [
                accuracy(quantized(network, weights, options, calibration), search) for options in steps.values()
            ]
            row = (name, f"`{weights}`", f"{fp32:.2f}", *(f"{figure:.2f}" for figure in figures))
            print(*row, file=sys.stderr, flush=True)
            rows.append(row)
    scale = "channel" if suffix else "tensor"
    return Section(
        f"{title}, one scale a {scale}",
        f"Accuracy in percent on MNIST's search split ({len(search):,} images), biases in fp32, {len(calibration):,} "
        f"calibration images of the train split. {_INTERVAL} The networks are those of the zoo, one seed each.",
        ("network", "weights", "fp32", *steps),
        tuple(rows),
        True,
    )


def prove_channels(networks: Sequence[str] = NETWORKS, formats: Sequence[str] = FORMATS) -> Section:
    """Measure the same with one scale a channel."""
    return prove_steps(networks, formats, ":channel")


def prove_scales(networks: Sequence[str] = NETWORKS, formats: Sequence[str] = FORMATS) -> Section:
    """Measure each rule of scales."""
    return prove_steps(networks, formats, steps=SCALES, title="Each rule of scales")


def prove_images(network: str = "mlp", formats: Sequence[str] = ("int4", "int2"), search_limit: int = 5000) -> Section:
    """Measure how many calibration images it takes."""
    loaded = load_network(network)
    rows = []
    for count in (30, 100, 300, 1000, 3000, 10000):
        calibration, search = splits(count)
        search = search.first(search_limit)
        steps = ("mse, bias", "mse, bias, adaround", "mse, bias, quantease")
        figures = [
            accuracy(quantized(loaded, text, STEPS[step], calibration), search) for text in formats for step in steps
        ]
        rows.append((f"{count:,}", *(f"{figure:.2f}" for figure in figures)))
        print(*rows[-1], file=sys.stderr, flush=True)
    return Section(
        "How many calibration images",
        f"`{network}`, accuracy in percent on MNIST's search split, biases in fp32. {_INTERVAL}",
        ("images", *(f"`{text}` {step}" for text in formats for step in steps)),
        tuple(rows),
        True,
    )


def prove_pruning(network: str = "mlp", weights: str = "int4") -> Section:
    """Measure what pruning by threshold does to accuracy and to the bytes after entropy coding."""
    calibration, search = splits()
    loaded = load_network(network)
    rows: list[tuple[object, ...]] = []
    for threshold in (0.0, 0.02, 0.05, 0.1, 0.15, 0.2):
        for step in ("default", "mse, bias", "mse, bias, adaround"):
            options = STEPS[step]
            options = PtqOptions(options.scales, options.bias_correction, options.rounding, threshold)
            model = quantized(loaded, weights, options, calibration)
            found = model_entropy(model)
            elements = sum(t.elements for t in found.tensors)
            zeros = sum(t.zeros for t in found.tensors) / elements
            bits = sum(t.elements * t.bits for t in found.tensors if t.name.endswith(".weights"))
            bits /= sum(t.elements for t in found.tensors if t.name.endswith(".weights"))
            figures = (f"{100 * zeros:.1f} %", f"{accuracy(model, search):.2f}", f"{bits:.2f}")
            rows.append((f"{threshold:g}", step, *figures, found.packed_bytes, found.coded_bytes))
            print(*rows[-1], file=sys.stderr, flush=True)
    return Section(
        "Pruning and entropy",
        f"`{network}` with weights `{weights}`, biases in fp32, accuracy in percent on MNIST's search split. "
        f"{_INTERVAL} Entropy is that of the weights' codes, in bits a weight; bytes are weights, biases and scales, "
        "packed and after Huffman coding.",
        ("threshold", "steps", "zeros", "accuracy", "entropy", "packed", "coded"),
        cells(rows),
        True,
    )


PROOFS = {
    "steps": prove_steps,
    "scales": prove_scales,
    "channels": prove_channels,
    "images": prove_images,
    "pruning": prove_pruning,
}

if __name__ == "__main__":
    sys.exit(
        page.main(PROOFS, sys.argv[1:], path=page.ROOT / "docs/quantization.md", command="scripts/bench-quantization")
    )
