"""The local platform: boards in boards/, built by builder/main.py with the compilers that are on the path."""

from __future__ import annotations

from platformio.platform.base import PlatformBase


class BitloopPlatform(PlatformBase):  # type: ignore[misc] # PlatformIO has no types
    """What PlatformIO looks for beside platform.json; it finds the name by the platform's."""

    def is_embedded(self) -> bool:
        """Tell that what is built is for a chip."""
        return True
