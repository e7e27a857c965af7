"""A sweep's space is read, checked against the training before the first trial, and turned into each trial's spec."""

import math
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError

from unfreeze.models.errors import UserError
from unfreeze.models.settings import Stage, TrainImages
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.search import (
    GRID_POINTS,
    RULES_OF_THUMB,
    Dimension,
    SweepSpec,
    TableSweep,
    Value,
    check_space,
    parse_dimension,
    rules_of_thumb,
    shared_stages,
    trial_spec,
    whole_numbers,
    with_effect,
)
from unfreeze.models.settings.tables import TrainTables

TRAINING = TrainImages(recipe="course")
DEFAULT_SPACE = SweepSpec().space


def range_of(name: str, low: float = 1, high: float = 30, log: bool = False) -> Dimension:
    return Dimension(name=name, low=low, high=high, log=log)


def choices_of(name: str, *choices: Value) -> Dimension:
    return Dimension(name=name, choices=list(choices))


def typed(values: Any) -> list[tuple[type, Value]]:
    return [(type(value), value) for value in values]


# --- dimensions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give low and high, or choices"),
        ({"low": 1}, "give low and high, or choices"),
        ({"high": 1}, "give low and high, or choices"),
        ({"low": 1, "high": 2, "choices": [1]}, "not both"),
        ({"low": 1, "choices": [1]}, "not both"),
        ({"choices": [1], "log": True}, "not both"),
        ({"choices": []}, "at least 1"),
        ({"low": 2, "high": 2}, r"low \(2\) must be below high \(2\)"),
        ({"low": 3, "high": 2}, r"low \(3\) must be below high \(2\)"),
        ({"low": 0, "high": math.inf}, "finite"),
        ({"low": math.nan, "high": 1}, "finite"),
        ({"low": 0, "high": 1, "log": True}, "above 0, not 0"),
        ({"low": -1, "high": 1, "log": True}, "above 0, not -1"),
        ({"choices": [1, math.nan]}, "finite"),
        ({"choices": [None]}, "valid"),
    ],
)
def test_a_dimension_is_a_range_or_choices(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dimension(name="anything", **given)


def test_a_range_may_go_through_zero_unless_it_is_searched_by_ratios() -> None:
    assert Dimension(name="a", low=-1, high=1).contains(0)
    assert Dimension(name="a", low=1e-9, high=1, log=True).contains(0.5)


@pytest.mark.parametrize(
    "choices",
    [[1, 2], [0, 1], [0.1, 1], [1.0, 2.0], [True, False], ["1", "2.5"], ["no", "on", "true"], [True, 2, 0.5, "x"]],
)
def test_choices_keep_their_types(choices: list[Value]) -> None:
    dimension = choices_of("anything", *choices)
    for read in (
        dimension,
        Dimension.model_validate_json(dimension.model_dump_json()),
        Dimension(**dimension.model_dump(mode="json")),
        build_spec(Dimension, dimension.model_dump(mode="json")),
        build_spec(SweepSpec, {"space": [dimension]}).space[0],
    ):
        assert typed(read.choices) == typed(choices)


def test_a_dimension_knows_what_the_sweep_could_try() -> None:
    ratio = range_of("body_ratio", 1, 30)
    assert [ratio.contains(value) for value in (1, 30.0, 0.99, 31, None, "3")] == [True, True, *[False] * 4]
    name = choices_of("optimizer.name", "adamw", "sgd")
    assert [name.contains(value) for value in ("sgd", "adam", None)] == [True, False, False]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"space": [range_of("body_ratio"), range_of("body_ratio", 2)]}, "space: body_ratio given twice"),
        ({"objectives": ["loss", "loss"]}, "objectives: loss given twice"),
        ({"space": []}, "at least 1"),
        ({"study": "../elsewhere"}, "pattern"),
    ],
)
def test_a_sweep_that_cannot_work_is_refused(space: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SweepSpec(**space)


# --- grid points ------------------------------------------------------------------------------------------------------


def test_the_grid_of_choices_are_the_choices() -> None:
    assert typed(choices_of("a", 4, 1, "none").grid(whole=False)) == typed([4, 1, "none"])


def test_grid_points_spread_evenly_by_differences_or_ratios() -> None:
    assert range_of("a", 1, 4).grid(whole=False) == [1, 2, 3, 4]
    assert range_of("a", 1, 1000, log=True).grid(whole=False) == pytest.approx([1, 10, 100, 1000])


def test_whole_numbers_are_rounded_and_come_once() -> None:
    assert typed(range_of("a", 1, 8).grid(whole=True)) == typed([1, 3, 6, 8])
    assert typed(range_of("a", 1, 3).grid(whole=True)) == typed([1, 2, 3])


BOUNDS = st.tuples(st.floats(1e-6, 1e4), st.floats(1e-6, 1e4)).filter(lambda ends: ends[1] > 1.001 * ends[0])


@given(ends=BOUNDS, log=st.booleans())
def test_grid_points_rise_from_one_end_to_the_other_in_equal_steps(ends: tuple[float, float], log: bool) -> None:
    dimension = range_of("a", *ends, log=log)
    points = [float(point) for point in dimension.grid(whole=False)]
    assert (points[0], points[-1], len(points)) == (*ends, GRID_POINTS)
    assert all(dimension.contains(point) for point in points)
    steps = [math.log(after / before) if log else after - before for before, after in pairwise(points)]
    assert steps == pytest.approx([steps[0]] * len(steps), rel=1e-6, abs=1e-9)


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("recipe.full.cycles=1,2,4", choices_of("recipe.full.cycles", 1, 2, 4)),
        ("body_ratio=1..30", range_of("body_ratio", 1, 30)),
        ("body_ratio=1..30 log", range_of("body_ratio", 1, 30, log=True)),
        (" body_ratio = 1 .. 30  log ", range_of("body_ratio", 1, 30, log=True)),
        ("recipe.2.lr=1e-5..1e-2 log", range_of("recipe.2.lr", 1e-5, 1e-2, log=True)),
        ("a=-3..-1", range_of("a", -3, -1)),
        ("a=.5...75", range_of("a", 0.5, 0.75)),
        ("a=5", choices_of("a", 5)),
        ("model.weights=../mine.pth,imagenet", choices_of("model.weights", "../mine.pth", "imagenet")),
        ("body_ratio=none", None),
        ("body_ratio= None", None),
    ],
)
def test_a_dimension_is_read_from_text(text: str, expected: Dimension | None) -> None:
    assert parse_dimension(text) == (text.split("=", maxsplit=1)[0].strip(), expected)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("0,1,2", [0, 1, 2]),
        ("0.1, 1e-3, 2.0", [0.1, 0.001, 2.0]),
        ("1,0.5", [1, 0.5]),
        ("true,False", [True, False]),
        ("adamw,sgd", ["adamw", "sgd"]),
        ("no,yes,none", ["no", "yes", "none"]),
        ("nan,inf", ["nan", "inf"]),
        ("9" * 400, ["9" * 400]),
    ],
)
def test_a_choice_is_a_number_or_a_switch_where_it_reads_as_one(text: str, choices: list[Value]) -> None:
    _, dimension = parse_dimension(f"a={text}")
    assert dimension is not None
    assert typed(dimension.choices) == typed(choices)


@pytest.mark.parametrize(
    "text",
    [
        *("", "body_ratio", "=1..30", "=none", "body_ratio=", "body_ratio=,", "body_ratio=1,,2", "body_ratio=1,"),
        *("body_ratio=..", "body_ratio=1..", "body_ratio=..30", "body_ratio=1..x", "body_ratio=none..3"),
        *("body_ratio=1..30 lgo", "body_ratio=1..30log", "body_ratio=1..30 log log", "body_ratio=log 1..30"),
        *("body_ratio=30..1", "body_ratio=0..1 log", "body_ratio=1..30,40", "body_ratio=nan..3", "body_ratio=1..inf"),
    ],
)
def test_a_text_that_cannot_be_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_dimension(text)
    assert repr(text) in str(refused.value)


@given(ends=st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2).filter(lambda ends: ends[0] < ends[1]))
def test_a_range_that_was_written_down_reads_back(ends: tuple[float, float]) -> None:
    low, high = ends
    expected = range_of("data.x", low, high)
    assert parse_dimension(f"data.x={low!r}..{high!r}") == ("data.x", expected)
    if low > 0:
        expected = range_of("data.x", low, high, log=True)
        assert parse_dimension(f"data.x={low!r}..{high!r} log") == ("data.x", expected)


NUMBERS = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.sampled_from(["adamw", "sgd", "top_down", "no", "on", "timm/resnet18", "./a.pth"])


@given(choices=st.lists(st.booleans() | NUMBERS | WORDS, min_size=1, max_size=5))
def test_choices_that_were_written_down_read_back_with_their_types(choices: list[Value]) -> None:
    _, dimension = parse_dimension("a=" + ",".join(str(choice) for choice in choices))
    assert dimension is not None
    assert typed(dimension.choices) == typed(choices)


@settings(max_examples=200)
@given(text=st.text("a1.=, log-", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        name, dimension = parse_dimension(text)
    except UserError:
        return
    assert name
    assert dimension is None or dimension.name == name


# --- a trial's spec ---------------------------------------------------------------------------------------------------

MIXED = TrainImages(
    recipe=[
        Stage(name="head", find_lr=True),
        Stage(name="half", train="late", ratio=4),
        Stage(name="head-again", lr_factor=0.5),
        Stage(name="full", train="all", ratio=5),
    ]
)


@pytest.mark.parametrize(
    ("dimension", "field", "value"),
    [("body_ratio", "ratio", 7.0), ("early_ratio", "early_ratio", 2.0), ("head_factor", "lr_factor", 0.3)],
)
def test_a_ratio_reaches_every_stage_that_trains_the_body_and_no_other(
    dimension: str, field: str, value: float
) -> None:
    spec = trial_spec(MIXED, {dimension: value})
    before = [getattr(stage, field) for stage in MIXED.recipe]
    assert [getattr(stage, field) for stage in spec.recipe] == [before[0], value, before[2], value]
    restored = [stage.model_copy(update={field: was}) for stage, was in zip(spec.recipe, before, strict=True)]
    assert spec.model_copy(update={"recipe": restored}) == MIXED, "and nothing else changed"


@pytest.mark.parametrize("name", ["recipe.3.cycles", "recipe.full.cycles"])
def test_a_setting_goes_by_its_dotted_name(name: str) -> None:
    spec = trial_spec(MIXED, {name: 4, "optimizer.name": "sgd"})
    assert [stage.cycles for stage in spec.recipe] == [1, 1, 1, 4]
    assert spec.optimizer.name == "sgd"


def test_a_trial_without_values_is_the_training_itself() -> None:
    assert trial_spec(MIXED, {}) == MIXED


def test_a_value_that_is_not_allowed_is_refused_by_field() -> None:
    with pytest.raises(UserError, match=r"recipe\.3\.ratio \(full\): given 0\.5; allowed: number, 1 to 1000"):
        trial_spec(MIXED, {"body_ratio": 0.5})


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("recipe.full.cycles", True),
        ("recipe.2.cycles", True),
        ("data.size", True),
        ("optimizer.batch_size", True),
        ("optimizer.weight_decay", False),
        ("recipe.full.lr", False),
        ("body_ratio", False),
    ],
)
def test_the_training_says_which_settings_are_whole_numbers(name: str, whole: bool) -> None:
    assert whole_numbers(range_of(name), TRAINING) is whole


# --- checks before the first trial ------------------------------------------------------------------------------------


def problems(training: TrainImages, *space: Dimension, **search: Any) -> list[str]:
    with pytest.raises(UserError) as refused:
        check_space(SweepSpec(space=list(space), **search), training)
    return str(refused.value).splitlines()


HEAD_ONLY = TrainImages(recipe=[Stage(name="head", find_lr=True)])


def with_full(**changes: Any) -> TrainImages:
    """The default training with changes to its last stage."""
    return build_spec(
        TrainImages, {"recipe": "course"}, {f"recipe.full.{name}": value for name, value in changes.items()}
    )


def test_the_default_space_suits_the_default_training() -> None:
    check_space(SweepSpec(), TRAINING)


def test_the_default_space_of_a_table_has_settings_of_its_network_and_its_trees() -> None:
    search, training = TableSweep(), TrainTables()
    check_space(search, training)
    values = {"recipe.0.lr": 0.005, "model.width": 64, "model.dropout": 0.3, "optimizer.batch_size": 512}
    trial = trial_spec(training, values)
    assert (trial.recipe[0].lr, trial.model.width, trial.model.dropout) == (0.005, 64, 0.3)
    assert trial.optimizer.batch_size == 512
    as_it_is = {"recipe.0.lr": 0.007, "model.width": 128, "boosting.leaf_rows": 10, "boosting.columns": 0.7}
    assert rules_of_thumb(search, training) == {"as the recipe has it": as_it_is}


@pytest.mark.parametrize(
    "dimension",
    [
        range_of("optimizer.weight_decay", 1e-4, 0.1, log=True),
        range_of("recipe.full.cycles", 1, 5),
        choices_of("recipe.full.freeze_batchnorm", True, False),
        choices_of("recipe.head-augmented.views", 1, 3, "none"),
        choices_of("augment.preset", "side_on", "top_down"),
        choices_of("data.size", 64, 96),
    ],
    ids=lambda dimension: dimension.name,
)
def test_any_setting_can_be_searched(dimension: Dimension) -> None:
    check_space(SweepSpec(space=[dimension]), TRAINING)


@pytest.mark.parametrize(
    ("training", "dimension", "problem"),
    [
        (
            TRAINING,
            range_of("recipe.full.cycle_mul", 1, 3),
            "space: recipe.2.cycle_mul (full): unknown setting; did you mean recipe.2.cycle_mult?",
        ),
        (
            TRAINING,
            choices_of("optimiser.name", "sgd"),
            "space: optimiser: unknown setting; did you mean optimizer?",
        ),
        (
            TRAINING,
            range_of("recipe.ful.cycles", 1, 3),
            (
                "space: recipe.ful.cycles: recipe has no entry 'ful', only 3 entries: 0 head, 1 head-augmented, "
                "2 full; did you mean recipe.full?"
            ),
        ),
        (
            TRAINING,
            range_of("body_ratio", 0.5, 30),
            "space: recipe.2.ratio (full): given 0.5; allowed: number, 1 to 1000",
        ),
        (
            TRAINING,
            range_of("recipe.full.cycles", 1, 200),
            "space: recipe.2.cycles (full): given 200.0; allowed: whole number, 1 to 100",
        ),
        (
            TRAINING,
            range_of("recipe.full.cycles", 1, 2.5),
            "space: recipe.2.cycles (full): given 2.5; allowed: whole number, 1 to 100",
        ),
        (
            TRAINING,
            choices_of("data.fit", "crop", "squash"),
            "space: data.fit: given 'squash'; allowed: crop, squish or pad",
        ),
        (TRAINING, range_of("optimizer.name", 1, 2), "space: optimizer.name: a range needs a number; give choices"),
        (
            TRAINING,
            range_of("recipe.full.freeze_batchnorm", 0, 1),
            "space: recipe.full.freeze_batchnorm: a range needs a number; give choices",
        ),
        (
            HEAD_ONLY,
            range_of("body_ratio"),
            "space: body_ratio: no stage of the recipe trains the body; set train to all or late in one",
        ),
        (
            with_full(lrs=[1e-5, 1e-4, 1e-3]),
            range_of("body_ratio"),
            "space: body_ratio: stage 'full' sets lrs, which leaves nothing to search",
        ),
    ],
    ids=lambda value: f"{value.name} {value.low}" if isinstance(value, Dimension) else "",
)
def test_a_dimension_that_cannot_be_searched_is_refused(
    training: TrainImages, dimension: Dimension, problem: str
) -> None:
    assert problems(training, dimension) == [problem]


def test_ratios_can_be_searched_where_the_heads_rate_is_given() -> None:
    check_space(SweepSpec(space=DEFAULT_SPACE[:2]), with_full(lr=1e-3))


def test_an_objective_that_nobody_computes_is_refused_with_those_there_are() -> None:
    assert problems(TRAINING, *DEFAULT_SPACE, objectives=["f1"]) == [
        "objectives: 'f1' is not one of loss, seconds, accuracy; add it to metrics to have it computed"
    ]
    check_space(SweepSpec(objectives=["f1", "mine", "seconds"]), TrainImages(metrics=["f1", "package.metrics:mine"]))


def test_every_problem_is_told_at_once() -> None:
    assert len(problems(TRAINING, range_of("body_ratio", 0.5), range_of("nonsense"), objectives=["f1"])) == 3


# --- what trials share ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "shared"),
    [
        (DEFAULT_SPACE, 2),
        ([range_of("recipe.0.lr_factor", 0.1, 1)], 0),
        ([choices_of("recipe.head.cycles", 1, 2)], 2),
        ([range_of("recipe.head-augmented.lr_factor", 0.1, 1)], 1),
        ([range_of("recipe.1.lr_factor", 0.1, 1)], 1),
        ([range_of("optimizer.weight_decay", 0, 0.1)], 0),
        ([choices_of("optimizer.weight_decay", 0, 0.1)], 2),
        ([range_of("recipe.full.lr_factor", 0.1, 1)], 2),
        ([*DEFAULT_SPACE, range_of("recipe.head-augmented.lr_factor", 0.1, 1)], 1),
        ([choices_of("body_ratio", 1, 3, 10)], 2),
    ],
)
def test_trials_share_the_stages_before_the_first_that_a_range_reaches(space: list[Dimension], shared: int) -> None:
    assert shared_stages(SweepSpec(space=space), TRAINING) == shared


def test_the_only_stage_is_each_trials_own() -> None:
    assert shared_stages(SweepSpec(space=[choices_of("optimizer.name", "adamw", "sgd")]), HEAD_ONLY) == 0


def test_a_ratio_reaches_the_first_stage_that_trains_the_body() -> None:
    assert shared_stages(SweepSpec(), MIXED) == 1


def test_a_number_is_a_position_even_where_a_stage_is_called_by_one() -> None:
    training = TrainImages(recipe=[Stage(name="1", lr=1), Stage(name="0", lr=1, cycles=3), Stage(name="2", lr=1)])
    search = SweepSpec(space=[range_of("recipe.1.cycles", 1, 4)])
    assert [stage.cycles for stage in trial_spec(training, {"recipe.1.cycles": 2}).recipe] == [1, 2, 1]
    assert shared_stages(search, training) == 1
    assert rules_of_thumb(search, training) == {"as the recipe has it": {"recipe.1.cycles": 3}}


# --- rules of thumb ---------------------------------------------------------------------------------------------------


def test_the_course_has_three_rules_of_thumb() -> None:
    rules = rules_of_thumb(SweepSpec(), TRAINING)
    assert list(rules) == list(RULES_OF_THUMB)
    assert list(rules.values()) == [
        {"body_ratio": ratio, "early_ratio": ratio, "head_factor": 1.0} for ratio in (10.0, 3.0, 1.0)
    ]


def test_a_rule_outside_the_space_is_no_trial_of_it() -> None:
    search = SweepSpec(space=[range_of("body_ratio", 1, 30), range_of("early_ratio", 2, 5)])
    assert [values["body_ratio"] for values in rules_of_thumb(search, TRAINING).values()] == [3]
    search = SweepSpec(space=[choices_of("body_ratio", 2, 10, 20)])
    assert list(rules_of_thumb(search, TRAINING).values()) == [{"body_ratio": 10}]
    assert rules_of_thumb(SweepSpec(space=[range_of("body_ratio", 11, 30)]), TRAINING) == {}


def test_what_no_rule_is_about_stays_as_the_training_has_it() -> None:
    search = SweepSpec(
        space=[range_of("body_ratio"), choices_of("recipe.full.cycles", 2, 3), choices_of("optimizer.name", "adamw")]
    )
    for values in rules_of_thumb(search, TRAINING).values():
        assert (values["recipe.full.cycles"], values["optimizer.name"]) == (3, "adamw")


def test_where_the_training_is_outside_the_space_the_sampler_decides() -> None:
    outside = range_of("optimizer.weight_decay", 0.1, 0.5), range_of("head_factor", 2, 3), range_of("recipe.2.lr", 1, 2)
    for values in rules_of_thumb(SweepSpec(space=[range_of("body_ratio"), *outside]), TRAINING).values():
        assert list(values) == ["body_ratio"]


def test_without_ratios_the_recipe_as_it_is_comes_first() -> None:
    inside = choices_of("recipe.head.cycles", 1, 2), range_of("head_factor", 0.1, 3)
    search = SweepSpec(space=[*inside, range_of("recipe.full.lr", 1e-4, 1)])
    assert rules_of_thumb(search, TRAINING) == {"as the recipe has it": {"recipe.head.cycles": 2, "head_factor": 1.0}}
    assert rules_of_thumb(SweepSpec(space=[choices_of("recipe.head.cycles", 4, 5)]), TRAINING) == {}


def test_explicit_rates_can_be_searched_one_by_one() -> None:
    training = with_full(lrs=[1e-5, 1e-4, 1e-3])
    search = SweepSpec(space=[range_of("recipe.full.lrs.0", 1e-6, 1e-4, log=True), choices_of("metrics.0", "f1")])
    check_space(search, training)
    assert trial_spec(training, {"recipe.full.lrs.0": 2e-6}).recipe[-1].lrs == [2e-6, 1e-4, 1e-3]
    assert rules_of_thumb(search, training) == {"as the recipe has it": {"recipe.full.lrs.0": 1e-5}}


RATIO_RANGES = st.tuples(st.floats(1, 20), st.floats(1, 20)).filter(lambda ends: ends[0] < ends[1])


@given(body=RATIO_RANGES, early=RATIO_RANGES, factor=st.tuples(st.floats(0.1, 1.5), st.floats(1.6, 3)))
def test_every_rule_is_inside_the_space_and_none_that_fits_is_missing(
    body: tuple[float, float], early: tuple[float, float], factor: tuple[float, float]
) -> None:
    names = ("body_ratio", "early_ratio", "head_factor")
    space = [range_of(name, *ends) for name, ends in zip(names, (body, early, factor), strict=True)]
    rules = rules_of_thumb(SweepSpec(space=space), TRAINING)
    fits = {rule for rule, ratio in RULES_OF_THUMB.items() if all(low <= ratio <= high for low, high in (body, early))}
    assert set(rules) == fits
    for values in rules.values():
        assert all(dimension.contains(values[dimension.name]) for dimension in space if dimension.name in values)
        assert ("head_factor" in values) == (factor[0] <= 1)


# --- storage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "storage",
    [
        "postgresql://me:s3cret@db/studies",
        "postgresql://me:s3cret@of@mine@db/studies",
        "postgresql:///studies?user=me&password=s3cret",
        "me:s3cret@db/studies",
    ],
)
def test_a_storage_with_a_password_is_refused_and_not_repeated(storage: str) -> None:
    for refused in (lambda: SweepSpec(storage=storage), lambda: build_spec(SweepSpec, {"storage": storage})):
        with pytest.raises((ValidationError, UserError), match="UNFREEZE_STORAGE_PASSWORD") as error:
            refused()
        assert "s3cret" not in str(error.value)
        assert "mine" not in str(error.value)


@pytest.mark.parametrize("storage", ["postgresql+psycopg://me@db:5432/studies", "sqlite:////data/studies.db", None])
def test_a_storage_without_a_password_is_taken(storage: str | None) -> None:
    assert SweepSpec(storage=storage).storage == storage


def test_a_form_refuses_a_storage_with_a_password_before_it_is_stored() -> None:
    pattern = SweepSpec.model_json_schema()["properties"]["storage"]["pattern"]
    assert re.match(pattern, "postgresql://me@db/studies")
    assert not re.match(pattern, "postgresql://me:s3cret@db/studies")


def test_a_search_of_a_training_without_trees_varies_no_setting_of_trees() -> None:
    names = [dimension.name for dimension in with_effect(TableSweep(), TrainTables(trees=False)).space]
    assert names == ["recipe.0.lr", "model.width", "model.dropout", "optimizer.batch_size"]
    assert with_effect(TableSweep(), TrainTables()) == TableSweep()
    with pytest.raises(UserError, match="nothing would change"):
        with_effect(TableSweep(space=[range_of("boosting.lr", 0.1, 0.2)]), TrainTables(trees=False))
