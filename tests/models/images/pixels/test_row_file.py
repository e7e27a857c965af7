import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.images.pixels import row_file
from unfreeze.models.images.pixels.row_file import RowFile, RowWriter


def rows_of(count: int, width: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, width)).astype(dtype)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    chunks=st.lists(st.integers(0, 300), min_size=1, max_size=4).filter(any),
    width=st.integers(1, 5),
    dtype=st.sampled_from(["uint8", "float16", "float32"]),
    data=st.data(),
)
def test_any_rows_come_back_whatever_the_chunks_they_were_appended_in(tmp_path, chunks, width, dtype, data):
    rows = rows_of(sum(chunks), width, dtype)
    with RowWriter(tmp_path / "file", width, dtype, {}) as writer:
        for part in np.split(rows, np.cumsum(chunks)[:-1]):
            writer.append(part)
    file = RowFile(tmp_path / "file")
    assert (len(file), file.width) == rows.shape
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=20))
    gathered = file.gather(np.array(wanted, dtype=np.int64))
    assert gathered.numpy().dtype == ("float32" if dtype == "float16" else dtype)
    np.testing.assert_array_equal(gathered, rows[wanted])
    np.testing.assert_array_equal(file.gather(torch.arange(len(rows))), rows)


def test_wide_rows_come_in_smaller_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(row_file, "_MOST_BYTES", 100)
    rows = rows_of(70, 8, "float32")  # three rows of 32 bytes
    with RowWriter(tmp_path / "file", 8, "float32", {}) as writer:
        writer.append(rows)
    file = RowFile(tmp_path / "file")
    assert len(file.blocks) == 24
    np.testing.assert_array_equal(file.gather(np.array([69, 3, 2, 3])), rows[[69, 3, 2, 3]])


def test_the_metadata_comes_back(tmp_path):
    with RowWriter(tmp_path / "file", 2, "uint8", {"split": "train", "note": "größe"}) as writer:
        writer.append(rows_of(3, 2, "uint8"))
    assert RowFile(tmp_path / "file").metadata == {"split": "train", "note": "größe"}


def test_gathered_rows_are_a_copy(tmp_path):
    with RowWriter(tmp_path / "file", 2, "uint8", {}) as writer:
        writer.append(np.ones((3, 2), np.uint8))
    file = RowFile(tmp_path / "file")
    gathered = file.gather(np.array([1]))
    gathered += 1
    assert file.gather(np.array([1])).tolist() == [[1, 1]]


@pytest.mark.parametrize("row", [-1, 3])
def test_a_row_outside_the_file_is_refused(tmp_path, row):
    with RowWriter(tmp_path / "file", 2, "uint8", {}) as writer:
        writer.append(np.ones((3, 2), np.uint8))
    with pytest.raises(IndexError, match="of a file of 3"):
        RowFile(tmp_path / "file").gather(np.array([0, row]))


@pytest.mark.parametrize("kept", [0, 0.3, 0.9, 0.999])
def test_an_incomplete_file_is_refused(tmp_path, kept):
    with RowWriter(tmp_path / "file", 4, "float32", {}) as writer:
        writer.append(rows_of(300, 4, "float32"))
    content = (tmp_path / "file").read_bytes()
    (tmp_path / "file").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"not a complete .*delete it and run again"):
        RowFile(tmp_path / "file")


def test_a_file_that_is_still_being_written_is_refused(tmp_path):
    with RowWriter(tmp_path / "file", 4, "float32", {}) as writer:
        writer.append(rows_of(300, 4, "float32"))
        with pytest.raises(UserError, match="not a complete"):
            RowFile(tmp_path / "file")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("no rows at all")
    with pytest.raises(UserError, match="not a complete"):
        RowFile(tmp_path / "file")
