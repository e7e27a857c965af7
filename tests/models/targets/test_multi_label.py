import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel, target_from
from unfreeze.models.targets.predictions import Layout, Tally

TARGET = MultiLabel(["cat", "dog", "indoor"])
PROBABILITIES = np.array([[0.9, 0.2, 0.6], [0.1, 0.4, 0.2]])
ACTUAL = np.array([[True, False, True], [False, True, False]])


def scored(rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are right about labels, but too low by half."""
    generator = np.random.default_rng(seed)
    actual = generator.random((rows, 3)) < (0.5, 0.3, 0.2)
    return np.clip(generator.normal(0.1 + 0.3 * actual, 0.06), 0, 1), actual


def test_each_label_has_a_probability_by_itself():
    logits = torch.tensor([[0.0, 2.0, -2.0]])
    np.testing.assert_allclose(TARGET.predictions(logits), torch.sigmoid(logits.double()))


def test_the_loss_is_the_binary_cross_entropy_in_training_and_in_choosing():
    logits, labels = torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, -3.0]]), torch.from_numpy(ACTUAL).float()
    expected = float(torch.nn.functional.binary_cross_entropy_with_logits(logits, labels))
    loss = TARGET.loss(OptimizerSpec(), labels.numpy(), torch.device("cpu"))
    assert float(loss(logits, labels)) == pytest.approx(expected)
    assert float(TARGET.score(logits, labels)) == pytest.approx(expected)
    assert TARGET.loss_of(TARGET.predictions(logits), TARGET.actual(labels)) == pytest.approx(expected)


def test_label_smoothing_moves_labels_towards_one_half():
    logits, labels = torch.zeros(1, 3) + 5, torch.ones(1, 3)
    loss = TARGET.loss(OptimizerSpec(label_smoothing=0.2), labels.numpy(), torch.device("cpu"))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels * 0.9)
    assert float(loss(logits, labels)) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        (TARGET, {"loss": "cross_entropy"}, "cross_entropy is for classification, and this is multi-label"),
        (TARGET, {"loss": "squared_error"}, "choose auto or one of binary_cross_entropy"),
        (TARGET, {"class_weights": "balanced"}, "is for one class per row, and this is multi-label"),
        (SingleLabel(["a", "b"]), {"loss": "binary_cross_entropy"}, "choose auto or one of cross_entropy, focal"),
        (Numbers(["x"]), {"loss": "focal"}, "focal is for classification, and this is regression"),
    ],
)
def test_settings_that_cannot_work_are_refused(target, settings, message):
    with pytest.raises(UserError, match=message):
        target.check(OptimizerSpec(**settings))


def test_a_served_model_answers_with_a_list_of_labels():
    answer = TARGET.frame(PROBABILITIES)
    assert answer["labels"].tolist() == [["cat", "indoor"], []]
    assert answer["probabilities"].tolist() == PROBABILITIES.tolist()


def test_thresholds_are_tuned_on_one_half_of_the_rows_and_no_other_metric_sees_that_half():
    probabilities, actual = scored()
    settled = TARGET.tuned(probabilities, actual)
    judged = TARGET.unbiased_rows(actual)
    assert len(judged) == 100
    assert np.abs(actual[judged].sum(0) - actual.sum(0) / 2).max() <= 2
    changed = probabilities.copy()
    changed[judged] = 0.5
    np.testing.assert_array_equal(TARGET.tuned(changed, actual).thresholds, settled.thresholds)
    before, after = (each.metrics(["f1"])["f1"](probabilities[judged], actual[judged]) for each in (TARGET, settled))
    assert before < 0.1
    assert after > 0.95


@given(st.integers(0, 60))
def test_any_number_of_rows_can_be_settled(rows):
    probabilities, actual = scored(rows)
    assert len(TARGET.tuned(probabilities, actual).thresholds) == 3
    assert set(TARGET.unbiased_rows(actual)) <= set(range(rows))


def test_a_model_keeps_all_of_it():
    settled = TARGET.tuned(*scored())
    kept = target_from(settled.settings())
    assert isinstance(kept, MultiLabel)
    assert kept.classes == settled.classes
    np.testing.assert_array_equal(kept.thresholds, settled.thresholds)
    assert target_from(SingleLabel(["a", 3]).settings()).classes == ["a", 3]
    numbers = Numbers(["x"], log=True, deviations=[2.0])
    assert target_from(numbers.settings()).settings() == numbers.settings()


def test_an_evaluation_has_a_row_per_image():
    table = TARGET.evaluated(ACTUAL, PROBABILITIES, {"tta": PROBABILITIES[::-1]})
    assert table["labels"].tolist() == ["cat|indoor", "dog"]
    assert table["predicted_labels"].tolist() == ["cat|indoor", ""]
    assert table["predicted_labels_tta"].tolist() == ["", "cat|indoor"]
    assert table["loss"][0] == pytest.approx(-np.log([0.9, 0.8, 0.6]).mean())
    assert table["p_tta(dog)"].tolist() == [0.4, 0.2]
    assert TARGET.captions(table.assign(path="/x/y.jpg"))[1].startswith("y.jpg\nlabels dog\npredicted none\nloss ")


def test_the_report_says_of_every_label_how_well_it_is_found():
    probabilities, actual = scored()
    report = TARGET.tuned(probabilities, actual).report(probabilities, actual, "valid", "full")
    table = report.frames["valid/per_label.feather"].set_index("label")
    assert table["rows"].to_dict() == dict(zip(TARGET.classes, actual.sum(0), strict=True))
    assert (table[["precision", "recall", "f1", "average_precision", "auc"]] > 0.9).all(axis=None)
    assert table["threshold"].between(0.2, 0.35).all()
    assert "valid/labels.png" in report.figures


def test_the_commonest_combination_is_what_a_model_must_beat():
    assert TARGET.majority(np.array([[1, 0, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0]])) == 0.5


def test_a_file_of_predictions_has_the_labels_as_text_and_the_most_probable_ones():
    layout = Layout(pa.field("path", pa.string()), "m", "1", TARGET, 2)
    batch = layout.batch(pa.array(["a", "b", "c"]), np.array([0, 2]), PROBABILITIES, {1: "no image"})
    columns = batch.to_pydict()
    assert columns["labels"] == ["cat|indoor", None, ""]
    assert columns["label"] == ["cat", None, "dog"]
    assert columns["label_2"] == ["indoor", None, "indoor"]
    assert columns["probability_2"] == [0.6, None, 0.2]
    tally = Tally()
    list(tally.passing([batch, batch]))
    assert tally.table() == [
        {"label": "cat", "rows": 2, "share": 0.5},
        {"label": "indoor", "rows": 2, "share": 0.5},
        {"label": "(none)", "rows": 2, "share": 0.5},
    ]


def test_two_models_are_compared_by_the_mean_f1_even_if_they_know_other_labels():
    actual = np.empty(100, dtype=object)
    actual[:] = [["cat"], ["dog", "new"]] * 50
    champion = MultiLabel(["cat", "dog"]).frame(np.array([[0.9, 0.1], [0.1, 0.9]] * 50))
    challenger = MultiLabel(["cat", "dog", "new"]).frame(np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.9]] * 50))
    found = MultiLabel(["cat", "dog", "new"]).compare(actual, champion, challenger)
    assert (found.metric, found.test, found.rows) == ("f1", "paired bootstrap", 100)
    assert found.champion == pytest.approx(2 / 3)
    assert found.challenger == 1
    assert found.p_value < 0.001
    assert [row["class"] for row in found.classes if row["difference"] > 0] == ["new"]


def test_answers_of_another_kind_are_not_compared():
    single, actual = SingleLabel(["cat", "dog"]), np.array([["cat"], ["dog"]], dtype=object)
    answers = single.frame(np.eye(2))
    with pytest.raises(UserError, match="the champion only class, probability, probabilities"):
        TARGET.compare(actual, answers, TARGET.frame(PROBABILITIES))
    with pytest.raises(UserError, match="predicts class, the champion only labels"):
        single.compare(np.array(["cat", "dog"]), TARGET.frame(PROBABILITIES), answers)
