"""Shifting, turning and scaling of images: by hand, against numpy's quarter turns and scipy's resampling."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.network.augment import augment, shift, warp
from bitloop.network.settings import TrainingSettings

U8 = npt.NDArray[np.uint8]

SIZES = st.integers(1, 7)
SEEDS = st.integers(0, 2**32)


def some(seed: int, *shape: int) -> U8:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


STILL = np.zeros((1, 2), np.int64)


def test_shifting_by_hand() -> None:
    image = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3, 1)
    both = np.concatenate([image, image, image])
    moved = shift(both, np.array([[1, 0], [0, -2], [0, 0]]))
    assert moved[0, :, :, 0].tolist() == [[0, 0, 0], [1, 2, 3], [4, 5, 6]]
    assert moved[1, :, :, 0].tolist() == [[3, 0, 0], [6, 0, 0], [9, 0, 0]]
    assert np.array_equal(moved[2], image[0])
    assert np.array_equal(shift(both, np.zeros((3, 2), np.int64)), both)


@settings(deadline=None)
@given(SEEDS, SIZES, SIZES, st.integers(1, 2))
def test_a_warp_that_only_moves_is_a_shift(seed: int, height: int, width: int, channels: int) -> None:
    pixels = some(seed, 3, height, width, channels)
    offsets = np.random.default_rng(seed).integers(-9, 10, (3, 2))
    assert np.array_equal(warp(pixels, offsets, np.zeros(3), np.ones(3)), shift(pixels, offsets))


@settings(deadline=None)
@given(SEEDS, SIZES, st.integers(-2, 2))
def test_quarter_turns_are_numpys(seed: int, size: int, quarters: int) -> None:
    pixels = some(seed, 2, size, size, 1)
    turned = warp(pixels, np.zeros((2, 2), np.int64), np.full(2, quarters * np.pi / 2), np.ones(2))
    assert np.array_equal(turned, np.rot90(pixels, quarters, axes=(1, 2)))


def test_scaling_by_hand() -> None:
    """At twice the size a pixel lies half a pixel from the next one's place: 255 · (1/4, 3/4, 3/4, 1/4)."""
    row = np.array([0, 255, 255, 0], np.uint8).reshape(1, 1, 4, 1)
    # The places -0.25 + {0.5, 1, 1.5, 2} of a row of four, about its middle 1.5: 0.75, 1.25, 1.75, 2.25.
    larger = warp(row, STILL, np.zeros(1), np.full(1, 2.0))
    assert larger.ravel().tolist() == [191, 255, 255, 191]  # 0.75 · 255 = 191.25
    # Half the size: the places -1.5, 0.5, 2.5, 4.5; half of 255 is rounded up.
    smaller = warp(row, STILL, np.zeros(1), np.full(1, 0.5))
    assert smaller.ravel().tolist() == [0, 128, 128, 0]


@pytest.mark.parametrize("size", [(28, 28), (9, 14)])
def test_a_warp_is_scipys_resampling(size: tuple[int, int]) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed (extra 'study')")
    generator = np.random.default_rng(8)
    count = 60
    pixels = generator.integers(0, 256, (count, *size, 2), dtype=np.uint8)
    offsets = generator.integers(-3, 4, (count, 2))
    angles, scales = generator.uniform(-np.pi, np.pi, count), generator.uniform(0.5, 1.5, count)
    warped = warp(pixels, offsets, angles, scales)
    centre = (np.array(size) - 1) / 2
    for image, result, offset, angle, scale in zip(pixels, warped, offsets, angles, scales, strict=True):
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) / scale
        origin = centre - matrix @ (centre + offset)
        for channel in range(2):
            expected = ndimage.affine_transform(
                image[..., channel].astype(np.float64), matrix, origin, order=1, mode="grid-constant"
            )
            assert np.abs(result[..., channel] - expected).max() < 0.501


def test_what_is_drawn() -> None:
    """The numbers of numpy's generator in their order: shifts, then angles, then scales; and no more than is asked."""
    pixels = np.random.default_rng(1).integers(0, 256, (50, 28, 28, 1), dtype=np.uint8)
    mine, its = np.random.default_rng(5), np.random.default_rng(5)

    def drawn(**settings: float) -> U8:
        return augment(pixels, TrainingSettings(**settings), its)  # type: ignore[arg-type]

    assert drawn() is pixels
    assert np.array_equal(drawn(augment=2), shift(pixels, mine.integers(-2, 3, (50, 2))))
    offsets = mine.integers(-1, 2, (50, 2))
    angles, scales = np.radians(mine.uniform(-10, 10, 50)), 1 + mine.uniform(-20, 20, 50) / 100
    assert np.array_equal(drawn(augment=1, rotate=10, zoom=20), warp(pixels, offsets, angles, scales))
    still = np.zeros((50, 2), np.int64)
    angles = np.radians(mine.uniform(-7.5, 7.5, 50))
    mine.uniform(0, 0, 50)
    assert np.array_equal(drawn(rotate=7.5), warp(pixels, still, angles, np.ones(50)))
    mine.uniform(0, 0, 50)
    scales = 1 + mine.uniform(-30, 30, 50) / 100
    assert np.array_equal(drawn(zoom=30), warp(pixels, still, np.zeros(50), scales))
    assert mine.bit_generator.state == its.bit_generator.state
    again = augment(pixels, TrainingSettings(rotate=5, zoom=5), np.random.default_rng(5))
    assert np.array_equal(again, augment(pixels, TrainingSettings(rotate=5, zoom=5), np.random.default_rng(5)))
    assert not np.array_equal(again, augment(pixels, TrainingSettings(rotate=5, zoom=5), np.random.default_rng(6)))
