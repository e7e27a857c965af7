"""Which of several models is kept."""

import math

import numpy as np
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.selection import Compared, criterion_of, select_model
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel

ROWS = 60
ACTUAL = np.arange(ROWS) % 2
LOSS = criterion_of(SingleLabel(), "loss")


def compared(name: str, right: np.ndarray, margin: float = 0.0) -> Compared:
    """A model with these probabilities (N,) of the right class."""
    predictions = np.stack([1 - right, right], axis=1)
    predictions[ACTUAL == 0] = predictions[ACTUAL == 0, ::-1]
    return Compared(Candidate(name, [], 0, margin=margin), LOSS.metric(predictions, ACTUAL), predictions)


GOOD = compared("full", np.full(ROWS, 0.9))
NOISE = np.random.default_rng(0).uniform(0.6, 0.99, ROWS)


def test_the_lowest_validation_loss_is_kept():
    selection = select_model([GOOD, compared("head", np.full(ROWS, 0.8))], LOSS, ACTUAL)
    assert selection.kept is GOOD
    assert selection.verdict == "full is kept: its validation loss of 0.1054 is the best"


def test_a_model_that_beats_the_trained_network_is_kept_and_named():
    better = compared("head", np.full(ROWS, 0.95))
    selection = select_model([GOOD, better], LOSS, ACTUAL)
    assert selection.kept is better
    assert selection.verdict == "head is kept: its validation loss of 0.05129 is the best, against 0.1054 of full"


def test_a_network_is_kept_over_a_cautious_model_only_beyond_its_margin():
    cautious = compared("logistic regression", NOISE, margin=1.0)
    hardly_better = compared("full", np.roll(NOISE, 7) + 0.003)
    assert hardly_better.loss < cautious.loss
    selection = select_model([hardly_better, cautious], LOSS, ACTUAL)
    assert selection.kept is cautious
    assert "within 1 standard error (" in selection.verdict


def test_a_clearly_lower_loss_is_kept_whatever_stopped_it():
    cautious = compared("logistic regression", NOISE - 0.1, margin=1.0)
    clearly_better = compared("full", NOISE)
    assert select_model([clearly_better, cautious], LOSS, ACTUAL).kept is clearly_better


def test_of_two_cautious_models_the_better_is_kept():
    one, other = compared("views", NOISE, margin=1.0), compared("plain", np.roll(NOISE, 7) + 0.003, margin=1.0)
    assert select_model([compared("full", NOISE - 0.3), one, other], LOSS, ACTUAL).kept is other


def test_a_loss_that_is_not_finite_is_never_kept():
    broken = GOOD._replace(loss=math.nan)
    worse = compared("head", np.full(ROWS, 0.8))
    assert select_model([broken, worse], LOSS, ACTUAL).kept is worse
    assert select_model([broken], LOSS, ACTUAL) is None


@pytest.mark.parametrize("rows", [25, 210])
def test_the_surest_of_models_that_are_always_right_is_not_kept_for_that(rows):
    def sure(name: str, probability: float) -> Compared:
        predictions = np.tile([probability, 1 - probability], (rows, 1))
        return Compared(Candidate(name, [], 0), -np.log(probability), predictions)

    right = np.zeros(rows, int)
    calibrated, sharp = sure("calibrated", rows / (rows + 1)), sure("sharp", 1 - 1e-7)
    selection = select_model([sharp, calibrated], LOSS, right)
    assert selection.kept is calibrated
    assert "one more row counted that is wrong" in selection.verdict


def test_a_network_that_is_right_in_97_of_100_rows_is_kept_over_a_regression_that_is_in_90():
    rng = np.random.default_rng(0)

    def drawn(name: str, wrong: int, margin: float) -> Compared:
        right = np.where(rng.permutation(100) < wrong, rng.uniform(0.05, 0.4, 100), rng.uniform(0.7, 0.99, 100))
        predictions = np.stack([right, 1 - right], axis=1)
        return Compared(
            Candidate(name, [], 0, margin=margin), LOSS.metric(predictions, np.zeros(100, int)), predictions
        )

    network, regression = drawn("full", 3, 0.0), drawn("logistic regression", 10, 1.0)
    assert select_model([network, regression], LOSS, np.zeros(100, int)).kept is network


def test_the_metric_that_is_asked_for_decides():
    rare = np.array([0] * 54 + [1] * 6)
    usual = np.tile([0.9, 0.1], (ROWS, 1))  # never the rare class, and the lower loss
    fair = np.where(rare[:, None] == [0, 1], 0.51, 0.49)
    models = [
        Compared(Candidate(name, [], 0), LOSS.metric(each, rare), each) for name, each in (("a", usual), ("b", fair))
    ]
    assert select_model(models, LOSS, rare).kept.candidate.name == "a"
    selection = select_model(models, criterion_of(SingleLabel(), "balanced_accuracy"), rare)
    assert selection.kept.candidate.name == "b"
    assert selection.verdict == "b is kept: its validation balanced_accuracy of 1 is the best, against 0.5 of a"


def test_an_error_of_numbers_is_to_be_low_and_a_share_that_is_explained_high():
    actual = np.arange(10.0)[:, None]
    near, far = (Compared(Candidate(name, [], 0), 1.0, actual + off) for name, off in (("near", 0.1), ("far", 3.0)))
    for metric in ("rmse", "r2"):
        assert select_model([far, near], criterion_of(Numbers(["price"]), metric), actual).kept is near


def test_a_metric_that_does_not_fit_is_refused_with_those_that_do():
    with pytest.raises(UserError, match="select: 'rmse' is not one of loss, accuracy, balanced_accuracy"):
        criterion_of(SingleLabel(), "rmse")
    with pytest.raises(UserError, match="select: 'f1' is not one of loss, map, auc, log_loss"):
        criterion_of(MultiLabel(["a"]), "f1")
    with pytest.raises(UserError, match="did you mean rmse"):
        criterion_of(Numbers(["price"]), "rms")
