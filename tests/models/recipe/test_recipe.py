import numpy as np
import pytest
import torch

from unfreeze.models.images.batches import ActivationBatches, ImageBatches
from unfreeze.models.images.bound import image_sizes
from unfreeze.models.images.data import wanted_activations
from unfreeze.models.images.networks.weights import Preprocessing
from unfreeze.models.images.pixels.augmentation import numbered_view
from unfreeze.models.settings import DataSpec, Stage, TrainImages
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.targets import SingleLabel
from unfreeze.models.training.loop import fit

PREPROCESSING = Preprocessing((0.5,) * 3, (0.5,) * 3, "bilinear", 160)


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (Stage(name="a", precompute=True), [("train", 0), ("valid", 0), ("valid", 1), ("valid", 2)]),
        (
            Stage(name="a", views=3),
            [("train", 1), ("train", 2), ("train", 3), ("valid", 0), ("valid", 1), ("valid", 2)],
        ),
        (Stage(name="a"), []),
        (Stage(name="a", train="late"), []),
        (Stage(name="a", train="all"), []),
    ],
)
def test_a_stage_wants_the_activations_that_it_reads(stage, expected):
    assert wanted_activations(stage, n_aug=2) == expected


def test_without_tta_only_plain_validation_is_wanted():
    assert wanted_activations(Stage(name="a", views=1), n_aug=0) == [("train", 1), ("valid", 0)]


def test_every_stage_may_have_a_size_of_its_own(tiny_index):
    recipe = [Stage(name="a", lr=1, size=64), Stage(name="b", lr=1), Stage(name="c", lr=1, size=128)]
    params = TrainImages(data=DataSpec(size=96), recipe=recipe)
    assert image_sizes(params, tiny_index, PREPROCESSING) == [64, 96, 128]


@pytest.mark.parametrize(("native", "expected"), [(160, 160), (1000, 320)])
def test_without_a_size_it_is_the_weights_unless_the_images_are_much_smaller(tiny_index, native, expected):
    widths, heights = (tiny_index.rows[name].to_numpy() for name in ("width", "height"))
    assert np.median(np.minimum(widths, heights)) == 40
    preprocessing = Preprocessing((0.5,) * 3, (0.5,) * 3, "bilinear", native)
    params = TrainImages(recipe=[Stage(name="a", lr=1), Stage(name="b", lr=1, size=64)])
    assert image_sizes(params, tiny_index, preprocessing) == [expected, 64]


def test_progressive_resizing_reads_the_cache_of_the_stages_size(tiny_recipe):
    assert tiny_recipe.sizes == [32, 32, 32, 48]
    for position, side in enumerate(tiny_recipe.sizes):
        inputs, _ = tiny_recipe.images(position, "valid").gather(torch.tensor([0]), None)
        assert inputs.shape == (1, 3, side, side)


def test_the_splits_are_those_of_the_index(tiny_recipe, tiny_index):
    for split, rows in (("train", tiny_index.rows_of("train")), ("valid", tiny_index.rows_of("valid"))):
        images = tiny_recipe.images(0, split)
        np.testing.assert_array_equal(images.rows, rows)
        _, targets = images.gather(torch.arange(len(images)), None)
        np.testing.assert_array_equal(targets, tiny_index.targets()[rows])


def test_a_numbered_view_of_an_image_does_not_depend_on_its_split(tiny_recipe, tiny_index):
    every = numbered_view(2, tiny_index.rows["content"].to_pylist(), tiny_recipe.params.augment)
    for split in ("train", "valid"):
        fixed = tiny_recipe.images(0, split, 2).fixed_views
        assert torch.equal(fixed, every[torch.from_numpy(tiny_recipe.rows[split])])
    assert tiny_recipe.images(0, "train", 0).fixed_views is None


@pytest.fixture(scope="module")
def files(tiny_recipe, tmp_path_factory):
    """Activations of every view that the first two stages read, each row's first number telling which."""
    learner, workspace = tiny_recipe.learner(), Workspace(tmp_path_factory.mktemp("activations"))
    return {
        view: path for position in (0, 1) for view, path in tiny_recipe.precompute(learner, position, workspace).items()
    }


@pytest.mark.parametrize(("position", "train_views"), [(0, ["0"]), (1, ["1", "2"])])
def test_a_precomputed_stage_trains_on_its_views_and_validates_on_the_plain_one(
    tiny_recipe, files, position, train_views
):
    train, valid = (tiny_recipe.batches(position, split, files) for split in ("train", "valid"))
    assert isinstance(train, ActivationBatches)
    assert isinstance(valid, ActivationBatches)
    assert [file.metadata["view"] for file in train.views] == train_views
    assert {file.metadata["split"] for file in train.views} == {"train"}
    assert [(file.metadata["split"], file.metadata["view"]) for file in valid.views] == [("valid", "0")]
    assert (len(train), len(valid)) == (30, 9)


def test_other_stages_train_on_images(tiny_recipe):
    for position in (2, 3):
        train, valid = (tiny_recipe.batches(position, split, {}) for split in ("train", "valid"))
        assert isinstance(train, ImageBatches)
        assert isinstance(valid, ImageBatches)
        assert train.fixed_views is valid.fixed_views is None


def test_evaluation_reads_the_views_of_the_validation_rows(tiny_recipe, files):
    read = tiny_recipe.evaluation_views(0, "valid", files)(1)
    assert isinstance(read, ActivationBatches)
    assert [(file.metadata["split"], file.metadata["view"]) for file in read.views] == [("valid", "1")]
    shown = tiny_recipe.evaluation_views(3, "valid", {})(1)
    assert isinstance(shown, ImageBatches)
    assert torch.equal(shown.fixed_views, tiny_recipe.images(3, "valid", 1).fixed_views)
    assert shown.cache.size == 48


def test_two_learners_of_a_spec_are_equal(tiny_recipe):
    one, two = (tiny_recipe.learner().network.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_whole_recipe_learns_the_colours(tiny_recipe, files):
    learner = tiny_recipe.learner()
    accuracies = []
    for position, stage in enumerate(tiny_recipe.params.recipe):
        longer = stage.model_copy(update={"cycle_len": 1 if stage.precomputes else 8})
        learner.prepare(longer, position, 0.005 if stage.train == "all" else 0.01)
        train, valid = (
            tiny_recipe.batches(position, split, files if stage.precomputes else {}) for split in ("train", "valid")
        )
        accuracies += [step.metrics["accuracy"] for step in fit(learner, longer, train, valid) if step.kind == "cycle"]
    assert len(accuracies) == 4
    assert accuracies[-1] > tiny_recipe.target.majority(tiny_recipe.targets("valid")) + 0.3


def test_the_majority_share_is_that_of_the_commonest_class():
    assert SingleLabel(["a", "b", "c"]).majority(np.array([2, 0, 2, 2, 1])) == pytest.approx(0.6)
