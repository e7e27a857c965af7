"""The course's classic kernels, and the arithmetic of one patch: multiply, sum, place."""

from typing import NamedTuple

import numpy as np
from scipy.signal import correlate2d

CLASSIC: dict[str, np.ndarray] = {
    name: np.array(rows, dtype=np.float64)
    for name, rows in {
        "blur": [[1 / 16, 1 / 8, 1 / 16], [1 / 8, 1 / 4, 1 / 8], [1 / 16, 1 / 8, 1 / 16]],
        "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
        "emboss": [[-2, -1, 0], [-1, 1, 1], [0, 1, 2]],
        "top Sobel": [[1, 2, 1], [0, 0, 0], [-1, -2, -1]],
        "left Sobel": [[1, 0, -1], [2, 0, -2], [1, 0, -1]],
    }.items()
}
"""Name -> kernel (3, 3) float64. All weights are multiples of a power of two, so sums of 8-bit pixels are exact."""


class Arithmetic(NamedTuple):
    """How one pixel of a convolution comes about.

    Attributes
    ----------
    patch
        Pixels (3, 3) int64 under the kernel.
    kernel, products
        (3, 3) float64; each product is a pixel times its weight.
    total
        Sum of the products: what `convolve` has at (row, column).
    row, column
        Where the sum is placed in the result, from 0. In the image that is the patch's upper left corner, and its
        centre lies one further down and to the right.
    """

    patch: np.ndarray
    kernel: np.ndarray
    products: np.ndarray
    total: float
    row: int
    column: int


def convolve(grey: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """What a convolution layer makes of an image: the kernel is not turned around, and there is no padding.

    Parameters
    ----------
    grey
        Pixels (H, W) from 0 to 255.
    kernel
        (3, 3).

    Returns
    -------
    numpy.ndarray
        (H - 2, W - 2) float64, not limited to 0..255.
    """
    placed: np.ndarray = correlate2d(grey.astype(np.float64), kernel, mode="valid")
    return placed


def arithmetic(grey: np.ndarray, kernel: np.ndarray, row: int, column: int) -> Arithmetic:
    """The steps that lead to the pixel (row, column) of `convolve`."""
    patch = grey[row : row + 3, column : column + 3].astype(np.int64)
    products = patch * kernel
    return Arithmetic(patch, kernel, products, float(products.sum()), row, column)


def steepest(grey: np.ndarray) -> tuple[int, int]:
    """Row and column in the result of `convolve` where both Sobel kernels together answer the most."""
    strength = sum(np.square(convolve(grey, CLASSIC[f"{side} Sobel"])) for side in ("top", "left"))
    row, column = np.unravel_index(int(np.argmax(strength)), np.shape(strength))
    return int(row), int(column)
