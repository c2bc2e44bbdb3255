"""Pixels of fewer bits: levels and ties by hand and by exact fractions."""

from fractions import Fraction

import numpy as np
import pytest

from bitloop.data.pixels import quantize_pixels
from bitloop.errors import UsageError

ALL = np.arange(256, dtype=np.uint8)


def test_by_hand():
    # 2 bits: 0, 85, 170, 255; 42 is nearer to 0, 43 to 85, 127 to 85, 128 to 170.
    given = np.array([[0, 42, 43, 85], [127, 128, 212, 213], [254, 255, 170, 1]], np.uint8)
    expected = [[0, 0, 85, 85], [85, 170, 170, 255], [255, 255, 170, 0]]
    assert quantize_pixels(given, 2).tolist() == expected
    assert quantize_pixels(ALL, 1).tolist() == [0] * 128 + [255] * 128
    # 3 bits: 36.43 is 36, 72.86 is 73; 18 lies half-way between 0 and 36 and becomes the darker one.
    assert quantize_pixels(ALL, 3)[[17, 18, 19, 54, 55]].tolist() == [0, 0, 36, 36, 73]


@pytest.mark.parametrize("bits", range(1, 9))
def test_every_pixel_goes_to_the_nearest_level_and_the_darker_of_two(bits):
    levels = [round(Fraction(255 * k, 2**bits - 1)) for k in range(2**bits)]
    found = quantize_pixels(ALL, bits)
    assert found.dtype == np.uint8
    assert found.tolist() == [min(levels, key=lambda level: (abs(level - pixel), level)) for pixel in range(256)]
    assert quantize_pixels(found, bits).tolist() == found.tolist()
    assert sorted(set(found.tolist())) == levels


def test_eight_bits_change_nothing_and_give_an_array_of_its_own():
    images = ALL.reshape(4, 8, 8, 1)
    found = quantize_pixels(images, 8)
    assert found.tolist() == images.tolist()
    assert not np.shares_memory(found, images)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_bits_out_of_range(bits):
    with pytest.raises(UsageError, match="there are 1 to 8"):
        quantize_pixels(ALL, bits)
    with pytest.raises(UsageError, match="float32, expected uint8"):
        quantize_pixels(ALL.astype(np.float32), 4)
