"""A table from its file to findings: what is said about its columns, what is tested, what a model takes."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from unfreeze import Tables
from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.drift import SHIFTS

TINY: dict[str, Any] = {
    "recipe": [{"name": "all", "train": "all", "lr": 0.01, "ratio": 1, "cycles": 1}],
    "optimizer": {"batch_size": 64},
    "device": "cpu",
}


def table_of(folder: Path, frame: pd.DataFrame, **data: Any) -> Tables:
    """An estimator for a frame that is written as a CSV file."""
    frame.to_csv(folder / "rows.csv", index=False)
    return Tables(folder / "rows.csv", config=TINY | {"data": {"target": ["price"], **data}})


def prices(rows: int = 300) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    area = generator.uniform(20, 200, rows).round(1)
    town = generator.choice(["Bonn", "Kiel", "Ulm"], rows)
    price = area * 10 + generator.normal(0, 200, rows)
    return pd.DataFrame({"area": area, "town": town, "price": price.round(2)})


def test_the_test_is_reported_beside_the_validation(tmp_path: Path) -> None:
    model = table_of(tmp_path, prices(), test_fraction=0.2).fit()
    assert {"valid/rmse", "baseline/tree_rmse", "test/rmse"} <= set(model.metrics_)
    assert model.metrics_["valid/rmse"] != model.metrics_["test/rmse"]
    assert 30 < len(model.findings_["test"].frames["test/predictions.feather"]) < 90


def messy(rows: int = 300) -> pd.DataFrame:
    """Rows as people keep them: money and dates as text, ids, codes, truths and gaps."""
    frame, generator = prices(rows), np.random.default_rng(1)
    frame.insert(0, "id", generator.permutation(10_000)[:rows])
    frame["rent"] = [f"${value:,.2f}" for value in generator.uniform(100, 9000, rows)]
    frame["share"] = [f"{value:.1f}%".replace(".", ",") for value in generator.uniform(0, 99, rows)]
    frame["zip"] = [f"{number:05d}" for number in generator.choice([1067, 10115, 80331], rows)]
    frame["garden"] = generator.random(rows) < 0.5
    frame["cellar"] = frame["garden"].astype(object).where(generator.random(rows) < 0.8)
    frame["floors"] = pd.Series(generator.integers(1, 99, rows)).astype("Int64").where(generator.random(rows) < 0.9)
    frame["built"] = pd.to_datetime(generator.integers(0, 15_000, rows), unit="D").strftime("%d.%m.%Y")
    frame["seller"] = [f"person {number}" for number in range(rows)]
    frame["heating"] = generator.choice(["gas", "None", "wood"], rows)
    frame.loc[3:5, "rent"] = ["?", "on request", "-"]
    frame.loc[7, "built"] = "unknown"
    frame["price"] = [f"{value:,.0f} EUR" for value in frame["price"].abs() * 1000 + 5000]
    return frame


def read(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "rows.csv")


FORMS: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as pandas reads them": lambda rows: rows,
    "without target and id": lambda rows: rows.drop(columns=["price", "id", "seller"]),
    "in another order, with more": lambda rows: rows[rows.columns[::-1]].assign(more="x"),
    "with pandas' categories": lambda rows: rows.astype(
        dict.fromkeys(("town", "zip", "garden", "rent", "heating"), "category")
    ),
    "as pandas' own types": lambda rows: rows.convert_dtypes(),
    "as objects": lambda rows: rows.astype(object),
    "all text": lambda rows: rows.astype("str").where(rows.notna()),
    "with spaces around the names": lambda rows: rows.rename(columns=lambda name: f" {name} "),
    "with numbers and dates read": lambda rows: rows.assign(
        rent=pd.to_numeric(rows["rent"].str.replace("[$,]", "", regex=True), errors="coerce"),
        built=pd.to_datetime(rows["built"], format="%d.%m.%Y", errors="coerce"),
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tables, Path]:
    folder = tmp_path_factory.mktemp("messy")
    model = table_of(folder, messy())
    model.set_params(
        config=TINY | {"data": {"target": ["price"]}, "refit": False}
    )  # the model that is registered is the one evaluated
    return model.fit(), folder


@pytest.mark.parametrize("form", FORMS)
def test_a_model_predicts_the_very_rows_it_was_trained_on_in_any_form(trained: tuple[Tables, Path], form: str) -> None:
    model, folder = trained
    rows = read(folder)
    evaluated = model.findings_["valid"].frames["valid/predictions.feather"]
    predicted = model.predict(FORMS[form](rows))
    places = {number: place for place, number in enumerate(rows["id"])}
    assert predicted[[places[number] for number in evaluated["id"]]].tolist() == evaluated["kept_price"].tolist()


def test_a_single_row_is_predicted_as_among_all(trained: tuple[Tables, Path]) -> None:
    model, folder = trained
    rows = read(folder)
    whole = model.predict(rows).tolist()
    assert [model.predict(rows.iloc[[place]]).item() for place in range(10)] == whole[:10]


@pytest.mark.parametrize("rows", [1, 3, 300])
def test_categories_that_no_training_row_has_are_counted_by_column(trained: tuple[Tables, Path], rows: int) -> None:
    model, folder = trained
    frame = read(folder)
    frame.loc[: rows - 1, "town"] = "Wien"
    frame.loc[0, "heating"] = "sun"
    with pytest.warns(UserWarning, match="no training row") as caught:
        model.predict(frame)
    texts = sorted(str(each.message) for each in caught if "no training row" in str(each.message))
    assert [text.partition(" rows have")[0] for text in texts] == [
        "column 'heating': 1 of 300",
        f"column 'town': {rows} of 300",
    ]


def test_known_and_missing_categories_are_not_called_unseen(trained: tuple[Tables, Path]) -> None:
    model, folder = trained
    frame = read(folder)
    frame.loc[:5, "town"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.predict(frame)


def test_a_split_of_its_own_is_compared_without_the_column_that_makes_it(tmp_path: Path) -> None:
    frame = prices(300).assign(part=["train"] * 180 + ["valid"] * 60 + ["test"] * 60)
    frame.loc[frame["part"] == "test", "area"] += 100
    data = table_of(tmp_path, frame, split="column", split_column="part").fit()._fitted.data
    shifts = {key: rows for key, _, rows in data.describe().tables if key in SHIFTS.values()}
    verdicts = {key: {row["column"]: row["verdict"] for row in rows} for key, rows in shifts.items()}
    assert set(verdicts["shift"]) == {"area", "town", "price"}
    assert verdicts["test-shift"]["area"] == "large"
    assert "large" not in verdicts["shift"].values()


def test_what_a_model_needs_is_only_what_it_uses(trained: tuple[Tables, Path]) -> None:
    model, folder = trained
    data = model._fitted.data
    needed = ["area", "town", "rent", "share", "zip", "garden", "cellar", "floors", "built", "heating"]
    assert list(data.example().columns) == needed
    with pytest.raises(UserError, match="rows to predict: the table has no column 'zip'"):
        model.predict(read(folder).drop(columns="zip"))


def test_a_value_that_no_training_row_could_have_is_an_error_with_its_row(trained: tuple[Tables, Path]) -> None:
    model, folder = trained
    rows = read(folder).astype({"area": object})
    rows.loc[4, "area"] = "large"
    with pytest.raises(UserError, match="row 4: column 'area': 'large' is not a number"):
        model.predict(rows)


def test_each_column_is_described_with_its_role(trained: tuple[Tables, Path]) -> None:
    model, _ = trained
    data = model._fitted.data
    found = data.describe()
    lines = "\n".join(found.lines)
    assert "id: left out, an id by its name" in lines
    assert "share: number, text of numbers with a decimal comma" in lines
    assert "price: target, regression of its numbers; text of numbers with a decimal point" in lines
    (table,) = (rows for key, _, rows in found.tables if key == "roles")
    assert {row["column"]: row["role"] for row in table}["built"] == "date"
    assert "data/roles.feather" in found.frames
