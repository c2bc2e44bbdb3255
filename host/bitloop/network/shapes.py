"""Sizes of windows that slide over a map: TensorFlow's SAME and VALID."""

from __future__ import annotations

from bitloop.errors import NetworkError


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many positions SAME adds before and after an axis.

    As TensorFlow does: there are ``ceil(size / stride)`` outputs, and the smaller half of the padding goes before.

    Args:
        size: Length of the input along the axis, 1 or more.
        kernel: Length of the window, 1 or more.
        stride: Step of the window, 1 or more.

    Returns:
        Positions before and after.
    """
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + kernel - size, 0)
    before = total // 2
    return before, total - before


def valid_size(size: int, kernel: int, stride: int) -> int:
    """Return the number of windows that lie wholly inside an axis.

    Args:
        size: Length of the input along the axis.
        kernel: Length of the window.
        stride: Step of the window.

    Raises:
        NetworkError: The window is longer than the axis.
    """
    if kernel > size:
        raise NetworkError(
            f"a window of {kernel} does not fit into {size} positions; use padding 'same' or a smaller window"
        )
    return (size - kernel) // stride + 1


def window_outputs(
    shape: tuple[int, int], kernel: tuple[int, int], strides: tuple[int, int], padding: str
) -> tuple[int, int]:
    """Return how many windows fit a map along height and width.

    Args:
        shape: Height and width of the map.
        kernel: Height and width of the window.
        strides: Steps along height and width.
        padding: ``"valid"`` or ``"same"``.

    Raises:
        NetworkError: A window is larger than the map (``"valid"`` only).
    """
    if padding == "same":
        return -(-shape[0] // strides[0]), -(-shape[1] // strides[1])
    return valid_size(shape[0], kernel[0], strides[0]), valid_size(shape[1], kernel[1], strides[1])
