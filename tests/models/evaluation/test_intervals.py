import itertools

import numpy as np
import pytest
from scipy.stats import binom

from unfreeze.models.evaluation.comparison import compare_classes, mcnemar
from unfreeze.models.evaluation.intervals import exact_interval, gains, intervals, paired_interval
from unfreeze.models.evaluation.metrics import CLASS_METRICS, ShareOfRows, accuracy
from unfreeze.models.targets import MultiLabel

SHARE_RIGHT = ShareOfRows(lambda predictions, actual: predictions == actual)


def mean_error(predictions: np.ndarray, actual: np.ndarray) -> float:
    return float(np.abs(predictions - actual).mean())


def share_right(predictions: np.ndarray, actual: np.ndarray) -> float:
    return float((predictions == actual).mean())


def test_an_improvement_is_positive_whichever_way_the_metric_improves():
    actual = np.zeros(200)
    before, after = np.ones(200), np.zeros(200)
    loss, accuracy = gains("training", {"loss": mean_error, "accuracy": share_right}, before, after, actual)
    assert (loss.before, loss.after, loss.improvement) == (1, 0, 1)
    assert (accuracy.before, accuracy.after, accuracy.improvement) == (0, 1, 1)
    assert (loss.low, loss.high, loss.rows) == (1, 1, 200)


def test_the_interval_of_a_paired_difference_covers_it_as_often_as_it_says():
    generator, covered = np.random.default_rng(1), 0
    for _ in range(60):
        actual = np.zeros(120)
        before = generator.normal(1, 0.5, 120)
        after = before - generator.normal(0.1, 0.5, 120)
        (gain,) = gains("x", {"loss": lambda one, _: float(one.mean())}, before, after, actual)
        covered += gain.low <= 0.1 <= gain.high
    assert 52 <= covered <= 60


def test_rows_of_a_block_stay_together():
    # Ten blocks of a hundred equal rows are ten observations, not a thousand.
    generator = np.random.default_rng(2)
    blocks = np.repeat(np.arange(10), 100)
    predictions = generator.normal(size=10)[blocks]
    alone = intervals({"loss": mean_error}, predictions, np.zeros(1000))["loss"]
    together = intervals({"loss": mean_error}, predictions, np.zeros(1000), blocks=blocks)["loss"]
    assert together[1] - together[0] > 5 * (alone[1] - alone[0])


def test_models_that_agree_have_no_gain():
    same = np.arange(50.0)
    (gain,) = gains("x", {"loss": mean_error}, same, same, same + 1)
    assert gain.improvement == pytest.approx(0)
    assert gain.low <= 0 <= gain.high


@pytest.mark.parametrize("right", [0, 210])
def test_rows_that_are_all_right_or_all_wrong_leave_room_for_chance(right: int) -> None:
    probabilities = np.eye(2)[np.zeros(210, int)]
    actual = (np.arange(210) >= right).astype(int)
    low, high = intervals({"accuracy": accuracy}, probabilities, actual)["accuracy"]
    assert high - low == pytest.approx(0.0174, abs=1e-3)


def test_the_exact_match_of_several_labels_is_a_share_of_rows_as_well() -> None:
    actual = np.ones((40, 3), bool)
    metrics = MultiLabel("abc").metrics(["accuracy"])
    assert intervals(metrics, np.full((40, 3), 0.9), actual)["accuracy"] == exact_interval(40, 40)


def width(held: np.ndarray, blocks: np.ndarray | None = None) -> float:
    low, high = intervals({"accuracy": SHARE_RIGHT}, held, np.ones(len(held), bool), blocks)["accuracy"]
    return high - low


def test_rows_of_a_block_count_as_fewer() -> None:
    blocks = np.repeat(np.arange(20), 10)
    by_block, shuffled = np.repeat(np.arange(20) < 15, 10), np.random.default_rng(0).permutation(200) < 150
    assert width(by_block, blocks) > 2.5 * width(by_block)
    assert width(shuffled, blocks) < 1.3 * width(shuffled)
    assert width(np.ones(200, bool), blocks) == np.subtract(*exact_interval(20, 20)[::-1])
    assert np.isnan(width(by_block, np.zeros(200)))


@pytest.mark.parametrize("rows", [5, 210])
def test_the_interval_of_a_difference_excludes_0_only_where_mcnemars_test_does(rows: int) -> None:
    for gained, lost in itertools.product(range(0, min(rows, 30) + 1, 3), repeat=2):
        if gained + lost > rows:
            continue
        low, high = paired_interval(gained, lost, rows)
        assert -1 <= low <= (gained - lost) / rows <= high <= 1
        assert (low, high) == pytest.approx(tuple(-end for end in paired_interval(lost, gained, rows)[::-1]))
        assert not low > 1e-12 or mcnemar(gained, lost) <= 0.025
        assert not high < -1e-12 or mcnemar(lost, gained) <= 0.025


@pytest.mark.parametrize(("rows", "gain", "loss"), [(50, 0.02, 0.02), (20, 0.3, 0.1), (20, 0.9, 0)])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(rows: int, gain: float, loss: float) -> None:
    covered = 0.0
    for gained, lost in itertools.product(range(rows + 1), repeat=2):
        chance = binom.pmf(gained, rows, gain) * binom.pmf(lost, rows - gained, loss / (1 - gain))
        if chance > 1e-7:
            low, high = paired_interval(gained, lost, rows)
            covered += chance * (low <= gain - loss <= high)
    assert covered >= 0.95


def test_models_that_are_right_on_the_same_rows_may_still_differ_on_others() -> None:
    actual = np.zeros(100, int)
    same = np.eye(2)[actual]
    (gain,) = gains("fine-tuning", {"accuracy": accuracy}, same, same, actual)
    assert (gain.improvement, gain.low, gain.high) == (0, -gain.high, pytest.approx(0.0362, abs=1e-4))
    found = compare_classes(actual.astype(str), actual.astype(str), actual.astype(str))
    assert (found.low, found.improvement, found.high) == (gain.low, 0, gain.high)


@pytest.mark.parametrize("wrong", [0, 1])
def test_no_metric_is_sure_of_itself_whatever_is_right(wrong: int) -> None:
    metrics = {name: CLASS_METRICS[name] for name in ("accuracy", "balanced_accuracy")}
    actual = np.repeat([0, 1, 2], 40)
    predictions = np.eye(3)[np.where(np.arange(120) < wrong, 2, actual)] * 0.97 + 0.01
    for name, (low, high) in intervals(metrics, predictions, actual).items():
        value = metrics[name](predictions, actual)
        assert low < high or np.isnan(low), name
        assert np.isnan(low) or low <= value <= high, name
        assert not high > 1
