"""Flags follow from the specs; a file lies between the defaults and the flags."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from unfreeze.flows.cli import app, main
from unfreeze.flows.commands.flags import parse
from unfreeze.flows.commands.training import Trained, training_from
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages
from unfreeze.models.settings.images import RECIPES
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.tables import TrainTables


def spec_of(*arguments: str) -> Trained:
    _, bound = parse(app, ["train", *arguments])
    return training_from(bound.arguments.get("source"), bound.arguments.get("given", {}))


def refusal(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        spec_of(*arguments)
    return str(caught.value)


def test_no_flags_are_the_defaults() -> None:
    assert spec_of() == TrainImages()


def test_flags_set_fields_of_groups_and_of_list_entries() -> None:
    flags = ["--seed", "7", "--model.backbone=resnet34", "--recipe.1.lr", "1e-3", "--recipe.head.precompute", "true"]
    changes = {"seed": 7, "model.backbone": "resnet34", "recipe.full.lr": 1e-3, "recipe.0.precompute": True}
    assert spec_of(*flags) == build_spec(TrainImages, {}, changes)


@pytest.mark.parametrize("flag", ["--data.max-megapixels", "--data.max_megapixels", "--data.max-megapixels=7"])
def test_words_of_a_name_are_joined_by_hyphens_or_underscores(flag: str) -> None:
    spec = spec_of(flag, *(["7"] if "=" not in flag else []), "--recipe.full.cycle-len", "2")
    assert (spec.data.max_megapixels, spec.recipe[1].cycle_len) == (7, 2)


def test_a_whole_list_is_given_as_yaml_and_its_entries_by_their_new_names() -> None:
    spec = spec_of("--recipe.b.find_lr", "--recipe", "[{name: a, lr: 1e-3}, {name: b}]")
    assert [(stage.name, stage.lr, stage.find_lr) for stage in spec.recipe] == [("a", 1e-3, False), ("b", None, True)]


def test_stages_of_a_recipe_by_name_can_be_changed() -> None:
    assert len(spec_of("--recipe", "course", "--recipe.head.cycles", "3").recipe) == len(RECIPES["course"])


@pytest.mark.parametrize("text", ["7", "none", "true", "[a", "1e-3", " x: y"])
def test_text_fields_keep_the_text_as_it_is(text: str) -> None:
    assert spec_of("--data.path_column", text).data.path_column == text


def test_none_empties_a_field_but_stays_a_choice_that_is_called_none() -> None:
    spec = spec_of("--recipe.full.cycle_steps", "none", "--augment.preset", "none")
    assert (spec.recipe[1].cycle_steps, spec.augment.preset) == (None, "none")


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("12_0", 120)])
def test_numbers_are_read_as_people_write_them(text: str, value: int) -> None:
    assert spec_of("--seed", text).seed == value


@pytest.mark.parametrize(
    ("arguments", "value"),
    [(["--data.cyclic"], True), (["--data.cyclic", "true", "a.csv"], True), (["a.csv", "--data.cyclic=false"], False)],
)
def test_a_switch_is_given_bare_or_with_its_value(arguments: list[str], value: bool) -> None:
    assert spec_of(*arguments, "--data.target", "y").data.cyclic is value


@pytest.mark.parametrize(
    ("arguments", "spec"),
    [
        (["photos/"], TrainImages),
        (["labels.csv", "--data.path_column", "file"], TrainImages),
        (["sales.csv", "--data.target", "price"], TrainTables),
        (["sales.xlsx"], TrainTables),
        (["sales.csv.gz"], TrainTables),
        (["flights"], TrainTables),
        (["--modality", "tables"], TrainTables),
        (["--trees=false", "--seed", "1"], TrainTables),
    ],
)
def test_source_and_settings_decide_between_images_and_a_table(arguments: list[str], spec: type[Trained]) -> None:
    assert type(spec_of(*arguments)) is spec


@pytest.mark.parametrize("content", ["modality: tables", "data: {target: [Sales]}", "data: {source: flights}"])
def test_a_file_decides_too(tmp_path: Path, content: str) -> None:
    (tmp_path / "settings.yaml").write_text(content)
    assert isinstance(spec_of("--config", str(tmp_path / "settings.yaml")), TrainTables)


def test_a_setting_that_only_images_have_is_refused_for_a_table() -> None:
    message = "--data.size: not a setting of tables, which sales.csv is taken for"
    assert refusal("sales.csv", "--data.target", "price", "--data.size", "64") == message


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--sed", "7"], "Unknown option: --sed. Did you mean --seed?"),
        (["--data.sise=7"], "Unknown option: --data.sise=7. Did you mean --data.size?"),
        (["--size", "7"], "Unknown option: --size. Did you mean --data.size?"),
        (["--recipe.1.rat", "7"], "Unknown option: --recipe.1.rat. Did you mean --recipe.N.ratio?"),
        (["--confg", "x"], "Unknown option: --confg. Did you mean --config?"),
        (["--data.fit", "cut"], 'Invalid value "cut" for --data.fit. Choose from: "crop", "squish", "pad".'),
    ],
)
def test_an_unknown_flag_ends_with_status_2_and_the_nearest(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"unfreeze train: {hint}")


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (["--epochs", "3"], "--recipe.STAGE.cycle_len 3 --recipe.STAGE.cycle_steps none"),
        (["--recipe.full.epochs=3"], "--recipe.STAGE.cycle_len 3"),
        (["--lr", "0.1"], "--recipe.STAGE.lr 0.001"),
        (["--optimizer.lr", "0.1"], "--recipe.STAGE.lr 0.001"),
        (["--quiet"], "PREFECT_LOGGING_LEVEL=WARNING in the environment"),
        (["--bs", "4"], "--optimizer.batch_size 32"),
    ],
)
def test_names_of_other_programs_are_answered_with_the_flag_that_does_it(
    arguments: list[str], flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "digits", *arguments]) == 2
    option = arguments[0].partition("=")[0]
    assert capsys.readouterr().err.startswith(f"unfreeze: there is no {option}: use {flag}")


def test_a_command_without_that_flag_does_not_offer_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["promote", "a", "1", "--lr", "0.1"]) == 2
    assert "Unknown option: --lr" in capsys.readouterr().err


def test_a_value_out_of_bounds_names_the_field() -> None:
    assert refusal("--data.size", "4") == "data.size: given '4'; allowed: whole number, 16 to 1024, or none"


def test_yaml_that_does_not_parse_names_the_flag() -> None:
    assert refusal("--recipe", "[{name: a}").startswith("--recipe, line 1, column 11: ")


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_file_lies_between_defaults_and_flags(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"settings.{suffix}"
    file.write_text(json.dumps({"seed": 3, "data": {"size": 64}}, indent="\t" if suffix == "json" else None))
    changed = build_spec(TrainImages, {}, {"seed": 4, "data.size": 64})
    assert spec_of("--config", str(file), "--seed", "4") == changed


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert spec_of("--config", str(tmp_path / "empty.yaml")) == TrainImages()


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


def test_an_empty_name_of_a_file_is_refused() -> None:
    assert "--config: the name of the file is empty" in refusal("--config", " ")


def test_help_describes_every_setting_once_with_bounds_and_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["train", "--recipe.0.lr", "1", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "(whole number, 16 to 1024, or none; default none)" in text
    assert text.count("--data.size ") == 1
    assert "--recipe.N.lr" in text
    assert "--recipe.0.lr" not in text


def test_a_shell_can_complete_commands_and_flags() -> None:
    script = app.generate_completion(shell="bash")
    assert all(word in script for word in ("find-lr", "--data.size", "--recipe.N.lr"))


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31 - 1),
    size=st.none() | st.integers(16, 1024),
    column=st.text(),
    lr=st.none() | st.floats(min_value=0, max_value=100, exclude_min=True),
)
def test_any_valid_value_given_as_a_flag_lands_in_its_field(
    seed: int, size: int | None, column: str, lr: float | None
) -> None:
    spec = spec_of(f"--seed={seed}", f"--data.size={size}", f"--data.path_column={column}", f"--recipe.head.lr={lr}")
    assert (spec.seed, spec.data.size, spec.data.path_column, spec.recipe[0].lr) == (seed, size, column, lr)
