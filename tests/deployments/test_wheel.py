"""The package as it is installed: from its wheel alone, beside packages of somebody else with our folders' names."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.service import PROJECT, own_environment, running_up
from tests.flows.tiny import tiny_training

pytestmark = pytest.mark.slow

UV = Path(sys.executable).with_name("uv")
OTHERS = ("flows", "tasks", "models")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the source archive."""
    if not UV.exists():
        pytest.skip("uv is not installed beside Python")
    place = tmp_path_factory.mktemp("wheel")
    run([str(UV), "build", "--quiet", "--out-dir", str(place), str(PROJECT)])
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """Folder that holds what the wheel installs, and nothing else of this project."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "installed")
    return wheel.parent / "installed"


@pytest.fixture
def environment_of_its_own(wheel: Path, tmp_path: Path) -> Path:
    """Commands of an environment with the wheel, our libraries, and packages of somebody else with our folders' names.

    The files that make libraries known are read in an environment's own folder only, so that the project is not
    installed there as it is in ours.
    """
    folder = tmp_path / "environment"
    run([str(UV), "venv", "--quiet", "--python", sys.executable, str(folder)])
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    run([str(UV), "pip", "install", "--quiet", "--no-deps", "--python", str(folder / "bin" / "python"), str(wheel)])
    write_foreign_packages(packages)
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder with packages of somebody else."""
    write_foreign_packages(tmp_path / "work")
    return tmp_path / "work"


def test_the_wheel_holds_what_a_report_is_made_of(installed: Path) -> None:
    assert {path.name for path in (installed / "unfreeze" / "tasks" / "report").iterdir()} >= {
        "report.html.j2",
        "style.css",
        "page.py",
    }


def write_foreign_packages(folder: Path) -> None:
    for name in OTHERS:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text("OWNER = 'somebody else'")


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def python(installed: Path, folder: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**own_environment(data), "PYTHONPATH": os.pathsep.join([str(folder), str(installed)])}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_one_package(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"unfreeze"}
    for name in (
        "py.typed",
        "flows/cli.py",
        "tasks/tracking/__init__.py",
        "prefect.yaml",
        "configs/rossmann.yaml",
        "models/errors.py",
    ):
        assert (installed / "unfreeze" / name).is_file(), name


def test_a_model_trained_with_the_wheel_is_loaded_by_an_application_with_packages_of_our_names(
    installed: Path, elsewhere: Path, stripes: Path, tmp_path: Path
) -> None:
    data, settings = tmp_path / "data", tmp_path / "settings.json"
    head = [{"name": "head", "precompute": True, "lr": 0.01}]
    settings.write_text(tiny_training(stripes, recipe=head).model_dump_json())
    trained = python(
        installed, elsewhere, data, "-m", "unfreeze.flows.cli", "train", "--config", str(settings), "--json"
    )
    assert trained.returncode == 0, trained.stderr
    uri = json.loads(trained.stdout.splitlines()[-1])["model_uri"]
    image = next(stripes.glob("*/*.png"))
    application = f"""
import models, mlflow, pandas as pd, unfreeze
assert models.OWNER == "somebody else"
mlflow.set_tracking_uri("sqlite:///{data / "mlflow.db"}")
model = mlflow.pyfunc.load_model({uri!r})
print(model.predict(pd.DataFrame({{"image": [open({str(image)!r}, "rb").read()]}}))["class"][0])
import flows, tasks
assert flows.OWNER == tasks.OWNER == models.OWNER
print(unfreeze.__file__)
"""
    loaded = python(installed, elsewhere, data, "-c", application)
    assert loaded.returncode == 0, loaded.stderr
    label, where = loaded.stdout.split()
    assert label in ("across", "down")
    assert where.startswith(str(installed))


def test_up_needs_nothing_but_the_wheel(
    environment_of_its_own: Path, stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()

    def training(source: str) -> dict[str, Any]:
        head = [{"name": "head", "precompute": True, "lr": 0.01}]
        return {"params": tiny_training(Path(source), recipe=head).model_dump(mode="json")}

    with running_up(folder, [str(environment_of_its_own / "unfreeze")]) as up:
        up.wait(up.start("train-images/train-images", training("digits")), "COMPLETED", seconds=600)
        # Relative paths begin where `up` was started, but no module is imported from there.
        shutil.copytree(stripes, folder / "photos")
        (folder / "random.py").write_text("raise SystemExit('imported from the working folder')")
        up.wait(up.start("train-images/train-images", training("photos")), "COMPLETED", seconds=600)
    assert up.process.returncode == 0, up.printed
    assert {path.name for path in folder.iterdir()} == {"data", "photos", "random.py", "up.log"}
