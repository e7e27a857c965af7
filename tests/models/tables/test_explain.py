import numpy as np
import pandas as pd

from unfreeze.models.tables.explain import permutation_importance


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame({"noise": random.normal(size=500), "matters": random.normal(size=500), "text": "same"})


def judge(frame: pd.DataFrame) -> float:
    """Mean absolute error of a model that goes by one column, which is what it predicts."""
    return float(np.abs(frame["matters"].to_numpy() - rows()["matters"].to_numpy()).mean())


def test_only_the_column_that_the_model_goes_by_matters():
    found = permutation_importance(rows(), ["noise", "matters", "text"], judge, sign=-1).set_index("column")
    assert found.index[0] == "matters"
    # The difference of two independent normal numbers has a mean size of 2 / sqrt(pi).
    assert abs(found.loc["matters", "worse by"] - 2 / np.sqrt(np.pi)) < 0.1
    assert (found.loc[["noise", "text"], ["worse by", "deviation"]] == 0).all(axis=None)


def test_a_higher_metric_can_be_better():
    found = permutation_importance(rows(), ["matters"], lambda frame: -judge(frame), sign=1)
    assert found.loc[0, "worse by"] > 1


def test_the_rows_are_left_as_they_are():
    frame = rows()
    permutation_importance(frame, ["matters"], judge, sign=-1)
    pd.testing.assert_frame_equal(frame, rows())
