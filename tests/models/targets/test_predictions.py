from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from unfreeze.models.targets import Numbers, SingleLabel, predictions
from unfreeze.models.targets.predictions import Layout, Tally, metadata_of, read_predictions, write_predictions

PATH = pa.field("path", pa.string())
CLASSES = ["cat", "dog", "fox"]
PROBABILITIES = np.array([[0.2, 0.5, 0.3], [0.7, 0.1, 0.2]])


def images(top_k: int = 2) -> tuple[Layout, pa.RecordBatch]:
    """Three images, the middle one unreadable."""
    layout = Layout(PATH, "pets", "3", SingleLabel(CLASSES), top_k)
    batch = layout.batch(pa.array(["a", "b", "c"]), np.array([0, 2]), PROBABILITIES, {1: "zero bytes"})
    return layout, batch


def test_the_most_probable_classes_are_flat_columns_and_an_unreadable_row_has_its_reason() -> None:
    _, batch = images()
    assert batch.to_pydict() == {
        "path": ["a", "b", "c"],
        "class": ["dog", None, "cat"],
        "probability": [0.5, None, 0.7],
        "class_2": ["fox", None, "fox"],
        "probability_2": [0.3, None, 0.2],
        "model": ["pets"] * 3,
        "version": ["3"] * 3,
        "error": [None, "zero bytes", None],
    }


def test_there_are_no_more_ranks_than_classes() -> None:
    layout, _ = images(top_k=100)
    assert layout.schema.names[1:7] == ["class", "probability", "class_2", "probability_2", "class_3", "probability_3"]


def test_a_chunk_without_a_readable_row_has_only_reasons() -> None:
    layout, _ = images()
    nothing = layout.batch(pa.array(["a"]), np.empty(0, np.int64), np.empty((0, 0)), {0: "not an image"})
    assert nothing.schema == layout.schema
    assert nothing.column("error").to_pylist() == ["not an image"]


def test_classes_keep_their_type() -> None:
    layout = Layout(pa.field("row", pa.int64()), "m", "1", SingleLabel([3, 5]), 1)
    batch = layout.batch(pa.array([0]), np.array([0]), np.array([[0.1, 0.9]]), {})
    assert batch.column("class").to_pylist() == [5]


def test_a_regression_has_a_column_per_target_which_never_hides_another() -> None:
    layout = Layout(pa.field("row", pa.int64()), "m", "1", Numbers(["sales", "model"]), 3)
    batch = layout.batch(pa.array([0, 1]), np.array([1]), np.array([[1.5, 2.5]]), {0: "no date"})
    assert layout.schema.names == ["row", "sales", "predicted_model", "model", "version", "error"]
    assert batch.column("sales").to_pylist() == [None, 1.5]
    assert batch.column("predicted_model").to_pylist() == [None, 2.5]


@pytest.mark.parametrize("suffix", [".feather", ".parquet", ".csv"])
def test_every_format_holds_the_same_rows(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictions, "ROWS_AT_ONCE", 4)
    layout, batch = images()
    path = tmp_path / f"out{suffix}"
    write_predictions([batch] * 3, layout.schema.with_metadata({"a": "b"}), path, suffix)
    read = {".feather": pd.read_feather, ".parquet": pd.read_parquet, ".csv": pd.read_csv}[suffix]
    expected = pd.concat([batch.to_pandas()] * 3, ignore_index=True)
    expected["version"] = expected["version"].astype(int) if suffix == ".csv" else expected["version"]
    pd.testing.assert_frame_equal(read(path), expected, check_dtype=False)
    assert metadata_of(path).get("a") == (None if suffix == ".csv" else "b")
    if suffix != ".csv":
        assert (
            pa.Table.from_batches(read_predictions(path)).to_pydict() == pa.Table.from_batches([batch] * 3).to_pydict()
        )


def test_a_file_of_another_kind_has_no_metadata(tmp_path: Path) -> None:
    for name in ("a.parquet", "a.feather", "a.csv"):
        (tmp_path / name).write_text("something else")
        assert metadata_of(tmp_path / name) == {}


def test_what_covers_the_truth_stands_before_the_model_and_rows_that_abstain_are_counted() -> None:
    layout = Layout(PATH, "pets", "3", SingleLabel(CLASSES), 1, np.array([0.75]))
    batch = layout.batch(pa.array(["a", "b", "c"]), np.array([0, 2]), PROBABILITIES, {1: "zero bytes"})
    assert batch.schema.names == ["path", "class", "probability", "set", "abstains", "model", "version", "error"]
    assert batch.column("set").to_pylist() == ["dog|fox", None, "cat"]
    assert batch.column("abstains").to_pylist() == [True, None, False]
    tally = Tally()
    assert list(tally.passing([batch])) == [batch]
    assert tally.abstaining == 1
    prices = Layout(PATH, "prices", "1", Numbers(["price"]), 1, np.array([2.0]))
    row = prices.batch(pa.array(["a"]), np.array([0]), np.array([[5.0]]), {}).to_pydict()
    assert [row[f"price{end}"] for end in ("", "_low", "_high")] == [[5.0], [3.0], [7.0]]


def test_rows_are_counted_by_their_most_probable_class() -> None:
    _, batch = images()
    tally = Tally()
    assert list(tally.passing([batch, batch])) == [batch, batch]
    assert (tally.rows, tally.unreadable) == (6, 2)
    assert [row["path"] for row in tally.few] == batch.column("path").to_pylist() * 2
    assert list(tally.passing([batch] * 5))
    assert tally.few == []
    assert [(row["class"], row["share"]) for row in tally.table()] == [("dog", 0.5), ("cat", 0.5)]


def test_values_are_summed_up_by_their_mean_and_range() -> None:
    layout = Layout(pa.field("row", pa.int64()), "m", "1", Numbers(["sales"]), 3)
    tally = Tally()
    for values in ([1.0, 4.0], [10.0]):
        rows = np.arange(len(values))
        list(tally.passing([layout.batch(pa.array(rows), rows, np.array(values)[:, None], {})]))
    assert tally.table() == [{"target": "sales", "mean": 5.0, "smallest": 1.0, "largest": 10.0}]
