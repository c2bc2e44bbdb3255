"""Lets these tests use the device in Python of tests/link."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "link"))
