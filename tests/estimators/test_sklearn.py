"""How far the estimators keep scikit-learn's conventions."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from sklearn.base import is_classifier, is_regressor
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import check_estimator

from unfreeze import Images, Tables

FEW = "it refuses to learn from fewer than 20 rows"
WORDS = "it refuses in other words"
EQUAL = "equal rows are never divided between training and validation, and it has two different ones"
NOT_KEPT = {
    "check_do_not_raise_errors_in_init_or_set_params": "settings are checked at once, not by `fit`",
    "check_n_features_in_after_fitting": FEW,
    "check_estimators_empty_data_messages": FEW,
    "check_regressors_no_decision_function": FEW,
    "check_fit2d_1sample": FEW,
    "check_fit2d_1feature": FEW,
    "check_classifier_data_not_an_array": FEW,
    "check_pipeline_consistency": EQUAL,
    "check_estimators_pickle": EQUAL,
    "check_complex_data": WORDS,
    "check_requires_y_none": "the target may be a column of X, so that `fit(X)` asks for its name",
    "check_supervised_y_2d": "values of shape (N, 1) are taken without a warning",
    "check_classifiers_one_label": "one class is nothing to learn",
    "check_classifiers_regression_target": "numbers with fractions are classes if that is asked for",
}
"""Check -> why it fails."""
SMALL = {"model": {"members": 2, "width": 16, "bins": 4}, "refit": False}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_tables_pass_the_checks_of_estimators_but_those_that_are_named(task: str) -> None:
    model = Tables(task=task, device="cpu", trees=False, config={**SMALL, "recipe.all.cycles": 3})
    done = check_estimator(model, expected_failed_checks=NOT_KEPT, on_fail=None, on_skip=None)
    assert [(each["check_name"], each["exception"]) for each in done if each["status"] == "failed"] == []
    assert Counter(each["status"] for each in done)["passed"] > 35


def test_images_pass_the_checks_of_estimators_that_take_no_matrix() -> None:
    assert {each["status"] for each in check_estimator(Images(backbone="timm/test_resnet"))} == {"passed"}


def test_what_an_estimator_predicts_is_known() -> None:
    assert is_classifier(Images())
    assert is_classifier(Tables(task="classification"))
    assert is_regressor(Tables(task="regression"))
    assert not is_classifier(Tables())


@pytest.mark.slow
def test_an_estimator_is_cross_validated() -> None:
    rows = np.random.default_rng(0).normal(size=(120, 2))
    model = Tables(task="classification", device="cpu", trees=False, config={**SMALL, "recipe.all.cycles": 1})
    labels = np.where(rows[:, 0] > 0, "high", "low")
    for given in (rows, pd.DataFrame(rows, columns=["a", "b"])):
        assert cross_val_score(model, given, labels, cv=2).min() > 0.7
