"""Images moved, turned and scaled at random, so that a network sees none of them twice alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.network.settings import TrainingSettings

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]


def augment(pixels: U8, settings: TrainingSettings, generator: np.random.Generator) -> U8:
    """Draw a shift, an angle and a scale for each image, and apply them.

    What is drawn depends on the generator's state, the number of images and the settings alone; where only a shift is
    asked for, no angles and scales are drawn.

    Args:
        pixels: uint8 [N, H, W, C].
        settings: Of the training: how far each may go.
        generator: Where the numbers come from; its state moves on.

    Returns:
        uint8 [N, H, W, C]; ``pixels`` themselves where nothing is asked for.
    """
    count, most = len(pixels), settings.augment
    offsets = generator.integers(-most, most + 1, (count, 2)) if most else np.zeros((count, 2), np.int64)
    if settings.rotate or settings.zoom:
        angles = np.radians(generator.uniform(-settings.rotate, settings.rotate, count))
        scales = 1 + generator.uniform(-settings.zoom, settings.zoom, count) / 100
        return warp(pixels, offsets, angles, scales)
    return shift(pixels, offsets) if most else pixels


def shift(pixels: U8, offsets: I64) -> U8:
    """Move each image, with background (0) moving in.

    Args:
        pixels: uint8 [N, H, W, C].
        offsets: int [N, 2], rows down and columns to the right.

    Returns:
        uint8 [N, H, W, C].
    """
    count, height, width, _ = pixels.shape
    room = int(np.abs(offsets).max(initial=0))
    padded = np.pad(pixels, ((0, 0), (room, room), (room, room), (0, 0)))
    rows = room - offsets[:, :1] + np.arange(height)
    columns = room - offsets[:, 1:] + np.arange(width)
    moved: U8 = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def warp(pixels: U8, offsets: I64, angles: F64, scales: F64) -> U8:
    """Scale and turn each image about its centre, then move it: one bilinear resampling, outside is background (0).

    Args:
        pixels: uint8 [N, H, W, C].
        offsets: int [N, 2], rows down and columns to the right.
        angles: float64 [N] in radians; positive turns anticlockwise.
        scales: float64 [N], above 0; 2 makes everything twice as large.

    Returns:
        uint8 [N, H, W, C], rounded to the nearest, ties away from 0.
    """
    count, height, width, channels = pixels.shape
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    cosines, sines = (np.cos(angles) / scales)[:, None, None], (np.sin(angles) / scales)[:, None, None]
    down = (np.arange(height) - centre[0] - offsets[:, :1])[:, :, None]
    right = (np.arange(width) - centre[1] - offsets[:, 1:])[:, None, :]
    # Where each pixel comes from, in an image with a frame of one pixel: what lies further out is as 0 as the frame.
    rows = np.clip(cosines * down + sines * right + (centre[0] + 1), 0, height + 1).astype(np.float32)
    columns = np.clip(cosines * right - sines * down + (centre[1] + 1), 0, width + 1).astype(np.float32)
    top, left = rows.astype(np.int32), columns.astype(np.int32)
    rows -= top
    columns -= left
    image = np.arange(count, dtype=np.int32)[:, None, None]
    places = (image * np.int32(height + 2) + top) * np.int32(width + 2) + left
    warped = np.empty_like(pixels)
    for channel in range(channels):
        four = _neighbours(pixels[..., channel]).take(places).view(np.uint8)
        four = four.reshape(count, height, width, 4).astype(np.float32)
        upper = four[..., 0] + columns * (four[..., 1] - four[..., 0])
        lower = four[..., 2] + columns * (four[..., 3] - four[..., 2])
        warped[..., channel] = upper + rows * (lower - upper) + np.float32(0.5)
    return warped


def _neighbours(plane: U8) -> npt.NDArray[np.uint32]:
    """Return each pixel of the framed images with its neighbours to the right, below and both, as four bytes.

    One look-up then fetches all four that a bilinear sample needs.

    Args:
        plane: uint8 [N, H, W].

    Returns:
        uint32 [N, H + 2, W + 2], in memory the bytes (here, right, below, below right).
    """
    count, height, width = plane.shape
    framed = np.pad(plane, ((0, 0), (1, 2), (1, 2)))
    four = np.empty((count, height + 2, width + 2, 4), np.uint8)
    for position, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        four[..., position] = framed[:, row : row + height + 2, column : column + width + 2]
    return four.view(np.uint32)[..., 0]
