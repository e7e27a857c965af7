from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.images import activations
from unfreeze.models.images.activations import View, forward
from unfreeze.models.images.batches import CPU_FORWARD_SIZE, ImageBatches
from unfreeze.models.images.data import ImageData
from unfreeze.models.images.networks.backbones import load_body
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.settings import ModelSpec
from unfreeze.models.store import row_store
from unfreeze.models.store.progress import Advance
from unfreeze.models.store.row_store import StoredRows
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.loop import fit

PASS = CPU_FORWARD_SIZE


class PlugPulledError(Exception):
    """Stands for whatever ends a process in the middle of a computation."""


class Watched(Workspace):
    """A workspace that keeps what was reported."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.done: list[tuple[int, int]] = []

    @contextmanager
    def progress(self, text: str, note: Callable[[], str] = lambda: "") -> Iterator[Advance]:
        yield lambda *counts: self.done.append(counts)


@pytest.fixture
def passes(monkeypatch) -> list[int]:
    """Images in every forward pass that precomputes."""
    counted: list[int] = []

    def counting(body: Any, images: ImageBatches, rows: torch.Tensor, precision: Any) -> Iterator[np.ndarray]:
        for made in forward(body, images, rows, precision):
            counted.append(len(made))
            yield made

    monkeypatch.setattr(activations, "forward", counting)
    return counted


def computed(data: ImageData, folder: Path, position: int = 0) -> dict[View, torch.Tensor]:
    """Activations (N, D) of every view that a stage reads."""
    files = data.precompute(data.learner(), position, Workspace(folder))
    return {view: (rows := StoredRows(path)).gather(np.arange(len(rows))) for view, path in files.items()}


def test_activations_that_the_cache_cannot_hold_are_an_error_that_names_the_stage(tiny_recipe, tmp_path, monkeypatch):
    def huge(body: Any, images: ImageBatches, rows: torch.Tensor, precision: Any) -> Iterator[np.ndarray]:
        return (1e6 * made for made in forward(body, images, rows, precision))

    monkeypatch.setattr(activations, "forward", huge)
    with pytest.raises(UserError, match=r"stage 'head' reach .* --recipe.head.precompute false"):
        computed(tiny_recipe, tmp_path)


def assert_same(one: dict[Any, torch.Tensor], other: dict[Any, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def with_split(data: ImageData, splits: list[str]) -> ImageData:
    """The data with another side for every image."""
    rows = data.index.rows
    changed = rows.set_column(rows.column_names.index("split"), "split", [splits])
    moved = ImageData(data.params, data.prepared)
    moved.index = Index(changed, data.index.rejected, data.index.classes, "another", data.index.multiple)
    moved.rows = {split: moved.index.rows_of(split) for split in ("train", "valid", "test")}
    return moved


@pytest.mark.parametrize("view", [("train", 0), ("valid", 0), ("valid", 2)])
def test_the_head_on_activations_equals_the_whole_network(tiny_recipe, tmp_path, view):
    learner = tiny_recipe.learner()
    images = tiny_recipe.images(0, *view)
    inputs, _ = images.gather(torch.arange(len(images)), None)
    learner.network.eval()
    with torch.no_grad():
        whole = learner.network(inputs)
        head = learner.network.head(computed(tiny_recipe, tmp_path)[view])
    torch.testing.assert_close(head, whole, atol=1e-4, rtol=1e-4)


def test_activations_are_one_row_per_image_with_their_origin(tiny_recipe, tmp_path):
    learner, workspace = tiny_recipe.learner(), Watched(tmp_path)
    rows = StoredRows(tiny_recipe.precompute(learner, 1, workspace)["train", 1])
    assert (len(rows), rows.width) == (30, learner.network.body.features)
    assert {name: rows.metadata[name] for name in ("split", "view", "size")} == {
        "split": "train", "view": "1", "size": "32"
    }  # fmt: skip
    views = 2 * 30 + 5 * 9  # two of the training images, the plain one and four of TTA of the validation images
    assert workspace.done[-1] == (views, views)
    assert workspace.done == sorted(workspace.done)


def test_precomputing_leaves_the_body_as_it_was(tiny_recipe, tmp_path):
    learner = tiny_recipe.learner()
    body = learner.network.body.train()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    tiny_recipe.precompute(learner, 0, Workspace(tmp_path))
    assert_same(body.state_dict(), before)


def test_a_body_that_trained_the_head_still_gives_the_same_activations(tiny_recipe, tmp_path):
    """Batch norm in a frozen body must not adapt, or activations would not fit the network any more."""
    learner = tiny_recipe.learner()
    before = tiny_recipe.precompute(learner, 0, Workspace(tmp_path / "before"))
    stage = tiny_recipe.params.recipe[2]
    learner.prepare(stage, 2, 0.01)
    for _ in fit(learner, stage, *(tiny_recipe.batches(2, split, {}) for split in ("train", "valid"))):
        pass
    after = tiny_recipe.precompute(learner, 0, Workspace(tmp_path / "after"))
    for view, path in before.items():
        one, other = (StoredRows(each).gather(torch.arange(9)) for each in (path, after[view]))
        assert torch.equal(one, other)


def test_training_from_activations_equals_training_from_images(tiny_recipe, tmp_path):
    """The plain images through the frozen body at every visit, or once: the same head comes out."""
    plain = tiny_recipe.params.model_copy(
        update={"augment": tiny_recipe.params.augment.model_copy(update={"preset": "none"})}
    )
    stage = plain.recipe[0]
    heads = []
    for precomputed in (True, False):
        recipe = ImageData(plain, tiny_recipe.prepared)
        learner = recipe.learner()
        files = recipe.precompute(learner, 0, Workspace(tmp_path)) if precomputed else {}
        learner.prepare(stage, 0, 0.01)
        for _ in fit(learner, stage, *(recipe.batches(0, split, files) for split in ("train", "valid"))):
            pass
        heads.append(learner.network.head.state_dict())
    for name in heads[0]:
        torch.testing.assert_close(heads[0][name], heads[1][name], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("position", [0, 1])
def test_a_computation_that_was_killed_goes_on_to_the_same_bits(tiny_recipe, tmp_path, monkeypatch, position, passes):
    monkeypatch.setattr(row_store, "MOST_ROWS", PASS)
    whole = computed(tiny_recipe, tmp_path / "whole", position)
    needed = len(passes)

    def pulled(*arguments: Any) -> Iterator[np.ndarray]:
        for made in forward(*arguments):
            passes.append(len(made))
            if len(passes) == needed + 4:
                raise PlugPulledError
            yield made

    with monkeypatch.context() as patch:
        patch.setattr(activations, "forward", pulled)
        with pytest.raises(PlugPulledError):
            computed(tiny_recipe, tmp_path / "killed", position)
    assert_same(computed(tiny_recipe, tmp_path / "killed", position), whole)
    assert len(passes) == 2 * needed + 1  # the one under way


def test_an_added_image_costs_a_pass_per_view_and_changes_no_bit_of_the_others(tiny_recipe, tmp_path, passes):
    whole = computed(tiny_recipe, tmp_path / "whole", 1)
    splits = tiny_recipe.index.rows["split"].to_pylist()
    new = splits.index("train")
    before = with_split(tiny_recipe, [*splits[:new], "none", *splits[new + 1 :]])
    computed(before, tmp_path / "grown", 1)
    passes.clear()
    assert_same(computed(tiny_recipe, tmp_path / "grown", 1), whole)
    assert passes == [1, 1]  # two views of the training images


def test_an_image_that_moves_to_another_split_costs_nothing(tiny_recipe, tmp_path, passes):
    computed(tiny_recipe, tmp_path, 0)
    splits = tiny_recipe.index.rows["split"].to_pylist()
    swapped = list(splits)
    swapped[splits.index("valid")] = "train"
    moved = with_split(tiny_recipe, swapped)
    passes.clear()
    files = moved.precompute(moved.learner(), 0, Workspace(tmp_path))
    assert passes == []
    assert (len(StoredRows(files["train", 0])), len(StoredRows(files["valid", 0]))) == (31, 8)


@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/test_efficientnet", "timm/test_vit"])
def test_an_image_gives_the_same_bits_whatever_is_beside_it_in_a_pass(tiny_recipe, backbone):
    body = load_body(ModelSpec(backbone=backbone, weights="none"), [160 if "vit" in backbone else 32])
    images = tiny_recipe.images(0, "train", 1)
    if "vit" in backbone:
        images.cache = Enlarged(images.cache)
    every = np.concatenate(list(forward(body, images, torch.arange(30), tiny_recipe.precision)))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    shuffled = np.concatenate(list(forward(body, images, order, tiny_recipe.precision)))
    np.testing.assert_array_equal(shuffled, every[order])
    (alone,) = forward(body, images, torch.tensor([29]), tiny_recipe.precision)
    np.testing.assert_array_equal(alone, every[29:])


class Enlarged:
    """Images at five times their side, for a network that takes no other size."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def gather(self, rows: Any) -> torch.Tensor:
        larger: torch.Tensor = self._cache.gather(rows).repeat_interleave(5, 2).repeat_interleave(5, 3)
        return larger.contiguous(memory_format=torch.channels_last)
