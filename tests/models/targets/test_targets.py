import numpy as np
import pytest
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.findings import Findings
from unfreeze.models.specs import OptimizerSpec
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
