import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.splits import split_rows
from unfreeze.models.tables.reading import frames as reading

DAYS = pd.DataFrame({"day": pd.date_range("2015-01-01", periods=100, freq="12h"), "value": range(100)})


def spec(**fields: object) -> TableDataSpec:
    return TableDataSpec.model_validate(fields)


def test_the_last_calendar_days_validate() -> None:
    train, valid, _ = split_rows(DAYS, spec(date=["day"], valid_days=3))
    assert valid.tolist() == [94, 95, 96, 97, 98, 99]
    assert train.tolist() == list(range(94))
    assert train.dtype == valid.dtype == np.int64


def test_rows_without_a_date_train() -> None:
    frame = DAYS.assign(day=DAYS["day"].where(DAYS.index != 99))
    train, valid, _ = split_rows(frame, spec(date=["day"], split="last_days", valid_days=1))
    assert 99 in train
    assert valid.tolist() == [98]


def test_without_a_date_auto_is_random() -> None:
    valid = split_rows(DAYS, spec(valid_fraction=0.3))[1]
    assert 20 <= len(valid) <= 40
    same = split_rows(DAYS, spec(valid_fraction=0.3, split="random"))[1]
    other = split_rows(DAYS, spec(valid_fraction=0.3, split_seed=1))[1]
    assert valid.tolist() == same.tolist() != other.tolist()
    assert valid.tolist() == sorted(valid)


@given(added=st.integers(0, 40), seed=st.integers(0, 100))
def test_a_random_split_moves_no_row_when_rows_are_added_or_a_value_is_missing(added: int, seed: int) -> None:
    before, after = DAYS.head(50), DAYS.head(50 + added).sample(frac=1, random_state=seed)
    valid = set(before["value"].iloc[split_rows(before, spec(split_seed=seed))[1]])
    later = after["value"].iloc[split_rows(after, spec(split_seed=seed))[1]]
    assert valid == {value for value in later if value < 50}
    extra = pd.DataFrame({"day": [pd.NaT], "value": [np.nan]})
    holes = pd.concat([before, extra], ignore_index=True)
    assert valid == set(holes["value"].iloc[split_rows(holes, spec(split_seed=seed))[1]].dropna())


def test_a_fold_validates_earlier_days_and_uses_none_that_follow() -> None:
    train, valid, _ = split_rows(DAYS, spec(date=["day"], valid_days=3, fold=2))
    assert valid.tolist() == [82, 83, 84, 85, 86, 87]
    assert train.tolist() == list(range(82))


@given(rows=st.integers(2, 50), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 100))
def test_every_row_is_in_exactly_one_part(rows: int, fraction: float, seed: int) -> None:
    frame = DAYS.head(rows)
    train, valid, _ = split_rows(frame, spec(valid_fraction=fraction, split_seed=seed))
    assert len(train)
    assert len(valid)
    assert sorted([*train, *valid]) == list(range(rows))


@given(
    values=st.lists(st.integers(0, 200), min_size=150, max_size=300), more=st.lists(st.integers(0, 300), max_size=50)
)
def test_groups_stay_whole_and_where_they_are_when_rows_are_added(values: list[int], more: list[int]) -> None:
    data = spec(split="group", split_column="store", valid_fraction=0.3)

    def groups(stores: list[int | None]) -> tuple[set[float], set[float]]:
        store = pd.Series(stores)
        train, valid, _ = split_rows(pd.DataFrame({"store": store}), data)
        return set(store.iloc[train].dropna()), set(store.iloc[valid].dropna())

    # All values of both lists once more, so that no part is ever empty; None makes the numbers floats.
    train, valid = groups([*values, *range(200)])
    train_later, valid_later = groups([*more, *values, *range(200), None])
    assert not train & valid
    assert not train_later & valid_later
    assert train <= train_later
    assert valid <= valid_later


def test_the_last_days_test_and_those_before_them_validate() -> None:
    split = split_rows(DAYS.sample(frac=1, random_state=0), spec(date=["day"], valid_days=3, test_days=2))
    values = DAYS.sample(frac=1, random_state=0)["value"]
    train, valid, test = (sorted(values.iloc[rows]) for rows in split)
    assert test == [96, 97, 98, 99]
    assert valid == [90, 91, 92, 93, 94, 95]
    assert train == list(range(90))


def test_folds_leave_the_days_of_the_test_alone() -> None:
    whole = split_rows(DAYS, spec(date=["day"], valid_days=3, test_days=2))
    fold = split_rows(DAYS, spec(date=["day"], valid_days=3, test_days=2, fold=1))
    assert fold.valid.tolist() == [84, 85, 86, 87, 88, 89]
    assert fold.train.tolist() == list(range(84))
    assert not set(whole.test) & {*fold.train, *fold.valid, *fold.test}


@given(valid=st.floats(0.1, 0.45), test=st.floats(0.1, 0.45), seed=st.integers(0, 100), group=st.booleans())
def test_a_test_takes_rows_from_the_training_only_and_keeps_them_when_rows_are_added(
    valid: float, test: float, seed: int, group: bool
) -> None:
    by = {"split": "group", "split_column": "value"} if group else {"split": "random"}
    fields = {**by, "valid_fraction": valid, "split_seed": seed}
    without = split_rows(DAYS, spec(**fields))
    split = split_rows(DAYS, spec(**fields, test_fraction=test))
    assert split.valid.tolist() == without.valid.tolist()
    assert sorted([*split.train, *split.test]) == without.train.tolist()
    more = pd.concat([DAYS.assign(value=DAYS["value"] + 1000), DAYS], ignore_index=True)
    later = split_rows(more, spec(**fields, test_fraction=test))
    assert {row - 100 for row in later.test if row >= 100} == set(split.test)


def test_a_column_may_say_which_rows_test() -> None:
    split = split_rows(pd.DataFrame({"part": ["Test", "train", "valid", "testing"]}), COLUMN)
    assert [rows.tolist() for rows in split] == [[1], [2], [0, 3]]


def test_without_a_wish_no_row_tests() -> None:
    assert not len(split_rows(DAYS, spec()).test)
    assert not len(split_rows(DAYS, spec(date=["day"], valid_days=3)).test)


def test_rows_without_a_group_train() -> None:
    frame = pd.DataFrame({"store": [*[f"s{number}" for number in range(50)], None]})
    train = split_rows(frame, spec(split="group", split_column="store")).train
    assert 50 in train


def test_another_seed_gives_other_groups() -> None:
    frame = pd.DataFrame({"store": range(100)})
    first, second = (
        split_rows(frame, spec(split="group", split_column="store", split_seed=seed))[1].tolist() for seed in (0, 1)
    )
    assert first != second


@pytest.mark.parametrize(
    "says",
    [
        ["valid", "train"],
        ["Val ", "TRAIN"],
        [1, 0],
        [1.0, 0.0],
        [True, False],
        ["1", "0"],
        ["true", "false"],
        ["Validation", "Training"],
        ["DEV", "train"],
    ],
)
def test_a_column_may_say_which_rows_validate(says: list[object]) -> None:
    train, valid, _ = split_rows(pd.DataFrame({"part": [says[0], says[1], says[1]]}), COLUMN)
    assert (train.tolist(), valid.tolist()) == ([1, 2], [0])


COLUMN = spec(split="column", split_column="part")


@pytest.mark.parametrize(
    ("frame", "data", "message"),
    [
        (DAYS, spec(date=["dya"]), "date: the table has no column 'dya'; did you mean day"),
        (DAYS, spec(split="group", split_column="valeu"), "split_column: .* did you mean value"),
        (DAYS, spec(date=["day"], valid_days=50), "split last_days: none of 100 rows is left to train; valid_days"),
        (DAYS.assign(day=pd.NaT), spec(date=["day"]), "column day: no row has a date"),
        (DAYS.head(1), spec(), "split random: none of 1 rows is left to validate"),
        (DAYS.assign(g=1), spec(split="group", split_column="g"), "split group: none .* g has 1 values"),
        (pd.DataFrame({"part": ["valid", "valid"]}), COLUMN, "split column: none of 2 rows is left to train"),
        (pd.DataFrame({"part": ["train"]}), COLUMN, "none of 1 rows is left to validate"),
        (pd.DataFrame({"part": ["train", "tset"]}), COLUMN, "split_column part: 'tset' is neither"),
        (DAYS, spec(date=["day"], valid_days=20, test_days=40), "none of 100 rows is left to train; .*, test_days 40"),
        (DAYS, spec(test_days=2), "split random: data.test_days needs a date to split by"),
        (DAYS.head(2), spec(test_fraction=0.1), "split random: none of 2 rows is left to"),
        (pd.DataFrame({"part": ["train", None]}), COLUMN, "split_column part: 1 rows have no value"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused(frame: pd.DataFrame, data: TableDataSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_rows(frame, data)


@given(offsets=st.lists(st.integers(0, 60), min_size=1, max_size=80), folds=st.integers(1, 4), days=st.integers(1, 10))
def test_no_fold_trains_on_what_comes_after_its_validation(offsets: list[int], folds: int, days: int) -> None:
    dates = pd.Series(pd.Timestamp("2015-01-01") + pd.to_timedelta([*offsets, *range(61)], unit="D"), name="day")
    dates = pd.concat([dates, pd.Series([pd.NaT])], ignore_index=True)
    frame = pd.DataFrame({"day": dates})
    data = [spec(date=["day"], valid_days=days, fold=fold) for fold in reversed(range(folds))]
    found = [(split.train, split.valid) for split in (split_rows(frame, each) for each in data)]
    validated = np.concatenate([valid for _, valid in found])
    assert len(set(validated)) == len(validated)
    for train, valid in found:
        assert dates.iloc[train].max() < dates.iloc[valid].min()
        assert dates.iloc[valid].nunique() == days
        assert (dates.iloc[train].max() + pd.Timedelta(days=1)) == dates.iloc[valid].min()
    assert dates.iloc[found[-1][1]].max() == dates.max()


@pytest.mark.parametrize(
    ("days", "fold", "message"),
    [
        (pd.date_range("2015-01-01", periods=20), 2, "left to train; valid_days is 10, fold 2"),
        (pd.to_datetime(["2015-01-01", "2015-03-01"]), 1, "left to validate; valid_days is 10, fold 1"),
        (pd.to_datetime([None, None]), 0, "column day: no row has a date"),
    ],
)
def test_folds_without_rows_are_refused(days: pd.DatetimeIndex, fold: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_rows(pd.DataFrame({"day": days}), spec(date=["day"], valid_days=10, fold=fold))


@pytest.mark.parametrize("fraction", [0.3, 0.9999])
def test_a_random_split_in_chunks_is_the_same(monkeypatch: pytest.MonkeyPatch, fraction: float) -> None:
    frame = DAYS.assign(text=[f"t{number % 7}" for number in range(100)], gap=[None, 1.0] * 50)
    whole = split_rows(frame, spec(valid_fraction=fraction))
    monkeypatch.setattr(reading, "CHUNK_ROWS", 7)
    for one, other in zip(whole, split_rows(frame, spec(valid_fraction=fraction)), strict=True):
        assert one.tolist() == other.tolist()


@pytest.mark.parametrize("test_fraction", [0, 0.2])
def test_the_last_rows_test_and_those_before_them_validate(test_fraction: float) -> None:
    data = TableDataSpec(target=["a"], split="last_rows", valid_fraction=0.3, test_fraction=test_fraction)
    split = split_rows(pd.DataFrame({"a": range(10)}), data)
    assert split.test.tolist() == [8, 9][: int(10 * test_fraction)]
    assert split.valid.tolist() == ([5, 6, 7] if test_fraction else [7, 8, 9])
    assert split.train.tolist() == list(range(5 if test_fraction else 7))
