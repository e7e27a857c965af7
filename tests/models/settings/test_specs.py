import json

import pytest
from pydantic import BaseModel, ValidationError

from unfreeze.models.errors import UserError
from unfreeze.models.settings import (
    AugmentSpec,
    DataSpec,
    FinderSpec,
    ModelSpec,
    OptimizerSpec,
    Stage,
    TrackingSpec,
    TrainImages,
    TtaSpec,
)
from unfreeze.models.settings.overrides import build_spec

SPECS = [AugmentSpec, DataSpec, FinderSpec, ModelSpec, OptimizerSpec, Stage, TrackingSpec, TrainImages, TtaSpec]


def test_the_recipe_of_the_course_is_the_eight_steps():
    head, augmented, full = TrainImages(recipe="course").recipe
    assert (head.train, head.precompute, head.find_lr) == ("head", True, True)  # steps 1 to 3
    assert head.epochs in (1, 2)
    assert TrainImages().augment.preset != "none"
    assert (augmented.train, augmented.precompute, augmented.cycle_len) == ("head", False, 1)  # step 4
    assert augmented.epochs in (2, 3)
    assert augmented.views is not None
    assert full.train == "all"  # step 5
    assert full.ratio > 1  # step 6
    assert full.find_lr  # step 7
    assert full.cycle_mult == 2  # step 8
    assert full.patience is not None


def test_the_default_recipe_trains_all_layers_from_a_head_that_is_fitted():
    head, full = TrainImages().recipe
    assert (head.train, head.regression, head.epochs) == ("head", True, 0)
    assert (full.train, full.cycles, full.patience) == ("all", 1, None)


def test_a_recipe_that_is_unknown_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="no recipe is named 'cours'; choose from default, course"):
        TrainImages(recipe="cours")


def test_a_stage_of_a_named_recipe_can_be_changed():
    spec = build_spec(TrainImages, {"recipe": "course"}, {"recipe.full.cycles": 5})
    assert [stage.name for stage in spec.recipe] == ["head", "head-augmented", "full"]
    assert spec.recipe[-1].cycles == 5


def test_a_regression_needs_a_linear_head_and_precomputed_activations():
    with pytest.raises(ValidationError, match="set it to linear"):
        TrainImages(model={"head": "fastai"})
    with pytest.raises(ValidationError, match="needs precompute"):
        Stage(name="head", regression=True)


@pytest.mark.parametrize("spec", SPECS)
def test_every_field_has_a_description(spec):
    assert [name for name, field in spec.model_fields.items() if not (field.description or "").strip()] == []


@pytest.mark.parametrize("spec", SPECS)
def test_an_unknown_field_is_refused(spec):
    known = {"name": "head"} if spec is Stage else {}
    spec(**known)
    with pytest.raises(ValidationError, match="surprise"):
        spec(**known, surprise=1)


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_is_frozen(spec):
    made: BaseModel = spec(name="head") if spec is Stage else spec()
    field = next(iter(spec.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(made, field, getattr(made, field))


@pytest.mark.parametrize(
    ("spec", "good", "bad"),
    [
        (DataSpec, {"size": 16}, {"size": 15}),
        (DataSpec, {"size": 1024}, {"size": 1025}),
        (DataSpec, {"valid_fraction": 0.01}, {"valid_fraction": 0}),
        (DataSpec, {"valid_fraction": 0.99}, {"valid_fraction": 1}),
        (ModelSpec, {"dropout": 0}, {"dropout": 1}),
        (AugmentSpec, {"max_zoom": 1}, {"max_zoom": 0.9}),
        (AugmentSpec, {"preset": "top_down"}, {"preset": "sideways"}),
        (TtaSpec, {"n_aug": 0}, {"n_aug": -1}),
        (FinderSpec, {"steps": 10}, {"steps": 9}),
        (OptimizerSpec, {"batch_size": 4}, {"batch_size": 3}),
        (Stage, {"name": "a-1_B"}, {"name": "a b"}),
        (Stage, {"name": "a" * 40}, {"name": "a" * 41}),
        (Stage, {"name": "a", "lr": 1e-9}, {"name": "a", "lr": 0}),
        (Stage, {"name": "a", "ratio": 1}, {"name": "a", "ratio": 0.5}),
        (Stage, {"name": "a", "lrs": [1e-4, 1e-3]}, {"name": "a", "lrs": [1e-3]}),
        (Stage, {"name": "a", "lrs": [1e-4, 100]}, {"name": "a", "lrs": [0, 1e-3]}),
        (Stage, {"name": "a", "cycles": 1}, {"name": "a", "cycles": 0}),
        (Stage, {"name": "a", "patience": 1}, {"name": "a", "patience": 0}),
        (TrainImages, {"device": "cuda:1"}, {"device": "cuda:x"}),
        (TrainImages, {"recipe": [{"name": "a", "lr": 1}]}, {"recipe": []}),
    ],
)
def test_bounds_are_kept(spec, good, bad):
    spec(**good)
    with pytest.raises(ValidationError):
        spec(**bad)


@pytest.mark.parametrize("train", ["late", "all"])
@pytest.mark.parametrize("inputs", [{"precompute": True}, {"views": 2}])
def test_precomputed_inputs_need_a_frozen_body(train, inputs):
    Stage(name="a", train="head", **inputs)
    with pytest.raises(ValidationError, match=f"{next(iter(inputs))} needs a frozen body"):
        Stage(name="a", train=train, **inputs)


def test_plain_and_augmented_activations_exclude_each_other():
    with pytest.raises(ValidationError, match="pick one"):
        Stage(name="a", precompute=True, views=2)


@pytest.mark.parametrize(
    ("inputs", "expected"), [({}, False), ({"precompute": True}, True), ({"views": 1}, True), ({"views": None}, False)]
)
def test_a_stage_knows_whether_it_reads_activations(inputs, expected):
    assert Stage(name="a", **inputs).precomputes is expected


@pytest.mark.parametrize(("cycles", "length", "growth", "epochs"), [(3, 1, 2, 7), (3, 2, 1, 6), (1, 4, 3, 4)])
def test_a_stage_knows_its_epochs(cycles, length, growth, epochs):
    assert Stage(name="a", cycles=cycles, cycle_len=length, cycle_mult=growth).epochs == epochs


def test_doubled_stage_names_are_refused():
    with pytest.raises(ValidationError, match=r"names must differ.*'twin'"):
        TrainImages(recipe=[Stage(name="twin", lr=1), Stage(name="other", lr=1), Stage(name="twin", lr=1)])


def test_a_stage_without_any_rate_is_refused():
    with pytest.raises(ValidationError, match=r"recipe\.1 \(b\): no learning rate"):
        TrainImages(recipe=[Stage(name="a", lr=1), Stage(name="b")])


@pytest.mark.parametrize("lr", [{"lr": 0.1}, {"lrs": [0.1, 0.2]}, {"find_lr": True}])
def test_any_source_of_a_rate_will_do(lr):
    TrainImages(recipe=[Stage(name="a", **lr)])


def test_an_earlier_finder_is_enough():
    TrainImages(recipe=[Stage(name="a", find_lr=True), Stage(name="b")])


def test_the_schema_has_the_default_recipe_written_out():
    written = TrainImages.model_json_schema()["properties"]["recipe"]["default"]
    assert [stage["name"] for stage in written] == [stage.name for stage in TrainImages().recipe]
    assert TrainImages(recipe=written) == TrainImages()


def test_a_spec_survives_json():
    params = TrainImages(recipe=[Stage(name="a", lrs=[1e-4, 1e-3], views=3)], data=DataSpec(size=96))
    assert TrainImages.model_validate(json.loads(params.model_dump_json())) == params


def test_cycles_that_grow_without_end_are_refused():
    with pytest.raises(ValidationError, match="at most 10,000"):
        Stage(name="a", cycles=60, cycle_mult=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"snapshots": 4}, "as many cycles"),
        ({"snapshots": 2}, "patience"),
    ],
)
def test_a_snapshot_ensemble_of_cycles_that_there_are_not_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_spec(TrainImages, {"recipe": "course"}, changes)
