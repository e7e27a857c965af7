"""Sets and intervals that hold the truth as often as is asked for."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel
from unfreeze.models.targets.conformal import MOST_SCORES, Scores, answers, kept_scores, margins, ranks_of, scores_of

PRICES = Numbers(["price"])
coverages = st.floats(0.05, 0.95)


def scores(values: np.ndarray) -> Scores:
    """Of a model that says 0 of numbers of these sizes (N,)."""
    found = scores_of(PRICES, np.zeros((len(values), 1)), values[:, None])
    assert found is not None
    return found


@given(st.integers(19, MOST_SCORES), coverages)
def test_the_margin_is_the_score_of_the_rank_that_makes_coverage_exact(rows, coverage):
    values = np.random.default_rng(rows).permutation(rows) + 1.0
    assert margins(scores(values), coverage)[0] == np.ceil((rows + 1) * coverage - 1e-9)


@given(st.integers(MOST_SCORES + 1, 10 * MOST_SCORES), coverages)
def test_of_many_rows_the_next_rank_that_is_kept_is_taken(rows, coverage):
    found, exact = margins(scores(np.arange(rows) + 1.0), coverage)[0], np.ceil((rows + 1) * coverage - 1e-9)
    assert exact <= found <= exact + np.ceil(rows / MOST_SCORES)


@given(st.integers(1, 10**7))
def test_kept_ranks_ascend_to_the_last_row(rows):
    ranks = ranks_of(rows)
    assert ranks[0] >= 1
    assert ranks[-1] == rows
    assert (np.diff(ranks) > 0).all()
    assert len(ranks) == min(rows, MOST_SCORES)


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9])
def test_exchangeable_rows_are_covered_as_often_as_is_asked_for(coverage):
    rng, covered, rows = np.random.default_rng(0), [], 30
    for _ in range(4000):
        *known, new = rng.exponential(size=rows + 1)
        covered.append(new <= margins(scores(np.array(known)), coverage)[0])
    exact = np.ceil((rows + 1) * coverage) / (rows + 1)
    assert np.mean(covered) == pytest.approx(exact, abs=3.5 * np.sqrt(exact * (1 - exact) / 4000))


def test_sets_of_classes_hold_the_truth_and_rows_without_just_one_class_abstain():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([0.5] * 4, 6000)
    actual = (probabilities.cumsum(1) < rng.random((6000, 1))).sum(1)
    target = SingleLabel(list("abcd"))
    found = answers(
        target, probabilities[3000:], scores_of(target, probabilities[:3000], actual[:3000]), {"coverage": 0.9}
    )
    truth = np.array(list("abcd"))[actual[3000:]]
    assert np.mean([name in each for name, each in zip(truth, found["set"], strict=True)]) == pytest.approx(
        0.9, abs=0.02
    )
    assert (found["abstains"] == (found["set"].map(len) != 1)).all()
    assert 0.1 < found["abstains"].mean() < 0.9
    one = found[~found["abstains"]]
    assert (one["set"].map(lambda each: each[0]) == one["class"]).all()


def test_intervals_are_in_the_scale_of_training():
    target = Numbers(["price"], log=True)
    predicted, actual = np.full((99, 1), 99.0), 100 * np.exp(np.linspace(-1, 1, 99))[:, None] - 1
    kept = scores_of(target, predicted, actual)
    (row,) = answers(target, np.array([[999.0]]), kept, {"coverage": 0.9}).to_dict("records")
    assert row["price_high"] + 1 == pytest.approx(1000 * np.exp(0.9), rel=0.03)
    assert (row["price_low"] + 1) * (row["price_high"] + 1) == pytest.approx(1000**2)


def test_scores_survive_a_description_and_no_coverage_adds_no_column():
    target, predicted = SingleLabel(["a", "b"]), np.array([[0.9, 0.1], [0.4, 0.6]])
    kept = scores_of(target, predicted, np.array([0, 0]))
    assert kept_scores(json.loads(json.dumps({"scores": kept}))) == kept
    assert list(answers(target, predicted, kept, {"coverage": None})) == list(target.frame(predicted))


def test_too_few_rows_or_none_are_refused_with_what_is_possible():
    few = scores(np.arange(24.0))
    with pytest.raises(UserError, match=r"0\.99 needs 99 validation rows, and the model has 24: .* at most 0\.96"):
        margins(few, 0.99)
    assert margins(few, 0.96)[0] == 23
    with pytest.raises(UserError, match="no distances of validation rows"):
        margins(None, 0.9)
    with pytest.raises(UserError, match="not between 0 and 1"):
        margins(few, 1.5)
    assert scores_of(MultiLabel(["a"]), np.array([[0.5]]), np.array([[True]])) is None
