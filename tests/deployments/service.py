"""A Prefect server and a process worker of one's own, as `prefect.yaml` describes them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    _csrf: dict[str, str] | None = field(default=None, init=False)

    def command(self, *arguments: str) -> str:
        """Run `python -m ...` from the project's folder; returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=PROJECT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the Prefect API with the environment's credentials; returns its JSON, None without content."""
        user, _, password = self.environment.get("PREFECT_API_AUTH_STRING", "").partition(":")
        credentials = (user, password) if user else None
        if self._csrf is None:
            client = str(uuid.uuid4())
            answer = httpx.get(f"{self.api}/csrf-token", params={"client": client}, auth=credentials, timeout=60)
            token = answer.json().get("token")  # none where the server asks for none
            self._csrf = {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token} if token else {}
        for _ in range(5):
            answer = httpx.request(
                method, f"{self.api}{path}", json=body, auth=credentials, headers=self._csrf, timeout=60
            )
            if answer.status_code != 503:  # a database that is busy for too long; Prefect's own client asks again, too
                break
            time.sleep(1)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def start(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Start a deployment's flow; returns the flow run's id."""
        found = self.request("GET", f"/deployments/name/{deployment}")
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.request("POST", f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """A flow run as the server knows it."""
        run: dict[str, Any] = self.request("GET", f"/flow_runs/{flow_run_id}")
        return run

    def log(self, flow_run_id: str) -> list[str]:
        """Lines that a flow run has logged so far."""
        wanted = {"logs": {"flow_run_id": {"any_": [flow_run_id]}}, "sort": "TIMESTAMP_ASC"}
        return [str(each["message"]) for each in self.request("POST", "/logs/filter", wanted)]

    def wait(self, flow_run_id: str, *states: str, seconds: float = 180) -> dict[str, Any]:
        """Wait until a flow run is in one of `states`."""
        found = until(lambda: self.flow_run(flow_run_id)["state_type"] in states, seconds)
        run, logs = self.flow_run(flow_run_id), sorted(self.home.glob("worker*.log"))
        assert found, "\n".join([json.dumps(run["state"]), *(log.read_text()[-3000:] for log in logs)])
        return run


@dataclass
class Up(Service):
    """What `unfreeze up` runs: the service, its process and the address of MLflow."""

    process: subprocess.Popen[bytes]
    mlflow: str

    @property
    def data(self) -> Path:
        """Its data folder."""
        return self.home / "data"

    @property
    def printed(self) -> str:
        """What `unfreeze up` has printed."""
        return (self.home / "up.log").read_text()

    def record(self) -> dict[str, Any]:
        """What it recorded for other commands."""
        record: dict[str, Any] = json.loads((self.data / "service.json").read_text())
        return record

    def unfreeze(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command from another terminal, whose environment holds nothing but the data folder."""
        return unfreeze(self.data, *arguments)


def own_environment(data: Path) -> dict[str, str]:
    """The environment of a person who has set the data folder only, and not what the tests' own have."""
    ours = ("UNFREEZE_HOME", "PREFECT_", "MLFLOW_TRACKING_URI")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(ours)},
        "UNFREEZE_HOME": str(data),
    }


def unfreeze(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `unfreeze` for a data folder."""
    command = [sys.executable, "-m", "unfreeze.flows.cli", *arguments]
    return subprocess.run(command, cwd=PROJECT, env=own_environment(data), capture_output=True, text=True)


@contextmanager
def running_up(
    home: Path, command: Sequence[str] = (sys.executable, "-m", "unfreeze.flows.cli"), **environment: str
) -> Iterator[Up]:
    """Run `unfreeze up` on free ports until the block ends; its data folder is ``home / "data"``.

    The command is ours from the project's folder, or another one that is run in `home`.
    """
    data, folder = home / "data", PROJECT if command[0] == sys.executable else home
    environment = {**own_environment(data), **environment}
    ports = free_port(), free_port()
    flags = ["--prefect_port", str(ports[0]), "--mlflow_port", str(ports[1]), "--data", str(data)]
    with (home / "up.log").open("wb") as log:
        process = subprocess.Popen([*command, "up", *flags], cwd=folder, env=environment, stdout=log, stderr=log)
    up = Up(f"http://127.0.0.1:{ports[0]}/api", home, environment, process, f"http://127.0.0.1:{ports[1]}")
    try:
        assert until(lambda: "ready after" in up.printed or process.poll() is not None, 300), up.printed
        assert process.poll() is None, up.printed
        if "PREFECT_API_URL" not in environment:
            environment["PREFECT_API_AUTH_STRING"] = (data / "prefect.auth").read_text().strip()
        yield up
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(90)


class Processes:
    """Processes of one's own, each with a log file in `home`; stopped in the reverse order."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home = home
        self._running: list[tuple[subprocess.Popen[bytes], signal.Signals]] = []

    def start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        stop_with: signal.Signals = signal.SIGTERM,
        user: str | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process in the project's folder."""
        with (self.home / f"{name}.log").open("a") as log:
            process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=log, stderr=log, user=user)
        self._running.append((process, stop_with))
        return process

    def wait_for(self, name: str, address: str, seconds: float = 120) -> None:
        """Wait until what was started as `name` answers a GET of `address`."""

        def answers() -> bool:
            try:
                return httpx.get(address).status_code == 200
            except httpx.HTTPError:
                return False

        assert until(answers, seconds), (self.home / f"{name}.log").read_text()[-3000:]

    def stop(self) -> None:
        """Stop all."""
        for process, stop_with in reversed(self._running):
            process.send_signal(stop_with)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


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


def prefect(*arguments: str) -> list[str]:
    """The command line of a Prefect command."""
    return [sys.executable, "-m", "prefect", *arguments]


@contextmanager
def running_server(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a Prefect server alone, logging into a folder, until the block ends; yields the address of its API."""
    port, processes = free_port(), Processes(folder)
    try:
        processes.start("server", prefect("server", "start", "--host", "127.0.0.1", "--port", str(port)), environment)
        processes.wait_for("server", f"http://127.0.0.1:{port}/api/health", 300)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        processes.stop()


@contextmanager
def running_service(home: Path) -> Iterator[Service]:
    """Start a server and a worker with every deployment of `prefect.yaml`, and stop them as the block ends."""
    environment = {
        **os.environ,
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_LOCAL_STORAGE_PATH": str(home / "prefect" / "storage"),
        "UNFREEZE_HOME": str(home / "unfreeze"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home / 'unfreeze' / 'mlflow.db'}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "2",
    }
    with running_server(home, environment) as api:
        environment["PREFECT_API_URL"] = api
        service = Service(api, home, environment)
        service.command("prefect", "work-pool", "create", "local", "--type", "process")
        service.command("prefect", "deploy", "--all", "--no-prompt")
        workers = Processes(home)
        try:
            workers.start("worker", prefect("worker", "start", "--pool", "local", "--limit", "1"), environment)
            yield service
        finally:
            workers.stop()
