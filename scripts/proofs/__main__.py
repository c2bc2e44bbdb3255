"""Run proofs by name, and write docs/verified.md: ``python -m proofs native labels``."""

from __future__ import annotations

import sys

from proofs import boards, faults, formats, fuzz, labels, native, page, speed

PROOFS = {
    "native": native.prove,
    "boards": boards.prove,
    "faults": faults.prove,
    "labels": labels.prove,
    "formats": formats.prove,
    "fuzz": fuzz.prove,
    "speed": speed.prove,
}

if __name__ == "__main__":
    sys.exit(page.main(PROOFS, sys.argv[1:], path=page.ROOT / "docs/verified.md", command="scripts/verify"))
