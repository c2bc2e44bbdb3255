"""The page of a search as one HTML file without anything from outside."""

from __future__ import annotations

from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.bench.metrics import wilson
from bitloop.report import words
from bitloop.report.environment import page_environment
from bitloop.report.page import Card
from bitloop.report.provenance import provenance_of
from bitloop.report.search_plots import FrontView, bytes_against_accuracy
from bitloop.study.search.search import Search

__all__ = ["render_search", "search_headline", "write_search_page"]


def write_search_page(search: Search) -> Path:
    """Write ``search.html`` into the folder of a search, and return its path.

    Raises:
        UsageError: it cannot be written.
    """
    write_file(search.folder.page, render_search(search).encode())
    return search.folder.page


def search_headline(search: Search) -> str:
    """Return in one sentence what a search found."""
    points = f"{100 * search.begun.asked.margin:g} points"
    if search.winner is not None:
        ratio = search.fp32_bytes / search.winner.total_bytes
        first = search.begun.asked.objectives[0]
        what = {"bytes": "Smallest", "latency": "Fastest", "ram": "Least RAM"}[first]
        return (
            f"{what} within {points} of fp32, confirmed: {words.size(search.winner.total_bytes)} ({ratio:.1f}× smaller)"
        )
    if search.candidates:
        return f"None of the best {len(search.candidates)} is confirmed within {points} of fp32"
    return f"No assignment that was evaluated is within {points} of fp32 with 95 % confidence"


def render_search(search: Search) -> str:
    """Return the page of a search; all text from outside is escaped."""
    asked = search.begun.asked
    good, lossy = search.evaluations[: search.admissible], search.evaluations[search.admissible :]
    view = FrontView(
        good=good,
        lossy=lossy,
        front=search.front,
        winner=None if search.winner is None else search.winner.evaluation,
        images=asked.images,
        reference=search.fp32[0].accuracy.value,
        margin=asked.margin,
    )
    return (
        page_environment()
        .get_template("search.html.j2")
        .render(
            search=search,
            asked=asked,
            tensors=search.choices.tensors,
            headline=search_headline(search),
            colour="warn" if search.winner is None else "good",
            points=f"{100 * asked.margin:g}",
            cards=_cards(search),
            drawing=bytes_against_accuracy(view) if search.front else "",
            front=[(one, wilson(one.correct, asked.images)) for one in search.front],
            winner_rows=_winner_rows(search),
            device=list(search.device.values()),
            sizes={one.key: one.total_bytes for one in search.evaluations if one.key in search.device},
            unit=next((cell.latency_unit for cell in search.device.values() if cell.latency_unit), ""),
            provenance=_provenance(search),
            words=words,
        )
    )


def _winner_rows(search: Search) -> list[tuple[str, str, int]]:
    """Return tensor, chosen spec and the number of specs that it was chosen from."""
    if search.winner is None:
        return []
    choices = search.choices
    return [
        (tensor, spec, len(specs))
        for tensor, spec, specs in zip(choices.tensors, search.winner.evaluation.specs, choices.specs, strict=True)
    ]


def _cards(search: Search) -> list[Card]:
    asked, winner = search.begun.asked, search.winner
    before, new = search.fp32
    cards = [
        Card(
            "Accuracy in fp32, on confirm",
            words.percent(new.accuracy.value, total=new.accuracy.total),
            (
                f"95 % interval {words.interval(new.accuracy)}, n = {new.accuracy.total:,}",
                f"on search {words.percent(before.accuracy.value, total=before.accuracy.total)}",
                words.size(search.fp32_bytes),
            ),
        )
    ]
    if winner is not None:
        found = winner.evaluation
        cards.append(
            Card(
                "Winner, on confirm",
                words.percent(winner.confirm_accuracy.value, total=winner.confirm_accuracy.total),
                (
                    f"95 % interval {words.interval(winner.confirm_accuracy)}",
                    f"loses {100 * winner.confirm.loss:+.2f} points, at most {100 * winner.confirm.bound:+.2f} (95 %)",
                    f"weights {found.weights_bytes:,}, biases {found.biases_bytes:,}, scales {found.scales_bytes:,} B",
                ),
            )
        )
    if search.curse is not None:
        cards.append(
            Card(
                "Winner's curse",
                f"{search.curse.mean:+.2f} points",
                (
                    f"by so much more the best {search.curse.count} lose on confirm than on search, in the mean",
                    "" if search.curse.winner is None else f"the winner: {search.curse.winner:+.2f}",
                ),
            )
        )
    whole = "the whole grid" if asked.method == "exhaustive" else f"of {search.choices.count:,}, proposed by Optuna"
    verified = ", ".join(f"{name}: {count:,} images" for name, count in search.verified.items())
    cards += [
        Card("Evaluated", f"{len(search.evaluations):,}", (whole, f"{search.admissible:,} admissible")),
        Card("Core and reference", "bit-identical", (verified,)),
    ]
    return cards


def _provenance(search: Search) -> list[tuple[str, str]]:
    begun, asked = search.begun, search.begun.asked
    what = [
        ("Network", asked.network),
        ("Network SHA-256", asked.network_sha256),
        (
            "Data",
            f"{asked.dataset}, {asked.images:,} images of search and {asked.confirm_images:,} of confirm; the test "
            "split is sealed",
        ),
        ("Data SHA-256", asked.dataset_sha256),
        ("Objectives", ", ".join(asked.objectives)),
        *(("Chosen from", text) for text in asked.tensors),
    ]
    return provenance_of(begun, what)
