import itertools
import math
from dataclasses import asdict

import numpy as np
import pytest
from scipy.stats import binom, fisher_exact

from unfreeze.models.evaluation.comparison import compare_classes, compare_labels, compare_values
from unfreeze.models.evaluation.intervals import exact_interval
from unfreeze.models.evaluation.results import Gain
from unfreeze.models.evaluation.verdict import (
    TrainingSummary,
    compared,
    described,
    headlines,
    number,
    suspicions,
    verdict,
)

METRICS = {"valid/accuracy": 0.9, "valid/accuracy_low": 0.85, "valid/accuracy_high": 0.94, "valid/majority": 0.5}
SPLITS = {"train": 1000, "valid": 250, "test": 50}


def gain(low: float, high: float, before: float = 0.3, after: float = 0.2) -> Gain:
    return Gain("fine-tuning", "loss", before, after, before - after, low, high, 250)


def texts(**facts: object) -> str:
    return "\n".join(each.text for each in suspicions(TrainingSummary(**{"splits": SPLITS, **facts})))


def test_a_gain_is_claimed_only_as_far_as_its_interval_allows():
    assert described(gain(0.02, 0.1)).startswith("Fine-tuning helped: loss 0.300 to 0.200 on the validation rows")
    assert described(gain(-0.02, 0.1)).startswith("Fine-tuning made no difference that 250 rows could show")
    assert described(gain(-0.1, -0.02, 0.2, 0.3)).startswith("Fine-tuning made it worse")
    assert described(gain(0.0, 0.0, 0.2, 0.2)) == "Fine-tuning changed nothing on the validation rows."
    assert "to 0.200 on the test rows" in described(gain(0.02, 0.1)._replace(split="test"))


def test_the_verdict_names_metric_interval_rows_the_kept_model_and_every_gain():
    lines = verdict(TrainingSummary(METRICS, SPLITS, gains=[gain(0.02, 0.1)], kept="mean of head and all weights"))
    assert lines[0].startswith("accuracy 0.900 (0.850 to 0.940) of mean of head and all weights on 250 validation rows")
    assert "mean of head and all weights" in lines[1]
    assert lines[2].startswith("Fine-tuning helped")


def test_test_rows_come_before_validation_rows_and_losses_last():
    metrics = {**METRICS}
    for name in ("valid/loss", "test/accuracy"):
        metrics |= {name: 0.3, f"{name}_low": 0.2, f"{name}_high": 0.4}
    shown = [(each.section, each.name) for each in headlines(metrics)]
    assert shown == [("test", "accuracy"), ("valid", "accuracy"), ("valid", "loss")]


def test_a_sound_training_raises_no_suspicion():
    stage = {"name": "full", "train_loss": 0.2, "metrics": {"loss": 0.25}}
    assert texts(metrics=METRICS, stages=[stage], gains=[gain(0.02, 0.1)]) == ""


@pytest.mark.parametrize("stage", [{"train_loss": math.nan}, {"metrics": {"loss": math.inf}}])
def test_a_loss_that_is_not_finite_is_serious(stage):
    (found,) = suspicions(TrainingSummary(splits=SPLITS, stages=[{"name": "full", **stage}]))
    assert found.serious
    assert "full diverged" in found.text


def test_what_is_suspicious_is_said_with_its_number():
    assert "Only 40 validation rows: one row is 2.5%" in texts(splits={"valid": 40, "test": 9})
    assert "No test rows" in texts(splits={"valid": 400})
    by_class = texts(metrics={**METRICS, "valid/majority": 0.86})
    assert "right in 86.0% of the validation rows, the model in 90.0% (85.0% to 94.0%)" in by_class
    assert "off by 9.0%" in texts(metrics={"valid/ece": 0.09, "valid/temperature": 2.0})
    by_chance = {"valid/ece": 0.09, "valid/ece_by_chance": 0.1, "valid/temperature": 2.0}
    assert texts(metrics=by_chance) == ""
    assert "after a temperature of 0.50" in texts(metrics={"valid/ece": 0.09, "valid/temperature": 0.5})
    assert "no temperature mends it" in texts(metrics={"valid/ece": 0.09, "valid/temperature": 1.0})
    assert "20 of 250 validation rows look to the model like another class" in texts(label_errors=20)
    weak = {"valid/accuracy": 0.65, "valid/accuracy_low": 0.6, "valid/accuracy_high": 0.7}
    assert "wrong in 35.0% of them all, so most are its mistakes" in texts(label_errors=20, metrics=weak)
    assert "unlike those that the champion was trained on: feature space." in texts(
        drift=[{"what": "feature space", "verdict": "large"}]
    )
    over_fitted = [{"name": "full", "train_loss": 0.01, "metrics": {"loss": 0.3}}]
    assert "Over-fitted" in texts(stages=over_fitted)
    assert "the same image has another label" in texts(notices=["warning: the same image has another label"])


def test_a_test_that_is_clearly_worse_than_the_validation_is_noticed():
    metrics = {**METRICS, "test/accuracy": 0.7, "test/accuracy_low": 0.6, "test/accuracy_high": 0.8}
    text = texts(metrics=metrics)
    assert "clearly worse on the test rows, 0.700 (0.600 to 0.800), than on the validation rows, 0.900 (0.850" in text


def of_counts(right: int, rows: int, section: str) -> dict[str, float]:
    low, high = exact_interval(right, rows)
    accuracy = {f"{section}/accuracy": right / rows, f"{section}/accuracy_low": low, f"{section}/accuracy_high": high}
    # A loss whose bootstrap knows nothing of rows that are surely wrong.
    loss = 15 * (1 - right / rows) + 0.01
    return accuracy | {f"{section}/loss": loss, f"{section}/loss_low": loss * 0.9, f"{section}/loss_high": loss * 1.1}


@pytest.mark.parametrize("rows", [(30, 30), (210, 350), (350, 60)])
def test_the_test_rows_are_called_worse_only_where_fishers_exact_test_says_so(rows):
    said = 0
    for wrong in itertools.product(range(0, 30, 2), repeat=2):
        right = [count - each for count, each in zip(rows, wrong, strict=True)]
        metrics = of_counts(right[0], rows[0], "valid") | of_counts(right[1], rows[1], "test")
        if "clearly worse" in texts(metrics=metrics):
            said += 1
            assert fisher_exact([[right[0], wrong[0]], [right[1], wrong[1]]], "greater").pvalue < 0.025
    assert said


@pytest.mark.parametrize("rows", [12, 60, 200])
def test_of_two_models_one_is_called_better_only_where_mcnemars_exact_test_says_so(rows):
    actual, said = np.array(["cat"] * rows), []
    for gained, lost in itertools.product(range(0, 13, 2), range(0, 13, 3)):
        if gained + lost > rows:
            continue
        first, second = actual.copy(), actual.copy()
        first[:gained], second[gained : gained + lost] = "dog", "dog"
        text = compared(asdict(compare_classes(actual, first, second)))
        p_values = [binom.sf(each - 1, gained + lost, 0.5) for each in (gained, lost)]
        said.append(text.partition(":")[0])
        assert p_values[0] <= 0.025 or "the second is better" not in text
        assert p_values[1] <= 0.025 or "the second is worse" not in text
        assert "-0.0000" not in text
    assert {"the second is better", f"no difference that {rows} rows could show"} <= set(said)


@pytest.mark.parametrize("differing", range(7))
def test_too_few_rows_with_other_labels_or_values_are_no_difference(differing):
    rows = 300
    labels = [["cat"]] * rows
    first = [["dog"]] * differing + labels[differing:]
    values, off = np.arange(rows) % 7.0, np.where(np.arange(rows) < differing, 5.0, 0.1)
    noise = np.where(np.arange(rows) < differing, 0.0, 0.1)
    for found in (
        compare_labels(labels, first, labels),
        compare_values(values, values + off, values + noise, "mae"),
    ):
        assert ("the second is better" in compared(asdict(found))) == (differing == 6)


def test_none_wrong_of_210_and_4_of_350_are_not_called_different():
    metrics = of_counts(210, 210, "valid") | of_counts(346, 350, "test")
    assert "worse" not in texts(metrics=metrics)
    lines = verdict(TrainingSummary(metrics, {"valid": 210, "test": 350}))
    assert lines[0].startswith("accuracy 0.989 (0.971 to 0.997) and loss")
    assert lines[1].startswith("accuracy 1.000 (0.983 to 1.000) and loss")


@pytest.mark.parametrize(("split", "rows"), [("valid", "validation rows"), ("test", "test rows")])
def test_a_split_that_is_unlike_the_training_rows_is_named_with_the_size_of_the_difference(split, rows):
    shift = {split: [{"what": "brightness", "psi": 0.76, "verdict": "large"}, {"what": "contrast", "psi": 0.4}]}
    assert (
        texts(shift=shift)
        == f"The {rows} are unlike the training rows: brightness (population stability index 0.760, large from 0.25)."
    )


@pytest.mark.parametrize("verdict", ["stable", "moderate", "unclear", "unknown"])
def test_a_difference_that_is_not_shown_to_be_large_raises_no_suspicion(verdict):
    assert texts(shift={"test": [{"what": "brightness", "psi": 0.4, "verdict": verdict}]}) == ""


def test_numbers_are_shown_with_the_digits_that_matter():
    assert [number(value) for value in (0.98765, 0.012345, 12.345, 123456.7, math.nan)] == [
        "0.988",
        "0.0123",
        "12.3",
        "123,457",
        "undefined",
    ]
