import numpy as np
import pandas as pd
import pytest

from unfreeze.models.evaluation.metrics import accuracy, rmse
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables import baselines
from unfreeze.models.tables.baselines import group_mean
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder

ROWS = 2_000
TRAIN, VALID = np.arange(1_500), np.arange(1_500, ROWS)


def table() -> pd.DataFrame:
    """Sales follow from shop and weekday together, and a little from the distance."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "shop": random.choice(list("abcde"), ROWS),
            "weekday": random.integers(1, 8, ROWS),
            "noise": random.integers(0, 30, ROWS),
            "distance": random.normal(size=ROWS),
        }
    )
    level = random.uniform(100, 1000, (5, 8))
    frame["sales"] = level[frame["shop"].map(ord) - ord("a"), frame["weekday"]] + 10 * frame["distance"]
    frame["large"] = np.where(frame["sales"] > 500, "yes", "no")
    return frame


def prepare(frame: pd.DataFrame, **settings: object) -> tuple[TableEncoder, Encoded, np.ndarray, Encoded, np.ndarray]:
    data = TableDataSpec.model_validate({"target": ["sales"], "drop": ["large"], **settings})
    encoder = TableEncoder.fit(frame, TRAIN, data)
    encoded, targets = encoder.transform(frame), encoder.targets(frame)
    return encoder, encoded.rows(TRAIN), targets[TRAIN], encoded.rows(VALID), targets[VALID]


def test_the_mean_is_taken_by_the_columns_that_matter():
    frame = table()
    encoder, train, targets, valid, _ = prepare(frame)
    found = group_mean(encoder, train, targets, valid, seed=0)
    assert found.columns == ["shop", "weekday"]
    means = frame.iloc[TRAIN].groupby(["shop", "weekday"])["sales"].mean()
    expected = means.loc[list(zip(*frame.iloc[VALID][["shop", "weekday"]].to_numpy().T, strict=True))]
    assert found.predictions[:, 0] == pytest.approx(expected.to_numpy(), rel=1e-6)


def test_unseen_groups_get_the_mean_of_all():
    encoder, train, targets, valid, _ = prepare(table())
    valid.categorical[:250] = 0
    found = group_mean(encoder, train, targets, valid, seed=0)
    assert found.predictions[:250, 0] == pytest.approx(targets.mean(), rel=1e-6)


def test_what_validation_rows_cannot_be_looked_up_by_is_not_chosen():
    encoder, train, targets, valid, _ = prepare(table())
    valid.categorical[:, 0] = 0  # shops that are new
    assert group_mean(encoder, train, targets, valid, seed=0).columns == ["weekday"]


def test_means_of_logarithms_come_back_in_the_scale_of_the_target():
    encoder, train, targets, valid, actual = prepare(table(), log_target=True)
    found = group_mean(encoder, train, targets, valid, seed=0)
    assert rmse(found.predictions, np.expm1(actual)) < 15


def test_columns_of_too_many_codes_and_too_many_groups_are_not_tried(monkeypatch):
    monkeypatch.setattr(baselines, "MOST_CODES", 8)  # weekday has 8 codes
    encoder, train, targets, valid, _ = prepare(table())
    assert group_mean(encoder, train, targets, valid, seed=0).columns == ["shop"]
    monkeypatch.setattr(baselines, "MOST_CODES", 1)
    nothing = group_mean(encoder, train, targets, valid, seed=0)
    assert nothing.columns == []
    assert nothing.predictions == pytest.approx(targets.mean(), rel=1e-6)


def test_frequencies_of_classes_add_up_and_are_never_zero():
    encoder, train, targets, valid, actual = prepare(table(), target=["large"], drop=["sales"])
    found = group_mean(encoder, train, targets, valid, seed=0)
    assert found.columns == ["shop", "weekday"]
    assert found.predictions.shape == (500, 2)
    assert found.predictions.sum(axis=1) == pytest.approx(1)
    assert found.predictions.min() > 0
    assert accuracy(found.predictions, actual) > 0.9


def test_several_targets_are_averaged_side_by_side():
    frame = table()
    encoder, train, targets, valid, actual = prepare(frame, target=["sales", "distance"])
    found = group_mean(encoder, train, targets, valid, seed=0)
    assert found.predictions.shape == (500, 2)
    assert rmse(found.predictions[:, [0]], actual[:, [0]]) < 0.2 * actual[:, 0].std()


@pytest.mark.parametrize("target", ["sales", "large"])
def test_means_in_chunks_are_the_same(monkeypatch, target):
    frame = table()
    encoder, train, targets, valid, _ = prepare(frame, target=[target], drop=[{"sales": "large"}.get(target, "sales")])
    means = group_mean(encoder, train, targets, valid, seed=0)
    monkeypatch.setattr(baselines, "CHUNK_ROWS", 130)
    chunked = group_mean(encoder, train, targets, valid, seed=0)
    assert chunked.columns == means.columns
    np.testing.assert_allclose(chunked.predictions, means.predictions, rtol=1e-12)
