"""A spec is built from defaults, a partial configuration and dotted settings, and says clearly what it refuses."""

from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Field, model_validator

from unfreeze.models.errors import UserError
from unfreeze.models.settings.fields import fields_of
from unfreeze.models.settings.overrides import build_spec, set_field


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ImageSource(Strict):
    size: int | None = Field(default=None, ge=16, le=1024, description="Side in pixels.")
    fit: Literal["crop", "none"] | None = Field(default="crop", description="How it becomes square.")
    folder: str = Field(default="digits", min_length=1, description="Where images are.")
    title: str | None = None


class Step(Strict):
    """One step."""

    name: str
    lr: float | None = Field(default=None, gt=0, le=100)
    mult: int = Field(default=1, ge=1, le=10)
    lrs: list[float] | None = Field(default=None, min_length=2)

    @model_validator(mode="after")
    def _not_both(self) -> "Step":
        if self.lr and self.lrs:
            raise ValueError("pick lr or lrs")
        return self


class Training(Strict):
    """A training."""

    image: ImageSource = Field(default=ImageSource(folder="photos"), description="The images.")
    recipe: list[Step] = Field(default=[Step(name="head"), Step(name="late", mult=3), Step(name="full")])
    seed: int = Field(default=0, ge=0, description="Seed.")
    shares: dict[str, float] = {}


def refusal(config: dict[str, Any] | None = None, overrides: dict[str, Any] | None = None) -> list[str]:
    with pytest.raises(UserError) as caught:
        build_spec(Training, config, overrides)
    return str(caught.value).splitlines()


def test_nothing_given_is_the_default() -> None:
    assert build_spec(Training) == Training()


def test_nested_mappings_merge_and_lists_replace() -> None:
    spec = build_spec(Training, {"image": {"size": 64}, "recipe": [{"name": "only"}], "shares": {"cat": 0.5}})
    assert spec.image == ImageSource(size=64, folder="photos")
    assert spec.recipe == [Step(name="only")]
    assert spec.shares == {"cat": 0.5}


def test_a_dotted_setting_wins_over_the_configuration() -> None:
    assert build_spec(Training, {"seed": 1, "image": {"size": 64}}, {"image.size": 96}).image.size == 96


@pytest.mark.parametrize("entry", ["1", "late"])
def test_an_entry_goes_by_position_or_name_and_keeps_its_other_fields(entry: str) -> None:
    spec = build_spec(Training, None, {f"recipe.{entry}.lr": "1e-3"})
    assert spec.recipe == [Step(name="head"), Step(name="late", mult=3, lr=1e-3), Step(name="full")]


def test_entries_are_those_of_the_configuration_where_it_has_the_list() -> None:
    spec = build_spec(Training, {"recipe": [{"name": "only"}]}, {"recipe.only.mult": 2})
    assert spec.recipe == [Step(name="only", mult=2)]


def test_a_whole_list_is_set_before_its_entries_whatever_the_order() -> None:
    spec = build_spec(Training, None, {"recipe.0.mult": 2, "recipe": [Step(name="new")]})
    assert spec.recipe == [Step(name="new", mult=2)]


def test_an_entry_out_of_range_is_refused_with_how_many_there_are() -> None:
    assert refusal(None, {"recipe.3.mult": 2}) == [
        "recipe.3.mult: recipe has no entry '3', only 3 entries: 0 head, 1 late, 2 full"
    ]


def test_an_unknown_entry_name_is_refused_with_the_nearest() -> None:
    assert refusal(None, {"recipe.ful.mult": 2})[0].endswith("did you mean recipe.full?")


def test_a_single_value_has_no_fields() -> None:
    assert refusal(None, {"image.folder.name": 2}) == [
        "image.folder.name: image.folder is the single value 'photos' and has no field 'name'"
    ]


@pytest.mark.parametrize("dotted", ["", ".seed", "image..size", "image."])
def test_an_empty_part_of_a_name_is_refused(dotted: str) -> None:
    assert "empty" in refusal(None, {dotted: 2})[0]


def test_each_problem_is_a_line_with_field_given_and_allowed() -> None:
    assert refusal({"image": {"size": 4, "fit": "pad"}, "seed": "x"}, {"recipe.full.mult": 20}) == [
        "image.size: given 4; allowed: whole number, 16 to 1024, or none",
        "image.fit: given 'pad'; allowed: crop or none, or none",
        "recipe.2.mult (full): given 20; allowed: whole number, 1 to 10",
        "seed: given 'x'; allowed: whole number, at least 0",
    ]


def test_a_problem_in_a_list_of_values_names_the_position() -> None:
    assert refusal(None, {"recipe.0.lrs": [1, "x"]}) == [
        "recipe.0.lrs.1 (head): given 'x'; allowed: list of numbers, at least 2 entries, or none"
    ]


def test_a_missing_setting_says_what_it_needs() -> None:
    assert refusal({"recipe": [{"mult": 2}]}) == ["recipe.0.name: missing, but required (text)"]


def test_a_group_given_as_a_value_says_its_settings() -> None:
    assert refusal({"image": 3}) == ["image: given 3; allowed: a group of settings (size, fit, folder, title)"]


def test_a_rule_between_fields_is_told_in_its_own_words() -> None:
    assert refusal(None, {"recipe.0.lrs": [1, 2], "recipe.0.lr": 1}) == ["recipe.0 (head): pick lr or lrs"]


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        ({"image": {"sise": 3}}, "image.sise: unknown setting; did you mean image.size?"),
        ({"images": {"size": 3}}, "images: unknown setting; did you mean image?"),
        ({"size": 3}, "size: unknown setting; did you mean image.size?"),
        ({"recipe": [{"name": "a", "multi": 1}]}, "recipe.0.multi (a): unknown setting; did you mean recipe.0.mult?"),
        ({"zzz": 3}, "zzz: unknown setting; known here: image, recipe, seed, shares"),
        ({1: 3}, "1: unknown setting; known here: image, recipe, seed, shares"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_nearest(config: dict[Any, Any], hint: str) -> None:
    assert refusal(config) == [hint]


@pytest.mark.parametrize("word", ["none", "None", "null", ""])
def test_words_for_no_value_are_none_where_none_is_allowed(word: str) -> None:
    spec = build_spec(Training, {"image": {"size": word}}, {"image.title": word, "recipe.0.lr": word})
    assert (spec.image.size, spec.image.title, spec.recipe[0].lr) == (None, None, None)


def test_none_stays_a_word_where_it_is_a_choice_or_plain_text() -> None:
    image = build_spec(Training, {"image": {"fit": "none", "folder": "none"}}).image
    assert (image.fit, image.folder) == ("none", "none")


def test_fields_say_everything_a_help_text_needs() -> None:
    fields = {field.name: field for field in fields_of(Training)}
    assert list(fields) == [
        *(f"image.{name}" for name in ("size", "fit", "folder", "title")),
        "recipe",
        *(f"recipe.N.{name}" for name in ("name", "lr", "mult", "lrs")),
        "seed",
        "shares",
    ]
    size = fields["image.size"]
    assert (size.allowed, size.default) == ("whole number, 16 to 1024, or none", None)
    assert (size.info.description, size.group, size.group_description) == ("Side in pixels.", "image", "The images.")
    assert fields["image.folder"].default == "photos", "the default of this spec, not that of the group's class"
    assert fields["recipe.N.name"].required
    assert fields["recipe.N.lr"].allowed == "number, above 0, at most 100, or none"
    assert {name for name, field in fields.items() if field.is_structured} == {"recipe", "recipe.N.lrs", "shares"}


@given(size=st.none() | st.integers(16, 1024), entry=st.integers(0, 2), lr=st.floats(1e-8, 100))
def test_any_valid_value_lands_in_its_field_and_nowhere_else(size: int | None, entry: int, lr: float) -> None:
    spec = build_spec(Training, None, {"image.size": size, f"recipe.{entry}.lr": lr})
    assert (spec.image.size, spec.recipe[entry].lr) == (size, lr)
    back = build_spec(Training, spec.model_dump(), {"image.size": None, f"recipe.{entry}.lr": None})
    assert back == Training()


names = st.text("ab", min_size=1, max_size=2)
trees = st.recursive(st.integers(), lambda inner: st.dictionaries(names, inner, max_size=3), max_leaves=8)


@given(tree=st.dictionaries(names, trees, max_size=3), value=st.integers())
def test_setting_a_field_leaves_the_original_alone(tree: dict[str, Any], value: int) -> None:
    before = repr(tree)
    changed = set_field(tree, "c.a", value)
    assert repr(tree) == before
    assert changed == {**tree, "c": {"a": value}}
