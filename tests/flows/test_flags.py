"""Flags follow from the spec; a file lies between the defaults and the flags."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, Field

from unfreeze.flows.flags import FlagParser, add_flags, spec_from
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(Strict):
    backbone: str = Field(default="small", description="Half of 100% is 50%.")
    size: int | None = Field(default=None, ge=16, le=1024, description="Side in pixels.")
    preset: Literal["flip", "none"] = "flip"
    lrs: list[float] | None = None


class Step(Strict):
    """One step."""

    name: str
    lr: float | None = Field(default=None, gt=0)
    find: bool = False


class Training(Strict):
    """A training."""

    network: Network = Field(default=Network(), description="The network.")
    recipe: list[Step] = Field(default=[Step(name="head"), Step(name="full")], description="The steps.")
    seed: int = Field(default=0, ge=0, description="Seed.")
    quick: bool = Field(default=False, description="Be quick.")


def program() -> FlagParser:
    parser = FlagParser(prog="unfreeze")
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("source", nargs="?")
    add_flags(train, Training)
    return parser


def spec_of(*arguments: str, **fixed: Any) -> Training:
    return spec_from(program().parse_args(["train", *arguments]), Training, **fixed)


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        spec_of(*arguments)
    return str(caught.value)


def test_no_flags_are_the_defaults() -> None:
    assert spec_of() == Training()


def test_flags_set_fields_of_groups_and_of_list_entries() -> None:
    spec = spec_of("--seed", "7", "--network.backbone=resnet34", "--recipe.1.lr", "1e-3", "--recipe.head.find", "true")
    assert spec == Training(
        seed=7,
        network=Network(backbone="resnet34"),
        recipe=[Step(name="head", find=True), Step(name="full", lr=1e-3)],
    )


def test_a_whole_list_is_given_as_yaml_and_its_entries_by_their_new_names() -> None:
    spec = spec_of("--recipe.b.find", "--recipe", "[{name: a, lr: 1e-3}, {name: b}]")
    assert spec.recipe == [Step(name="a", lr=1e-3), Step(name="b", find=True)]


def test_a_list_of_numbers_is_given_as_yaml() -> None:
    assert spec_of("--network.lrs", "[1e-3, 2]").network.lrs == [1e-3, 2]


@pytest.mark.parametrize("text", ["7", "none", "true", "[a", "1e-3", " x: y"])
def test_text_fields_keep_the_text_as_it_is(text: str) -> None:
    assert spec_of("--network.backbone", text).network.backbone == text


def test_none_empties_a_field_but_stays_a_choice_that_is_called_none() -> None:
    spec = spec_of("--network.size", "none", "--network.preset", "none")
    assert (spec.network.size, spec.network.preset) == (None, "none")


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("12_0", 120)])
def test_numbers_are_read_as_people_write_them(text: str, value: int) -> None:
    assert spec_of("--seed", text).seed == value


@pytest.mark.parametrize(
    ("arguments", "value"), [(["--quick"], True), (["--quick", "true"], True), (["--quick=false"], False)]
)
def test_a_switch_is_given_bare_or_with_its_value(arguments: list[str], value: bool) -> None:
    assert spec_of(*arguments).quick is value


def test_fixed_settings_win_over_flags() -> None:
    assert spec_of("--seed", "7", **{"seed": 8, "network.size": 96}) == Training(seed=8, network=Network(size=96))


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--sed", "7"], "unknown flag --sed; did you mean --seed?"),
        (["--see", "7"], "unknown flag --see; did you mean --seed?"),
        (["--network.sise=7"], "unknown flag --network.sise; did you mean --network.size?"),
        (["--size", "7"], "unknown flag --size; did you mean --network.size?"),
        (["--recipe.1.rat", "7"], "unknown flag --recipe.1.rat; did you mean --recipe.1.lr?"),
        (["--confg", "x"], "unknown flag --confg; did you mean --config?"),
        (["--zzzzzz"], "unknown flag --zzzzzz; --help lists all"),
    ],
)
def test_an_unknown_flag_ends_with_status_2_and_the_nearest(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        spec_of(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"unfreeze train: error: {hint}\n"


def test_a_value_out_of_bounds_names_the_field() -> None:
    assert refusal("--network.size", "4") == "network.size: given '4'; allowed: whole number, 16 to 1024, or none"


def test_yaml_that_does_not_parse_names_the_flag() -> None:
    assert refusal("--recipe", "[{name: a}").startswith("--recipe, line 1, column 11: ")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_lies_between_defaults_and_flags(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"settings.{suffix}"
    file.write_text(json.dumps({"seed": 3, "network": {"size": 64}}, indent="\t" if suffix == "json" else None))
    assert spec_of("--config", str(file), "--seed", "4") == Training(seed=4, network=Network(size=64))


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert spec_of("--config", str(tmp_path / "empty.yaml")) == Training()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.yaml", "- 1", "expected settings as NAME: VALUE, but this is a list"),
        ("broken.yaml", "seed: 1\nnetwork: [", "line 2"),
        ("broken.json", '{"seed": 1,\n}', "line 2"),
        ("date.yaml", "seed: 2026-99-99", "seed: given '2026-99-99'"),
        ("binary.yaml", "\x00", "binary.yaml"),
    ],
)
def test_a_file_that_is_no_settings_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    assert message in refusal("--config", str(tmp_path / name))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "there is no file" in refusal("--config", str(tmp_path / "absent.yaml"))
    assert "is a folder" in refusal("--config", str(tmp_path))


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_name_of_a_file_is_refused(name: str) -> None:
    assert "--config: the name of the file is empty" in refusal("--config", name)


def test_help_describes_every_setting_once_with_bounds_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program().parse_args(["train", "--recipe.0.lr", "1", "--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "usage: unfreeze train [source] [--config FILE] [--SETTING VALUE ...]" in text
    assert "Side in pixels. (whole number, 16 to 1024, or none; default none)" in text
    assert "Half of 100% is 50%." in text
    assert "--recipe.N.lr" in text
    assert "--recipe.0.lr" not in text


def test_the_flags_of_the_real_spec_work() -> None:
    parser = FlagParser()
    add_flags(parser, TrainImages)
    assert spec_from(parser.parse_args([]), TrainImages) == TrainImages()
    spec = spec_from(parser.parse_args(["--recipe.1.cycle_mult", "3", "--augment.preset", "none"]), TrainImages)
    assert (spec.recipe[1].cycle_mult, spec.augment.preset) == (3, "none")


@given(
    seed=st.integers(0, 2**31),
    size=st.none() | st.integers(16, 1024),
    backbone=st.text(),
    lr=st.none() | st.floats(min_value=0, exclude_min=True, allow_infinity=False),
    quick=st.booleans(),
)
def test_any_valid_value_given_as_a_flag_lands_in_its_field(
    seed: int, size: int | None, backbone: str, lr: float | None, quick: bool
) -> None:
    spec = spec_of(
        f"--seed={seed}",
        f"--network.size={size}",
        f"--network.backbone={backbone}",
        f"--recipe.full.lr={lr}",
        f"--quick={quick}",
    )
    network = Network(size=size, backbone=backbone)
    assert spec == Training(
        seed=seed, network=network, recipe=[Step(name="head"), Step(name="full", lr=lr)], quick=quick
    )
