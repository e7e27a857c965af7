from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from unfreeze.models.images.batches import ActivationBatches, ImageBatches
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.images.pixels.augmentation import apply_views, draw_views, numbered_view
from unfreeze.models.images.pixels.cache import ImageCache
from unfreeze.models.settings import AugmentSpec
from unfreeze.models.store.row_store import RowStore, StoredRows, missing_lots
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.batches import in_order

CPU = torch.device("cpu")
ROWS = np.array([5, 0, 38, 17, 21, 9])
TARGETS = np.array([0, 1, 2, 0, 1, 2])
PREPROCESSING = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.25, 0.5), "bilinear", 32)
AUGMENT = AugmentSpec(max_rotate=30)


def images(cache: ImageCache, fixed_views: torch.Tensor | None = None) -> ImageBatches:
    return ImageBatches(cache, ROWS, TARGETS, 4, AUGMENT, PREPROCESSING, CPU, 4, fixed_views)


def written(folder: Path, name: str, rows: np.ndarray) -> StoredRows:
    store = RowStore(Workspace(folder), "views", name, rows.shape[1], np.float32, {})
    contents = [str(number) for number in range(len(rows))]
    for lot in missing_lots({name: store}, contents):
        lot.write(lambda _, names: iter([{names[0]: rows}]))
    path = store.workspace.path(store.list_of(contents))
    store.write_list(path, contents)
    return StoredRows(path)


def normalised(shares: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (PREPROCESSING.mean, PREPROCESSING.std))
    return (shares - mean) / std


def test_without_a_generator_images_are_plain_and_normalised(tiny_cache):
    inputs, targets = images(tiny_cache).gather(torch.tensor([2, 0]), None)
    expected = normalised(tiny_cache.gather(np.array([38, 5])).float() / 255)
    torch.testing.assert_close(inputs, expected)
    assert targets.tolist() == [2, 0]
    assert inputs.is_contiguous(memory_format=torch.channels_last)


def test_with_a_generator_images_are_augmented_by_its_draws(tiny_cache):
    inputs, targets = images(tiny_cache).gather(torch.tensor([2, 0, 1]), torch.Generator().manual_seed(7))
    shares = tiny_cache.gather(np.array([38, 5, 0])).float() / 255
    views = draw_views(3, AUGMENT, torch.Generator().manual_seed(7))
    torch.testing.assert_close(inputs, normalised(apply_views(shares, views)))
    assert not torch.allclose(inputs, normalised(shares), atol=0.1)
    assert targets.tolist() == [2, 0, 1]


def test_every_visit_shows_another_view(tiny_cache):
    batches, generator = images(tiny_cache), torch.Generator().manual_seed(7)
    one, two = (batches.gather(torch.arange(6), generator)[0] for _ in range(2))
    assert not torch.allclose(one, two, atol=0.1)


def test_a_fixed_view_belongs_to_its_row(tiny_cache):
    views = numbered_view(1, list("abcdef"), AUGMENT)
    batches = images(tiny_cache, views)
    together, _ = batches.gather(torch.arange(6), None)
    shares = tiny_cache.gather(ROWS).float() / 255
    torch.testing.assert_close(together, normalised(apply_views(shares, views)))
    torch.testing.assert_close(batches.gather(torch.tensor([4, 1]), None)[0], together[[4, 1]])


def test_images_in_order_are_the_rows_in_order(tiny_cache):
    parts = list(in_order(images(tiny_cache)))
    assert len(images(tiny_cache)) == 6
    torch.testing.assert_close(
        torch.cat([inputs for inputs, _ in parts]), normalised(tiny_cache.gather(ROWS).float() / 255)
    )
    assert torch.cat([targets for _, targets in parts]).tolist() == TARGETS.tolist()


@pytest.fixture
def views(tmp_path) -> list[StoredRows]:
    """Three views of six rows: 10 times the row plus the number of the view."""
    return [
        written(tmp_path, str(view), np.repeat(10 * np.arange(6, dtype=np.float32)[:, None] + view, 2, axis=1))
        for view in range(3)
    ]


def test_training_draws_among_the_views_for_every_row_and_visit(views):
    batches = ActivationBatches(views, TARGETS, CPU, 4)
    generator, rows = torch.Generator().manual_seed(0), torch.tensor([4, 0, 3])
    seen: set[tuple[int, ...]] = set()
    for _ in range(200):
        activations, targets = batches.gather(rows, generator)
        assert targets.tolist() == [1, 0, 0]
        assert torch.equal(activations[:, 0], activations[:, 1])
        drawn = activations[:, 0] - 10 * rows
        seen.add(tuple(drawn.int().tolist()))
    assert seen == set(product(range(3), repeat=3))  # the rows draw by themselves, and only among the three


def test_without_a_generator_the_first_view_is_read(views):
    activations, targets = ActivationBatches(views, TARGETS, CPU, 4).gather(torch.tensor([4, 0]), None)
    assert activations.tolist() == [[40, 40], [0, 0]]
    assert targets.tolist() == [1, 0]


def test_a_single_view_draws_nothing(views):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    activations, _ = ActivationBatches(views[1:2], TARGETS, CPU, 4).gather(torch.tensor([2]), generator)
    assert activations.tolist() == [[21, 21]]
    assert torch.equal(generator.get_state(), before)


def test_activations_and_images_say_which_they_are(tiny_cache, views):
    assert ActivationBatches(views, TARGETS, CPU, 4).precomputed
    assert not images(tiny_cache).precomputed
