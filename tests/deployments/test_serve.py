"""Registered models behind `mlflow models serve`, asked over HTTP."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.deployments.service import free_port, until
from tests.flows.tiny import tiny_table, tiny_training
from unfreeze.models.images.serving.predictor import ImagePredictor
from unfreeze.models.tables.serving import TablePredictor
from unfreeze.tasks.tracking import registry

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]

STAGE = [{"name": "all", "train": "all", "lr": 0.01, "cycles": 1}]


@pytest.fixture(scope="module")
def images(stripes: Path, prefect_api: None) -> registry.Version:
    from unfreeze.flows.train_images import train_images

    train_images(tiny_training(stripes, recipe=STAGE, **{"tracking.model_name": "served-classifier"}))
    return registry.version_of("served-classifier", "champion")


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sales")
    days = pd.date_range("2023-01-01", periods=100).strftime("%Y-%m-%d")
    frame = pd.DataFrame({"shop": np.repeat([1, 2], 100), "day": np.tile(days, 2), "open": 1})
    frame["promo"] = np.random.default_rng(0).integers(0, 2, 200)
    frame["sales"] = 100.0 + 50 * frame["shop"] + 30 * frame["promo"]
    frame.to_csv(folder / "sales.csv", index=False)
    pd.DataFrame({"shop": [1, 2], "area": [80.5, 200.0]}).to_csv(folder / "shops.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def table(sales: Path, prefect_api: None) -> registry.Version:
    from unfreeze.flows.train_images import train_tables

    plain = {"data.log_target": False, "data.task": "regression", "trees": False}
    train_tables(tiny_table(sales, **plain, **{"tracking.model_name": "served-table"}))
    return registry.version_of("served-table", "champion")


@contextmanager
def serving(uri: str, log: Path) -> Iterator[Callable[[], str]]:
    """Serve a model on a free port until the block ends; yields a function that waits and returns the address."""
    port = free_port()
    options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # MLflow starts `uvicorn` by name.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, *options],
            env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
            cwd=log.parent,  # away from the project: the model brings its own code
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{address}/ping").status_code == 200
        except httpx.HTTPError:
            return False

    def ready() -> str:
        assert until(answers, 120), log.read_text()
        return address

    try:
        yield ready
    finally:
        os.killpg(process.pid, signal.SIGTERM)  # the group that was started above
        process.wait(30)


@pytest.fixture(scope="module")
def served(
    images: registry.Version, table: registry.Version, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, str]]:
    """Addresses of the image model and of the table model."""
    folder = tmp_path_factory.mktemp("served")
    with (
        serving(f"models:/{images.name}@champion", folder / "images.log") as first,
        serving(f"models:/{table.name}/{table.number}", folder / "table.log") as second,
    ):
        yield first(), second()


def answered(address: str, columns: list[str], data: list[list[Any]]) -> pd.DataFrame:
    """Ask as `curl` does; returns the rows of the answer."""
    question = {"dataframe_split": {"columns": columns, "data": data}}
    answer = httpx.post(f"{address}/invocations", json=question, timeout=60)
    assert answer.status_code == 200, answer.text
    return pd.DataFrame(answer.json()["predictions"])


def test_images_in_base64_get_the_probabilities_that_the_predictor_gives(
    served: tuple[str, str], images: registry.Version, stripes: Path
) -> None:
    contents = [path.read_bytes() for path in sorted(stripes.glob("*/*.png"))[::16]]
    answer = answered(served[0], ["image"], [[base64.b64encode(content).decode()] for content in contents])
    predictor = ImagePredictor(registry.folder_of(images), "cpu")
    expected = predictor.probabilities(contents)
    assert answer["class"].tolist() == [predictor.classes[number] for number in expected.argmax(1)]
    np.testing.assert_allclose(np.array(answer["probabilities"].tolist()), expected, atol=1e-5)
    np.testing.assert_allclose(answer["probability"], expected.max(1), atol=1e-5)


def test_raw_rows_of_a_table_get_the_values_that_the_predictor_gives(
    served: tuple[str, str], table: registry.Version, sales: Path
) -> None:
    rows = pd.read_csv(sales / "sales.csv").drop(columns="sales").iloc[::20]
    answer = answered(served[1], list(rows.columns), rows.to_numpy().tolist())
    expected = TablePredictor(registry.folder_of(table), "cpu").predict(rows)["sales"]
    np.testing.assert_allclose(answer["sales"], expected, rtol=1e-4)


def test_an_image_that_cannot_be_read_is_named_in_the_answer(served: tuple[str, str]) -> None:
    data = {"columns": ["image"], "data": [[base64.b64encode(b"no image").decode()]]}
    answer = httpx.post(f"{served[0]}/invocations", json={"dataframe_split": data}, timeout=60)
    assert answer.status_code in (400, 500)
    assert "row 0: the image cannot be read: not an image" in answer.text


def test_a_path_in_a_request_opens_no_file_of_the_server(served: tuple[str, str], stripes: Path) -> None:
    for path in (str(next(stripes.glob("*/*.png"))), "/nowhere/at/all.png"):
        data = {"columns": ["path"], "data": [[path]]}
        answer = httpx.post(f"{served[0]}/invocations", json={"dataframe_split": data}, timeout=60)
        assert answer.status_code == 400
        # The same for a file that exists and one that does not.
        assert "Model is missing inputs ['image']" in answer.text


def test_examples_are_made_up_and_can_be_predicted(
    images: registry.Version, table: registry.Version, stripes: Path, sales: Path
) -> None:
    for version in (images, table):
        model = mlflow.pyfunc.load_model(f"models:/{version.name}/{version.number}")
        assert len(model.predict(model.input_example)) == 1
    image = mlflow.pyfunc.load_model(f"models:/{images.name}/{images.number}").input_example["image"][0]
    assert image not in {path.read_bytes() for path in stripes.glob("*/*.png")}
    row = mlflow.pyfunc.load_model(f"models:/{table.name}/{table.number}").input_example
    assert row["day"][0] not in set(pd.read_csv(sales / "sales.csv")["day"])
