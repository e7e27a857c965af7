"""One machine as a service: Prefect's server, MLflow's, a worker and every deployment, started and kept running."""

import hashlib
import ipaddress
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import psutil

from unfreeze.models.errors import UserError
from unfreeze.models.specs.service import Service
from unfreeze.tasks.machine.environment import (
    SERVICE_RECORD,
    WORKING_FOLDER,
    credentials,
    home,
    live_service,
    make_home,
    service_record,
)
from unfreeze.tasks.machine.processes import (
    ROOT,
    data_folder_of,
    flow_runs_here,
    listener,
    mark_of,
    own_module,
    process_of,
    this_process,
)
from unfreeze.tasks.service.prefect_server import own_name, server_settings
from unfreeze.tasks.service.supervise import Part, now, responds, stop_process_tree

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
        given_api, store = os.environ.get("PREFECT_API_URL"), os.environ["MLFLOW_TRACKING_URI"]
        self.own_prefect, self.own_mlflow = given_api is None, not store.startswith("http")
        _refuse_open_server(self.settings.host, self.own_mlflow)
        host = own_name(self.settings.host)
        self.prefect = given_api or f"http://{host}:{self.settings.prefect_port}/api"
        self.mlflow = f"http://{host}:{self.settings.mlflow_port}" if self.own_mlflow else store
        make_home()
        self.since = now()
        environment = self.environment()
        if self.own_prefect:
            protected = {
                **environment,
                **server_settings(host, self.settings.prefect_port),
                # Besides the credentials, so that no other page can use those that the browser has saved.
                "PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true",
            }
            self._start_server("Prefect", self.settings.prefect_port, self._prefect_command(), protected)
        if self.own_mlflow:
            # The address may hold a password, and everybody can read a command line.
            with_store = {**environment, "MLFLOW_BACKEND_STORE_URI": store}
            self._start_server("MLflow", self.settings.mlflow_port, self._mlflow_command(), with_store)
        self._wait("Prefect", self.prefect)
        shared = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI")
        os.environ.update({name: environment[name] for name in shared if name in environment})
        worker = self._part("worker", self._worker_command(), environment, self._worker_is_online)
        worker.children_outlive_it = True
        self._record()
        from unfreeze.tasks.service.deployments import register_deployments  # prefect, which takes seconds, meanwhile

        count = register_deployments(self.settings.pool, environment)
        self.report(f"{count} deployments in work pool {self.settings.pool}")
        self._wait("MLflow", self.mlflow)
        worker.wait_until_it_answers(SECONDS_TO_START)

    def environment(self) -> dict[str, str]:
        """Variables of every part."""
        account = {"PREFECT_API_AUTH_STRING": credentials()} if self.own_prefect else {}
        from_clone = {}
        if (ROOT / "pyproject.toml").exists():  # it need not be installed
            from_clone["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {
            # A run whose process vanished would stay Running: the heartbeat lets an automation see it.
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            **os.environ,
            **account,
            **from_clone,
            "UNFREEZE_HOME": str(home()),
            WORKING_FOLDER: os.getcwd(),
            "PREFECT_API_URL": self.prefect,
            "PREFECT_UI_API_URL": self.prefect,
            "PREFECT_UI_URL": self.prefect.removesuffix("/api"),
            "MLFLOW_TRACKING_URI": self.mlflow,
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

    def _part(self, name: str, command: list[str], environment: Mapping[str, str], answers: Callable[[], bool]) -> Part:
        """Start a part; not in the working folder, whose files might have the names of modules."""
        part = Part(name, command, environment, home(), home() / "logs" / f"{name.lower()}.log", answers)
        part.start()
        self.parts.append(part)
        return part

    def _start_server(self, name: str, port: int, command: list[str], environment: Mapping[str, str]) -> None:
        _require_free_port(self.settings.host, port, f"--{name.lower()}_port")
        address = self.prefect if name == "Prefect" else self.mlflow
        self._part(name, command, environment, lambda: responds(f"{address}/health"))

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
        host = own_name(self.settings.host)
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", self.settings.host, "--port", str(self.settings.mlflow_port)),
            # Runs without this server write to the same folder, so both see all artifacts.
            *("--default-artifact-root", (home() / "mlflow-artifacts").as_uri(), "--no-serve-artifacts"),
            *("--workers", "1"),  # four processes would each take seconds to start
            # Without it MLflow refuses requests that name any host but the loopback.
            *("--allowed-hosts", f"{host}:*,{host},localhost:*,127.0.0.1:*"),
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
        # Commands on this machine; servers elsewhere are known by the environment.
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
        running = {part.name: part.process.pid for part in self.parts if part.process and part.process.poll() is None}
        record = {
            **this_process(),
            "user": os.getuid(),
            "since": self.since,
            "prefect": f"http://{host}:{self.settings.prefect_port}/api" if self.own_prefect else None,
            "mlflow": f"http://{host}:{self.settings.mlflow_port}" if self.own_mlflow else None,
            "pool": self.settings.pool,
            "parts": {name: mark_of(psutil.Process(pid)) for name, pid in running.items()},
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


def _refuse_second(report: Report) -> None:
    """One service a folder; the parts of one that was killed are stopped first."""
    if live_service() is not None:
        raise UserError(f"a service of {home()} is running already: see `unfreeze status`, or give another --data")
    parts = (service_record() or {}).get("parts")
    for name, mark in parts.items() if isinstance(parts, dict) else ():
        process = process_of(mark)
        if process is not None and data_folder_of(process) == str(home()):
            report(f"stopping {name} (process {process.pid}), which a service that was killed left behind")
            stop_process_tree(process.pid)
    (home() / SERVICE_RECORD).unlink(missing_ok=True)


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
