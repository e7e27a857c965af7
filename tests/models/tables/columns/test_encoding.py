import json
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from scipy.stats import norm

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.columns import encoding
from unfreeze.models.tables.columns.encoding import TableEncoder, embedding_width, normal_scores, quantiles_of
from unfreeze.models.tables.reading import frames as reading

ALL = np.arange(6)


def shop(**changes: object) -> pd.DataFrame:
    """Six days of a shop: every kind of column and a target of numbers."""
    columns = {
        "kind": ["b", "a", None, "a", "c", "b"],
        "open": [True, False, True, True, False, True],
        "weekday": [1, 2, 3, 1, 2, 3],
        "Elapsed": [10, 20, 30, 40, 50, 60],
        "distance": [1.5, None, 2.5, 3.5, np.inf, 4.5],
        "sales": [100.0, 200.0, 0.0, 400.0, 500.0, 600.0],
    }
    return pd.DataFrame({**columns, **changes})


def data(**changes: object) -> TableDataSpec:
    return TableDataSpec.model_validate({"target": ["sales"], "date": ["Date"], "task": "regression", **changes})


def fitted(frame: pd.DataFrame, train: np.ndarray = ALL, **changes: object) -> TableEncoder:
    return TableEncoder.fit(frame, train, data(**changes))


def test_text_flags_and_few_whole_numbers_are_categories_and_the_rest_are_numbers():
    encoder = fitted(shop())
    assert encoder.categorical == {
        "kind": ["a", "b", "c"],
        "open": [False, True],
        "weekday": [1, 2, 3],
        "distance_na": [False, True],
    }
    assert list(encoder.continuous) == ["weekday", "Elapsed", "distance"]  # the order of weekdays counts as well
    assert encoder.sizes() == [("kind", 4), ("open", 3), ("weekday", 4), ("distance_na", 3)]
    assert encoder.columns() == ["kind", "open", "weekday", "Elapsed", "distance"]


def test_a_user_s_column_that_ends_in_elapsed_is_no_part_of_a_date():
    encoder = fitted(shop(TimeElapsed=[1, 2, 3, 1, 2, 3]))
    assert encoder.categorical["TimeElapsed"] == [1, 2, 3]
    assert "Elapsed" not in encoder.categorical


def test_codes_count_from_one_in_sorted_order_and_zero_is_missing():
    codes = fitted(shop()).transform(shop()).categorical
    assert codes.dtype == np.int32
    assert codes.T.tolist() == [[2, 1, 0, 1, 3, 2], [2, 1, 2, 2, 1, 2], [1, 2, 3, 1, 2, 3], [1, 2, 1, 1, 2, 1]]


def test_a_category_that_no_training_row_has_is_zero():
    encoder = fitted(shop(), np.array([0, 1, 3]))
    rows = encoder.transform(shop(kind=["new", "a", "b", "c", "a", None])).categorical
    assert rows[:, 0].tolist() == [0, 1, 2, 0, 1, 0]
    assert encoder.transform(shop()).categorical[:, list(encoder.categorical).index("weekday")].tolist()[2] == 0


def test_numbers_are_normal_scores_of_their_ranks_and_missing_ones_are_the_median():
    numbers = fitted(shop(), drop=["weekday"]).transform(shop()).continuous
    assert numbers.dtype == np.float32
    assert numbers[:, 0].tolist() == sorted(numbers[:, 0])
    assert numbers[[0, 5], 1] == pytest.approx([-3.719, 3.719], abs=1e-3)  # the lowest and the highest distance
    # Among 1.5, 2.5, 3.5 and 4.5 the numbers between are at a third and two thirds; the infinity is missing as well.
    assert numbers[[2, 3], 1] == pytest.approx(norm.ppf([1 / 3, 2 / 3]), abs=0.01)
    assert numbers[[1, 4], 1] == pytest.approx([0, 0], abs=1e-6)


def test_a_long_tail_takes_no_more_room_than_other_rows():
    random = np.random.default_rng(0)
    numbers = np.exp(3 * random.normal(size=30_000))
    scores = normal_scores(numbers, quantiles_of(numbers))
    assert scores.mean() == pytest.approx(0, abs=0.01)
    assert scores.std() == pytest.approx(1, abs=0.01)
    order = np.argsort(numbers)
    assert (np.diff(scores[order]) >= 0).all()


@given(st.lists(st.floats(-1e30, 1e30), min_size=2, max_size=80), st.lists(st.floats(-1e38, 1e38), max_size=5))
def test_scores_keep_the_order_of_any_numbers_and_stay_within_bounds(known, others):
    quantiles = quantiles_of(np.array(known))
    assert len(quantiles) % 2 == 1
    assert quantiles[len(quantiles) // 2] == pytest.approx(np.median(known), rel=1e-9)
    numbers = np.sort(np.array([*known, *others]))
    scores = normal_scores(numbers, quantiles)
    assert (np.diff(scores) >= 0).all()
    assert np.abs(scores).max() < 3.72


def test_equal_numbers_score_in_the_middle_of_their_share():
    numbers = np.repeat([0.0, 1.0, 2.0], [600, 300, 100])
    scores = normal_scores(np.array([0.0, 1.0, 2.0]), quantiles_of(numbers))
    assert scores == pytest.approx(norm.ppf([0.3, 0.75, 0.95]), abs=0.06)


def test_numbers_missing_only_later_take_the_median_without_a_flag():
    encoder = fitted(shop(distance=[1.5, 2, 3, 4, 5, 7]), drop=["weekday"])
    assert "distance_na" not in encoder.categorical
    numbers = encoder.transform(shop()).continuous[:, 1]
    quantiles = encoder.continuous["distance"]
    assert quantiles[len(quantiles) // 2] == 3.5
    assert numbers[1] == normal_scores(np.array([3.5]), quantiles).astype(np.float32)


@given(st.data())
def test_what_is_learnt_does_not_depend_on_the_other_rows(drawn):
    numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.just(float("inf")))
    other = pd.DataFrame(
        {
            "kind": drawn.draw(st.lists(st.one_of(st.none(), st.text(max_size=3)), min_size=3, max_size=3)),
            "open": drawn.draw(st.lists(st.booleans(), min_size=3, max_size=3)),
            "weekday": drawn.draw(st.lists(st.integers(-9, 9), min_size=3, max_size=3)),
            "Elapsed": drawn.draw(st.lists(st.integers(0, 99), min_size=3, max_size=3)),
            "distance": pd.Series(drawn.draw(st.lists(numbers, min_size=3, max_size=3)), dtype=np.float64),
            "sales": [1.0, 2.0, 3.0],
        }
    )
    alone = fitted(shop())
    assert fitted(pd.concat([shop(), other], ignore_index=True)) == alone
    assert TableEncoder.from_json(alone.to_json()) == alone
    encoded = alone.transform(other)
    assert np.isfinite(encoded.continuous).all()
    sizes = np.array([size for _, size in alone.sizes()])
    assert (encoded.categorical >= 0).all()
    assert (encoded.categorical < sizes).all()


CATEGORIES = {
    "text": st.one_of(st.none(), st.text(max_size=3)),
    "whole": st.one_of(st.none(), st.integers(-(2**40), 2**40)),
    "broken": st.one_of(st.none(), st.floats(allow_nan=False, width=32)),
    "flag": st.one_of(st.none(), st.booleans()),
}


@given(st.data())
def test_json_keeps_the_encoder_and_the_types_of_its_categories(drawn):
    frame = pd.DataFrame(
        {name: drawn.draw(st.lists(kind, min_size=8, max_size=8)) for name, kind in CATEGORIES.items()}
        | {"row": range(8), "sales": range(8)}
    )
    encoder = fitted(frame, np.arange(8), categorical=list(CATEGORIES))
    again = TableEncoder.from_json(encoder.to_json())
    assert again == encoder
    for name, categories in encoder.categorical.items():
        assert [type(each) for each in again.categorical[name]] == [type(each) for each in categories]
        assert categories == sorted(categories)
    one, other = encoder.transform(frame), again.transform(frame)
    np.testing.assert_array_equal(one.categorical, other.categorical)
    np.testing.assert_array_equal(one.continuous, other.continuous)
    for name in CATEGORIES:
        if name in encoder.categorical:
            present = frame[name].notna() & ~frame[name].isin([np.inf, -np.inf])
            codes = one.categorical[:, list(encoder.categorical).index(name)]
            assert ((codes > 0) == present).all()


def test_whole_numbers_stay_whole_whatever_their_type():
    encoder = fitted(shop(weekday=[1.0, 2.0, None, 1.0, 2.0, 3.0]))
    assert [type(each) for each in encoder.categorical["weekday"]] == [int, int, int]
    expected = [1, 2, 3, 1, 2, 3]
    for dtype in ("int8", "float64", "Int64", "category", "object"):
        frame = shop(weekday=pd.Series([1, 2, 3, 1, 2, 3]).astype(dtype))
        assert encoder.transform(frame).categorical[:, 2].tolist() == expected
    decimals = pd.Series([Decimal(1), Decimal(2), None, None, Decimal(2), Decimal(3)])
    for column in (decimals, decimals.astype("category")):
        assert encoder.transform(shop(weekday=column)).categorical[:, 2].tolist() == [1, 2, 0, 0, 2, 3]
    assert encoder.transform(shop(weekday=1.5)).categorical[:, 2].tolist() == [0] * 6


def test_numbers_too_large_to_compute_with_count_as_missing():
    encoder = fitted(shop(distance=[1e300, -1e300, 1.5, 2.5, 3.5, 4.5]))
    assert encoder.continuous["distance"][5] == 3
    assert np.isfinite(encoder.transform(shop(distance=1e200)).continuous).all()


def test_large_identifiers_are_told_apart():
    first = 2**60
    encoder = fitted(shop(weekday=[first, first + 1, first + 2] * 2))
    assert encoder.transform(shop(weekday=first + 1)).categorical[:, 2].tolist() == [2] * 6
    assert TableEncoder.from_json(encoder.to_json()).categorical["weekday"] == [first, first + 1, first + 2]


def test_a_flag_may_come_as_zero_and_one():
    assert fitted(shop()).transform(shop(open=[0, 1, 1.0, None, 2, 0])).categorical[:, 1].tolist() == [1, 2, 2, 0, 0, 1]


@pytest.mark.parametrize(
    ("learnt", "given"), [(["1", "2"] * 3, [1, 2] * 3), ([1, 2] * 3, ["1", "2"] * 3), ([True] * 6, ["x"] * 6)]
)
def test_text_and_numbers_are_not_taken_for_each_other(learnt, given):
    encoder = fitted(shop(weekday=learnt))
    with pytest.raises(UserError, match=r"'weekday': the training rows held .*, these hold"):
        encoder.transform(shop(weekday=given))


def test_a_column_without_values_fits_any_type():
    assert fitted(shop()).transform(shop(kind=np.nan, distance=None)).categorical[:, 0].tolist() == [0] * 6


def test_text_mixed_with_numbers_is_refused():
    with pytest.raises(UserError, match=r"'kind' holds values of several types"):
        fitted(shop(kind=pd.Series(["a", 0, 1, "b", 2, 3], dtype=object)))


def test_categories_beyond_the_most_frequent_become_one(monkeypatch):
    frame = shop(kind=["d", "a", "c", "a", "c", "b"])
    monkeypatch.setattr(encoding, "MOST_CATEGORIES", 2)
    assert fitted(frame).categorical["kind"] == ["a", "c"]
    assert fitted(frame).counts["kind"] == [2, 2, 2]  # rows of rare categories count as unseen
    assert fitted(frame).transform(frame).categorical[:, 0].tolist() == [0, 1, 2, 1, 2, 0]


def test_lists_of_columns_overrule_the_types():
    encoder = fitted(shop(), categorical=["distance"], continuous=["weekday", "open"])
    assert encoder.categorical["distance"] == [1.5, 2.5, 3.5, 4.5]
    assert {"weekday", "open"} < set(encoder.continuous)
    assert encoder.transform(shop()).categorical[:, list(encoder.categorical).index("distance")].tolist() == [
        1, 0, 2, 3, 0, 4,
    ]  # fmt: skip


def test_a_few_whole_numbers_are_a_number_as_well_unless_they_are_named_as_categories():
    encoder = fitted(shop(weekday=[1, 2, 3, 1, None, 3]))
    assert encoder.categorical["weekday"] == [1, 2, 3]
    scores = encoder.transform(shop(weekday=[3, 1, 2, None, 9, -4])).continuous[
        :, list(encoder.continuous).index("weekday")
    ]
    assert scores[1] < scores[2] == scores[3] < scores[0] <= scores[4]
    assert scores[5] <= scores[1]
    assert "weekday_na" not in encoder.categorical  # the code says so
    assert "weekday" not in fitted(shop(), categorical=["weekday"]).continuous


def test_more_whole_numbers_than_allowed_are_a_number(monkeypatch):
    monkeypatch.setattr(encoding, "CATEGORY_VALUES", 2)
    assert "weekday" in fitted(shop()).continuous


def test_columns_that_tell_nothing_are_rejected_and_not_asked_for_again():
    frame = shop(Elapsed=0.1, distance=np.nan)
    encoder = fitted(frame, categorical=["weekday"])
    assert encoder.rejected == {"Elapsed": "0.1 in every training row", "distance": "no value in the training rows"}
    assert encoder.continuous == {}
    assert encoder.transform(frame.drop(columns=["Elapsed", "distance"])).continuous.shape == (6, 0)


def test_that_a_constant_is_missing_is_still_told():
    encoder = fitted(shop(Elapsed=[1.5, None, 1.5, 1.5, 1.5, None]))
    assert encoder.rejected == {"Elapsed": "1.5 in every training row"}
    flags = encoder.transform(shop(Elapsed=[None, 2, 3, 4, 5, 6])).categorical[
        :, list(encoder.categorical).index("Elapsed_na")
    ]
    assert flags.tolist() == [2, 1, 1, 1, 1, 1]
    assert "Elapsed" in encoder.columns()


def test_dropped_columns_and_the_one_that_splits_are_no_features():
    encoder = fitted(shop(), drop=["kind"], split="column", split_column="open")
    assert not {"kind", "open", "sales"} & set(encoder.columns())


def test_all_missing_columns_are_named_at_once():
    with pytest.raises(UserError, match="'kind', 'distance'"):
        fitted(shop()).transform(shop().drop(columns=["kind", "distance"]))


@pytest.mark.parametrize(
    ("changes", "settings", "message"),
    [
        ({}, {"categorical": ["size", "kind"]}, "data.categorical: the table has no column 'size'"),
        ({}, {"continuous": ["kind"]}, "data.continuous: column 'kind' is text"),
        ({}, {"continuous": ["open"], "categorical": ["open"]}, "both name open"),
        ({}, {"target": ["profit"]}, "no column 'profit'"),
        ({"Elapsed": pd.Timestamp("2015-01-01")}, {}, "'Elapsed' holds dates"),
        ({"distance_na": 1}, {}, "distance_na: the name is wanted"),
        ({}, {"drop": ["kind", "open", "weekday", "Elapsed", "distance"]}, "no column is left"),
        ({"sales": "many"}, {}, "'sales' is text"),
        ({"sales": [1, 2, None, 4, 5, 6]}, {}, "'sales', row 2: there is no value"),
        ({"sales": [1, -2.5, 3, 4, 5, 6]}, {"log_target": True}, "'sales', row 1: -2.5 is negative"),
        ({}, {"task": "auto", "log_target": True}, "is classified"),
        ({"sales": 1}, {"task": "classification"}, "is 1 in every training row"),
        ({}, {"task": "classification", "target": ["sales", "weekday"]}, "name one target"),
    ],
)
def test_what_cannot_be_learnt_is_said_in_one_line(changes, settings, message):
    with pytest.raises(UserError, match=message) as raised:
        fitted(shop(**changes), **settings)
    assert "\n" not in str(raised.value)


def test_a_table_without_training_rows_is_refused():
    with pytest.raises(UserError, match="no training row"):
        fitted(shop(), np.array([], dtype=np.int64))


def test_logarithms_of_targets_come_back_as_targets():
    encoder = fitted(shop(), log_target=True)
    targets = encoder.targets(shop())
    assert targets.dtype == np.float32
    assert targets[:, 0] == pytest.approx(np.log1p(shop()["sales"]))
    assert encoder.predictions(targets)[:, 0] == pytest.approx(shop()["sales"], rel=1e-5)
    assert encoder.target_means == pytest.approx(targets.mean(axis=0), rel=1e-6)
    assert encoder.target_deviations == pytest.approx(targets.std(axis=0), rel=1e-6)


def test_targets_of_several_columns_stand_side_by_side():
    encoder = fitted(shop(), target=["sales", "Elapsed"])
    assert encoder.targets(shop()).tolist() == shop()[["sales", "Elapsed"]].to_numpy().tolist()
    assert encoder.predictions(np.ones((2, 2))).tolist() == [[1, 1], [1, 1]]


def test_only_the_training_targets_set_the_scale():
    encoder = fitted(shop(), np.array([0, 1, 2]))
    assert encoder.target_means == [100]
    assert encoder.target_deviations == pytest.approx([np.std([100, 200, 0])])


@pytest.mark.parametrize(
    ("values", "task"),
    [(range(21), "regression"), (range(20), "classification"), (map(str, range(21)), "classification")],
)
def test_many_numbers_are_regressed_and_all_else_is_classified(values, task):
    values = list(values)
    frame = pd.DataFrame({"row": np.arange(len(values)) / 2, "y": values})
    assert TableEncoder.fit(frame, np.arange(len(values)), TableDataSpec(target=["y"])).task == task


@pytest.mark.parametrize("labels", [["no", "yes", "no", "yes", "maybe", "no"], [3, 1, 3, 1, 2, 3], [True, False] * 3])
def test_classes_are_numbered_in_sorted_order(labels):
    frame = shop(late=labels)
    encoder = fitted(frame, task="classification", target=["late"])
    assert encoder.classes == sorted(set(labels))
    targets = encoder.targets(frame)
    assert targets.dtype == np.int64
    assert [encoder.classes[number] for number in targets] == labels
    assert json.loads(encoder.to_json())["classes"] == encoder.classes


def test_a_class_that_no_training_row_has_is_named():
    frame = shop(late=["no", "yes", "no", "yes", "maybe", "no"])
    encoder = fitted(frame, np.array([0, 1, 2, 3]), task="classification", target=["late"])
    with pytest.raises(UserError, match="'late', row 4: no training row has the class 'maybe'"):
        encoder.targets(frame)
    with pytest.raises(UserError, match="'late' held values like 'no'"):
        encoder.targets(frame.assign(late=1))


@pytest.mark.parametrize(("categories", "width"), [(1, 1), (3, 2), (8, 4), (1116, 50), (10**6, 50)])
def test_widths_of_embeddings_follow_the_course(categories, width):
    assert embedding_width(categories) == width


@pytest.mark.parametrize("target", ["sales", "late"])
def test_in_chunks_everything_is_learnt_and_encoded_the_same(monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    random = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "text": random.choice(["b", "a", None], 100),
            "whole": random.integers(0, 9, 100).astype(np.int16),
            "halves": random.choice([0.0, 0.5, 1.0, np.nan], 100),
            "gaps": random.choice([1.0, 2.0, np.nan], 100),
            "open": random.choice([True, False], 100),
            "number": random.normal(size=100).astype(np.float32),
            "sales": random.normal(size=100).astype(np.float32),
            "late": random.choice(["yes", "no"], 100),
        }
    )
    settings = data(target=[target], task="auto", categorical=["halves"], drop=["late", "sales"])
    train = np.arange(0, 100, 2)
    whole = TableEncoder.fit(frame, train, settings)
    encoded, targets = whole.transform(frame), whole.targets(frame)
    monkeypatch.setattr(reading, "CHUNK_ROWS", 7)
    chunked = TableEncoder.fit(frame, train, settings)
    assert chunked.to_json() == whole.to_json()
    np.testing.assert_array_equal(chunked.transform(frame).categorical, encoded.categorical)
    np.testing.assert_array_equal(chunked.transform(frame).continuous, encoded.continuous)
    np.testing.assert_array_equal(chunked.targets(frame), targets)
