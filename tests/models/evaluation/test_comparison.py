import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation import metrics
from unfreeze.models.evaluation.comparison import (
    Comparison,
    compare_classes,
    compare_labels,
    compare_values,
    decide,
    mcnemar,
)
from unfreeze.models.settings.retrain import PromotionSpec

NAMES = np.array(["bird", "cat", "dog"])
LABELS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from([*NAMES, "fish"]), st.sampled_from(NAMES)),
    min_size=1,
    max_size=60,
)
VALUE_METRICS = ["rmspe", "rmse", "mae", "r2"]


def classes_of(rows: list[tuple[str, str, str]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    actual, champion, challenger = (np.array(labels) for labels in zip(*rows, strict=True))
    return actual, champion, challenger


def two_classifiers(rows: int, champion: float, challenger: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows and predictions of two classifiers that are right with these probabilities, else one class further."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, rows)
    predicted = [NAMES[(codes + (rng.random(rows) >= right)) % 3] for right in (champion, challenger)]
    return NAMES[codes], predicted[0], predicted[1]


def two_regressions(
    rows: int, champion: float, challenger: float, targets: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets around 10, and predictions with errors of these standard deviations."""
    rng = np.random.default_rng(seed)
    actual = rng.normal(10, 2, (rows, targets))
    predicted = [actual + rng.normal(0, spread, actual.shape) for spread in (champion, challenger)]
    return actual, predicted[0], predicted[1]


def assert_mirrored(one: Comparison, other: Comparison) -> None:
    assert (one.champion, one.challenger) == (other.challenger, other.champion)
    assert one.improvement == -other.improvement
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@given(gained=st.integers(0, 500), lost=st.integers(0, 500))
def test_mcnemar_is_the_exact_test_of_a_fair_coin(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


def test_mcnemar_of_small_counts_is_the_tail_counted_by_hand() -> None:
    assert mcnemar(5, 1) == pytest.approx((math.comb(6, 5) + math.comb(6, 6)) / 2**6)


@given(rows=LABELS)
def test_accuracies_and_recalls_are_shares_of_rows(rows: list[tuple[str, str, str]]) -> None:
    actual, champion, challenger = classes_of(rows)
    found = compare_classes(actual, champion, challenger)
    assert found.champion == pytest.approx(np.mean(actual == champion))
    assert found.challenger == pytest.approx(np.mean(actual == challenger))
    assert found.improvement == pytest.approx(found.challenger - found.champion)
    assert [entry["class"] for entry in found.classes] == sorted(set(actual))
    assert sum(entry["rows"] for entry in found.classes) == found.rows == len(rows)
    for entry in found.classes:
        of_class = actual == entry["class"]
        assert entry["champion"] == pytest.approx(np.mean(champion[of_class] == entry["class"]))
        assert entry["challenger"] == pytest.approx(np.mean(challenger[of_class] == entry["class"]))
        assert entry["difference"] == pytest.approx(entry["challenger"] - entry["champion"])


@given(rows=LABELS)
def test_the_interval_of_classes_holds_the_improvement(rows: list[tuple[str, str, str]]) -> None:
    found = compare_classes(*classes_of(rows))
    assert -1 <= found.low <= found.improvement <= found.high <= 1


@given(rows=LABELS)
def test_swapping_two_classifiers_mirrors_their_comparison(rows: list[tuple[str, str, str]]) -> None:
    actual, champion, challenger = classes_of(rows)
    one, other = compare_classes(actual, champion, challenger), compare_classes(actual, challenger, champion)
    if one.improvement:
        assert_mirrored(one, other)
    else:  # a tie is drawn in the same order both times
        assert one.improvement == other.improvement == 0
        assert one.low <= 0 <= one.high
    assert not (decide(one, PromotionSpec()).promote and decide(other, PromotionSpec()).promote)


def test_the_interval_is_that_of_resampled_rows() -> None:
    actual, champion, challenger = two_classifiers(400, 0.7, 0.8)
    found = compare_classes(actual, champion, challenger)
    gains = (challenger == actual).astype(float) - (champion == actual)
    drawn = np.random.default_rng(1).integers(0, 400, (4000, 400))
    low, high = np.quantile(gains[drawn].mean(axis=1), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_a_hundred_thousand_rows_give_a_narrow_interval() -> None:
    found = compare_classes(*two_classifiers(100_000, 0.8, 0.82))
    assert 0.01 < found.low < found.improvement < found.high < 0.03
    assert found.p_value < 1e-9


def test_a_class_the_champion_does_not_know_is_one_it_gets_wrong() -> None:
    actual, challenger = np.array(["cat", "newt", "newt"]), np.array(["cat", "newt", "cat"])
    found = compare_classes(actual, np.array(["cat", "cat", "cat"]), challenger)
    assert found.classes[1] == {"class": "newt", "rows": 2, "champion": 0.0, "challenger": 0.5, "difference": 0.5}
    assert found.p_value == 0.5


def test_labels_may_be_objects_and_numbers() -> None:
    found = compare_classes(
        np.array([1, 2, 3]), np.array(["1", "2", "2"], dtype=object), np.array(["1", None, "3"], dtype=object)
    )
    assert (found.champion, found.challenger) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_row_without_a_prediction_is_wrong_even_where_a_class_is_called_none() -> None:
    found = compare_classes(np.array(["None"]), np.array([None], dtype=object), np.array(["None"]))
    assert (found.champion, found.challenger) == (0, 1)


@pytest.mark.parametrize("metric", VALUE_METRICS)
def test_the_values_are_those_of_the_tables_metrics(metric: str) -> None:
    actual, champion, challenger = (values.astype(np.float32) for values in two_regressions(50, 2, 1, 2))
    found = compare_values(actual, champion, challenger, metric)
    function = metrics.VALUE_METRICS[metric]
    assert (found.champion, found.challenger) == (function(champion, actual), function(challenger, actual))
    assert found.improvement > 0
    assert found.classes == []


@pytest.mark.parametrize("metric", VALUE_METRICS)
def test_swapping_two_regressions_mirrors_their_comparison(metric: str) -> None:
    actual, champion, challenger = two_regressions(7, 1, 0.8)
    one = compare_values(actual, champion, challenger, metric)
    assert_mirrored(one, compare_values(actual, challenger, champion, metric))
    assert one.low <= one.improvement <= one.high
    assert 0 < one.p_value <= 1


@pytest.mark.parametrize("metric", VALUE_METRICS)
def test_the_interval_of_values_is_that_of_resampled_rows(metric: str) -> None:
    actual, champion, challenger = two_regressions(200, 1, 0.9)
    found = compare_values(actual, champion, challenger, metric)
    function, sign = metrics.VALUE_METRICS[metric], 1 if metric == "r2" else -1
    drawn = np.random.default_rng(1).integers(0, 200, (500, 200))
    differences = [
        sign * (function(challenger[row], actual[row]) - function(champion[row], actual[row])) for row in drawn
    ]
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.2 * (high - low))
    assert found.p_value == pytest.approx(np.mean(np.array(differences) <= 0), abs=0.05)


def test_the_interval_of_many_rows_is_that_of_the_normal_distribution() -> None:
    actual, champion, challenger = two_regressions(20_000, 1, 0.96)
    found = compare_values(actual, champion, challenger, "mae")
    gains = np.abs(champion - actual) - np.abs(challenger - actual)
    half_width = 1.96 * gains.std() / math.sqrt(len(gains))
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.1)
    assert found.p_value == 1 / 1001


def stores_and_days(seed: int, gain: float = 0.0) -> tuple[tuple[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]:
    """Sales of 12 stores on 60 days; both models err by store and by day, and by chance differ in both."""
    rng = np.random.default_rng(seed)
    actual = rng.normal(10, 1, (12, 60))
    champion, challenger = (
        actual + rng.normal(0, 1, (12, 1)) + rng.normal(0, 1, (1, 60)) + rng.normal(0, 0.3, (12, 60)) for _ in range(2)
    )
    challenger = actual + (1 - gain) * (challenger - actual)
    stores, days = np.indices((12, 60)).reshape(2, -1)
    return (actual.ravel(), champion.ravel(), challenger.ravel()), [stores, days // 7]


def test_rows_that_belong_together_are_resampled_together() -> None:
    values, blocks = stores_and_days(0)
    rows, whole = (compare_values(*values, "rmse", blocks=each) for each in ([], blocks))
    assert whole.high - whole.low > 2 * (rows.high - rows.low)
    assert whole.test == "paired bootstrap of 9 blocks"
    assert whole.improvement == rows.improvement


def test_blocks_of_one_row_each_are_the_rows() -> None:
    actual, champion, challenger = (each[:, 0] for each in two_regressions(300, 1, 0.9))
    rows = compare_values(actual, champion, challenger, "mae")
    blocks = compare_values(actual, champion, challenger, "mae", blocks=[np.arange(300)])
    assert (blocks.low, blocks.high) == pytest.approx((rows.low, rows.high), abs=0.01)


def test_a_margin_must_be_exceeded_significantly() -> None:
    values = two_regressions(400, 1.0, 0.8)
    none, small, large = (compare_values(*values, "rmse", margin=margin) for margin in (0.0, 0.05, 0.3))
    assert none.p_value <= small.p_value < 0.05 < large.p_value
    labels = two_classifiers(2000, 0.7, 0.8)
    assert compare_classes(*labels, margin=0.05).p_value < 0.05 < compare_classes(*labels, margin=0.15).p_value


@pytest.mark.slow
def test_equal_models_on_stores_and_days_are_promoted_about_as_often_as_the_level_says() -> None:
    trials = 120
    found = [stores_and_days(seed) for seed in range(trials)]
    naive = np.mean([compare_values(*values, "rmse").p_value <= 0.05 for values, _ in found])
    honest = np.mean([compare_values(*values, "rmse", blocks=blocks).p_value <= 0.05 for values, blocks in found])
    assert naive > 0.25  # what rows that are taken to be independent come to
    assert honest <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / trials)


def test_a_real_gain_on_stores_and_days_is_still_found() -> None:
    values, blocks = stores_and_days(3, gain=0.6)
    assert compare_values(*values, "rmse", blocks=blocks).p_value < 0.05


def test_rows_with_target_0_do_not_count_for_rmspe() -> None:
    actual, champion, challenger = two_regressions(50, 1, 0.5)
    with_zeros = [
        np.concatenate([values, filler])
        for values, filler in zip(
            (actual, champion, challenger), (np.zeros((50, 1)), np.ones((50, 1)), np.full((50, 1), 9.0)), strict=True
        )
    ]
    found = compare_values(*with_zeros, metric="rmspe")
    assert found.champion == compare_values(actual, champion, challenger, "rmspe").champion
    assert math.isfinite(found.low)


def test_one_column_may_be_a_plain_array() -> None:
    columns = two_regressions(20, 1, 0.5)
    assert compare_values(*(values[:, 0] for values in columns), metric="mae") == compare_values(*columns, "mae")


def test_identical_predictions_never_promote() -> None:
    actual, champion, _ = two_classifiers(50, 0.5, 0.5)
    values, predicted, _ = two_regressions(50, 1, 1)
    same = [compare_classes(actual, champion, champion)]
    same += [compare_values(values, predicted, predicted, metric) for metric in VALUE_METRICS]
    for found in same:
        assert found.improvement == 0
        assert found.low <= 0 <= found.high
        assert found.p_value == 1
        decision = decide(found, PromotionSpec(significance=1))
        assert not decision.promote
        assert decision.reasons[0].endswith("no better")


def test_a_challenger_that_is_clearly_better_is_promoted() -> None:
    decision = decide(compare_classes(*two_classifiers(2000, 0.7, 0.9)), PromotionSpec(margin=0.05, protected=["cat"]))
    assert decision.promote
    assert len(decision.reasons) == 3
    for metric in VALUE_METRICS:
        assert decide(compare_values(*two_regressions(500, 1, 0.5), metric), PromotionSpec()).promote


def test_a_challenger_worse_on_a_protected_class_is_not_promoted() -> None:
    actual, champion, challenger = two_classifiers(2000, 0.7, 0.95)
    rare = np.random.default_rng(1).random(2000) < 0.05
    actual, champion, challenger = (
        np.where(rare, name, labels)
        for name, labels in zip(("newt", "newt", "cat"), (actual, champion, challenger), strict=True)
    )
    found = compare_classes(actual, champion, challenger)
    assert decide(found, PromotionSpec()).promote
    decision = decide(found, PromotionSpec(protected=["dog", "newt"]))
    assert not decision.promote
    assert decision.reasons[2].startswith("recall of 'dog' rose by")
    assert decision.reasons[3].startswith("recall of 'newt' fell by")
    assert decision.reasons[3].endswith("more than 0.02")


FOUND = Comparison(
    metric="accuracy",
    champion=0.9765,
    challenger=0.9812,
    improvement=0.0047,
    low=0.001,
    high=0.008,
    p_value=0.031,
    test="McNemar",
    rows=1000,
    classes=[
        {"class": "cat", "rows": 100, "champion": 0.95, "challenger": 0.919, "difference": -0.031},
        {"class": "dog", "rows": 900, "champion": 0.9, "challenger": 0.9, "difference": 0.0},
    ],
)


@pytest.mark.parametrize(
    ("changes", "rules", "promote", "reason"),
    [
        ({}, {}, True, "accuracy 0.9812 against 0.9765: better by 0.0047, more than the margin 0"),
        ({}, {}, True, "McNemar p = 0.031, at most 0.05"),
        ({}, {"margin": 0.0047}, False, "better by 0.0047, not more than the margin 0.0047"),
        ({}, {"significance": 0.01}, False, "McNemar p = 0.031, more than 0.01"),
        ({"p_value": 0.9}, {"significance": 1}, True, "McNemar p = 0.9, at most 1"),
        ({}, {"protected": ["cat"]}, False, "recall of 'cat' fell by 0.031, more than 0.02"),
        ({}, {"protected": ["cat"], "protected_bound": 0.031}, True, "fell by 0.031, at most 0.031"),
        ({}, {"protected": ["dog"]}, True, "recall of 'dog' stayed the same"),
        ({}, {"protected": ["eel"]}, False, "no row is of the protected class 'eel'"),
        ({"improvement": -0.5}, {"significance": 1}, False, "worse by 0.5"),
        ({"improvement": 0.0}, {"significance": 1}, False, "no better"),
        ({"improvement": math.nan, "champion": math.nan}, {}, False, "against nan: nothing to compare"),
        ({"p_value": math.nan}, {"significance": 1}, False, "McNemar p cannot be computed"),
    ],
)
def test_every_rule_gives_its_reason(
    changes: dict[str, Any], rules: dict[str, Any], promote: bool, reason: str
) -> None:
    decision = decide(replace(FOUND, **changes), PromotionSpec(**rules))
    assert decision.promote is promote
    assert any(reason in said for said in decision.reasons)


@pytest.mark.parametrize(
    ("predictions", "metric"), [([[np.nan], [1.0]], "rmse"), ([[np.inf], [1.0]], "mae"), ([[1.0], [2.0]], "rmspe")]
)
def test_a_metric_without_a_value_never_promotes(predictions: list[list[float]], metric: str) -> None:
    found = compare_values(np.zeros((2, 1)), np.ones((2, 1)), np.array(predictions), metric)
    assert math.isnan(found.improvement)
    assert math.isnan(found.p_value)
    assert not decide(found, PromotionSpec(significance=1)).promote


def test_two_rows_are_compared_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    for metric in VALUE_METRICS:
        compare_values(np.array([0.0, 1.0]), np.array([2.0, 2.0]), np.array([1.0, 1.5]), metric)
    compare_values(np.array([1.0]), np.array([2.0]), np.array([1.0]), "r2")
    compare_values(np.array([3.0, 3.0]), np.array([2.0, 2.0]), np.array([1.0, 3.0]), "r2")
    assert not recwarn.list


def test_a_comparison_is_plain_data() -> None:
    for found in (compare_classes(*two_classifiers(50, 0.5, 0.9)), compare_values(*two_regressions(50, 1, 1), "mae")):
        kinds = {type(value) for value in asdict(found).values()}
        assert kinds <= {str, int, float, list}


NONE = np.array([])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((NONE, NONE, NONE), "no rows"),
        ((np.array(["a", "b"]), np.array(["a"]), np.array(["a", "b"])), "the same rows"),
        (
            (np.array(["a", None], dtype=object), np.array(["a", "b"]), np.array(["a", "b"])),
            "1 of 2 rows have no class",
        ),
        ((NONE, NONE, NONE, "mae"), "no rows"),
        ((np.zeros(2), np.zeros(1), np.zeros(2), "mae"), "the same rows"),
        ((np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 1)), "mae"), "the same rows"),
        ((np.array([np.nan, 1]), np.zeros(2), np.zeros(2), "mae"), "1 of 2 rows have no target"),
        ((np.zeros(2), np.zeros(2), np.zeros(2), "auc"), "metric: 'auc' is not one of rmspe"),
    ],
)
def test_what_cannot_be_compared_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    compare = compare_classes if len(arguments) == 3 else compare_values
    with pytest.raises(UserError, match=message):
        compare(*arguments)


def test_values_have_no_classes_to_protect() -> None:
    with pytest.raises(UserError, match="protected: mae is a metric of numbers"):
        decide(compare_values(*two_regressions(9, 1, 1), "mae"), PromotionSpec(protected=["cat"]))


@pytest.mark.parametrize(
    "fields", [{"margin": -1}, {"margin": math.inf}, {"significance": 0}, {"significance": 2}, {"protected_bound": 2}]
)
def test_rules_that_mean_nothing_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        PromotionSpec.model_validate(fields)


def test_every_rule_is_described() -> None:
    assert all(field.description for field in PromotionSpec.model_fields.values())


LABEL_NAMES = np.array(["a", "b", "c"])


def compare_marks(*marks: np.ndarray, blocks: Any = ()) -> Comparison:
    return compare_labels(*([LABEL_NAMES[row].tolist() for row in each] for each in marks), blocks=blocks)


def answers(actual: np.ndarray, wrong: float, seed: int) -> np.ndarray:
    return actual ^ (np.random.default_rng(seed).random(actual.shape) < wrong)


def labels(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, 3)) < (0.5, 0.3, 0.1)


@settings(max_examples=6)
@given(st.integers(0, 1000))
def test_it_compares_the_mean_f1_and_its_interval_holds_the_improvement(seed):
    actual = labels(120, seed)
    before, after = answers(actual, 0.2, seed + 1), answers(actual, 0.15, seed + 2)
    found = compare_marks(actual, before, after)
    for value, said in ((found.champion, before), (found.challenger, after)):
        assert value == pytest.approx(f1_score(actual, said, average="macro"))
    assert found.improvement == pytest.approx(found.challenger - found.champion)
    assert found.low <= found.improvement <= found.high


def test_a_clear_improvement_is_significant_and_the_same_models_are_not():
    actual = labels(300)
    bad, good = answers(actual, 0.3, 1), answers(actual, 0.05, 2)
    assert compare_marks(actual, bad, good).p_value < 0.001
    same = compare_marks(actual, good, good)
    assert (same.improvement, same.low, same.high, same.p_value) == (0, 0, 0, 1)


def test_two_equal_models_are_rarely_told_apart():
    found = []
    for seed in range(12):
        actual = labels(60, seed)
        found.append(compare_marks(actual, answers(actual, 0.2, 2 * seed + 99), answers(actual, 0.2, 2 * seed + 100)))
    assert np.mean([each.p_value <= 0.05 for each in found]) <= 0.25


def test_blocks_are_resampled_as_a_whole():
    actual = np.repeat(labels(30), 10, axis=0)
    before, after = (np.repeat(answers(labels(30), wrong, seed), 10, axis=0) for wrong, seed in ((0.2, 1), (0.15, 2)))
    rows = compare_marks(actual, before, after)
    blocks = compare_marks(actual, before, after, blocks=[np.repeat(np.arange(30), 10)])
    assert blocks.high - blocks.low > 2 * (rows.high - rows.low)
    assert blocks.test == "paired bootstrap of 30 blocks"


def test_the_table_shows_the_recall_of_every_label_that_occurs():
    actual = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    found = compare_marks(actual, np.zeros_like(actual), actual)
    assert found.classes == [
        {"class": "a", "rows": 2, "champion": 0.0, "challenger": 1.0, "difference": 1.0},
        {"class": "b", "rows": 1, "champion": 0.0, "challenger": 1.0, "difference": 1.0},
    ]


def test_rows_without_any_label_cannot_be_compared():
    nothing = np.zeros((4, 3), dtype=bool)
    with pytest.raises(UserError, match="none of the 4 rows"):
        compare_marks(nothing, nothing, nothing)
