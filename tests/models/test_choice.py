"""Which of several models is kept."""

import math

import numpy as np

from unfreeze.models.choice import Compared, choose_model
from unfreeze.models.targets import SingleLabel
from unfreeze.models.training_data import Candidate

ROWS = 60
ACTUAL = np.arange(ROWS) % 2
LOSS = SingleLabel().loss_of


def compared(name: str, right: np.ndarray, untuned: bool = False) -> Compared:
    """A model with these probabilities (N,) of the right class."""
    predictions = np.stack([1 - right, right], axis=1)
    predictions[ACTUAL == 0] = predictions[ACTUAL == 0, ::-1]
    return Compared(Candidate(name, [], 0, untuned=untuned), LOSS(predictions, ACTUAL), predictions)


GOOD = compared("full", np.full(ROWS, 0.9))
NOISE = np.random.default_rng(0).uniform(0.6, 0.99, ROWS)


def test_the_lowest_validation_loss_is_kept():
    choice = choose_model([GOOD, compared("head", np.full(ROWS, 0.8))], LOSS, ACTUAL)
    assert choice.kept is GOOD
    assert choice.verdict == "full is kept: its validation loss of 0.1054 is the lowest"


def test_a_model_that_beats_the_trained_network_is_kept_and_named():
    better = compared("head", np.full(ROWS, 0.95))
    choice = choose_model([GOOD, better], LOSS, ACTUAL)
    assert choice.kept is better
    assert choice.verdict == "head is kept: its validation loss of 0.05129 is the lowest, against 0.1054 of full"


def test_a_network_that_was_stopped_by_the_validation_rows_needs_more_than_a_standard_error():
    untuned = compared("logistic regression", NOISE, untuned=True)
    hardly_better = compared("full", np.roll(NOISE, 7) + 0.003)
    assert hardly_better.loss < untuned.loss
    choice = choose_model([hardly_better, untuned], LOSS, ACTUAL)
    assert choice.kept is untuned
    assert "within the standard error" in choice.verdict


def test_a_clearly_lower_loss_is_kept_whatever_stopped_it():
    untuned = compared("logistic regression", NOISE - 0.1, untuned=True)
    clearly_better = compared("full", NOISE)
    assert choose_model([clearly_better, untuned], LOSS, ACTUAL).kept is clearly_better


def test_of_two_models_that_never_saw_the_rows_the_lower_is_kept():
    one, other = compared("views", NOISE, untuned=True), compared("plain", np.roll(NOISE, 7) + 0.003, untuned=True)
    assert choose_model([compared("full", NOISE - 0.3), one, other], LOSS, ACTUAL).kept is other


def test_a_loss_that_is_not_finite_is_never_kept():
    broken = GOOD._replace(loss=math.nan)
    worse = compared("head", np.full(ROWS, 0.8))
    assert choose_model([broken, worse], LOSS, ACTUAL).kept is worse
    assert choose_model([broken], LOSS, ACTUAL) is None
