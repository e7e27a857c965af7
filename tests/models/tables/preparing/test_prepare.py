from typing import Any

import numpy as np
import pandas as pd
import pytest

from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.prepare import Joined, prepare

NUMBERS = np.random.default_rng(0)
SALES = pd.DataFrame(
    {
        "row": range(120),
        "store": [f"store {number % 6}" for number in range(120)],
        "day": pd.date_range("2015-01-01", periods=120).strftime("%Y-%m-%d"),
        "promo": NUMBERS.integers(0, 2, 120),
        "open": [1] * 120,
        "note": [None] * 120,
        "sales": NUMBERS.normal(100, 10, 120),
    }
)
STORES = pd.DataFrame({"store": [f"store {number}" for number in range(6)], "size": range(6)})
MORE = SALES.tail(20).assign(row=range(120, 140), store="store 0")


def validated(frame: pd.DataFrame, stores: pd.DataFrame = STORES, **data: Any) -> set[int]:
    """Which of the first 120 rows validate."""
    spec = TableDataSpec(source="sales.csv", target=["sales"], split="random", **data)
    table = prepare(frame, [Joined("stores", stores, ["store"])], spec)
    return {row for row in table.frame["row"].iloc[table.valid] if row < 120}


@pytest.mark.parametrize(
    ("later", "stores"),
    [
        (MORE, STORES),
        (MORE.assign(open=0), STORES),
        (MORE.assign(note="sold out"), STORES),
        (MORE.assign(note=7), STORES),
        (MORE, STORES.assign(size=STORES["size"] + 1)),
        (MORE, STORES.assign(town="Berlin")),
    ],
    ids=["rows", "no longer constant", "first texts", "first numbers", "other values joined", "another column joined"],
)
def test_added_data_move_no_row_of_a_random_split(later: pd.DataFrame, stores: pd.DataFrame) -> None:
    before = validated(SALES)
    assert 10 < len(before) < 40
    assert validated(pd.concat([SALES, later], ignore_index=True), stores) == before


def test_features_computed_from_other_rows_move_no_row_of_a_random_split() -> None:
    events = {"date": ["day"], "group": ["store"], "events": ["promo"], "rolling": ["promo"]}
    before = validated(SALES, **events)
    assert validated(pd.concat([SALES, MORE.assign(promo=1)], ignore_index=True), **events) == before


def test_rows_without_a_target_and_constant_columns_are_rejected_and_stated() -> None:
    frame = SALES.assign(sales=SALES["sales"].where(SALES["row"] != 3))
    table = prepare(frame, [], TableDataSpec(source="sales.csv", target=["sales"]))
    assert len(table.frame) == 119
    assert not {"open", "note"} & set(table.frame.columns)
    assert [(entry["what"], entry["rows"]) for entry in table.rejected] == [("rows", 1), ("open", 119), ("note", 119)]


@pytest.mark.parametrize("columns", [["when"], ["day", "hour"]])
def test_the_hour_is_a_feature_whether_it_is_in_the_date_or_beside_it(columns: list[str]) -> None:
    when = pd.Series(pd.date_range("2024-01-01", periods=24 * 20, freq="h"))
    parts = {"when": when.dt.strftime("%Y-%m-%d %H:%M"), "day": when.dt.strftime("%Y-%m-%d"), "hour": when.dt.hour}
    frame = pd.DataFrame({name: parts[name] for name in columns}).assign(rides=when.dt.hour * 10 + when.dt.day / 7)
    prepared = prepare(frame, [], TableDataSpec(target=["rides"], date=columns[:1]))
    assert set(prepared.encoder.columns()) & {"whenHour", "hour"}
    assert prepared.data.time_of_day == (columns == ["when"])
