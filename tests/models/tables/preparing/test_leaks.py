from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from benchmarks._reading import Case
from benchmarks._reading_leaks import CASES
from unfreeze.models.settings.tables import TableDataSpec
from unfreeze.models.tables.preparing import checks as leaks
from unfreeze.models.tables.preparing.prepare import prepare

ROWS = 1000
RANDOM = np.random.default_rng(0)
BASE = pd.DataFrame(
    {
        "area": RANDOM.normal(size=ROWS),
        "rooms": RANDOM.integers(1, 9, ROWS),
        "sold": RANDOM.normal(size=ROWS),
        "late": np.where(RANDOM.random(ROWS) < 0.3, "late", "on time"),
    }
)


def warnings(frame: pd.DataFrame, target: str, **fields: object) -> list[str]:
    others = [name for name in ("sold", "late") if name != target]
    return prepare(frame.drop(columns=others), [], TableDataSpec(target=[target], **fields)).warnings


@pytest.mark.parametrize("target", ["sold", "late"])
def test_an_honest_table_gives_no_warning(target: str) -> None:
    gaps = BASE.assign(gap=BASE["area"].where(RANDOM.random(ROWS) < 0.7))
    assert warnings(gaps, target) == []


@pytest.mark.parametrize("dated", [True, False])
def test_gaps_that_tell_the_class_are_named(dated: bool) -> None:
    filled = pd.date_range("2020-01-01", periods=ROWS).strftime("%Y-%m-%d") if dated else BASE["area"] * 3
    cancelled = pd.Series(filled).where(BASE["late"] == "late")
    found = warnings(BASE.assign(cancelled=cancelled), "late", split="random")
    assert any(
        warning.startswith(
            "Whether cancelled is missing tells late almost alone (its value alone tells the class of 1,000 of"
        )
        for warning in found
    )


def test_customers_on_both_sides_of_a_random_split_are_named() -> None:
    frame = BASE.assign(customer_id=RANDOM.integers(0, 100, ROWS))
    (warning,) = warnings(frame, "sold")
    assert warning.startswith("100% of the validation rows are of a customer_id that is in the training as well")
    assert warnings(frame, "sold", split="group", split_column="customer_id") == []
    assert warnings(BASE.assign(customer_id=RANDOM.integers(0, 5, ROWS)), "sold") == [], "five are all known"


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.endswith(", 150 rows")], ids=lambda case: case.name
)
def test_leaks_ids_and_copies_are_found_in_tables_of_any_size_and_honest_columns_are_left_alone(
    case: Case, tmp_path: Path
) -> None:
    assert case.read(tmp_path) in case.allowed


STRONG = {
    "a number that tells 9 of 10 rows": (0.06, lambda random, late: random.normal(size=len(late)) + 2.56 * late),
    "a category that tells 9 of 10 rows": (0.03, lambda random, late: late ^ (random.random(len(late)) > 0.9)),
    "a category that tells 19 of 20 rows": (0.09, lambda random, late: late ^ (random.random(len(late)) > 0.95)),
}


@pytest.mark.parametrize("kind", STRONG)
def test_a_strong_predictor_of_60_rows_is_seldom_reported(kind: str) -> None:
    most, make = STRONG[kind]
    random, found = np.random.default_rng(0), 0
    for _ in range(200):
        late = random.random(60) < 0.5
        found += bool(leaks.leaks(pd.DataFrame({"it": make(random, late), "late": late}), ["it"], "late", classes=True))
    assert found <= most * 200


def test_a_column_that_is_the_target_is_left_out_unless_a_setting_names_it() -> None:
    table = prepare(BASE.assign(again=BASE["late"].map({"late": 1, "on time": 0})), [], TableDataSpec(target=["late"]))
    assert "again: left out, it tells late one to one (else --data.categorical again)" in map(str, table.roles)
    assert "again" not in table.encoder.columns()
    (warning,) = warnings(BASE.assign(again=BASE["late"] == "late"), "late", categorical=["again"])
    assert warning.startswith("again tells late almost alone")


def test_the_only_column_is_kept_even_if_it_is_the_target() -> None:
    table = prepare(pd.DataFrame({"again": BASE["sold"], "sold": BASE["sold"]}), [], TableDataSpec(target=["sold"]))
    assert table.encoder.columns() == ["again"]


def test_copies_of_training_rows_among_the_test_rows_are_counted_though_their_ids_differ() -> None:
    rows = BASE.assign(part=["train"] * 800 + ["valid"] * 100 + ["test"] * 100, patient=np.arange(ROWS))
    rows.loc[900:943, BASE.columns] = BASE.iloc[:44].to_numpy()
    (warning,) = warnings(rows, "sold", split="column", split_column="part")
    assert warning.startswith(
        "44 of 100 test rows are copies of training rows in all but ids, 44 of them with the same"
    )


def test_copies_across_the_split_are_counted() -> None:
    twice = pd.concat([BASE, BASE.assign(sold=RANDOM.normal(size=ROWS))], ignore_index=True)
    (warning,) = warnings(twice, "sold")
    table = prepare(twice.drop(columns="late"), [], TableDataSpec(target=["sold"]))
    valid, train = (set(table.frame["area"].iloc[rows]) for rows in (table.valid, table.train))
    assert warning.startswith(f"{len(valid & train):,} of {len(table.valid):,} validation rows are copies of training")
    assert ", 0 of them with the same target" in warning
    assert warnings(twice, "sold", split="group") == []


def test_rows_of_few_categories_are_equal_by_nature() -> None:
    frame = pd.DataFrame({"kind": RANDOM.choice(list("ab"), ROWS), "late": BASE["late"], "day": ["x", "y"] * 500})
    assert prepare(frame, [], TableDataSpec(target=["late"])).warnings == []


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0.0, -0.0, 1.5, -2.0])), min_size=2, max_size=60))
def test_rows_have_equal_hashes_exactly_if_they_are_equal(rows: list[tuple[int, float]]) -> None:
    codes, numbers = (np.array(column)[:, None] for column in zip(*rows, strict=True))
    hashes = leaks._hashed(codes.astype(np.int32), numbers.astype(np.float32))
    for one, first in zip(rows, hashes, strict=True):
        for other, second in zip(rows, hashes, strict=True):
            assert (one == other) == (first == second)
