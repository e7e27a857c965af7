import math

import pytest

from unfreeze.models.findings import Gain
from unfreeze.models.verdict import Training, described, headlines, number, suspicions, verdict

METRICS = {"valid/accuracy": 0.9, "valid/accuracy_low": 0.85, "valid/accuracy_high": 0.94, "valid/majority": 0.5}
SPLITS = {"train": 1000, "valid": 250, "test": 50}


def gain(low: float, high: float, before: float = 0.3, after: float = 0.2) -> Gain:
    return Gain("fine-tuning", "loss", before, after, before - after, low, high, 250)


def texts(**facts: object) -> str:
    return "\n".join(each.text for each in suspicions(Training(**{"splits": SPLITS, **facts})))


def test_a_gain_is_claimed_only_as_far_as_its_interval_allows():
    assert described(gain(0.02, 0.1)).startswith("Fine-tuning helped: loss 0.300 to 0.200")
    assert described(gain(-0.02, 0.1)).startswith("Fine-tuning made no difference that 250 rows could show")
    assert described(gain(-0.1, -0.02, 0.2, 0.3)).startswith("Fine-tuning did harm")
    assert described(gain(0.0, 0.0, 0.2, 0.2)) == "Fine-tuning changed nothing."


def test_the_verdict_names_metric_interval_rows_the_kept_model_and_every_gain():
    lines = verdict(Training(METRICS, SPLITS, gains=[gain(0.02, 0.1)], kept="mean of head and all weights"))
    assert lines[0].startswith("accuracy 0.900 (0.850 to 0.940) on 250 validation rows")
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
    (found,) = suspicions(Training(splits=SPLITS, stages=[{"name": "full", **stage}]))
    assert found.serious
    assert "full diverged" in found.text


def test_what_is_suspicious_is_said_with_its_number():
    assert "Only 40 validation rows: one row is 2.5%" in texts(splits={"valid": 40, "test": 9})
    assert "No test rows" in texts(splits={"valid": 400})
    assert "No better than chance" in texts(metrics={**METRICS, "valid/majority": 0.86})
    assert "off by 9.0%" in texts(metrics={"valid/ece": 0.09, "valid/temperature": 2.0})
    by_chance = {"valid/ece": 0.09, "valid/ece_by_chance": 0.1, "valid/temperature": 2.0}
    assert texts(metrics=by_chance) == ""
    assert "not sure enough" in texts(metrics={"valid/ece": 0.09, "valid/temperature": 0.5})
    assert "8.0% of the validation rows seem labelled wrong" in texts(label_errors=20)
    assert "unlike those that the champion was trained on: feature space." in texts(
        drift=[{"what": "feature space", "verdict": "large"}]
    )
    over_fitted = [{"name": "full", "train_loss": 0.01, "metrics": {"loss": 0.3}}]
    assert "Over-fitted" in texts(stages=over_fitted)
    assert "the same image has another label" in texts(notices=["warning: the same image has another label"])


def test_a_test_that_is_clearly_worse_than_the_validation_is_noticed():
    metrics = {**METRICS, "test/accuracy": 0.7, "test/accuracy_low": 0.6, "test/accuracy_high": 0.8}
    assert "clearly worse on the test rows" in texts(metrics=metrics)


@pytest.mark.parametrize(("split", "rows"), [("valid", "validation rows"), ("test", "test rows")])
def test_a_split_that_is_unlike_the_training_rows_is_named_with_the_size_of_the_difference(split, rows):
    shift = {split: [{"what": "brightness", "psi": 0.76, "verdict": "large"}, {"what": "contrast", "psi": 0.4}]}
    assert texts(shift=shift) == f"The {rows} are unlike the training rows: brightness (PSI 0.760, large from 0.25)."


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
