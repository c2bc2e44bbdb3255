"""Run proofs by name: ``python -m proofs native labels``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from proofs import boards, faults, formats, fuzz, labels, native, page, speed

PROOFS: dict[str, Callable[[], page.Section]] = {
    "native": native.prove,
    "boards": boards.prove,
    "faults": faults.prove,
    "labels": labels.prove,
    "formats": formats.prove,
    "fuzz": fuzz.prove,
    "speed": speed.prove,
}


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in PROOFS]
    if unknown:
        print(f"no proof {', '.join(unknown)}; there are {', '.join(PROOFS)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or PROOFS:
        print(f"== {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        section = PROOFS[name]()
        page.write(name, section, time.monotonic() - start)
        print(section.markdown(), flush=True)
        if not section.holds:
            failed.append(name)
    if failed:
        print(f"does not hold: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
