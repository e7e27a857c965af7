"""What earlier releases kept can be used by this one: runs, studies, caches and models, from files that they wrote."""

import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.upgrades.write import ARCHIVES, IMAGES, STOPPED, STUDY
from unfreeze.models.images.pixels.index import Index
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.store.sealed_files import checksum
from unfreeze.tasks.tracking.files import CHECKSUM, SPEC, SPEC_COPY

pytestmark = pytest.mark.usefixtures("prefect_api")

RELEASES = sorted(path.stem for path in ARCHIVES.glob("*.zip"))
MOVED = {
    "experiments": ["artifact_location"],
    "runs": ["artifact_uri"],
    "model_versions": ["source", "storage_location"],
    "logged_models": ["artifact_location"],
}
"""Addresses in MLflow's store of files that the archive has moved, which no release can help; specs have some, too."""


@pytest.fixture(params=RELEASES)
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with zipfile.ZipFile(ARCHIVES / f"{request.param}.zip") as archive:
        archive.extractall(tmp_path)
    home = tmp_path / "home"
    before = (home / "written-in").read_text()
    uri = f"sqlite:///{home / 'mlflow.db'}"
    # An MLflow that is newer than the store asks a person for this command.
    subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True)
    with sqlite3.connect(home / "mlflow.db") as store:
        for table, columns in MOVED.items():
            for column in columns:
                store.execute(f"update {table} set {column} = replace({column}, ?, ?)", (before, str(tmp_path)))
        store.execute("update params set value = replace(value, ?, ?)", (before, str(tmp_path)))
        for artifacts in home.glob("mlflow-artifacts/*/*/artifacts"):
            for name in (SPEC, SPEC_COPY):
                if (spec := artifacts / name).exists():
                    spec.write_text(spec.read_text().replace(before, str(tmp_path)))
                    moved = (checksum(spec), f"{CHECKSUM}{name}", artifacts.parent.name)
                    store.execute("update tags set value = ? where key = ? and run_uuid = ?", moved)
    journal = home / "optuna.journal"
    journal.write_text(journal.read_text().replace(before, str(tmp_path)))
    monkeypatch.setenv("UNFREEZE_HOME", str(home))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return home


@pytest.mark.slow
def test_a_run_that_stopped_continues_and_a_study_as_well(home: Path) -> None:
    from unfreeze.flows.sweep import sweep_tables
    from unfreeze.flows.train_images import train_tables
    from unfreeze.models.settings.search import SweepSpec
    from unfreeze.models.settings.tables import TrainTables
    from unfreeze.tasks import tracking
    from unfreeze.tasks.sweeps.study import load_study
    from unfreeze.tasks.sweeps.sweep import stored

    (run,) = tracking.client().search_runs(
        [tracking.experiment_id("unfreeze")], f"attributes.run_name = '{STOPPED}' and attributes.status = 'FAILED'"
    )
    resumed = train_tables(TrainTables(**tracking.spec_of(run.info.run_id)), run.info.run_id)
    assert resumed["run_id"] == run.info.run_id
    assert tracking.get_run(run.info.run_id).info.status == "FINISHED"
    search, training = stored(load_study(STUDY, None), SweepSpec(trials=4, study=STUDY))
    result = sweep_tables(search, training)
    assert result["trials"]["complete"] + result["trials"]["pruned"] == 4


def test_a_registered_classifier_says_what_it_said(home: Path) -> None:
    from unfreeze.tasks.tracking import registry

    champion = registry.champion_of("lines-classifier")
    assert champion is not None
    predictor = ImagePredictor(registry.folder_of(champion), "cpu")
    said = predictor.probabilities([home.parent / "sources" / "lines" / name for name in IMAGES])
    before = np.loadtxt(home / "said.txt")
    assert said == pytest.approx(before, abs=2e-3)  # processors round differently


def test_caches_are_read(home: Path) -> None:
    (index,) = (home / "cache" / "indexes").glob("*.arrow")
    assert len(Index.load(index)) == 8


def test_there_is_an_archive_of_this_release() -> None:
    from importlib.metadata import version

    assert version("unfreeze") in RELEASES, "python -m tests.upgrades.write, before a release"
