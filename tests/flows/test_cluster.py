"""Work on a Ray cluster of two nodes, both on this machine."""

import glob
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.tiny import tiny_training
from unfreeze.models.errors import UserError
from unfreeze.models.settings.predict import Predict
from unfreeze.models.settings.search import SweepSpec
from unfreeze.tasks.machine.environment import credentials, home

pytestmark = pytest.mark.usefixtures("prefect_api")


class Nodes:
    """A cluster and its second node."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.second = self.cluster.add_node(num_cpus=1)
        self.address = str(self.cluster.address)

    def lose_second_after(self, pattern: Path) -> threading.Thread:
        """Kill the second node, as a power cut would, once there is a file of a pattern."""

        def lose() -> None:
            while not glob.glob(str(pattern)):
                time.sleep(0.05)
            self.cluster.remove_node(self.second, allow_graceful=False)

        thread = threading.Thread(target=lose, daemon=True)
        thread.start()
        return thread


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    for name in ("raylet_start_wait_time_s", "gcs_rpc_server_connect_timeout_s"):  # both nodes start on few cores
        monkeypatch.setenv(f"RAY_{name}", "120")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", credentials())  # as on the workers of a team's server
    pytest.importorskip("ray")
    nodes = Nodes()
    yield nodes
    nodes.cluster.shutdown()


def predicted(source: Path, out: Path, **options: Any) -> dict[str, Any]:
    from unfreeze.flows.predict import predict

    result: dict[str, Any] = predict(
        Predict(model="lines", source=str(source), out=str(out), device="cpu", chunk=4, **options)
    )
    return result


@pytest.mark.slow
def test_predictions_of_a_cluster_that_loses_a_node_are_those_of_one_machine(
    lines_model: dict[str, Any], stripes: Path, tmp_path: Path, nodes: Nodes
) -> None:
    source = tmp_path / "many"
    for copy in range(4):
        shutil.copytree(stripes, source / str(copy))
    (source / "bad.png").write_bytes(b"no image")
    here = predicted(source, tmp_path / "here.feather")
    lost = nodes.lose_second_after(tmp_path / "there.feather.*.partial" / "*.arrow")
    there = predicted(source, tmp_path / "there.feather", cluster=nodes.address)
    lost.join(60)
    assert not lost.is_alive()
    assert (tmp_path / "there.feather").read_bytes() == (tmp_path / "here.feather").read_bytes()
    assert there["predicted"] == here["rows"] == there["rows"]


@pytest.mark.slow
def test_a_sweep_on_a_cluster_that_loses_a_node_has_all_of_its_trials(
    stripes: Path, tmp_path: Path, nodes: Nodes
) -> None:
    from unfreeze.flows.sweep import sweep

    training = tiny_training(stripes, recipe=[{"name": "all", "train": "all", "lr": 0.01, "cycles": 1}])
    lost = nodes.lose_second_after(home() / "logs" / "sweep-cluster-worker-2.log")
    result = sweep(SweepSpec(study="cluster", trials=6, workers=3, cluster=nodes.address), training)
    lost.join(60)
    assert not lost.is_alive()
    assert result["workers"] == {"started": 2, "died": []}
    assert result["trials"]["complete"] + result["trials"]["pruned"] == 6


def test_a_cluster_without_the_package_is_one_line_that_names_it(
    lines_model: dict[str, Any], stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'unfreeze\[ray\]'"):
        predicted(stripes, tmp_path / "out.csv", cluster="auto")


@pytest.mark.slow
def test_without_a_cluster_ray_is_not_imported() -> None:
    flows = "train_images, predict, sweep, retrain"
    program = f"import sys\nfrom unfreeze.flows import {flows}\nassert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
