"""Predicting with registered models: images and tables, interrupted and not, through a real registry."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.flows.tiny import tiny_table
from tests.pages import shown_artifacts
from unfreeze.models.errors import UserError
from unfreeze.models.settings.predict import Predict
from unfreeze.tasks import tracking

pytestmark = pytest.mark.usefixtures("prefect_api")

RANKED = ["path", "class", "probability", "class_2", "probability_2", "model", "version", "error"]


@pytest.fixture(scope="module")
def sales_model(tmp_path_factory: pytest.TempPathFactory, prefect_api: None) -> Path:
    """A model of sales, registered as `turnover-table`, and the folder of its tables."""
    from unfreeze.flows.train_images import train_tables

    folder = tmp_path_factory.mktemp("sales")
    days = pd.date_range("2023-01-01", periods=120).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"shop": np.repeat([1, 2], 120), "day": np.tile(days, 2), "open": 1})
    frame["promo"] = np.random.default_rng(0).integers(0, 2, 240)
    frame["sales"] = 100.0 + 50 * frame["shop"] + 30 * frame["promo"]
    frame.to_csv(folder / "sales.csv", index=False)
    pd.DataFrame({"shop": [1, 2], "area": [80.5, 200.0]}).to_csv(folder / "shops.csv", index=False)
    plain = {"data.events": [], "data.rolling": [], "data.log_target": False, "data.task": "regression"}
    train_tables(tiny_table(folder, **plain, **{"tracking.model_name": "turnover-table", "trees": False}))
    return folder


@pytest.fixture
def mixed(stripes: Path, tmp_path: Path) -> Path:
    """Ten images in two folders, and three files that are none."""
    folder = tmp_path / "mixed"
    images = sorted(stripes.glob("*/*.png"))
    for number in range(10):
        target = folder / ("in" if number % 2 else ".") / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(images[4 * number].read_bytes())
    (folder / "3a.txt").write_text("no image")
    (folder / "in" / "cut.png").write_bytes((folder / "0.png").read_bytes()[:200])
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def predicted(params: Predict) -> dict[str, Any]:
    from unfreeze.flows.predict import predict

    result: dict[str, Any] = predict(params)
    return result


def lines(source: Path | str, out: Path, **options: Any) -> Predict:
    return Predict(model="lines", source=str(source), out=str(out), device="cpu", **options)


def test_a_folder_becomes_a_file_of_predictions_with_the_reason_of_each_unreadable_row(
    lines_model: dict[str, Any], mixed: Path, tmp_path: Path
) -> None:
    from unfreeze.models.images.serving.predictor import ImagePredictor
    from unfreeze.tasks.tracking import registry

    result = predicted(lines(mixed, tmp_path / "out.feather", chunk=4))
    assert {"out", "rows", "unreadable", "model", "version", "seconds"} <= result.keys()
    assert (result["rows"], result["unreadable"]) == (13, 3)
    assert (result["model"], result["version"]) == ("lines-classifier", lines_model["model"]["version"])
    frame = pd.read_feather(tmp_path / "out.feather")
    assert list(frame.columns) == RANKED
    assert frame["path"].tolist() == sorted(str(path) for path in mixed.rglob("*") if path.is_file())
    reasons = frame[frame["error"].notna()].set_index("path")["error"]
    assert reasons[str(mixed / "empty.jpg")] == "zero bytes"
    assert reasons[str(mixed / "3a.txt")] == "not an image; export other formats as JPEG, PNG or TIFF"
    assert reasons[str(mixed / "in" / "cut.png")].startswith("truncated or damaged")
    assert frame["class"].isna().tolist() == frame["error"].notna().tolist()
    readable = frame[frame["error"].isna()]
    predictor = ImagePredictor(registry.folder_of(registry.version_of("lines-classifier", "champion")), "cpu")
    probabilities = predictor.probabilities(readable["path"].tolist())
    np.testing.assert_allclose(readable["probability"], probabilities.max(1), atol=1e-6)
    np.testing.assert_allclose(readable["probability_2"], probabilities.min(1), atol=1e-6)
    assert readable["class"].tolist() == [predictor.classes[number] for number in probabilities.argmax(1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mixed", "out.feather"]  # no parts are left


@pytest.mark.slow
def test_onnxruntime_writes_what_torch_does(lines_model: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    frames = []
    for runtime in ("torch", "onnx"):
        predicted(lines(mixed, tmp_path / f"{runtime}.feather", runtime=runtime))
        frames.append(pd.read_feather(tmp_path / f"{runtime}.feather"))
    pd.testing.assert_frame_equal(*frames, atol=1e-5)


def test_the_page_shows_how_many_rows_each_class_has(lines_model: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    result = predicted(lines(mixed, tmp_path / "out.csv"))
    shown, *_ = shown_artifacts("predictions")
    assert sum(row["rows"] for row in result["table"]) == 10
    assert {row["class"] for row in result["table"]} <= {"across", "down"}
    assert '"class"' in str(shown.data)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_of_paths_is_predicted_row_by_row_in_every_format(
    lines_model: dict[str, Any], mixed: Path, tmp_path: Path, suffix: str
) -> None:
    paths = ["1.png", "in/1.png", "", "in/1.png", "gone.png"]
    pd.DataFrame({"file": paths}).to_csv(mixed / "list.csv", index=False)
    predicted(lines(mixed / "list.csv", tmp_path / f"out{suffix}", path_column="file"))
    frame = pd.read_csv(tmp_path / "out.csv") if suffix == ".csv" else pd.read_parquet(tmp_path / "out.parquet")
    assert list(frame.columns) == RANKED
    assert frame["path"].fillna("").tolist() == paths
    assert frame["class"].notna().tolist() == [False, True, False, True, False]
    assert frame["error"][2] == "there is no path in this row"
    assert frame["error"][4] == "cannot be read: No such file or directory"
    assert frame["probability"][1] == frame["probability"][3]


def test_a_model_predicts_in_the_way_that_it_was_evaluated_and_any_other_way_is_said(
    lines_model: dict[str, Any], stripes: Path, tmp_path: Path
) -> None:
    path = tracking.fetch(lines_model["run_id"], "valid/predictions.feather")
    assert path is not None
    evaluated = pd.read_feather(path).set_index("path")
    (other,) = {"plain", "tta"} & {str(name).removeprefix("predicted_") for name in evaluated}
    ways = {"": None, f"_{other}": other == "tta"}
    for suffix, tta in ways.items():
        result = predicted(lines(stripes, tmp_path / f"out{suffix}.feather", tta=tta))
        rows = pd.read_feather(tmp_path / f"out{suffix}.feather").set_index("path").loc[evaluated.index]
        np.testing.assert_allclose(rows["probability"], evaluated[f"probability{suffix}"], atol=1e-5)
        assert rows["class"].tolist() == evaluated[f"predicted{suffix}"].tolist()
        said = "" if tta is None else f" with{'' if tta else 'out'} TTA, unlike its evaluation"
        assert set(rows["version"]) == {result["version"]} == {f"1{said}"}
    assert np.abs(evaluated["probability"] - evaluated[f"probability_{other}"]).max() > 1e-4


KILLED_IN_THE_MIDDLE = """
import os, signal, sys
from unfreeze.models.settings.predict import Predict
from unfreeze.tasks.predictions.parts import predict_parts
from unfreeze.tasks.predictions.source import find_model, list_source
from unfreeze.models.images.serving.predictor import ImagePredictor

params = Predict(model="lines", source=sys.argv[1], out=sys.argv[2], chunk=4, tta=True, device="cpu")
model = find_model.fn(params.model)
source = list_source.fn(params, model)
square = ImagePredictor.square

def killing(self, image):
    if image == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)
    return square(self, image)

ImagePredictor.square = killing
ImagePredictor.batch_size = 2
predict_parts.fn(params, model, source)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_continues_after_its_last_whole_part(
    lines_model: dict[str, Any], stripes: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole, out = lines(stripes, tmp_path / "whole.feather", chunk=4, tta=True), tmp_path / "out.feather"
    predicted(whole)
    expected = pd.read_feather(tmp_path / "whole.feather")
    command = [sys.executable, "-c", KILLED_IN_THE_MIDDLE, str(stripes), str(out), expected["path"][30]]
    killed = subprocess.run(command, env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    (folder,) = tmp_path.glob("out.feather.*.partial")
    there = 4 * len(list(folder.glob("*.arrow")))
    assert 4 <= there <= 28
    assert not out.exists()

    result = predicted(lines(stripes, out, chunk=4, tta=True))

    assert result["predicted"] == 48 - there
    pd.testing.assert_frame_equal(pd.read_feather(out), expected)
    assert not folder.exists()
    assert f"{there} of 48 rows were there already" in caplog.text


def test_the_same_prediction_is_not_made_twice_and_another_s_output_is_not_replaced(
    lines_model: dict[str, Any], mixed: Path, tmp_path: Path
) -> None:
    params = lines(mixed, tmp_path / "out.parquet")
    first = predicted(params)
    stamp = (tmp_path / "out.parquet").stat().st_mtime_ns
    again = predicted(params)
    assert again["predicted"] == 0
    assert [again[name] for name in ("rows", "unreadable", "table")] == [
        first[name] for name in ("rows", "unreadable", "table")
    ]
    other = params.model_copy(update={"top_k": 1})
    with pytest.raises(UserError, match=r"choose another --out, or give --overwrite"):
        predicted(other)
    assert (tmp_path / "out.parquet").stat().st_mtime_ns == stamp
    predicted(other.model_copy(update={"overwrite": True}))
    assert "class_2" not in pd.read_parquet(tmp_path / "out.parquet")


def test_new_images_are_another_prediction_but_the_output_in_their_folder_is_none_of_them(
    lines_model: dict[str, Any], mixed: Path
) -> None:
    params = lines(mixed, mixed / "out.feather")
    assert predicted(params)["rows"] == 13
    assert predicted(params)["predicted"] == 0
    Image.new("RGB", (40, 40)).save(mixed / "new.png")
    assert predicted(params.model_copy(update={"overwrite": True}))["rows"] == 14


def test_an_output_that_cannot_be_written_is_said(lines_model: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="out: cannot make"):
        predicted(lines(mixed, tmp_path / "file" / "out.csv"))
    (tmp_path / "out.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        predicted(lines(mixed, tmp_path / "out.csv"))


def test_two_runs_do_not_write_the_same_file(lines_model: dict[str, Any], mixed: Path, tmp_path: Path) -> None:
    from filelock import FileLock

    from unfreeze.models.store.workspace import Derived, key_of
    from unfreeze.tasks.steps.workspace import FlowWorkspace

    lock = FileLock(FlowWorkspace().path(Derived("predictions", key_of(str(tmp_path / "out.csv")), ".lock")))
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    with lock, pytest.raises(UserError, match="another process is writing"):
        predicted(lines(mixed, tmp_path / "out.csv"))


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nothing", "there is no registered model 'nothing'"),
        ("lines@previous", "has no alias 'previous'; it has champion"),
        ("lines/99", "has no version '99'"),
        ("@champion", "write NAME@ALIAS"),
    ],
)
def test_a_model_that_is_not_there_is_said(lines_model: dict[str, Any], tmp_path: Path, model: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        predicted(Predict(model=model, out=str(tmp_path / "out.csv")))


@pytest.mark.parametrize("model", ["lines", "lines-classifier@champion", "models:/lines-classifier/{version}"])
def test_a_model_goes_by_name_alias_or_version(lines_model: dict[str, Any], model: str) -> None:
    from unfreeze.tasks.predictions.source import find_model

    found = find_model.fn(model.format(version=lines_model["model"]["version"]))
    assert (found["name"], found["version"]) == ("lines-classifier", lines_model["model"]["version"])
    assert found["modality"] == "images"


def test_a_table_is_predicted_row_by_row_and_unreadable_rows_are_reported(sales_model: Path, tmp_path: Path) -> None:
    from unfreeze.models.tables.serving import TablePredictor
    from unfreeze.tasks.tracking import registry

    rows = pd.read_csv(sales_model / "sales.csv", dtype={"day": object}).drop(columns="sales")
    broken = rows.copy()
    broken.loc[7, "day"] = "some day"
    broken.to_csv(tmp_path / "rows.csv", index=False)
    params = Predict(model="turnover", source=str(tmp_path / "rows.csv"), out=str(tmp_path / "out.csv"), chunk=50)
    result = predicted(params)
    assert (result["rows"], result["unreadable"]) == (240, 1)
    frame = pd.read_csv(tmp_path / "out.csv")
    assert list(frame.columns) == ["row", "sales", "model", "version", "error"]
    assert frame["row"].tolist() == list(range(240))
    assert frame["error"][7] == "column 'day': 'some day' is not a date"
    predictor = TablePredictor(registry.folder_of(registry.version_of("turnover-table", "champion")), "cpu")
    expected = predictor.predict(rows)["sales"]
    np.testing.assert_allclose(frame["sales"].drop(7), expected.drop(7), rtol=1e-5)
    assert np.isnan(frame["sales"][7])
    assert result["table"][0]["target"] == "sales"


def test_a_coverage_writes_intervals_that_the_registered_model_gives_as_well(sales_model: Path, tmp_path: Path) -> None:
    rows = pd.read_csv(sales_model / "sales.csv", dtype={"day": object}).drop(columns="sales")
    rows.to_csv(tmp_path / "rows.csv", index=False)
    params = Predict(model="turnover", source=str(tmp_path / "rows.csv"), out=str(tmp_path / "out.csv"), coverage=0.8)
    predicted(params)
    frame = pd.read_csv(tmp_path / "out.csv")
    assert (frame["sales_low"] < frame["sales"]).all()
    assert (frame["sales"] < frame["sales_high"]).all()
    served = mlflow.pyfunc.load_model("models:/turnover-table@champion").predict(rows, params={"coverage": 0.8})
    np.testing.assert_allclose(served["sales_high"], frame["sales_high"], rtol=1e-5)
    with pytest.raises(UserError, match=r"coverage: 0\.999 needs 999 validation rows"):
        predicted(params.model_copy(update={"coverage": 0.999}))


@pytest.mark.parametrize("out", ["out.csv", "out.parquet", "out.feather"])
def test_shops_that_no_training_row_has_are_counted_over_all_parts_and_again_if_asked_again(
    sales_model: Path, tmp_path: Path, out: str
) -> None:
    rows = pd.read_csv(sales_model / "sales.csv", dtype={"day": object}).drop(columns="sales")
    rows.loc[[0, 70, 71, 239], "shop"] = 3
    rows.loc[71, "day"] = "some day"  # which is not predicted
    rows.to_csv(tmp_path / "rows.csv", index=False)
    params = Predict(model="turnover", source=str(tmp_path / "rows.csv"), out=str(tmp_path / out), chunk=50)
    assert predicted(params)["unseen"]["shop"] == 3
    if out != "out.csv":
        assert predicted(params)["unseen"]["shop"] == 3


@pytest.mark.parametrize("source", ["digits", ".", "nowhere.csv"])
def test_a_table_s_model_says_what_it_predicts(sales_model: Path, tmp_path: Path, source: str) -> None:
    with pytest.raises(UserError, match="turnover-table predicts the rows of a table: CSV or other separated"):
        predicted(Predict(model="turnover", source=source, out=str(tmp_path / "out.csv")))


def test_a_table_has_no_test_time_augmentation(sales_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="test-time augmentation is for images"):
        predicted(Predict(model="turnover", source=str(sales_model / "sales.csv"), tta=True))


@pytest.mark.slow
def test_ctrl_c_ends_cancelled_and_keeps_the_parts(lines_model: dict[str, Any], stripes: Path, tmp_path: Path) -> None:
    images = tmp_path / "many"
    images.mkdir()
    content = next(stripes.glob("down/*.png")).read_bytes()
    for number in range(2000):
        (images / f"{number:05d}.png").write_bytes(content)
    out = tmp_path / "out.csv"
    options = ["--chunk", "16", "--out", str(out), "--device", "cpu"]
    command = [sys.executable, "-m", "unfreeze.flows.cli", "predict", "lines", str(images), *options]
    environment = {**os.environ, "PREFECT_LOGGING_LEVEL": "INFO"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("out.csv.*.partial/*.arrow")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130, (tmp_path / "log").read_text()
    text = (tmp_path / "log").read_text()
    assert "continue with the same command" in text
    assert "Cancelled" in text
    assert not out.exists()
    there = len(list(tmp_path.glob("out.csv.*.partial/*.arrow")))
    result = predicted(lines(images, out, chunk=16))
    assert result["predicted"] == 2000 - 16 * there < 2000
    assert len(pd.read_csv(out)) == 2000
