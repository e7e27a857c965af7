import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as arrays

from unfreeze.models.images.networks.kernels import CLASSIC, arithmetic, convolve, steepest

IMAGES = arrays.arrays(np.uint8, st.tuples(st.integers(3, 9), st.integers(3, 9)))


@given(IMAGES, st.sampled_from(sorted(CLASSIC)), st.data())
def test_the_sum_that_is_shown_is_exactly_what_the_convolution_has_there(grey, name, data):
    placed = convolve(grey, CLASSIC[name])
    row, column = (data.draw(st.integers(0, size - 1)) for size in placed.shape)
    steps = arithmetic(grey, CLASSIC[name], row, column)
    assert steps.total == steps.products.sum() == placed[row, column]
    np.testing.assert_array_equal(steps.products, steps.patch * steps.kernel)
    np.testing.assert_array_equal(steps.patch, grey[row : row + 3, column : column + 3])


@given(IMAGES, st.sampled_from(sorted(CLASSIC)))
def test_it_is_the_convolution_of_a_network(grey, name):
    inputs, weights = (torch.from_numpy(each.astype(np.float64))[None, None] for each in (grey, CLASSIC[name]))
    expected = torch.nn.functional.conv2d(inputs, weights)[0, 0].numpy()
    np.testing.assert_array_equal(convolve(grey, CLASSIC[name]), expected)


@pytest.mark.parametrize(("name", "factor"), [("blur", 1), ("sharpen", 1), ("emboss", 1), ("top Sobel", 0)])
def test_an_even_surface_stays_even(name, factor):
    np.testing.assert_array_equal(
        convolve(np.full((5, 6), 100, np.uint8), CLASSIC[name]), np.full((3, 4), 100 * factor)
    )


def test_the_steepest_place_is_at_the_edge():
    grey = np.zeros((9, 9), np.uint8)
    grey[:, 6:] = 200
    assert steepest(grey)[1] in (4, 5)
