"""Reports of a run: one HTML file, CSV, JUnit. Made from ``run.json`` and ``samples.jsonl`` alone."""
