import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from unfreeze.models.errors import UserError
from unfreeze.models.tables.batches import TableBatches, read_encoded, write_encoded
from unfreeze.models.tables.columns.encoding import Encoded
from unfreeze.models.training.batches import in_order

CPU = torch.device("cpu")


def encoded(rows: int, categorical: int, continuous: int) -> Encoded:
    generator = np.random.default_rng(rows)
    codes = generator.integers(0, 9, (rows, categorical)).astype(np.int32)
    return Encoded(codes, generator.normal(size=(rows, continuous)).astype(np.float32))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    categorical=st.integers(0, 4),
    continuous=st.integers(0, 4),
    targets=st.integers(0, 3),
    rows=st.lists(st.integers(0, 29), max_size=20),
    data=st.data(),
)
def test_any_rows_come_back_in_any_order(tmp_path, categorical, continuous, targets, rows, data):
    table = encoded(30, categorical, continuous)
    # Without targets of numbers: class numbers.
    wanted = np.arange(30 * targets, dtype=np.float32).reshape(30, targets) if targets else np.arange(30) % 3
    write_encoded(table, wanted, tmp_path / "file")
    batches = TableBatches(tmp_path / "file", np.array(rows, dtype=np.int64), CPU, 8)
    assert len(batches) == len(rows)
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=10)) if rows else []
    (codes, numbers), found = batches.gather(torch.tensor(chosen, dtype=torch.int64), torch.Generator())
    places = np.array(rows, dtype=np.int64)[chosen]
    assert (codes.dtype, numbers.dtype) == (torch.int64, torch.float32)
    np.testing.assert_array_equal(codes, table.categorical[places])
    np.testing.assert_array_equal(numbers, table.continuous[places])
    np.testing.assert_array_equal(found, wanted[places])
    assert found.numpy().dtype == wanted.dtype
    np.testing.assert_array_equal(batches.targets, wanted[rows])


def test_all_rows_come_in_the_order_of_the_row_numbers(tmp_path):
    write_encoded(encoded(50, 2, 2), np.arange(50), tmp_path / "file")
    batches = TableBatches(tmp_path / "file", np.arange(49, 9, -1), CPU, 8)
    batches.forward_size = 7
    assert torch.cat([targets for _, targets in in_order(batches)]).tolist() == list(range(49, 9, -1))


def test_gathered_rows_are_copies(tmp_path):
    write_encoded(encoded(3, 2, 2), np.zeros((3, 1), np.float32), tmp_path / "file")
    batches = TableBatches(tmp_path / "file", np.arange(3), CPU, 8)
    for tensor in (batches.gather(torch.arange(3), None)[0][1], batches.gather(torch.arange(3), None)[1]):
        tensor += 1
    (_, numbers), targets = batches.gather(torch.arange(3), None)
    np.testing.assert_array_equal(numbers, encoded(3, 2, 2).continuous)
    assert targets.tolist() == [[0], [0], [0]]


def test_rows_that_are_not_there_are_refused(tmp_path):
    write_encoded(encoded(3, 1, 1), np.arange(3), tmp_path / "file")
    with pytest.raises(IndexError):
        TableBatches(tmp_path / "file", np.array([3]), CPU, 8).gather(torch.tensor([0]), None)


def test_the_file_is_mapped_and_other_programs_can_read_it(tmp_path):
    table = encoded(5, 2, 3)
    write_encoded(table, np.arange(5), tmp_path / "file")
    mapped, _ = read_encoded(tmp_path / "file")
    assert not mapped.categorical.flags.owndata
    assert not mapped.categorical.flags.writeable
    frame = pd.read_feather(tmp_path / "file")
    np.testing.assert_array_equal(np.stack(frame["continuous"]), table.continuous)


@pytest.mark.parametrize("content", [b"", b"not an Arrow file at all"])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="delete it and run again"):
        TableBatches(tmp_path / "file", np.arange(1), CPU, 8)


def test_a_file_of_something_else_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_feather(tmp_path / "file", compression="uncompressed")
    with pytest.raises(UserError, match="delete it and run again"):
        read_encoded(tmp_path / "file")
    with pytest.raises(UserError, match="delete it and run again"):
        read_encoded(tmp_path / "absent")
