"""A whole training on a tiny table: which files, metrics and artifacts come out, and what the model says alone."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.flows.tiny import tiny_table, write_sales
from unfreeze.models.errors import UserError
from unfreeze.models.store.model_folder import judged_folder
from unfreeze.tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sales(tmp_path_factory.mktemp("sales"))


@pytest.fixture(scope="module")
def trained(sales: Path, prefect_api: None) -> dict[str, Any]:
    from unfreeze.flows.train_images import train_tables

    result: dict[str, Any] = train_tables(tiny_table(sales))
    return result


def artifacts(run_id: str, folder: str | None = None) -> set[str]:
    found = set()
    for item in MlflowClient().list_artifacts(run_id, folder):
        found |= artifacts(run_id, item.path) if item.is_dir else {item.path}
    return found


def test_the_network_learns_and_stands_beside_its_baselines(trained: dict[str, Any]) -> None:
    metrics = trained["metrics"]
    assert metrics["valid/rmspe"] < metrics["baseline/mean_rmspe"]
    assert metrics["valid/rmspe"] < 0.15
    assert {"network/rmspe", "baseline/tree_rmspe", "ensemble/rmspe", "valid/rmse", "valid/mae"} <= set(metrics)
    kept = tracking.get_run(trained["run_id"]).data.metrics
    losses = [kept[f"choice/{model}"] for model in ("network", "network_and_trees", "trees")]
    assert metrics["valid/loss"] == pytest.approx(min(losses))


def test_every_image_and_table_is_kept(trained: dict[str, Any]) -> None:
    names = artifacts(trained["run_id"])
    assert {
        "data/columns.feather",
        "data/rejected.feather",
        "valid/predictions.feather",
        "valid/models.txt",
        "valid/importance.png",
        "valid/residuals_sales.png",
        "embeddings/dayDayofweek.png",
        "schedule/all.png",
        "model_summary.txt",
    } <= names


def test_rows_that_a_condition_leaves_out_are_counted(trained: dict[str, Any], tmp_path: Path) -> None:
    path = MlflowClient().download_artifacts(trained["run_id"], "data/rejected.feather", str(tmp_path))
    table = pd.read_feather(path)
    assert table.loc[0, "rows"] == "12"


@pytest.mark.slow
def test_a_second_run_reads_and_prepares_nothing_again(trained: dict[str, Any], sales: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    from unfreeze.flows.train_images import train_tables

    state = train_tables(tiny_table(sales), return_state=True)
    assert state.is_completed()
    with get_client(sync_client=True) as client:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[state.state_details.flow_run_id]))
        states = {run.name: run.state_name for run in client.read_task_runs(flow_run_filter=wanted)}
    assert states["prepare table"] == "Cached"
    assert states[f"read {sales / 'sales.csv'}"] == "Cached"
    result = state.result()
    assert result["metrics"]["valid/rmspe"] == trained["metrics"]["valid/rmspe"]


def test_one_deleted_file_of_a_prepared_table_is_made_again(trained: dict[str, Any], sales: Path) -> None:
    from unfreeze.tasks.machine.environment import home
    from unfreeze.tasks.steps.prepare import prepare_handle

    params = tiny_table(sales)
    files = {name: Path(path) for name, path in prepare_handle(params).files.items()}
    before = {name: path.read_bytes() for name, path in files.items()}
    files["encoded"].unlink()
    assert prepare_handle(params).files == {name: str(path) for name, path in files.items()}
    assert {name: path.read_bytes() for name, path in files.items()} == before
    assert not list((home() / "cache" / "prepared").glob("*partial*"))


PREDICT_ALONE = """
import json, sys
import mlflow
import pandas as pd
assert "prefect" not in sys.modules
model = mlflow.pyfunc.load_model(sys.argv[1])
rows = pd.read_csv(sys.argv[2]).drop(columns="sales")
print(json.dumps(model.predict(rows)["sales"].tolist()))
"""


@pytest.mark.slow
def test_the_model_predicts_raw_rows_alone_as_the_evaluation_did(sales: Path, tmp_path: Path) -> None:
    from unfreeze.flows.train_images import train_tables

    trained = train_tables(tiny_table(sales, refit=False))
    path = MlflowClient().download_artifacts(trained["run_id"], "valid/predictions.feather", str(tmp_path))
    evaluated = pd.read_feather(path)
    source = MlflowClient().get_model_version("sales-table", trained["model"]["version"]).source
    command = [sys.executable, "-c", PREDICT_ALONE, source, str(sales / "sales.csv")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    raw = pd.read_csv(sales / "sales.csv").assign(predicted=json.loads(done.stdout.splitlines()[-1]))
    raw["day"] = pd.to_datetime(raw["day"])
    both = evaluated.merge(raw, on=["shop", "day"], suffixes=("", "_raw"))
    assert len(both) == len(evaluated)
    # Rows that were rejected take part in features of events, in training and here alike.
    assert both["kept_sales"].tolist() == both["predicted"].tolist()


def test_the_registered_model_takes_the_file_it_was_trained_on_and_requires_only_what_it_uses(
    trained: dict[str, Any], sales: Path
) -> None:
    model = mlflow.pyfunc.load_model(f"models:/sales-table/{trained['model']['version']}")
    rows = pd.read_csv(sales / "sales.csv")
    required = model.metadata.get_input_schema().required_input_names()
    assert set(required) == model.metadata.get_input_schema().input_dict().keys()
    assert set(required) == set(rows.columns) - {"sales", "open"}  # closed days were left out: open is always 1
    expected = model.predict(rows)["sales"].tolist()
    for form in (
        rows[required],
        rows.assign(shop=rows["shop"].astype("category"), promo=rows["promo"].astype(bool)),
        rows.assign(shop=rows["shop"].astype(float), promo=rows["promo"].astype("Int64")),
        rows.assign(day=pd.to_datetime(rows["day"])),
        rows.astype(object),
    ):
        assert model.predict(form)["sales"].tolist() == expected
    gaps = rows.assign(promo=rows["promo"].astype(object).where(rows.index != 3))
    assert len(model.predict(gaps)) == len(rows)
    assert len(model.predict(model.input_example)) == 1
    with pytest.raises(mlflow.MlflowException, match=r"missing inputs \['day'\]"):
        model.predict(rows.drop(columns="day"))


CUTS = {
    "as one file": lambda rows: [rows],
    "week by week": lambda rows: [week for _, week in rows.groupby(rows["day"].str[:7])],
    "day by day": lambda rows: [day for _, day in rows.groupby("day")],
    "in random chunks": lambda rows: [rows.sample(frac=1, random_state=0).iloc[part::7] for part in range(7)],
    "row by row": lambda rows: [rows.iloc[[place]] for place in range(0, len(rows), 5)],
}


@pytest.mark.parametrize("cut", CUTS)
def test_validation_rows_are_predicted_as_they_were_evaluated_to_the_last_bit(
    trained: dict[str, Any], sales: Path, cut: str
) -> None:
    from unfreeze.models.tables.serving import TablePredictor
    from unfreeze.tasks.tracking import registry

    evaluated = pd.read_feather(tracking.fetch(trained["run_id"], "valid/predictions.feather"))
    known = {(shop, f"{day:%Y-%m-%d}"): value for shop, day, value in evaluated[["shop", "day", "kept_sales"]].values}
    raw = pd.read_csv(sales / "sales.csv").drop(columns="sales")
    rows = raw[[key in known for key in zip(raw["shop"], raw["day"], strict=True)]]
    version = registry.version_of("sales-table", trained["model"]["version"])
    predictor = TablePredictor(judged_folder(registry.folder_of(version)), "cpu")
    for part in CUTS[cut](rows):
        expected = [known[key] for key in zip(part["shop"], part["day"], strict=True)]
        assert predictor.predict(part)["sales"].tolist() == expected


def test_rows_behind_a_gap_are_refused_with_the_days_that_are_missing(trained: dict[str, Any], sales: Path) -> None:
    from unfreeze.models.tables.serving import TablePredictor
    from unfreeze.tasks.tracking import registry

    version = registry.version_of("sales-table", trained["model"]["version"])
    predictor = TablePredictor(registry.folder_of(version), "cpu")
    raw = pd.read_csv(sales / "sales.csv").drop(columns="sales")
    last = pd.Timestamp(raw["day"].max())
    following = [raw.iloc[[-1]].assign(day=f"{last + pd.Timedelta(days=days):%Y-%m-%d}") for days in range(1, 9)]
    assert len(predictor.predict(pd.concat(following))) == 8
    with pytest.raises(UserError, match=rf"the days from {last.year}-.* are in neither the training nor these rows"):
        predictor.predict(following[-1])


@pytest.mark.slow
def test_a_classification_follows_from_a_target_of_text(sales: Path, tmp_path: Path) -> None:
    from unfreeze.flows.train_images import train_tables

    frame = pd.read_csv(sales / "sales.csv")
    frame["level"] = np.where(frame["sales"] > frame["sales"].median(), "high", "low")
    frame.drop(columns="sales").to_csv(tmp_path / "levels.csv", index=False)
    overrides = {"data.source": str(tmp_path / "levels.csv"), "data.target": ["level"], "data.log_target": False}
    result = train_tables(tiny_table(sales, **overrides))
    assert result["metrics"]["valid/accuracy"] > 0.8
    assert {"valid/auc", "valid/log_loss", "baseline/tree_accuracy"} <= set(result["metrics"])


def test_a_table_that_is_not_there_and_a_target_that_is_not_in_it_are_named(sales: Path) -> None:
    from unfreeze.flows.train_images import train_tables

    with pytest.raises(UserError, match=r"nowhere\.csv"):
        train_tables(tiny_table(sales, **{"data.source": "nowhere.csv"}))
    with pytest.raises(UserError, match="turnover"):
        train_tables(tiny_table(sales, **{"data.target": ["turnover"]}))


@pytest.mark.slow
def test_a_sweep_searches_a_table_as_well(sales: Path) -> None:
    from unfreeze.flows.sweep import sweep_tables
    from unfreeze.models.settings.search import Dimension, TableSweep

    space = [Dimension(name="recipe.all.lr", low=0.001, high=0.03, log=True)]
    search = TableSweep(trials=3, study="table", space=space, objectives=["rmspe"], pruner="none")
    result = sweep_tables(search, tiny_table(sales, metrics=["rmspe"], trees=False))
    assert result["trials"]["complete"] == 3
    assert tracking.get_run(result["run_id"]).info.status == "FINISHED"


@pytest.mark.slow
def test_a_sweep_of_a_table_needs_nothing_but_its_target(
    sales: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from unfreeze.flows.cli import main

    monkeypatch.chdir(sales)
    quick = ["--trees", "false", "--recipe.all.cycles", "1", "--trials", "2", "--study", "by default"]
    assert main(["sweep", "sales.csv", "--data.target", "sales", *quick, "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["trials"]["complete"] == 2
    # The first trial, which is the training as it is, has no value of what follows from the data.
    varied = set(found["best"]["params"])
    assert (
        {"recipe.0.lr", "model.width"}
        <= varied
        <= {
            "recipe.0.lr",
            "model.width",
            "model.dropout",
            "optimizer.batch_size",
        }
    )


@pytest.mark.slow
def test_a_snapshot_ensemble_of_a_table_competes_with_its_last_member(sales: Path) -> None:
    from unfreeze.flows.train_images import train_tables
    from unfreeze.models.tables.serving import TablePredictor
    from unfreeze.tasks.tracking import registry

    kept = {"keep": "trained", "trees": False, "tracking.model_name": "snapshots-table"}
    train_tables(tiny_table(sales, snapshots=2, **kept))
    predictor = TablePredictor(registry.folder_of(registry.version_of("snapshots-table", "champion")), "cpu")
    raw = pd.read_csv(sales / "sales.csv").drop(columns="sales")
    averaged, networks = predictor.predict(raw)["sales"], predictor.networks
    alone = []
    for network in networks:
        predictor.networks = [network]
        alone.append(predictor.predict(raw)["sales"])
    assert len(alone) == 2
    assert np.expm1(np.mean(np.log1p(alone), axis=0)) == pytest.approx(averaged)


@pytest.mark.slow
def test_several_targets_are_learned_and_served_together(sales: Path, tmp_path: Path) -> None:
    from unfreeze.flows.train_images import train_tables
    from unfreeze.models.tables.serving import TablePredictor
    from unfreeze.tasks.tracking import registry

    table = pd.read_csv(sales / "sales.csv")
    table["visitors"] = table["sales"] * np.where(table["shop"] == 1, 0.2, 0.1)
    table.to_csv(tmp_path / "sales.csv", index=False)
    (tmp_path / "shops.csv").write_text((sales / "shops.csv").read_text())
    two = {"data.target": ["sales", "visitors"], "tracking.model_name": "two-table", "recipe.all.cycle_len": 10}
    result = train_tables(tiny_table(tmp_path, **two))
    said = pd.read_feather(tracking.fetch(result["run_id"], "valid/predictions.feather"))
    assert {"sales", "visitors"} <= set(said.columns)
    predictor = TablePredictor(registry.folder_of(registry.version_of("two-table", "champion")), "cpu")
    predicted = predictor.predict(table.drop(columns=["sales", "visitors"]))
    assert predicted.columns.tolist() == ["sales", "visitors"]
    assert np.median(np.abs(predicted / table[["sales", "visitors"]] - 1)) < 0.2
