"""The command as a person runs it."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from unfreeze.flows.cli import main
from unfreeze.flows.commands import show
from unfreeze.flows.commands.show import console, table


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("train", "resume", "find-lr"))


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"unfreeze {version('unfreeze')}\n"


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith('unfreeze: Unknown command "trian". Did you mean "train"?')


def test_what_needs_no_training_imports_no_heavy_library() -> None:
    code = (
        "import sys; from unfreeze.flows.cli import main\nmain(['--help'])\n"
        "print(*{'torch', 'pandas', 'prefect', 'mlflow', 'optuna', 'scipy'} & set(sys.modules), file=sys.stderr)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "COMMAND" in found.stdout
    assert found.stderr.strip() == ""


def test_what_only_asks_mlflow_waits_for_neither_torch_nor_prefect(home_with_store: Path) -> None:
    code = (
        "import sys; from unfreeze.flows.cli import main\nfor command in ('runs', 'sync', 'clean'): main([command])\n"
        "print('imported:', *{'torch', 'prefect', 'scipy.stats', 'matplotlib', 'optuna'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "imported:"


def test_a_run_that_mlflow_does_not_know_is_told_before_torch_and_prefect_are_imported(home_with_store: Path) -> None:
    code = (
        "import sys; from unfreeze.flows.cli import main\n"
        "for command in (['compare', 'a', 'b'], ['report', 'a'], ['resume', 'a'], ['replay', 'a']): main(command)\n"
        "print('imported:', *{'torch', 'prefect'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "imported:\n"
    assert found.stderr.count("unfreeze: there is no run 'a'; give the id of one in `unfreeze runs`") == 4


def test_a_value_out_of_bounds_is_refused_before_anything_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "digits", "--data.size", "7"]) == 2
    assert "data.size: given '7'; allowed: whole number, 16 to 1024" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "nowhere"], "data.source 'nowhere' does not exist"),
        (["find-lr", "sales.csv/x"], "does not exist"),
        (["sweep", "nowhere"], "data.source 'nowhere' does not exist"),
        (["train-table", "nowhere.csv"], "there is no file nowhere.csv"),
        (
            ["train-table", "sales.csv", "--data.target", "Price"],
            "data.target: the table has no column 'Price'; did you",
        ),
        (["train-table", "sales.csv", "--data.join", "nowhere.csv on shop"], "there is no file nowhere.csv"),
        (["train", "sales.csv"], "To train on it as a table, name what to predict: --data.target COLUMN"),
        (["sweep", "sales.csv", "--data.target", "prize"], "did you mean price?"),
        (["train-table", "sales.csv", "--data.target", "price", "--data.date", "dya"], "data.date: the table has no"),
        (["predict", "cats@champion", "nowhere"], "source: 'nowhere' does not exist"),
    ],
)
def test_a_slip_in_a_source_or_a_column_is_told_before_anything_is_started(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sales.csv").write_text("day;price;shop\n2024-01-01;2,5;a\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNFREEZE_HOME", str(tmp_path / "home"))
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "home").exists()


def test_a_sweep_of_a_table_varies_by_default_what_a_table_has(capsys: pytest.CaptureFixture[str]) -> None:
    boosting = [f"boosting.{name}" for name in ("lr", "leaves", "leaf_rows", "columns")]
    names = ["recipe.0.lr", "model.width", "model.dropout", "optimizer.batch_size", *boosting]
    none = [f"--space={name}=none" for name in names]
    assert main(["sweep", "sales.csv", "--data.target", "price", *none]) == 2
    assert "nothing is left to vary" in capsys.readouterr().err


def test_a_prediction_takes_model_and_source_by_position_and_its_settings_as_flags(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["predict", "photos", "incoming/", "--out", "predictions.xlsx"]) == 2
    assert "must end in .feather, .parquet or .csv" in capsys.readouterr().err
    assert main(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("MODEL", "SOURCE", "--tta", "--top_k", "--overwrite", "--json"))


@pytest.mark.slow
def test_the_finder_prints_its_suggestions_as_the_last_line(stripes: Path, home_with_store: Path) -> None:
    small = ["--model.backbone", "timm/test_resnet", "--model.weights", "none", "--data.size", "32"]
    quick = ["--finder.steps", "12", "--optimizer.batch_size", "8", "--recipe", "course"]
    command = [sys.executable, "-m", "unfreeze.flows.cli", "find-lr", str(stripes), *small, *quick, "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["stage"] == "head"
    assert set(found["suggestions"]) == {"stable", "falling", "valley", "steepest", "minimum"}


@pytest.mark.slow
def test_bad_input_ends_with_status_2_and_no_traceback(tmp_path: Path, home_with_store: Path) -> None:
    command = [sys.executable, "-m", "unfreeze.flows.cli", "train", str(tmp_path / "nothing")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["train"],
        ["train-table", "--data.target", "x"],
        ["sweep"],
        ["predict", "model"],
        ["train", "digits", "--config"],
    ],
    ids=lambda command: command[0] + command[-1],
)
def test_a_path_that_no_disk_can_hold_is_told_in_a_line(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "a" * 300]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("file name too long; give another path")


def test_what_is_piped_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    console().print(table(("run", "state", "name"), [["a" * 32, "FINISHED", "a long name " * 30]], whole=2))
    assert any("a" * 32 in line and "a long name " * 30 in line for line in capsys.readouterr().out.splitlines())


def test_each_of_few_predictions_is_shown_with_its_answer_or_its_error(capsys: pytest.CaptureFixture[str]) -> None:
    few = [
        {"path": "a.png", "class": "cat", "probability": 0.9, "error": None},
        {"path": "b.png", "class": None, "probability": None, "error": "truncated"},
    ]
    found = {"rows": 2, "unreadable": 1, "why": "", "model": "pets", "version": "1", "seconds": 1.0, "unseen": {}}
    classes = [{"class": "cat", "rows": 1, "share": 1.0}]
    show.predictions({**found, "out": "p.csv", "rows_per_second": None, "table": classes, "few": few})
    text = capsys.readouterr().err
    assert all(word in text for word in ("a.png", "cat", "b.png", "truncated"))
    assert "share" not in text
