import math
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra.numpy import arrays

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.drift import (
    COMMONEST,
    ImageSample,
    category_drift,
    distributions_of,
    image_drift,
    image_statistics,
    number_drift,
    population_stability,
    stability_verdict,
    table_drift,
)

COUNTS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12).filter(
    lambda bins: any(one for one, _ in bins) and any(other for _, other in bins)
)


def shares(counts: list[int]) -> np.ndarray:
    return np.array(counts) / sum(counts)


def table(rows: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "price": rng.lognormal(3, 1, rows),
            "promo": rng.random(rows) < 0.3,
            "store": rng.choice([f"s{number}" for number in range(80)], rows, p=shares(list(range(80, 0, -1)))),
            "state": pd.Series(rng.choice(["BY", "HE", "NW"], rows)).where(rng.random(rows) < 0.9),
            "visits": np.where(rng.random(rows) < 0.7, 0.0, rng.poisson(3, rows)),
            "day": pd.Timestamp("2015-01-01") + pd.to_timedelta(rng.integers(0, 365, rows), unit="D"),
            "country": "DE",
            "year": 2015,
        }
    )


@given(bins=COUNTS)
def test_the_index_is_symmetric_and_0_only_for_equal_shares(bins: list[tuple[int, int]]) -> None:
    reference, current = (shares(list(counts)) for counts in zip(*bins, strict=True))
    found = population_stability(reference, current)
    assert found == pytest.approx(population_stability(current, reference))
    assert found >= 0
    assert population_stability(reference, reference) == 0
    if not np.allclose(reference, current):
        assert found > 0


def test_the_index_is_the_sum_of_the_formula() -> None:
    expected = (0.4 - 0.5) * math.log(0.4 / 0.5) + (0.6 - 0.5) * math.log(0.6 / 0.5)
    assert population_stability([0.5, 0.5], [0.4, 0.6]) == pytest.approx(expected)


def test_an_empty_bin_counts_as_the_floor() -> None:
    assert population_stability([1, 0], [1, 0.0001]) == 0
    assert math.isfinite(population_stability([1, 0], [0, 1]))


@pytest.mark.parametrize(
    ("psi", "p_value", "verdict"),
    [(0.09, 0, "stable"), (0.1, 0, "moderate"), (0.25, 0, "large"), (0.3, 0.02, "unclear"), (0.3, 0.01, "large")],
)
def test_the_verdict_is_the_rule_of_thumb_and_unclear_if_not_significant(
    psi: float, p_value: float, verdict: str
) -> None:
    assert stability_verdict(psi, p_value) == verdict


VALUES = st.lists(st.sampled_from(["a", "b", "c", None]), min_size=1, max_size=30)


@given(reference=VALUES, current=VALUES)
def test_categories_are_compared_by_their_shares(reference: list[str | None], current: list[str | None]) -> None:
    before, now = Counter(reference), Counter(current)
    values = list({*before, *now})
    floor = max(1e-4, 0.5 / min(len(reference), len(current)))
    expected = population_stability(
        shares([before[value] for value in values]), shares([now[value] for value in values]), floor
    )
    assert category_drift(reference, current).psi == pytest.approx(expected)
    assert category_drift(current, reference).psi == pytest.approx(expected)
    assert category_drift(reference, reference[::-1]).psi == 0


def test_missing_values_are_one_category_however_they_are_written() -> None:
    assert category_drift(["a", None], ["a", float("nan")]).psi == 0
    assert category_drift(["a", None] * 20, ["a", ""] * 20).psi > 1


def test_whole_numbers_are_the_same_category_as_floats_and_text() -> None:
    assert category_drift([7, 8, 8], [7.0, 8.0, 8.0]).psi == category_drift([7, 8, 8], ["7", "8", "8"]).psi == 0


def test_rare_categories_are_counted_together() -> None:
    common = [f"c{number}" for number in range(COMMONEST)] * 10
    rare = [f"r{number}" for number in range(500)]
    assert category_drift(common + rare[:250], common + rare[250:]).psi == 0
    assert category_drift(common + rare[:10], common + rare).psi > 0.25


def test_deciles_of_the_reference_are_the_bins_of_numbers() -> None:
    reference = np.arange(1000)
    psi, ks, _ = number_drift(reference, reference[:500])
    assert psi == pytest.approx(population_stability([0.1] * 10, [0.2] * 5 + [0.0] * 5, floor=1e-3))
    assert ks == 0.5
    assert number_drift(reference, reference[::-1]) == (0, 0, "stable")


@given(
    values=arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0, 2.5, np.nan, np.inf])),
    others=arrays(np.float64, st.integers(1, 60), elements=st.sampled_from([0.0, 1.0, 7.0, np.nan, -np.inf])),
)
def test_any_numbers_can_be_compared(values: np.ndarray, others: np.ndarray) -> None:
    psi, ks, _ = number_drift(values, others)
    assert psi >= 0
    known = [each[np.isfinite(each)] for each in (values, others)]
    if all(map(len, known)):
        steps = [np.mean(known[0] <= value) - np.mean(known[1] <= value) for value in np.concatenate(known)]
        assert ks == pytest.approx(np.abs(steps).max())
    else:
        assert math.isnan(ks)
    assert number_drift(values, np.random.default_rng(0).permutation(values)).psi == 0


@pytest.mark.parametrize("now", [4.0, 6.0, np.nan])
def test_a_constant_that_changes_is_a_large_drift(now: float) -> None:
    assert number_drift(np.full(50, 5.0), np.full(50, 5.0)).psi == 0
    assert number_drift(np.full(50, 5.0), np.full(50, now)).psi > 1


def test_a_value_that_most_rows_have_is_told_from_smaller_ones() -> None:
    mostly_0 = np.array([0.0] * 80 + [1, 2, 3, 4] * 5)
    assert number_drift(mostly_0, np.where(mostly_0 == 0, -1, mostly_0)).psi > 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rows", [(60, 40), (1000, 100), (3000, 3000)])
def test_a_shuffled_table_has_not_moved(seed: int, rows: tuple[int, int]) -> None:
    # Of a hundred columns about one is expected to be taken for drift: these seeds have none.
    frame = table(sum(rows), seed)
    found = table_drift(frame.head(rows[0]), frame.tail(rows[1]))
    assert set(found["verdict"]) <= {"stable", "unclear"}
    assert set(found.loc[found["psi"] >= 0.1, "verdict"]) <= {"unclear"}
    assert found["psi"].is_monotonic_decreasing
    assert sorted(found["column"]) == sorted(frame.columns)


def test_few_columns_without_drift_are_taken_for_drift() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({f"n{number}": rng.normal(size=150) for number in range(80)})
    categories = pd.DataFrame({f"c{number}": rng.integers(0, 30, 150).astype(str) for number in range(80)})
    for columns in (frame, categories):
        found = table_drift(columns.head(100), columns.tail(50))
        assert (found["psi"] > 0.1).mean() > 0.5  # what the rule of thumb alone would say
        assert found["verdict"].isin(["moderate", "large"]).mean() < 0.05
        assert (found.loc[found["psi"] > 0.1, "verdict"] != "stable").all()


def test_what_moved_is_found_and_the_rest_is_stable() -> None:
    reference, current = table(2000), table(1000, seed=1)
    current = current.assign(
        price=current["price"] * 2,
        state=current["state"].fillna("BE"),
        day=current["day"] + pd.Timedelta(days=365),
        year=2016,
    )
    found = table_drift(reference, current).set_index("column")
    assert found.index[:2].tolist() == ["day", "year"] or found.index[:2].tolist() == ["year", "day"]
    assert found["verdict"].to_dict() == {
        "price": "large",
        "promo": "stable",
        "store": "stable",
        "state": "large",
        "visits": "stable",
        "day": "large",
        "country": "stable",
        "year": "large",
    }
    assert found["kind"].to_dict() == {
        "price": "number",
        "promo": "category",
        "store": "category",
        "state": "category",
        "visits": "number",
        "day": "date",
        "country": "category",
        "year": "number",
    }
    assert found.loc["day", "ks"] == 1
    assert math.isnan(found.loc["store", "ks"])
    assert found.loc["state", "missing_reference"] == pytest.approx(0.1, abs=0.03)
    assert found.loc["state", "missing_current"] == 0


def test_columns_of_one_table_only_come_first() -> None:
    reference = table(50)
    current = reference.drop(columns="store").assign(shop=["a", None] * 25)
    found = table_drift(reference, current)
    assert found["column"].tolist()[:2] == ["store", "shop"]
    assert found["verdict"].tolist()[:2] == ["absent", "new"]
    assert found.loc[:1, ["psi", "ks"]].isna().all(axis=None)
    assert found.loc[1, "missing_current"] == 0.5
    assert found.loc[2:, "psi"].tolist() == [0] * 7
    assert found.columns.tolist() == [
        "column",
        "kind",
        "psi",
        "ks",
        "missing_reference",
        "missing_current",
        "verdict",
    ]


def test_columns_that_changed_their_type_are_read_as_the_references() -> None:
    days = pd.date_range("2015-01-01", periods=40)
    reference = pd.DataFrame(
        {"n": range(40), "day": days, "whole": pd.array(range(40), dtype="Int64"), "code": range(40)}
    )
    current = pd.DataFrame(
        {
            "n": [str(number) for number in range(40)],
            "day": days.tz_localize("UTC").astype(str),
            "whole": [*range(39), None],
            "code": ["x"] * 40,
        }
    )
    found = table_drift(reference, current).set_index("column")
    assert found.loc[["n", "day"], "psi"].tolist() == [0, 0]
    assert found.loc["whole", "missing_current"] == 1 / 40
    assert found.loc["code", "missing_current"] == 1
    assert found.loc["code", "verdict"] == "large"


def features(rng: np.random.Generator, rows: int, width: int = 64) -> np.ndarray:
    """Five classes, features not below 0 and of falling size, as a network's are."""
    centres = np.random.default_rng(99).normal(size=(5, width))
    drawn = rng.normal(size=(rows, width)) + 3 * centres[rng.integers(0, 5, rows)]
    return np.maximum(drawn, 0) / np.sqrt(np.arange(1, width + 1))


@pytest.mark.parametrize(("rows", "current"), [(16, 16), (60, 20), (60, 60), (400, 40), (400, 400)])
def test_features_without_drift_are_mostly_not_taken_for_drift(rows: int, current: int) -> None:
    rng, light = np.random.default_rng(0), image_statistics(np.zeros((1, 2, 2, 3), np.uint8))
    verdicts = []
    for _ in range(40):
        samples = [ImageSample(["cat"], light, features(rng, count)) for count in (rows, current)]
        verdicts.append(image_drift(*samples)["verdict"].iloc[-1])
    assert verdicts.count("large") + verdicts.count("moderate") <= 2


@pytest.mark.parametrize(
    "moved",
    [lambda rows: rows * 2, lambda rows: rows + 1, lambda rows: rows[:, ::-1], lambda rows: rows[:1].repeat(60, 0)],
)
def test_features_that_moved_are_a_large_drift(moved) -> None:
    rng, light = np.random.default_rng(0), image_statistics(np.zeros((1, 2, 2, 3), np.uint8))
    for _ in range(5):
        reference, current = features(rng, 300), moved(features(rng, 60))
        found = image_drift(ImageSample(["cat"], light, reference), ImageSample(["cat"], light, current))
        assert found["verdict"].iloc[-1] == "large"


def test_light_and_colour_of_plain_images() -> None:
    colours = [(255, 255, 255), (0, 0, 0), (255, 0, 0), (128, 128, 128), (200, 100, 100)]
    pixels = np.stack([np.full((4, 6, 3), colour, dtype=np.uint8) for colour in colours])
    found = image_statistics(pixels)
    assert found["brightness"].tolist() == pytest.approx([1, 0, 0.299, 128 / 255, (200 * 0.299 + 70.1) / 255])
    assert found["contrast"].tolist() == pytest.approx([0] * 5, abs=1e-9)
    assert found["saturation"].tolist() == pytest.approx([0, 0, 1, 0, 0.5])
    assert (found.dtypes == np.float64).all()


def test_contrast_is_the_spread_of_light() -> None:
    halves = np.zeros((1, 2, 2, 3), dtype=np.uint8)
    halves[:, 0] = 255
    assert image_statistics(halves)["contrast"][0] == pytest.approx(0.5)


def test_every_image_has_a_row_whatever_the_number() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (150, 5, 4, 3), dtype=np.uint8)
    found = image_statistics(pixels)
    assert len(found) == 150
    assert found.iloc[140].tolist() == pytest.approx(image_statistics(pixels[140:141]).iloc[0].tolist())
    assert image_statistics(pixels[:0]).shape == (0, 3)


def images(rows: int, seed: int, light: float = 1.0, cats: float = 0.5) -> ImageSample:
    rng = np.random.default_rng(seed)
    pixels = (rng.integers(0, 200, (rows, 1, 1, 1)) * light + rng.integers(0, 50, (rows, 6, 6, 3))).astype(np.uint8)
    labels = ["cat" if drawn < cats else "dog" for drawn in rng.random(rows)]
    return ImageSample(labels, image_statistics(pixels), features(rng, rows) * light)


def test_images_like_the_reference_are_stable() -> None:
    found = image_drift(images(300, 0), images(200, 1))
    assert found["what"].tolist() == ["class balance", "brightness", "contrast", "saturation", "feature space"]
    assert found.columns.tolist() == ["what", "psi", "ks", "verdict"]
    assert set(found["verdict"]) <= {"stable", "unclear"}
    assert found["ks"].notna().tolist() == [False, True, True, True, True]


def test_darker_images_of_other_classes_are_a_drift() -> None:
    found = image_drift(images(300, 0), images(200, 1, light=0.4, cats=0.9)).set_index("what")
    assert found["verdict"].drop("contrast").tolist() == ["large"] * 4
    assert found.loc["contrast", "verdict"] == "stable"


def test_without_features_only_classes_and_light_are_compared() -> None:
    without = [ImageSample(each.labels, each.statistics, each.features[:0]) for each in (images(30, 0), images(30, 1))]
    assert "feature space" not in image_drift(*without)["what"].tolist()


def test_nothing_cannot_be_compared() -> None:
    some = images(10, 0)
    nothing = ImageSample([], some.statistics.head(0), some.features[:0])
    with pytest.raises(UserError, match="no rows in the current data"):
        image_drift(some, nothing)
    with pytest.raises(UserError, match="no rows in the reference"):
        table_drift(table(5).head(0), table(5))
    with pytest.raises(UserError, match="no rows in the reference"):
        category_drift([], ["a"])
    with pytest.raises(UserError, match="no rows in the current data"):
        number_drift(np.ones(3), np.array([]))


def test_distributions_tell_the_same_drift_as_rows_and_hold_neither_rows_nor_rare_texts():
    generator = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "number": generator.normal(size=1000),
            "shop": generator.choice(["north", "south"], 1000),
            "name": [f"person {number}" for number in range(1000)],
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.integers(0, 90, 1000), "D"),
        }
    )
    rows["twice"] = rows["number"] * 2
    kept = distributions_of(rows)
    assert not np.allclose(kept["twice"], kept["number"] * 2)
    assert set(kept["name"]) == {"(rare)"}
    later = rows.assign(number=rows["number"] + 1, name=[f"customer {number}" for number in range(1000)])
    for current in (rows, later):
        by_rows, by_distributions = (table_drift(each, current).set_index("column") for each in (rows, kept))
        for column in ("number", "shop", "day", "twice"):
            assert by_distributions.loc[column, "psi"] == pytest.approx(by_rows.loc[column, "psi"], abs=1e-12)
            assert by_distributions.loc[column, "verdict"] == by_rows.loc[column, "verdict"]
    assert table_drift(kept, later).set_index("column").loc["name", "verdict"] == "stable"


def test_a_new_text_that_many_rows_have_is_drift_against_distributions_as_well():
    reference = distributions_of(pd.DataFrame({"shop": ["north"] * 500 + ["south"] * 490 + ["x"] * 4 + ["y"] * 3}))
    current = pd.DataFrame({"shop": ["north"] * 400 + ["new"] * 600})
    assert table_drift(reference, current)["verdict"].tolist() == ["large"]
