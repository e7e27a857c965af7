import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.settings import OptimizerSpec
from unfreeze.models.targets import Numbers, SingleLabel, check_metrics


def titles_of(report: Findings) -> list[str]:
    """Of every table, figure and chart."""
    tables, figures = [title for _, title, _ in report.tables], [title for title, _ in report.figures.values()]
    return tables + figures + [each.title for each in report.charts] + [each.title for each in report.counts]


def test_the_table_per_class_counts_right_and_wrong():
    targets = np.array([0, 0, 0, 1, 1, 2])
    predicted = np.eye(4)[[0, 0, 1, 1, 0, 0]]
    report = SingleLabel(["a", "b", "c", "d"]).report(predicted, targets, "valid", "full with TTA")
    assert all(title.endswith(": full with TTA, 6 valid rows") for title in titles_of(report))
    table = report.frames["valid/per_class.feather"].set_index("class")
    assert table["rows"].to_dict() == {"a": 3, "b": 2, "c": 1, "d": 0}
    assert table["precision"].to_dict() == pytest.approx({"a": 2 / 4, "b": 1 / 2, "c": 0, "d": 0})
    assert table["recall"].to_dict() == pytest.approx({"a": 2 / 3, "b": 1 / 2, "c": 0, "d": 0})
    assert table.loc["a", "f1"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))


def test_outputs_become_probabilities_or_values_in_the_targets_own_scale():
    logits = torch.tensor([[0.0, 0.0], [2.0, -2.0]])
    np.testing.assert_allclose(SingleLabel(["a", "b"]).predictions(logits).sum(1), 1)
    values = torch.tensor([[0.0], [3.0]])
    np.testing.assert_allclose(Numbers(["sales"]).predictions(values), values)
    np.testing.assert_allclose(Numbers(["sales"], log=True).predictions(values), np.expm1(values.double().numpy()))


def test_a_served_model_answers_with_a_class_or_with_a_column_per_number():
    answer = SingleLabel(["a", "b"]).frame(np.array([[0.2, 0.8], [0.9, 0.1]]))
    assert answer.columns.tolist() == ["class", "probability", "probabilities"]
    assert answer["class"].tolist() == ["b", "a"]
    assert Numbers(["x", "y"]).frame(np.ones((2, 2))).columns.tolist() == ["x", "y"]


def test_the_loss_follows_from_the_target_unless_another_one_is_named():
    targets, device = np.array([0, 1, 1]), torch.device("cpu")
    logits = torch.tensor([[1.0, 0.0]] * 3)
    loss = SingleLabel(["a", "b"]).loss(OptimizerSpec(), targets, device)
    assert float(loss(logits, torch.from_numpy(targets))) == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)))
    )
    with pytest.raises(UserError, match=r"optimizer\.loss: 'cros_entropy' .* did you mean cross_entropy"):
        SingleLabel(["a", "b"]).loss(OptimizerSpec(loss="cros_entropy"), targets, device)


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(-4, 4)), min_size=3, max_size=30))
def test_with_balanced_weights_a_loss_is_the_mean_over_the_classes(rows):
    actual = np.array([0, 1, 2, *(each for each, _ in rows)])
    logits = torch.tensor([[0.0, value, -value] for value in (0.0, 1.0, 2.0, *(value for _, value in rows))])
    plain = SingleLabel(["a", "b", "c"])
    target = plain.weighed(OptimizerSpec(class_weights="balanced"), lambda: actual)
    predictions = target.predictions(logits)
    of_classes = [plain.loss_of(predictions[actual == each], actual[actual == each]) for each in range(3)]
    assert target.loss_of(predictions, actual) == pytest.approx(np.mean(of_classes), rel=1e-5)
    assert float(target.score(logits, torch.from_numpy(actual))) == pytest.approx(np.mean(of_classes), rel=1e-5)


def test_without_class_weights_every_row_counts_the_same():
    assert SingleLabel(["a", "b"]).weighed(OptimizerSpec(), lambda: pytest.fail("not needed")).class_weights is None


def test_classes_of_very_different_sizes_are_named_with_the_flag_and_then_with_their_weights():
    target, targets = SingleLabel(["cat", "dog", "never seen"]), np.array([0] * 40 + [1] * 8)
    (notice,) = target.imbalance(targets).notices
    assert "8 training rows of dog, 40 (83%) of cat" in notice
    assert "--optimizer.class_weights balanced" in notice
    weighed = target.weighed(OptimizerSpec(class_weights="balanced"), lambda: targets).imbalance(targets)
    assert weighed.lines[0].startswith("class weights: a row of dog counts 5 times as much as one of cat")
    assert not weighed.notices
    assert target.imbalance(targets[1:]) == Findings()


def test_the_temperature_of_weighed_classes_is_that_of_rows_that_count_so():
    probabilities = np.array([[0.9, 0.1]] * 1200 + [[0.3, 0.7]] * 1200)
    actual = np.array([0] * 1100 + [1] * 100 + [0, 1] * 600)
    target = SingleLabel(["a", "b"], np.array([1.0, 3.0]))
    repeated = np.repeat(np.arange(2400), np.where(actual, 3, 1))
    expected = SingleLabel(["a", "b"]).temperature(probabilities[repeated], actual[repeated])
    assert target.temperature(probabilities, actual) == pytest.approx(expected, rel=5e-3)
    assert SingleLabel(["a", "b"]).temperature(probabilities, actual) != pytest.approx(expected, rel=0.02)


def test_numbers_have_no_classes_to_weigh():
    with pytest.raises(
        UserError, match=r"optimizer\.class_weights: balanced is for one class per row, and this is regression"
    ):
        Numbers(["sales"]).check(OptimizerSpec(class_weights="balanced"))


def test_two_models_are_compared_on_the_same_rows():
    actual = np.array(["a", "b"] * 50)
    target = SingleLabel(["a", "b"])
    right, wrong = (target.frame(np.eye(2)[rows]) for rows in ([0, 1] * 50, [0, 0] * 50))
    comparison = target.compare(actual, wrong, right)
    assert (comparison.champion, comparison.challenger, comparison.rows) == (0.5, 1.0, 100)
    numbers = Numbers(["x"])
    comparison = numbers.compare(
        np.zeros((100, 1)), numbers.frame(np.ones((100, 1))), numbers.frame(np.zeros((100, 1)))
    )
    assert comparison.metric == "rmse"
    assert comparison.challenger < comparison.champion


@pytest.mark.parametrize(
    ("tasks", "name"),
    [
        (["classification"], "rmse"),
        (["classification"], "map"),
        (["multi-label classification"], "kappa"),
        (["regression"], "auc"),
        (["classification", "regression"], "acuracy"),
    ],
)
def test_metrics_that_do_not_fit_are_rejected_before_anything_is_read(tasks, name):
    with pytest.raises(UserError, match="metrics"):
        check_metrics(tasks, [name])
