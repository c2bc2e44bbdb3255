"""What came of a search, as JSON and as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from bitloop.bench.metrics import Proportion, wilson
from bitloop.study.device import DeviceCell
from bitloop.study.search.confirm import Candidate
from bitloop.study.search.evaluations import Evaluation
from bitloop.study.statistics import Comparison

__all__ = ["candidate_document", "candidates_csv", "evaluation_document"]


def candidate_document(candidate: Candidate, tensors: Sequence[str]) -> dict[str, object]:
    """Return a candidate as JSON takes it."""
    evaluation = candidate.evaluation
    return {
        "key": evaluation.key,
        "formats": dict(zip(tensors, evaluation.specs, strict=True)),
        "bytes": _bytes(evaluation),
        "search": {
            "accuracy": asdict(candidate.search_accuracy),
            "cross_entropy": evaluation.cross_entropy,
            "against_fp32": _against(candidate.search),
        },
        "confirm": {
            "accuracy": asdict(candidate.confirm_accuracy),
            "cross_entropy": candidate.confirm_cross_entropy,
            "against_fp32": _against(candidate.confirm),
            "p": candidate.p,
            "p_holm": candidate.p_holm,
            "confirmed": candidate.is_confirmed,
        },
        "model_sha256": candidate.model_sha256,
    }


def evaluation_document(evaluation: Evaluation, tensors: Sequence[str], images: int) -> dict[str, object]:
    """Return an evaluation as JSON takes it."""
    return {
        "key": evaluation.key,
        "formats": dict(zip(tensors, evaluation.specs, strict=True)),
        "bytes": _bytes(evaluation),
        "accuracy": asdict(wilson(evaluation.correct, images)),
        "cross_entropy": evaluation.cross_entropy,
    }


def candidates_csv(candidates: Sequence[Candidate], tensors: Sequence[str], device: Mapping[str, DeviceCell]) -> str:
    """Return one line a candidate (RFC 4180), best first; shares, not percent."""
    splits = ("search", "confirm")
    columns = [
        *tensors,
        *("weights_bytes", "biases_bytes", "scales_bytes", "total_bytes"),
        *(
            f"{split}_{name}"
            for split in splits
            for name in ("images", "correct", "accuracy", "accuracy_low", "accuracy_high", "cross_entropy")
        ),
        *(f"{split}_{name}" for split in splits for name in ("only_fp32", "only_this", "loss", "loss_bound")),
        *("p", "p_holm", "confirmed", "model_sha256"),
        *("device_latency_median", "device_latency_unit", "device_ram", "device_refused"),
    ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    for candidate in candidates:
        found = candidate.evaluation
        cell = device.get(found.key)
        writer.writerow(
            [
                *found.specs,
                *(found.weights_bytes, found.biases_bytes, found.scales_bytes, found.total_bytes),
                *_share(candidate.search_accuracy, found.cross_entropy),
                *_share(candidate.confirm_accuracy, candidate.confirm_cross_entropy),
                *_against(candidate.search).values(),
                *_against(candidate.confirm).values(),
                *(candidate.p, candidate.p_holm, candidate.is_confirmed, candidate.model_sha256),
                *_device_columns(cell),
            ]
        )
    return text.getvalue()


def _bytes(evaluation: Evaluation) -> dict[str, int]:
    return {
        "weights": evaluation.weights_bytes,
        "biases": evaluation.biases_bytes,
        "scales": evaluation.scales_bytes,
        "total": evaluation.total_bytes,
    }


def _against(comparison: Comparison) -> dict[str, object]:
    return {
        "only_fp32": comparison.only_reference,
        "only_this": comparison.only_candidate,
        "loss": comparison.loss,
        "loss_bound": comparison.bound,
    }


def _share(accuracy: Proportion, entropy: float | None) -> list[object]:
    shares = (accuracy.value, accuracy.low, accuracy.high)
    return [accuracy.total, accuracy.correct, *shares, "" if entropy is None else entropy]


def _device_columns(cell: DeviceCell | None) -> list[object]:
    values = [None] * 4 if cell is None else [cell.latency_median, cell.latency_unit, cell.ram_bytes, cell.refused]
    return ["" if value is None else value for value in values]
