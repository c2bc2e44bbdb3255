"""Measure by name, and write docs/link.md: ``python -m proofs.link upload noise``."""

from __future__ import annotations

import sys

from proofs import page
from proofs.link import images, noise, survival, upload

MEASUREMENTS = {
    "upload": upload.prove,
    "images": images.prove,
    "noise": noise.prove,
    "survival": survival.prove,
}

if __name__ == "__main__":
    sys.exit(page.main(MEASUREMENTS, sys.argv[1:], path=page.ROOT / "docs/link.md", command="scripts/bench-link"))
