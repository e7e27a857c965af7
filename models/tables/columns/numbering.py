"""Whole numbers that number the rows, such as counters, keys and hashes, told from measurements by their values."""

import math

import numpy as np
import pandas as pd

from unfreeze.models.tables.columns.kinds import whole_numbers_of

_CHANCE = 1e-4  # that so many numbers of a range are all different, if the rows were measured
_MOST_GAPS = 0.2  # of the steps of row numbers, where rows were left out
_FEWEST_ROWS = 40
_LONG = 9  # digits: of measurements so many are not exact
_FIRST_KEY = 100  # the first of keys: a series of settings, such as 18, 19, 20 degrees, begins lower


def why_numbering(column: pd.Series) -> str:
    """Why whole numbers, all different, number the rows; empty where they may be a measurement.

    They are consecutive in the order of the rows; or so dense in their range that measurements would hardly be all
    different (the birthday problem, with a probability below 1 in 10,000); or have nine digits or more, all equally
    many, as hashes and telephone numbers do.
    """
    numbers = whole_numbers_of(column).to_numpy(np.int64)
    low, high, rows = int(numbers.min()), int(numbers.max()), len(numbers)
    steps = np.abs(np.diff(numbers))
    if low < 0 or rows < 2:
        return ""
    if (np.diff(numbers) > 0).all() or (np.diff(numbers) < 0).all():
        if (steps == 1).all() and (low in (0, 1) or low >= _FIRST_KEY):
            return "a row number: it counts the rows"
        if rows >= _FEWEST_ROWS and (steps == 1).mean() >= 1 - _MOST_GAPS and (low in (0, 1) or low >= _FIRST_KEY):
            return f"a row number: it counts from {low:,} to {high:,}, with few gaps"
    elif rows >= _FEWEST_ROWS and rows**2 / (2 * (high - low + 1)) > -math.log(_CHANCE):
        return f"a key: {rows:,} numbers from {low:,} to {high:,}, and none occurs twice"
    digits = len(str(low))
    if rows >= _FEWEST_ROWS and digits == len(str(high)) >= _LONG and not (numbers % 1000 == 0).any():
        return f"a key: {rows:,} different numbers of {digits} digits"
    return ""
