"""A Prefect server and a process worker of one's own, as `prefect.yaml` describes them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

PROJECT = Path(__file__).parents[2]


@dataclass
class Service:
    """Addresses of what runs, and the environment a command needs to find it."""

    api: str
    home: Path
    environment: dict[str, str]

    def command(self, *arguments: str) -> str:
        """Run `python -m ...` from the project's folder; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments], cwd=PROJECT, env=self.environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a deployment's flow; returns the flow run's id."""
        found = httpx.get(f"{self.api}/deployments/name/{deployment}").raise_for_status().json()
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        created = httpx.post(f"{self.api}/deployments/{found['id']}/create_flow_run", json=body).raise_for_status()
        return str(created.json()["id"])

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """A flow run as the server knows it."""
        run: dict[str, Any] = httpx.get(f"{self.api}/flow_runs/{flow_run_id}").raise_for_status().json()
        return run

    def wait(self, flow_run_id: str, *states: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a flow run is in one of `states`."""
        found = until(lambda: self.flow_run(flow_run_id)["state_type"] in states, seconds)
        run, log = self.flow_run(flow_run_id), (self.home / "worker.log").read_text()
        assert found, f"{json.dumps(run['state'])}\n{log[-3000:]}"
        return run


def until(is_true: Callable[[], bool], seconds: float) -> bool:
    """Ask twice a second; returns whether it came true in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if is_true():
            return True
        time.sleep(0.5)
    return False


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running_service(home: Path) -> Iterator[Service]:
    """Start a server and a worker with every deployment of `prefect.yaml`, and stop them as the block ends."""
    home.mkdir(parents=True)
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "prefect" / "storage"),
        "UNFREEZE_HOME": str(home / "unfreeze"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'unfreeze' / 'mlflow.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    started: list[subprocess.Popen[bytes]] = []

    def start(name: str, *arguments: str) -> None:
        with (home / f"{name}.log").open("w") as log:
            command = [sys.executable, "-m", "prefect", *arguments]
            started.append(subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log))

    def answers() -> bool:
        try:
            return httpx.get(f"{api}/health").status_code == 200
        except httpx.HTTPError:
            return False

    try:
        start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        assert until(answers, 120), (home / "server.log").read_text()
        environment["PREFECT_API_URL"] = api
        service = Service(api, home, environment)
        service.command("prefect", "work-pool", "create", "local", "--type", "process")
        service.command("prefect", "deploy", "--all", "--no-prompt")
        start("worker", "worker", "start", "--pool", "local", "--limit", "1")
        yield service
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(30)
