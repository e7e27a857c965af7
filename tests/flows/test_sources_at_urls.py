"""Photos and tables in a bucket of a real S3-compatible server: training, retraining, prediction, failures."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import draw_stripes
from tests.deployments.service import free_port
from tests.deployments.team import random, weed_options
from tests.flows.tiny import tiny_table, tiny_training, write_sales
from unfreeze.flows.predict import predict
from unfreeze.flows.retrain import retrain
from unfreeze.flows.train_images import train_images, train_tables
from unfreeze.models.errors import UserError
from unfreeze.models.images.modality import Images
from unfreeze.models.settings.predict import Predict
from unfreeze.models.settings.retrain import Retrain
from unfreeze.models.store.workspace import Workspace

s3fs = pytest.importorskip("s3fs")
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_api")]
TEAM = Path(__file__).parents[2] / "deployments" / "team"


class Server:
    """SeaweedFS on the loopback; `stop` and `start` keep its objects."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._command = [str(TEAM / "bucket.sh"), *weed_options(folder / "bucket", self.port)]
        self._log = folder / "weed.log"
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, env={**os.environ, "PATH": path}, stdout=log, stderr=log)
        for _ in range(120):
            forget()
            try:
                system = s3fs.S3FileSystem()
                for bucket in system.ls(""):
                    for file in system.find(bucket)[:1]:  # objects can be read later than listed
                        system.cat_file(file)
                return
            except Exception:
                time.sleep(0.5)
        raise TimeoutError(self._log.read_text()[-2000:])

    def stop(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()


def forget() -> None:
    """Have the next file system read the environment again."""
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("s3")
    with pytest.MonkeyPatch.context() as patch:
        server = Server(folder)
        patch.setenv("AWS_ACCESS_KEY_ID", "mlflow")
        patch.setenv("AWS_SECRET_ACCESS_KEY", random())
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
        patch.setenv("AWS_MAX_ATTEMPTS", "1")
        patch.setenv("TMPDIR", str(folder))
        server.start()
        s3fs.S3FileSystem().mkdir("bucket")
        yield server
        server.stop()


@pytest.fixture
def fetched(monkeypatch) -> list[str]:
    """Names of the objects that are fetched, as they are."""
    names, get = list[str](), s3fs.S3FileSystem._get_file

    async def counting(self, rpath, lpath, **kwargs):
        names.append(rpath)
        return await get(self, rpath, lpath, **kwargs)

    monkeypatch.setattr(s3fs.S3FileSystem, "_get_file", counting)
    return names


def put(folder: Path, name: str) -> str:
    """Upload a folder; returns its URL."""
    s3fs.S3FileSystem().put(str(folder), f"bucket/{name}", recursive=True)
    return f"s3://bucket/{name}"


def test_photos_in_a_bucket_are_trained_retrained_and_predicted_there(server, stripes, fetched, tmp_path):
    url = put(stripes, "stripes")
    recipe = [{"name": "all", "train": "all", "lr": 0.01, "cycles": 1}]
    params = tiny_training(url, keep="trained", recipe=recipe, **{"tracking.model_name": "bucket-classifier"})
    trained = train_images(params)
    count = len([file for file in stripes.rglob("*") if file.is_file()])
    assert len(fetched) == count
    assert params.data.source == url
    fetched.clear()
    unchanged = retrain(Retrain(model="bucket-classifier"), return_state=True)
    assert "no new data" in unchanged.message
    assert fetched == []
    draw_stripes(tmp_path / "new", 2, seed=7)
    for file in (tmp_path / "new").rglob("*.png"):
        s3fs.S3FileSystem().put_file(str(file), f"bucket/stripes/{file.parent.name}/{file.name}")
    assert retrain(Retrain(model="bucket-classifier"))["run_id"] != trained["run_id"]
    assert len(fetched) == 4
    out = "s3://bucket/out/predictions.parquet"
    asked = Predict(model="bucket-classifier", source=url, out=out)
    result = predict(asked)
    assert (result["out"], result["rows"], result["unreadable"]) == (out, count + 4, 0)
    with s3fs.S3FileSystem().open(out) as file:
        frame = pd.read_parquet(file)
    assert len(frame) == count + 4
    assert all(path.startswith(f"{url}/") for path in frame["path"])
    assert predict(asked)["predicted"] == 0
    with pytest.raises(UserError, match="exists already"):
        predict(asked.model_copy(update={"top_k": 1}))
    assert predict(asked.model_copy(update={"top_k": 1, "overwrite": True}))["predicted"] == count + 4


def test_a_table_in_a_bucket_is_trained_on_and_predicted(server, tmp_path, fetched):
    (tmp_path / "shop").mkdir()
    url = put(write_sales(tmp_path / "shop"), "shop")
    data = {"data.source": f"{url}/sales.csv", "data.join": [f"{url}/shops.csv on shop"]}
    params = tiny_table(tmp_path / "shop", **data, **{"tracking.model_name": "shop-table"})
    assert train_tables(params)["model"]["version"]
    assert sorted(fetched) == ["bucket/shop/sales.csv", "bucket/shop/shops.csv"]
    result = predict(Predict(model="shop-table", source=f"{url}/sales.csv", out="s3://bucket/out/sales.csv"))
    assert result["rows"] == s3fs.S3FileSystem().cat("bucket/out/sales.csv").count(b"\n") - 1


def test_wrong_credentials_are_one_line_without_them(server, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    forget()
    with pytest.raises(UserError, match="s3://bucket/stripes: ") as error:
        Images().look(tiny_training("s3://bucket/stripes"), Workspace(tmp_path))
    forget()
    assert "\n" not in str(error.value)
    assert "wrong-secret" not in str(error.value)


def test_a_server_that_is_stopped_in_the_middle_is_one_line_and_the_next_run_continues(
    server, stripes, tmp_path, monkeypatch, fetched
):
    params, workspace = tiny_training(put(stripes, "again")), Workspace(tmp_path)
    monkeypatch.setattr("unfreeze.models.reading.remote._MOST_FILES", 10)
    get = s3fs.S3FileSystem._get_file

    async def stopping(self, rpath, lpath, **kwargs):
        if len(fetched) == 25:
            server.stop()
        return await get(self, rpath, lpath, **kwargs)

    with monkeypatch.context() as broken:
        broken.setattr(s3fs.S3FileSystem, "_get_file", stopping)
        with pytest.raises(UserError, match="the same command continues") as error:
            Images().look(params, workspace)
    assert "\n" not in str(error.value)
    server.start()
    fetched.clear()
    count = len([file for file in stripes.rglob("*") if file.is_file()])
    assert len(Images().look(params, workspace)) == count
    assert 0 < len(fetched) <= count - 20
