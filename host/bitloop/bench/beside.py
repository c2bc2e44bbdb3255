"""The host simulation beside the streaming: in a thread, block by block, ahead of the results where it can be."""

from __future__ import annotations

import threading
from types import TracebackType

import numpy as np
import numpy.typing as npt

from bitloop.quantize.model import Model
from bitloop.simulate.reference import simulate

__all__ = ["HostSimulation"]

BLOCK_IMAGES = 256


class HostSimulation:
    """Logits of the host simulation, computed in the background.

    Args:
        model: what is simulated.
        pixels: uint8 ``[N, H, W, C]``.
        block_images: images computed at a time, the most that :meth:`close` waits for.
    """

    def __init__(self, model: Model, pixels: npt.NDArray[np.uint8], *, block_images: int = BLOCK_IMAGES) -> None:
        self._model = model
        self._pixels = pixels
        self._block_images = block_images
        self._blocks: list[npt.NDArray[np.float32]] = []
        self._failure: Exception | None = None
        self._stop = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="host-simulation", daemon=True)

    def __enter__(self) -> HostSimulation:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def logits(self, position: int) -> npt.NDArray[np.float32]:
        """Return the logits ``[classes]`` of the image at a position, waiting for them.

        Raises:
            BitloopError: what the simulation raised, once it came to that image.
        """
        block, offset = divmod(position, self._block_images)
        with self._changed:
            # The timeout lets Ctrl-C through on systems where a bare wait would hold it back.
            while len(self._blocks) <= block and self._failure is None:
                self._changed.wait(0.5)
            if len(self._blocks) <= block and self._failure is not None:
                raise self._failure
            row: npt.NDArray[np.float32] = self._blocks[block][offset]
        return row

    def close(self) -> None:
        """Stop after the block under way."""
        with self._changed:
            self._stop = True
        self._thread.join()

    def _work(self) -> None:
        for start in range(0, len(self._pixels), self._block_images):
            if self._stop:
                return
            try:
                block = simulate(self._model, self._pixels[start : start + self._block_images])
            except Exception as error:  # noqa: BLE001 - handed over to the thread that asks for the logits
                with self._changed:
                    self._failure = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._blocks.append(block)
                self._changed.notify_all()
