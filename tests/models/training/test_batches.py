import torch
from hypothesis import given, strategies as st

from tests.models.conftest import pixels
from unfreeze.models.training.batches import in_order, put_together, split_into_batches

ROWS = st.integers(1, 300)
SIZES = st.integers(1, 70)


@given(rows=ROWS, size=SIZES)
def test_every_row_comes_exactly_once_and_in_order(rows, size):
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(rows))
    assert torch.equal(torch.cat(split_into_batches(order, size)), order)


@given(rows=ROWS, size=SIZES)
def test_batches_are_the_fewest_that_keep_the_limit(rows, size):
    batches = split_into_batches(torch.arange(rows), size)
    assert max(map(len, batches)) <= size
    assert (len(batches) - 1) * size < rows


@given(rows=ROWS, size=SIZES)
def test_sizes_differ_by_at_most_one(rows, size):
    lengths = [len(batch) for batch in split_into_batches(torch.arange(rows), size)]
    assert max(lengths) - min(lengths) <= 1


@given(rows=st.integers(2, 300), size=st.integers(4, 70))
def test_no_batch_has_one_row(rows, size):
    assert min(len(batch) for batch in split_into_batches(torch.arange(rows), size)) >= 2


def test_rows_in_order_are_plain_and_in_batches_of_the_forward_size():
    batches = pixels(20)
    batches.forward_size = 15
    inputs, targets = zip(*in_order(batches), strict=True)
    assert [len(part) for part in inputs] == [10, 10]
    assert torch.equal(torch.cat(inputs), batches.inputs)
    assert torch.equal(torch.cat(targets), batches.targets)


@given(rows=ROWS, size=SIZES)
def test_parts_are_put_together_in_their_order_and_their_types(rows, size):
    outputs, targets = torch.rand(rows, 3), torch.arange(rows)
    parts = zip(outputs.split(size), targets.split(size), strict=True)
    together = put_together(parts, rows)
    assert torch.equal(together[0], outputs)
    assert torch.equal(together[1], targets)


def test_no_rows_keep_the_shape_of_a_row():
    (together,) = put_together(iter([(torch.empty(0, 3),)]), 0)
    assert together.shape == (0, 3)
