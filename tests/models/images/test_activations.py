import pytest
import torch

from unfreeze.models.images.data import ImageData, wanted_activations
from unfreeze.models.images.row_file import RowFile
from unfreeze.models.training.loop import fit


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


@pytest.mark.parametrize(("split", "view"), [("train", 0), ("valid", 0), ("valid", 2)])
def test_the_head_on_activations_equals_the_whole_network(tiny_recipe, tmp_path, split, view):
    learner = tiny_recipe.learner()
    tiny_recipe.write_view(learner.network.body, 0, (split, view), tmp_path / "file")
    images = tiny_recipe.images(0, split, view)
    inputs, _ = images.gather(torch.arange(len(images)), None)
    learner.network.eval()
    with torch.no_grad():
        whole = learner.network(inputs)
        head = learner.network.head(RowFile(tmp_path / "file").gather(torch.arange(len(images))))
    torch.testing.assert_close(head, whole, atol=1e-4, rtol=1e-4)


def test_activations_are_one_row_per_image_with_their_origin(tiny_recipe, tmp_path):
    body = tiny_recipe.learner().network.body
    done: list[tuple[int, int]] = []
    tiny_recipe.write_view(body, 3, ("train", 1), tmp_path / "file", lambda *counts: done.append(counts))
    file = RowFile(tmp_path / "file")
    assert (len(file), file.width) == (30, body.features)
    assert file.metadata == {"split": "train", "view": "1", "size": "48"}
    assert done[-1] == (30, 30)
    assert done == sorted(done)


def test_precomputing_leaves_the_body_as_it_was(tiny_recipe, tmp_path):
    body = tiny_recipe.learner().network.body.train()
    before = {name: tensor.clone() for name, tensor in body.state_dict().items()}
    tiny_recipe.write_view(body, 0, ("train", 0), tmp_path / "file")
    assert_same(body.state_dict(), before)


def test_precomputing_twice_writes_the_same_file(tiny_recipe, tmp_path):
    body = tiny_recipe.learner().network.body
    for name in ("one", "two"):
        tiny_recipe.write_view(body, 0, ("train", 1), tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_body_that_trained_the_head_still_gives_the_same_activations(tiny_recipe, tmp_path):
    """Batch norm in a frozen body must not adapt, or activations would not fit the network any more."""
    learner = tiny_recipe.learner()
    tiny_recipe.write_view(learner.network.body, 0, ("valid", 0), tmp_path / "before")
    stage = tiny_recipe.params.recipe[2]
    learner.prepare(stage, 2, 0.01)
    for _ in fit(learner, stage, *(tiny_recipe.batches(2, split, {}) for split in ("train", "valid"))):
        pass
    tiny_recipe.write_view(learner.network.body, 0, ("valid", 0), tmp_path / "after")
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()


def test_training_from_activations_equals_training_from_images(tiny_recipe, tiny_caches, tmp_path):
    """The plain images through the frozen body at every visit, or once: the same head comes out."""
    plain = tiny_recipe.params.model_copy(
        update={"augment": tiny_recipe.params.augment.model_copy(update={"preset": "none"})}
    )
    stage = plain.recipe[0]
    heads = []
    for precomputed in (True, False):
        recipe = ImageData(plain, tiny_recipe.prepared)
        learner = recipe.learner()
        files = {}
        for number, view in enumerate(wanted_activations(stage, 0) if precomputed else []):
            recipe.write_view(learner.network.body, 0, view, tmp_path / f"{number}")
            files[view] = tmp_path / f"{number}"
        learner.prepare(stage, 0, 0.01)
        for _ in fit(learner, stage, *(recipe.batches(0, split, files) for split in ("train", "valid"))):
            pass
        heads.append(learner.network.head.state_dict())
    for name in heads[0]:
        torch.testing.assert_close(heads[0][name], heads[1][name], atol=1e-3, rtol=1e-3)
