from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.tables.network import network_of
from unfreeze.models.tables.preparing.prepare import Joined, prepare
from unfreeze.models.tables.preparing.row_reader import plainly_named
from unfreeze.models.tables.reading.frames import open_table, write_feather
from unfreeze.models.tables.serving import TablePredictor, save_table_model

SHOPS = pd.DataFrame({"shop": ["01", "2", "b"], "area": [80.5, 200.0, 120.0]})


def sales(rows: int = 60) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    days = pd.date_range("2023-01-20", periods=rows)
    return pd.DataFrame(
        {
            "day": days.strftime("%d/%m/%Y"),
            "shop": generator.choice(SHOPS["shop"], rows),
            "holiday": generator.choice(["0", "a"], rows),
            "promo": generator.integers(0, 2, rows),
            "price": generator.uniform(1, 9, rows).round(2),
            "sales": generator.uniform(50, 90, rows),
            "level": generator.choice(["low", "high"], rows),
        }
    )


def predictor_of(folder: Path, **overrides: object) -> TablePredictor:
    """A network with random weights: how well it predicts does not matter here."""
    data = {"target": ["sales"], "date": ["day"], "group": ["shop"], "drop": ["level"], "task": "regression"}
    params = build_spec(TrainTables, {"data": data, "model": {"members": 2, "width": 8, "depth": 1}}, dict(overrides))
    joins = [Joined("shops", SHOPS, ["shop"])]
    table = prepare(sales(), joins, params.data)
    params = params.model_copy(update={"data": table.data})
    network = network_of(params, table.encoder)
    save_table_model(folder, [network.state_dict()], params, table.encoder, joins, table.raw, table.calendar)
    return TablePredictor(folder, "cpu")


class Rows(NamedTuple):
    """A table's file, read for a model."""

    predictor: TablePredictor
    source: dict[str, Any]


def stream_of(predictor: TablePredictor, frame: pd.DataFrame, folder: Path, suffix: str = ".csv") -> Rows:
    source = folder / f"rows{suffix}"
    frame.to_csv(source, index=False) if suffix == ".csv" else frame.to_parquet(source)
    write_feather(source, folder / "rows.arrow", text=predictor.text_columns())
    table = open_table(folder / "rows.arrow")
    return Rows(predictor, {"path": str(folder / "rows.arrow"), "rows": table.num_rows})


def together(rows: Rows, chunk: int, start: int = 0) -> tuple[np.ndarray, dict[int, str]]:
    """Results of all rows, NaN where a row was not predicted, and the errors."""
    results, errors = [], {}
    for each in rows.predictor.chunks(rows.source, chunk, start, False):
        whole = np.full((len(each.keys), each.results.shape[1]), np.nan)
        whole[each.rows] = each.results
        results.append(whole)
        errors |= {each.keys[row]: why for row, why in each.errors.items()}
    return np.concatenate(results), errors


KINDS = {
    "regression": {},
    "classification": {"data.target": ["level"], "data.drop": ["sales"], "data.task": "classification"},
    "events": {"data.events": ["promo"], "data.rolling": ["promo"]},
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_what_the_whole_table_gives(tmp_path: Path, kind: str, suffix: str) -> None:
    predictor = predictor_of(tmp_path / "model", **KINDS[kind])
    rows = sales().drop(columns=["sales", "level"])
    predicted = predictor.predict(rows)
    expected = np.stack(predicted["probabilities"]) if kind == "classification" else predicted.to_numpy()
    stream = stream_of(predictor, rows, tmp_path, suffix)
    for chunk, start in ((7, 0), (1000, 0), (20, 40)):
        results, unreadable = together(stream, chunk, start)
        np.testing.assert_allclose(results, expected[start:], rtol=1e-5)
        assert unreadable == {}


def test_dates_are_read_by_the_format_of_the_training_whatever_rows_are_beside_them(tmp_path: Path) -> None:
    # The first days of February alone could be read with the month first.
    predictor = predictor_of(tmp_path / "model")
    rows = sales().iloc[12:30].drop(columns="sales").reset_index(drop=True)
    whole = predictor.predict(rows).to_numpy()
    for row in range(len(rows)):
        np.testing.assert_allclose(predictor.predict(rows.iloc[[row]]).to_numpy(), whole[[row]], rtol=1e-6)
    results, _ = together(stream_of(predictor, rows, tmp_path), 5)
    np.testing.assert_allclose(results, whole, rtol=1e-5)


@pytest.mark.parametrize("kind", ["regression", "events"])
def test_rows_that_cannot_be_read_are_reported_and_the_others_predicted(tmp_path: Path, kind: str) -> None:
    predictor = predictor_of(tmp_path / "model", **KINDS[kind])
    rows = sales().drop(columns="sales").astype(object)
    clean = predictor.predict(sales().drop(columns="sales")).to_numpy()
    rows.loc[3, "day"] = "soon"
    rows.loc[5, "price"] = "cheap"
    rows.loc[5, "day"] = "never"
    rows.loc[8, "price"] = None
    stream = stream_of(predictor, rows, tmp_path)
    results, unreadable = together(stream, 4)
    assert unreadable == {
        3: "column 'day': 'soon' is not a date",
        5: "column 'day': 'never' is not a date; column 'price': 'cheap' is not a number",
    }
    # The calendar has the days of the rows without a date, so that their neighbours' events are as before.
    kept = np.setdiff1d(np.arange(60), [3, 5, 8])
    np.testing.assert_allclose(results[kept], clean[kept], rtol=1e-5)
    assert np.isfinite(np.delete(results, [3, 5], axis=0)).all()


def test_a_column_that_was_text_stays_text_even_if_it_holds_only_numbers(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "model")
    rows = sales().drop(columns="sales").assign(shop="01", holiday="0")
    assert {"holiday", "shop"} <= set(predictor.text_columns())
    expected = predictor.predict(rows).to_numpy()
    results, unreadable = together(stream_of(predictor, rows, tmp_path), 10)
    np.testing.assert_allclose(results, expected, rtol=1e-5)
    assert unreadable == {}
    as_numbers = rows.assign(holiday=0)  # a Parquet file has types of its own
    results, _ = together(stream_of(predictor, as_numbers, tmp_path, ".parquet"), 10)
    np.testing.assert_allclose(results, expected, rtol=1e-5)


def test_a_table_without_a_column_of_the_model_is_refused(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "model")
    with pytest.raises(UserError, match="price"):
        together(stream_of(predictor, sales().drop(columns="price"), tmp_path), 10)


def test_whole_numbers_and_times_are_dates_as_well(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "model")
    rows = sales().drop(columns="sales")
    expected = predictor.predict(rows).to_numpy()
    days = pd.to_datetime(rows["day"], format="%d/%m/%Y")
    for dates in (days, days.dt.strftime("%Y%m%d").astype(int)):
        results, _ = together(stream_of(predictor, rows.assign(day=dates), tmp_path, ".parquet"), 9)
        np.testing.assert_allclose(results, expected, rtol=1e-5)


def test_a_missing_date_is_no_error(tmp_path: Path) -> None:
    predictor = predictor_of(tmp_path / "model")
    rows = sales().drop(columns="sales")
    rows.loc[4, "day"] = None
    for suffix in (".csv", ".parquet"):
        results, unreadable = together(stream_of(predictor, rows, tmp_path, suffix), 10)
        assert unreadable == {}
        assert np.isfinite(results).all()


def test_a_column_that_pandas_made_its_index_is_a_column() -> None:
    frame = pd.DataFrame({"shop": [7, 8], "x": [1.0, 2.0]}).set_index("shop")
    assert plainly_named(frame).columns.tolist() == ["shop", "x"]
    assert plainly_named(frame.set_axis([3, 5])).index.tolist() == [0, 1]
