"""`add_datepart` of 10 million rows: ours against fastai's in the same process, and whether both make the same columns.

fastai asks for an older torch than ours, so it is not a dependency; only its one function is needed.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pandas as pd

from unfreeze.models.tables.columns.dates import add_datepart

ROWS = 10_000_000
FIRST, DAYS = np.datetime64("2010-01-01"), 3652
REPEATS = 3
HOW_TO = """fastai cannot be imported ({error}); put it beside, without the torch that it asks for:
  .venv/bin/uv pip install --target /tmp/fastai --no-deps fastai==2.8.12 fastcore==2.2.39 fastprogress==1.0.3 \\
      fastdownload==0.0.8 fasttransform==0.0.5 plum-dispatch==2.9.0 beartype cloudpickle
  PYTHONPATH=/tmp/fastai .venv/bin/python -m benchmarks.datepart"""


def some_dates(time_of_day: bool) -> pd.DataFrame:
    """Random days of ten years, or seconds of these days.

    In nanoseconds: fastai divides by 10^9 whatever the unit, so its Elapsed is wrong in the units of pandas 3.
    """
    random = np.random.default_rng(0)
    days = FIRST + random.integers(0, DAYS, ROWS)
    seconds = random.integers(0, 86_400, ROWS) if time_of_day else np.zeros(ROWS, dtype=np.int64)
    return pd.DataFrame({"Date": days.astype("datetime64[ns]") + seconds.astype("timedelta64[s]")})


def fastest(make: Callable[[], pd.DataFrame]) -> tuple[float, pd.DataFrame]:
    """Seconds of the fastest of several calls, and what it made."""
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        made = make()
        seconds.append(time.perf_counter() - began)
    return min(seconds), made


def with_fastai(add_datepart_of_fastai: Callable[..., pd.DataFrame], frame: pd.DataFrame, time: bool) -> pd.DataFrame:
    """What fastai's makes; it changes the table it is given, and a shallow copy costs nothing."""
    return add_datepart_of_fastai(frame.copy(deep=False), "Date", time=time)


def differences(ours: pd.DataFrame, theirs: pd.DataFrame) -> list[str]:
    """What differs in names, types and values."""
    if list(ours) != list(theirs):
        return [f"columns {list(ours)} and {list(theirs)}"]
    found = [
        f"{name} is {ours[name].dtype}, {theirs[name].dtype}" for name in ours if ours[name].dtype != theirs[name].dtype
    ]
    return found + [f"values of {name}" for name in ours if not np.array_equal(ours[name], theirs[name])]


def main() -> None:
    """Measure both and print the ratio."""
    try:
        from fastai.tabular.core import add_datepart as add_datepart_of_fastai
    except ImportError as error:
        sys.exit(HOW_TO.format(error=error))
    print(f"{ROWS:,} rows, pandas {pd.__version__}; seconds of the fastest of {REPEATS} calls")
    for label, time_of_day in (("days", False), ("seconds", True)):
        frame = some_dates(time_of_day)
        theirs, made = fastest(partial(with_fastai, add_datepart_of_fastai, frame, time_of_day))
        ours, expected = fastest(partial(add_datepart, frame, "Date", time=time_of_day))
        differing = differences(expected, made)
        print(f"{label:8} fastai {theirs:6.2f}   ours {ours:6.2f}   {theirs / ours:5.1f} times   ", end="")
        print(f"DIFFER: {'; '.join(differing)}" if differing else f"all {expected.shape[1]} columns equal", flush=True)


if __name__ == "__main__":
    main()
