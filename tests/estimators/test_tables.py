"""Table models from files, frames and arrays."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from tests.estimators.conftest import assert_refused_in_a_line
from unfreeze import Tables
from unfreeze.models.errors import UserError

TINY: dict[str, Any] = {
    "device": "cpu",
    "split": "random",
    "trees": False,
    "config": {"model": {"members": 2, "width": 16}, "recipe.all.cycles": 1, "refit": False},
}


def sales() -> pd.DataFrame:
    return pd.read_csv("sales.csv")


@pytest.fixture(scope="module")
def model(folder) -> Tables:
    return Tables("sales.csv", target="Sales", date="Date", **TINY).fit()


def test_rows_are_a_frame_a_file_or_one_mapping(model: Tables) -> None:
    frame = sales().set_index(pd.Index(range(100, 280)))
    whole = model.predict(frame)
    assert whole.shape == (180,)
    for same in ("sales.csv", pl.from_pandas(sales()), sales().to_dict("records")):
        assert (model.predict(same) == whole).all()
    assert model.predict(sales().iloc[0].to_dict()) == whole[:1]
    assert model.predict_frame(frame, coverage=0.8).index.tolist() == frame.index.tolist()


@pytest.mark.parametrize("form", [lambda frame: frame, pl.from_pandas], ids=["pandas", "polars"])
def test_a_frame_trains_as_its_file_does(model: Tables, form: Callable[[pd.DataFrame], Any]) -> None:
    again = Tables(form(sales()), target="Sales", date="Date", **TINY).fit()
    assert again.predict(sales()) == pytest.approx(model.predict(sales()))


def test_columns_and_values_may_be_apart(model: Tables) -> None:
    columns, values = sales().drop(columns="Sales"), sales()["Sales"]
    again = Tables(date="Date", **TINY).fit(columns, values)
    assert list(again.predict_frame(columns)) == ["Sales"]
    assert again.feature_names_in_.tolist() == ["Store", "Date", "Promo"]
    assert again.score(columns, values) == again.score(sales()) == again.evaluate("sales.csv").loc["r2", "value"]


def test_an_array_s_classes_keep_their_type() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 3))
    model = Tables(**TINY).fit(rows, (rows[:, 0] > 0).astype(int))
    assert model.classes_.tolist() == [0, 1]
    assert model.predict(rows).dtype.kind == "i"
    assert model.score(rows, (rows[:, 0] > 0).astype(int)) > 0.8
    assert model.n_features_in_ == 3


def test_several_values_are_columns_of_the_predictions() -> None:
    rows = np.random.default_rng(0).normal(size=(120, 3))
    assert Tables(**TINY).fit(rows, 2 * rows[:, :2]).predict(rows[:5]).shape == (5, 2)


def test_pages_are_written_from_frames(model: Tables, tmp_path) -> None:
    assert "Permutation importance" in model.explain(sales().head(60), tmp_path / "e.html").path.read_text()
    assert "Verdict" in model.report(tmp_path / "r.html").path.read_text()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "no target": (lambda: Tables("sales.csv").fit(), r"target: name the column of sales\.csv to predict"),
    "no target in a frame": (lambda: Tables(sales()).fit(), "target: name the column of the frame with Store, Date"),
    "another target": (lambda: Tables(sales(), target="sales").fit(), r"no column 'sales'; did you mean Sales\?"),
    "values of a file": (lambda: Tables().fit("sales.csv", [1]), r"name it: target='\.\.\.'"),
    "values twice": (lambda: Tables().fit(sales(), sales()["Sales"]), "the rows have a column 'Sales' as well"),
    "a list": (lambda: Tables(target="a").fit([1, 2]), "rows: given a list; give a frame"),
    "mixed types": (lambda: Tables(target="a").fit(pd.DataFrame({"a": [1, "x"]})), "convert that column to one type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_train_is_refused_in_a_line(case: str) -> None:
    assert_refused_in_a_line(*REFUSED[case])


def test_what_cannot_be_predicted_is_refused_in_a_line(model: Tables) -> None:
    cases = {
        "no column 'Date', 'Promo'": lambda: model.predict(sales()[["Store"]]),
        "rows: there are none": lambda: model.predict(sales().head(0)),
        "given a NoneType": lambda: model.predict(None),
        "'Sales' does not exist": lambda: model.predict("Sales"),
        "row 0: column 'Promo': 'abc' is not a number": lambda: model.predict(sales().assign(Promo="abc")),
        "no column 'Sales'": lambda: model.evaluate(sales().drop(columns="Sales")),
        "row 0: there is no value": lambda: model.evaluate(sales().assign(Sales=np.nan)),
    }
    for message, call in cases.items():
        with pytest.raises(UserError, match=message):
            call()
    with pytest.raises(AttributeError, match="has no attribute 'predict_proba'"):
        model.predict_proba(sales())
