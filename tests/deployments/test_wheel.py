"""The package as it is installed: from its wheel alone, beside packages of somebody else with our folders' names."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.deployments.service import PROJECT, own_environment
from tests.flows.tiny import tiny_training

pytestmark = pytest.mark.slow

UV = Path(sys.executable).with_name("uv")
OTHERS = ("flows", "tasks", "models")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that holds what the wheel installs, made from the source archive, and nothing else of this project."""
    if not UV.exists():
        pytest.skip("uv is not installed beside Python")
    place = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [str(UV), "build", "--quiet", "--out-dir", str(place), str(PROJECT)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = place.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "installed")
    return place / "installed"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A working folder with packages of somebody else."""
    for name in OTHERS:
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "__init__.py").write_text("OWNER = 'somebody else'")
    return tmp_path / "work"


def python(installed: Path, folder: Path, data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**own_environment(data), "PYTHONPATH": os.pathsep.join([str(folder), str(installed)])}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_holds_one_package(installed: Path) -> None:
    top = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert top == {"unfreeze"}
    for name in ("py.typed", "flows/cli.py", "tasks/tracking.py", "models/specs.py"):
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
