"""A training while its MLflow server is stopped, killed again and again, or locked out of its database.

For each disturbance the same small training on the digits runs against a real `mlflow server` on SQLite, and then
`unfreeze sync`. A row shows the seconds that the stages took, those of the whole command, and whether MLflow has each
step of each metric once, as after the undisturbed training, and one version of the model. `elsewhere` shows what a
server that is started again and again takes from a training that does not use it.
"""

import argparse
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from mlflow import MlflowClient

SECONDS = 45
EPOCHS = 12


class Server:
    """An `mlflow server` of one's own on SQLite, with its artifacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers."""
        store = ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        artifacts = ["--artifacts-destination", str(self.folder / "artifacts")]
        listen = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *listen, *store, *artifacts],
                # Seven processes that serve what unfreeze does not use.
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self.answers():
            time.sleep(0.2)

    def answers(self) -> bool:
        """Whether it does."""
        try:
            return httpx.get(f"{self.address}/health", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """Kill it, as a loss of power would."""
        self.signal(signal.SIGKILL)
        self.process.wait()


def stopped(server: Server, seconds: float) -> None:
    """It takes connections and does not answer."""
    server.signal(signal.SIGSTOP)
    time.sleep(seconds)
    server.signal(signal.SIGCONT)


def killed(server: Server, seconds: float) -> None:
    """It is killed at random moments, and started again."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        server.kill()
        time.sleep(random.uniform(0.5, 3))
        server.start()
        time.sleep(random.uniform(0.2, 2))


def elsewhere(server: Server, seconds: float) -> None:
    """A server that nobody uses is killed and started again: what the processor time of `killed` alone costs."""
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as other:
        killed(other, seconds)


def gone(server: Server, seconds: float) -> None:
    """It is killed for good; whoever measures starts it again."""
    server.kill()


def locked(server: Server, seconds: float) -> None:
    """Its database is held by another process."""
    database = sqlite3.connect(server.folder / "mlflow.db", isolation_level=None, timeout=60)
    database.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    database.execute("ROLLBACK")
    database.close()


def undisturbed(server: Server, seconds: float) -> None:
    """Nothing happens."""


DISTURBANCES: dict[str, Callable[[Server, float], None]] = {
    "stopped": stopped,
    "killed": killed,
    "gone": gone,
    "locked": locked,
}
CONTROLS: dict[str, Callable[[Server, float], None]] = {"undisturbed": undisturbed, "elsewhere": elsewhere}


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server that ends with the block."""
    server = Server(folder)
    try:
        yield server
    finally:
        server.signal(signal.SIGCONT)
        server.kill()


def train(server: Server, disturb: Callable[[], None], epochs: int) -> dict[str, Any]:
    """Train, disturb from the first epoch's end on, deliver, and tell what MLflow has."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "UNFREEZE_HOME": str(server.folder / "home"),
        "MLFLOW_TRACKING_URI": server.address,
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    spec = {
        "data": {"source": "digits", "size": 32},
        "model": {"backbone": "timm/test_resnet", "weights": "none", "head_width": 16},
        "recipe": [{"name": "full", "train": "all", "lr": 0.01, "ratio": 3, "cycles": epochs}],
        "tracking": {"system_metrics": False},
        "device": "cpu",
    }
    config = server.folder / "spec.json"
    config.write_text(json.dumps(spec))
    unfreeze = [sys.executable, "-m", "unfreeze.flows.cli"]
    command = [*unfreeze, "train", "--config", str(config), "--json"]
    began = time.perf_counter()
    pipe = subprocess.PIPE
    lines: list[str] = []
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        disturber = threading.Thread(target=disturb)
        for line in process.stderr:
            lines.append(line)
            if "full: epoch 1 of" in line:
                disturber.start()
        printed = process.stdout.read()
    seconds = time.perf_counter() - began
    if process.returncode != 0:
        sys.exit("".join(lines))
    disturber.join()
    if not server.answers():
        server.start()
    synced = subprocess.run([*unfreeze, "sync"], env=environment, capture_output=True, text=True)
    result = json.loads(printed.splitlines()[-1])
    client = MlflowClient(server.address)
    run = client.get_run(result["run_id"])
    steps = Counter(
        (key, metric.step) for key in run.data.metrics for metric in client.get_metric_history(result["run_id"], key)
    )
    return {
        "stages": sum(stage["seconds"] for stage in result["stages"]),
        "command": seconds,
        "status": run.info.status,
        "synced": synced.stderr.strip(),
        "steps": steps,
        "versions": len(client.search_model_versions(f"run_id = '{result['run_id']}'")),
        "notices": [line for line in lines if "MLflow" in line and "MLflow run" not in line],
        "tracebacks": sum("Traceback" in line for line in lines),
    }


def main() -> None:
    """Measure and print a row for each disturbance."""
    parser = argparse.ArgumentParser()
    parser.add_argument("disturbances", nargs="*", default=["elsewhere", *DISTURBANCES])
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    known = CONTROLS | DISTURBANCES
    if unknown := set(options.disturbances) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
    expected: dict[str, Any] = {}
    print(f"{'MLflow':12} {'stages':>8} {'command':>9}  status    metrics     versions  after `unfreeze sync`")
    for name in ("undisturbed", *options.disturbances):
        with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as server:
            disturb = partial(known[name], server, options.seconds)
            found = train(server, disturb, options.epochs)
        expected = expected or found
        same = "once each" if found["steps"] == expected["steps"] else "DIFFERENT"
        print(
            f"{name:12} {found['stages']:6.1f} s {found['command']:7.1f} s  {found['status']}  {same}   "
            f"{found['versions']}         {found['synced']}",
            flush=True,
        )
        if options.verbose:
            print("".join(found["notices"]), f"{found['tracebacks']} tracebacks", flush=True)


if __name__ == "__main__":
    main()
