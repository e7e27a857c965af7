"""Rows drawn for a figure, a reference or a comparison: always the same ones."""

import numpy as np


def sample_rows(rows: np.ndarray, most: int) -> np.ndarray:
    """At most `most` of the rows, drawn at random with a fixed seed, ascending.

    Examples
    --------
    >>> sample_rows(np.arange(3), 5)
    array([0, 1, 2])
    """
    return np.sort(np.random.default_rng(0).choice(rows, min(most, len(rows)), replace=False))
