import numpy as np
import pytest

from unfreeze.models.evaluation.intervals import gains, intervals


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
