import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing.checks import check_table, drop_unusable_columns, drop_unusable_rows, gaps
from unfreeze.models.tables.reading import frames as reading

ROWS = 1000
RANDOM = np.random.default_rng(0)
SALES = pd.Series(RANDOM.normal(100, 20, ROWS))
LATE = pd.Series(np.where(RANDOM.random(ROWS) < 0.25, "late", "on time"))
CLEAN = pd.DataFrame(
    {
        "number": RANDOM.normal(size=ROWS),
        "kind": RANDOM.choice(list("abc"), ROWS),
        "sales": SALES,
        "late": LATE,
        "id": [f"row {number}" for number in range(ROWS)],
    }
)
TRAIN, VALID = np.arange(800), np.arange(800, ROWS)


def warnings(frame: pd.DataFrame, target: str, **fields: object) -> list[str]:
    features = frame.drop(columns=[name for name in ("sales", "late", "id") if name != target])
    return check_table(features, [target], TRAIN, VALID, TableDataSpec.model_validate({"target": [target], **fields}))


@pytest.mark.parametrize("target", ["sales", "late"])
def test_an_honest_table_gives_no_warning(target: str) -> None:
    assert warnings(CLEAN, target) == []


@pytest.mark.parametrize(
    ("leak", "target"),
    [
        (SALES * 2 + RANDOM.normal(size=ROWS), "sales"),
        (np.exp(SALES), "sales"),
        (-SALES, "sales"),
        ((SALES // 5).astype(str), "sales"),
        (LATE.map({"late": "x", "on time": "y"}), "late"),
        (np.where(LATE == "late", 16 + RANDOM.random(ROWS), RANDOM.random(ROWS)), "late"),
        (LATE == "late", "late"),
    ],
    ids=["a multiple", "a curve", "the negative", "steps", "another name", "a threshold", "truth"],
)
def test_a_column_that_tells_the_target_is_named(leak: pd.Series, target: str) -> None:
    (warning,) = warnings(CLEAN.assign(leak=leak), target)
    assert warning.startswith(f"leak tells {target} almost alone (")
    assert "drop: [leak]" in warning


def test_gaps_do_not_hide_a_leak() -> None:
    leak = SALES.where(CLEAN["number"] > 0)
    assert len(warnings(CLEAN.assign(leak=leak), "sales")) == 1


def test_a_rare_class_does_not_make_every_column_suspicious() -> None:
    rare = pd.Series(np.where(np.arange(ROWS) % 200 == 0, "yes", "no"))
    assert warnings(CLEAN.assign(late=rare), "late") == []


def test_many_categories_of_few_rows_are_not_mistaken_for_a_leak() -> None:
    assert warnings(CLEAN.assign(shop=[f"s{number % 400}" for number in range(ROWS)]), "late") == []


def test_a_random_split_of_dated_rows_is_questioned() -> None:
    frame = CLEAN.assign(day=pd.date_range("2015-01-01", periods=100).repeat(10))
    (warning,) = warnings(frame, "sales")
    assert "at random although day holds dates" in warning
    assert len(warnings(frame, "sales", split="random", date=["day"])) == 1
    assert warnings(frame, "sales", date=["day"]) == []
    assert warnings(frame, "sales", split="group", split_column="kind") == []


def test_a_class_that_occurs_in_validation_only_is_named() -> None:
    late = LATE.where(np.arange(ROWS) < 990, "cancelled")
    assert warnings(CLEAN.assign(late=late), "late") == [
        "cancelled of late occurs in validation but never in training."
    ]


def test_the_column_that_says_the_split_is_no_feature() -> None:
    frame = CLEAN.assign(part=np.where(np.arange(ROWS) < 800, "train", "valid"))
    assert warnings(frame, "sales", split="column", split_column="part") == []


def test_rows_and_columns_that_cannot_be_used_are_rejected_and_stated() -> None:
    frame = CLEAN.assign(
        same="x", none=None, gaps=["x", None] * 500, fixed=1, number=CLEAN["number"].where(CLEAN.index > 1, np.inf)
    )
    frame["sales"] = frame["sales"].where(frame.index != 5).where(frame.index != 6, -np.inf)
    usable, rows_out = drop_unusable_rows(frame, ["sales"])
    usable, columns_out = drop_unusable_columns(usable, ["sales", "fixed"])
    assert list(usable.columns) == ["number", "kind", "sales", "late", "id", "gaps", "fixed"]
    assert len(usable) == 998
    assert not {5, 6} & set(usable.index)
    assert usable["number"].isna().sum() == 2
    assert rows_out + columns_out == [
        {"what": "number", "reason": "an infinite value counts as missing", "rows": 2},
        {"what": "sales", "reason": "an infinite value counts as missing", "rows": 1},
        {"what": "rows", "reason": "sales is missing", "rows": 2},
        {"what": "same", "reason": "the same value in every row", "rows": 998},
        {"what": "none", "reason": "no value in any row", "rows": 998},
    ]
    assert np.isinf(frame["number"]).sum() == 2, "the frame that was given is not changed"


@given(st.lists(st.one_of(st.none(), st.floats()), min_size=40, max_size=60))
def test_what_is_left_has_no_infinite_number_and_every_target(values: list[float | None]) -> None:
    frame = pd.DataFrame({"target": [float(number) for number in range(len(values))]})
    frame["value"] = np.array([np.nan if value is None else value for value in values])
    usable, rejected = drop_unusable_columns(drop_unusable_rows(frame, ["target"])[0], ["target"])
    assert not np.isinf(usable.to_numpy()).any()
    assert usable["target"].notna().all()
    assert ("value" in usable.columns) != any(
        "in every row" in entry["reason"] or "in any row" in entry["reason"] for entry in rejected
    )


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (CLEAN.rename(columns={"sales": "Sales"}), "target: the table has no column 'sales'; did you mean Sales"),
        (CLEAN.head(19), "19 usable rows with a value of sales; at least 20"),
        (CLEAN.assign(sales=SALES.where(SALES.index < 3)), "3 usable rows"),
        (CLEAN.assign(sales=1), "target sales: .*1.* in every row"),
    ],
)
def test_a_table_that_teaches_nothing_is_refused(frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(UserError, match=message):
        drop_unusable_rows(frame, ["sales"])


def test_in_chunks_the_same_columns_are_rejected(monkeypatch):
    frame = pd.DataFrame(
        {
            "sales": [float(number) for number in range(40)],
            "same": [1] * 40,
            "empty": [None] * 40,
            "late": [1.0] * 39 + [2.0],
            "gap": [None, *["a"] * 39],
            "infinite": [*range(39), np.inf],
        }
    )

    def drop():
        return drop_unusable_columns(drop_unusable_rows(frame, ["sales"])[0], ["sales"])

    kept, rejected = drop()
    monkeypatch.setattr(reading, "CHUNK_ROWS", 7)
    monkeypatch.setattr(reading, "_FIRST_ROWS", 2)
    pd.testing.assert_frame_equal(drop()[0], kept)
    assert drop()[1] == rejected
    assert list(kept.columns) == ["sales", "late", "gap", "infinite"]


@pytest.mark.parametrize(
    ("written", "read", "warning"),
    [
        (["1", "n/a", "?", "?", None], [1, None, None, None, None], "4 rows are left out, as y has no value there: "),
        (["1", "n/a", "?", "?", None], [1, None, None, None, None], "'?' in 2, 'n/a' in 1, nothing in 1."),
        ([1.0, np.inf], [1.0, np.inf], "1 rows are left out, as y has no value there: 'inf' in 1."),
        (["a", "None", "None"], ["a", "None", "None"], "y: 'None' in 2 rows is a class like others;"),
        ([1, 2], [1, 2], ""),
        (["a", "b"], ["a", "b"], ""),
    ],
)
def test_values_that_a_target_leaves_out_are_said_with_their_texts(written: list, read: list, warning: str) -> None:
    said = gaps(pd.Series(written, name="y"), pd.Series(read, name="y"))
    assert warning in said
    assert bool(said) == bool(warning)
