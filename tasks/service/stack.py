"""One machine as a service: Prefect's server, MLflow's, a worker and every deployment, started and kept running."""

import hashlib
import ipaddress
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from unfreeze.models.errors import UserError
from unfreeze.models.specs.service import Service
from unfreeze.tasks.machine.environment import (
    SERVICE_RECORD,
    credentials,
    home,
    live_service,
    make_home,
    service_record,
)
from unfreeze.tasks.machine.processes import ROOT, data_folder_of, flow_runs_here, listener, own_module, this_process
from unfreeze.tasks.service.prefect_server import responds, server_settings
from unfreeze.tasks.service.supervise import Part, now, stop_process_tree

SECONDS_TO_START = 120
SECONDS_TO_CHECKPOINT = 45
"""A flow run that is cancelled gets 30 s for its last checkpoint; some more for the worker to notice."""

Report = Callable[[str], None]


@dataclass
class Stack:
    """What runs: parts of ours, and the addresses of all, whoever started them.

    A server is ours unless its address is given in the environment.

    Parameters
    ----------
    settings
        Ports, pool and limit.
    report
        Called with a line of news.
    """

    settings: Service
    report: Report
    parts: list[Part] = field(default_factory=list)
    prefect: str = ""
    """Address of the API, ending in /api."""
    mlflow: str = ""
    own_prefect: bool = True
    own_mlflow: bool = True
    since: str = ""
    """When it began, ISO 8601 with the time zone."""

    def start(self) -> None:
        """Start what is not there yet, register the deployments, and wait until a worker is online.

        Raises
        ------
        UserError
            If a service runs already in this folder, a port is taken, or a part does not come up.
        """
        _refuse_second(self.report)
        if not (ROOT / "prefect.yaml").exists():
            raise UserError(f"no prefect.yaml in {ROOT}: install unfreeze from its clone (pip install -e .)")
        given_api, given_mlflow = os.environ.get("PREFECT_API_URL"), os.environ.get("MLFLOW_TRACKING_URI", "")
        self.own_prefect, self.own_mlflow = given_api is None, not given_mlflow.startswith("http")
        _refuse_open_server(self.settings.host, self.own_mlflow)
        self.prefect = given_api or f"http://{self.host}:{self.settings.prefect_port}/api"
        self.mlflow = f"http://{self.host}:{self.settings.mlflow_port}" if self.own_mlflow else given_mlflow
        make_home()
        self.since = now()
        environment = self.environment()
        if self.own_prefect:
            command = self._prefect_command()
            protected = {**environment, **server_settings(self.host, self.settings.prefect_port)}
            # The page asks for credentials; a token besides, so that no other page can use what the browser has saved.
            protected["PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED"] = "true"
            self._start("Prefect", self.prefect, command, protected, "--prefect_port")
        if self.own_mlflow:
            self._start("MLflow", self.mlflow, self._mlflow_command(), environment, "--mlflow_port")
        self._wait("Prefect", self.prefect)
        shared = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI")
        os.environ.update({name: environment[name] for name in shared if name in environment})
        command, log = self._worker_command(), _log("worker")
        worker = Part("worker", command, environment, ROOT, log, self._worker_is_online, children_outlive_it=True)
        worker.start()
        self.parts.append(worker)
        self._record()
        from unfreeze.tasks.service.deployments import register_deployments  # prefect, which takes seconds, meanwhile

        count = register_deployments(ROOT, self.settings.pool, environment)
        self.report(f"{count} deployments in work pool {self.settings.pool}")
        self._wait("MLflow", self.mlflow)
        worker.wait_until_it_answers(SECONDS_TO_START)

    @property
    def host(self) -> str:
        """The name that browsers and workers use: a server that listens everywhere has no address of its own."""
        return socket.gethostname() if self.settings.host in ("0.0.0.0", "::") else self.settings.host

    def environment(self) -> dict[str, str]:
        """Variables of every part, and of whoever wants to use them."""
        ui = self.prefect.removesuffix("/api")
        account = {"PREFECT_API_AUTH_STRING": credentials()} if self.own_prefect else {}
        return {
            **os.environ,
            **account,
            "UNFREEZE_HOME": str(home()),
            "PREFECT_API_URL": self.prefect,
            "PREFECT_UI_API_URL": self.prefect,
            "PREFECT_UI_URL": ui,
            "MLFLOW_TRACKING_URI": self.mlflow,
            # A run whose process vanished would stay Running: the heartbeat lets an automation see it.
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "30"),
            "PREFECT_WORKER_QUERY_SECONDS": os.environ.get("PREFECT_WORKER_QUERY_SECONDS", "2"),
            "PYTHONUNBUFFERED": "1",
            # Seven processes that serve what unfreeze does not use.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def watch(self) -> None:
        """Restart parts that die, until interrupted."""
        while True:
            for part in self.parts:
                if part.restart_if_dead():
                    self.report(f"{part.name} ended and was started again; its log: {part.log}")
                    self._record()
            time.sleep(1)

    def stop(self) -> None:
        """Stop flow runs with a checkpoint, then every part, the last started first; for a stack that has parts."""
        if any(part.name == "worker" for part in self.parts):
            from unfreeze.tasks.service.deployments import cancel_running

            try:
                # A server that others use as well has runs of their workers in the same pool.
                ours = None if self.own_prefect else flow_runs_here(home())
                stopping = cancel_running(self.settings.pool, SECONDS_TO_CHECKPOINT, self.report, ours)
                if stopping:
                    self.report(f"{stopping} flow runs were cancelled; `unfreeze resume` resumes a training")
            except Exception as error:  # the API may be what failed; the parts are to be stopped all the same
                self.report(f"flow runs could not be cancelled: {error}")
        for part in reversed(self.parts):
            part.stop()
        (home() / SERVICE_RECORD).unlink(missing_ok=True)

    def _start(self, name: str, address: str, command: list[str], environment: dict[str, str], flag: str) -> None:
        def answers() -> bool:
            return responds(f"{address}/health")

        _require_free_port(self.settings.host, int(address.removesuffix("/api").rsplit(":", 1)[1]), flag)
        part = Part(name, command, environment, ROOT, _log(name.lower()), answers)
        part.start()
        self.parts.append(part)

    def _wait(self, name: str, address: str) -> None:
        part = next((part for part in self.parts if part.name == name), None)
        if part is not None:
            part.wait_until_it_answers(SECONDS_TO_START)
        elif not responds(f"{address}/health"):
            variable = "PREFECT_API_URL" if name == "Prefect" else "MLFLOW_TRACKING_URI"
            raise UserError(f"{name} does not answer at {address}; start it, or unset {variable}")

    def _prefect_command(self) -> list[str]:
        host, port = self.settings.host, str(self.settings.prefect_port)
        return own_module("unfreeze.tasks.service.prefect_server", "--host", host, "--port", port)

    def _mlflow_command(self) -> list[str]:
        store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{home() / 'mlflow.db'}")
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", self.settings.host, "--port", str(self.settings.mlflow_port)),
            *("--backend-store-uri", store),
            # Runs without this server write to the same folder, so both see all artifacts.
            *("--default-artifact-root", (home() / "mlflow-artifacts").as_uri(), "--no-serve-artifacts"),
            *("--workers", "1"),  # four processes would each take seconds to start
            # Without it MLflow refuses requests that name any host but the loopback.
            *("--allowed-hosts", f"{self.host}:*,{self.host},localhost:*,127.0.0.1:*"),
        ]

    def _worker_command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "prefect", "worker", "start", "--pool", self.settings.pool, "--type", "process"),
            *("--limit", str(self.settings.limit), "--name", self.worker_name),
        ]

    @property
    def worker_name(self) -> str:
        """The worker's name on the Prefect page; workers of other data folders have other names."""
        folder = hashlib.blake2b(str(home()).encode(), digest_size=4).hexdigest()  # Prefect allows no path here
        return f"unfreeze on {socket.gethostname()} ({folder})"

    def _worker_is_online(self) -> bool:
        from unfreeze.tasks.service.deployments import online_workers

        return self.worker_name in online_workers(self.settings.pool)

    def _record(self) -> None:
        """Note what runs, so that other commands find it, and a later `up` what this one may leave behind."""
        processes = {part.name: part.process.pid for part in self.parts if part.process is not None}
        record = {
            **this_process(),
            "user": os.getuid(),
            "since": self.since,
            # Commands on this machine; servers elsewhere are known by the environment.
            "prefect": f"http://{_loopback(self.settings.host)}:{self.settings.prefect_port}/api"
            if self.own_prefect
            else None,
            "mlflow": f"http://{_loopback(self.settings.host)}:{self.settings.mlflow_port}"
            if self.own_mlflow
            else None,
            "pool": self.settings.pool,
            "parts": {
                name: f"{pid}:{psutil.Process(pid).create_time():.0f}"
                for name, pid in processes.items()
                if psutil.pid_exists(pid)
            },
            "health": {
                part.name: {
                    "restarts": part.restarts,
                    "last_restart": part.last_restart,
                    "log": str(part.log),
                    "log_begins": part.log_begins,
                }
                for part in self.parts
            },
        }
        temporary = home() / f"{SERVICE_RECORD}.tmp"
        temporary.write_text(json.dumps(record, indent=1))
        os.replace(temporary, home() / SERVICE_RECORD)


def _loopback(host: str) -> str:
    """The address under which this machine's own commands reach what listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::") else host


def _log(name: str) -> Path:
    return home() / "logs" / f"{name}.log"


def _refuse_second(report: Report) -> None:
    """One service a folder; the parts of one that was killed are stopped first."""
    if live_service() is not None:
        raise UserError(f"a service of {home()} is running already: see `unfreeze status`, or give another --data")
    record = service_record()
    if record is None:
        return
    parts = record.get("parts")
    for name, text in parts.items() if isinstance(parts, dict) else ():
        pid, _, created = str(text).partition(":")
        try:
            process = psutil.Process(int(pid))
            if abs(process.create_time() - float(created)) < 2 and data_folder_of(process) == str(home()):
                report(f"stopping {name} (process {pid}), which a service that was killed left behind")
                stop_process_tree(int(pid))
        except (psutil.NoSuchProcess, ValueError):  # ValueError: a record that we did not write
            continue
    (home() / SERVICE_RECORD).unlink()


def _refuse_open_server(host: str, own_mlflow: bool) -> None:
    """MLflow as `up` starts it has no accounts, so that it may listen on the loopback only."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if own_mlflow and not is_loopback:
        raise UserError(
            f"--host {host}: MLflow would be open to the network without an account. Set MLFLOW_TRACKING_URI to a "
            "server with accounts (docs/team-server.md), or omit --host and use an SSH tunnel to this machine"
        )


def _require_free_port(host: str, port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return
        except OSError as error:
            reason = error.strerror
    process = listener(port)
    folder = data_folder_of(process) if process is not None else None
    if folder is not None:
        reason = f"it is the service of {folder}"
    elif process is not None:
        reason = f"process {process.pid} listens there"
    raise UserError(f"{flag}: {host}:{port} is taken: {reason}; choose another port")
