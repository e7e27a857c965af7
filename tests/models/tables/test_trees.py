import numpy as np
import pandas as pd
import pytest

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.metrics import CLASS_METRICS, accuracy, log_loss, rmse
from unfreeze.models.settings.tables import TableDataSpec, TreesSpec
from unfreeze.models.tables import trees
from unfreeze.models.tables.columns.encoding import Encoded, TableEncoder
from unfreeze.models.tables.trees import Trees, rows_to_fit

ROWS = 2_000
TRAIN, VALID = np.arange(1_500), np.arange(1_500, ROWS)


def table() -> pd.DataFrame:
    """Sales follow from shop and weekday together, and a little from the distance, which is sometimes missing."""
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
    frame.loc[random.random(ROWS) < 0.1, "distance"] = np.nan
    frame["large"] = np.where(frame["sales"] > 500, "yes", "no")
    return frame


def prepare(frame: pd.DataFrame, **settings: object) -> tuple[TableEncoder, Encoded, np.ndarray, Encoded, np.ndarray]:
    data = TableDataSpec.model_validate({"target": ["sales"], "drop": ["large"], **settings})
    encoder = TableEncoder.fit(frame, TRAIN, data)
    encoded, targets = encoder.transform(frame), encoder.targets(frame)
    return encoder, encoded.rows(TRAIN), targets[TRAIN], encoded.rows(VALID), targets[VALID]


def fit(encoder: TableEncoder, train: Encoded, targets: np.ndarray, seed: int = 0, rounds: int = 150) -> Trees:
    return Trees.fit(encoder, train, targets, seed, rounds)


LARGE = {"target": ["large"], "drop": ["sales"]}
DISTANCE = {"target": ["sales", "distance"]}


@pytest.mark.parametrize("log_target", [False, True])
def test_trees_learn_numbers_in_the_scale_of_the_networks_targets(log_target):
    encoder, train, targets, valid, actual = prepare(table(), log_target=log_target)
    predictions = fit(encoder, train, targets, rounds=500).predict(valid)
    assert predictions.shape == (500, 1)
    assert rmse(predictions, actual) < 0.2 * actual.std()


def test_rows_that_come_later_say_how_many_trees_there_are_and_so_many_can_be_fitted_again():
    encoder, train, targets, valid, actual = prepare(table())
    stopped = Trees.fit(encoder, train, targets, 0, later=(valid, actual))
    shuffled = np.random.default_rng(0).permutation(actual)
    assert max(Trees.fit(encoder, train, targets, 0, later=(valid, shuffled)).lengths) < min(stopped.lengths)
    again = Trees.fit(encoder, train, targets, 0, lengths=stopped.lengths)
    assert again.lengths == stopped.lengths
    np.testing.assert_array_equal(again.predict(valid), stopped.predict(valid))


@pytest.mark.parametrize("settings", [{"lr": 0.3}, {"leaves": 3}, {"leaf_rows": 90}, {"columns": 0.3}])
def test_each_setting_makes_other_trees(settings):
    encoder, train, targets, valid, _ = prepare(table())
    plain, other = (
        Trees.fit(encoder, train, targets, 0, 10, 1, TreesSpec(**each)).predict(valid) for each in ({}, settings)
    )
    assert not np.allclose(plain, other)


def test_the_seed_decides_which_trees_are_fitted():
    encoder, train, targets, valid, _ = prepare(table())
    predictions = fit(encoder, train, targets, rounds=10).predict(valid)
    np.testing.assert_array_equal(fit(encoder, train, targets, rounds=10).predict(valid), predictions)
    assert not np.array_equal(fit(encoder, train, targets, seed=1, rounds=10).predict(valid), predictions)


def test_several_targets_have_trees_of_their_own():
    encoder, train, targets, valid, actual = prepare(table().fillna({"distance": 0}), **DISTANCE)
    predictions = fit(encoder, train, targets, rounds=80).predict(valid)
    assert predictions.shape == actual.shape
    assert rmse(predictions[:, [0]], actual[:, [0]]) < 0.6 * actual[:, 0].std()


def test_trees_give_probabilities_of_two_classes_and_of_several():
    frame = table()
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    probabilities = fit(encoder, train, targets).predict(valid)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert accuracy(probabilities, actual) > 0.9
    frame["large"] = pd.cut(frame["sales"], [-1e9, 300, 600, 1e9], labels=["low", "middle", "high"]).astype(str)
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    probabilities = fit(encoder, train, targets).predict(valid)
    assert probabilities.shape == (500, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert accuracy(probabilities, actual) > 0.9


def test_a_class_of_one_row_neither_stops_the_trees_nor_makes_them_worse():
    frame = table()
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    without = log_loss(fit(encoder, train, targets).predict(valid), actual)
    frame.loc[3, "large"] = "huge"
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    probabilities = fit(encoder, train, targets).predict(valid)
    assert probabilities.shape == (500, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert log_loss(probabilities, actual) < 1.2 * without


def test_class_weights_make_the_trees_expect_every_class_alike():
    frame = table()
    blurred = frame["sales"] + np.random.default_rng(1).normal(0, 200, ROWS)
    frame["large"] = np.where(blurred > blurred.quantile(0.95), "yes", "no")
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    weighed = Trees.fit(encoder, train, targets, 0, 30, 1, class_weights=np.array([1.0, 19.0])).predict(valid)
    plain = Trees.fit(encoder, train, targets, 0, 30, 1).predict(valid)
    told = [CLASS_METRICS["balanced_accuracy"](each, actual) for each in (plain, weighed)]
    assert weighed[:, 1].mean() > 1.5 * plain[:, 1].mean()
    assert told[1] > told[0]


def test_every_class_keeps_its_share_of_the_rows_left_out():
    targets = np.repeat([0, 1, 2, 3], [500, 100, 11, 3])
    parts = trees._parts(targets, seed=0)
    for part in range(trees.PARTS):
        assert (parts[targets == 0] == part).sum() == 50
        assert (parts[targets == 1] == part).sum() == 10
        assert (parts[targets == 2] == part).sum() in (1, 2)
    assert set(parts[targets == 3]) == {-1}
    assert parts.tolist() == trees._parts(targets, seed=0).tolist() != trees._parts(targets, seed=1).tolist()


def test_rows_too_few_to_leave_any_out_are_all_fitted():
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0] * 2, "y": list("abcdabcd")})
    data = TableDataSpec(target=["y"])
    encoder = TableEncoder.fit(frame, np.arange(8), data)
    encoded = encoder.transform(frame)
    probabilities = fit(encoder, encoded, encoder.targets(frame)).predict(encoded)
    assert probabilities.sum(axis=1) == pytest.approx(1)


def test_a_missing_number_is_missing_to_the_trees():
    encoder, train, *_ = prepare(table())
    features = trees._features(encoder, train)
    names = [*encoder.categorical, *encoder.continuous]
    missing = train.categorical[:, list(encoder.categorical).index("distance_na")] == 2
    assert missing.any()
    assert np.isnan(features[missing, names.index("distance")]).all()
    assert np.isfinite(features[~missing]).all()


def test_trees_that_were_saved_predict_the_same(tmp_path):
    for settings in ({}, LARGE, DISTANCE):
        frame = table().fillna({"distance": 0})
        encoder, train, targets, valid, _ = prepare(frame, **settings)
        fitted = fit(encoder, train, targets, rounds=20)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        fitted.save(folder)
        np.testing.assert_array_equal(Trees.load(folder, encoder).predict(valid), fitted.predict(valid))


def many_shops() -> pd.DataFrame:
    """Four hundred shops with a level of their own each, and a fifth of the deviation as noise."""
    random = np.random.default_rng(0)
    shop, levels = random.integers(0, 400, ROWS), random.normal(1000, 100, 400)
    return pd.DataFrame(
        {
            "shop": [f"{number:03}" for number in shop],
            "size": random.normal(size=ROWS),
            "sales": levels[shop] + 20 * random.normal(size=ROWS),
            "large": np.where(levels[shop] > 1000, "yes", "no"),
        }
    )


def test_trees_learn_from_a_column_of_many_categories(tmp_path):
    encoder, train, targets, valid, actual = prepare(many_shops())
    fitted = fit(encoder, train, targets)
    predictions = fitted.predict(valid)
    assert rmse(predictions, actual) < 0.5 * actual.std()
    fitted.save(tmp_path)
    np.testing.assert_array_equal(Trees.load(tmp_path, encoder).predict(valid), predictions)
    encoder, train, targets, valid, actual = prepare(many_shops(), **LARGE)
    assert accuracy(fit(encoder, train, targets).predict(valid), actual) > 0.85


def test_a_row_is_predicted_the_same_whatever_is_beside_it():
    encoder, train, targets, valid, _ = prepare(table())
    fitted = fit(encoder, train, targets, rounds=50)
    together = fitted.predict(valid)
    for row in (0, 7, 499):
        np.testing.assert_array_equal(fitted.predict(valid.rows(np.array([row]))), together[[row]])


def test_a_folder_without_trees_or_with_damaged_ones_is_reported(tmp_path):
    encoder, *_ = prepare(table())
    with pytest.raises(UserError, match="0 files of trees"):
        Trees.load(tmp_path, encoder)
    (tmp_path / "trees-0.txt").write_text("no trees")
    with pytest.raises(UserError, match="cannot be read"):
        Trees.load(tmp_path, encoder)


def test_trees_see_a_sample_of_many_rows_with_every_class(monkeypatch):
    frame = table()
    frame.loc[3, "large"] = "huge"
    encoder, train, targets, valid, actual = prepare(frame, **LARGE)
    monkeypatch.setattr(trees, "MOST_FITTED", 500)
    rows = rows_to_fit(targets, seed=0)
    assert 500 <= len(rows) <= 503
    assert len(set(rows)) == len(rows)
    assert set(targets[rows]) == {0, 1, 2}
    assert rows.tolist() == rows_to_fit(targets, seed=0).tolist() != rows_to_fit(targets, seed=1).tolist()
    assert accuracy(fit(encoder, train, targets, rounds=60).predict(valid), actual) > 0.85


def test_few_rows_are_all_fitted():
    assert rows_to_fit(np.zeros((5, 1)), seed=0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", [{}, LARGE])
def test_predictions_in_chunks_are_the_same(monkeypatch, settings):
    encoder, train, targets, valid, _ = prepare(table(), **settings)
    fitted = fit(encoder, train, targets, rounds=20)
    whole = fitted.predict(valid)
    monkeypatch.setattr(trees, "CHUNK_ROWS", 130)
    np.testing.assert_array_equal(fitted.predict(valid), whole)


@pytest.mark.parametrize(
    "settings",
    [{}, DISTANCE, LARGE, {"target": ["shop"], "drop": ["large", "sales"]}],
    ids=["one", "two", "yes", "five"],
)
def test_contributions_and_base_value_add_up_to_the_trees_raw_output(settings):
    frame = table().dropna()
    frame = pd.concat([frame] * 2, ignore_index=True).iloc[:ROWS]
    encoder, train, targets, valid, _ = prepare(frame, **settings)
    fitted = fit(encoder, train, targets, rounds=10)
    values = fitted.contributions(valid)
    assert values.shape[2] == len(fitted.feature_names()) + 1
    np.testing.assert_allclose(values.sum(axis=2), fitted.raw_outputs(valid), rtol=1e-6, atol=1e-9)


def test_what_decides_contributes_the_most_and_noise_little():
    encoder, train, targets, valid, _ = prepare(table())
    fitted = fit(encoder, train, targets)
    sizes = dict(zip(fitted.feature_names(), np.abs(fitted.contributions(valid)[0, :, :-1]).mean(axis=0), strict=True))
    assert min(sizes["shop"], sizes["weekday"]) > 5 * sizes["noise"]
