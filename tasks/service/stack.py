"""The service of one machine: Prefect, MLflow, a worker and all deployments, started and kept running."""

import hashlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from unfreeze.models.errors import UserError
from unfreeze.models.settings.retrain import Service
from unfreeze.tasks.machine.environment import (
    SERVICE_RECORD,
    WORKING_FOLDER,
    credentials,
    home,
    is_loopback,
    keep_from_proxies,
    live_service,
    make_home,
    service_record,
)
from unfreeze.tasks.machine.processes import ROOT, environment_of, mark_of, own_module, process_of, this_process
from unfreeze.tasks.machine.servers import require_prefect, responds
from unfreeze.tasks.service.prefect_server import end_gone_runs, own_name, server_settings
from unfreeze.tasks.service.supervise import Part, stop_process_tree, wait_for

SECONDS_TO_START = 120
SECONDS_TO_CHECKPOINT = 45
"""A cancelled flow run has 30 s for its last checkpoint; the rest is for the worker to notice."""
SECONDS_BETWEEN_LOOKS = 60
"""Seconds between searches for runs of dead processes."""

Report = Callable[[str], None]


@dataclass
class Stack:
    """Our running parts, and the addresses of both servers, which the environment may set."""

    settings: Service
    report: Report
    """Called with a line of news."""
    parts: list[Part] = field(default_factory=list)
    prefect: str = ""
    """Address of the API, ending in /api."""
    mlflow: str = ""

    def start(self) -> None:
        """Start missing parts, register the deployments, and wait until a worker is online.

        Raises
        ------
        UserError
            If a service already runs in this folder, a port is taken, or a part does not come up.
        """
        _refuse_second(self.report)
        given_prefect, store = os.environ.get("PREFECT_API_URL"), os.environ["MLFLOW_TRACKING_URI"]
        given_mlflow = store if store.startswith("http") else None
        if given_mlflow is None and not is_loopback(self.settings.host):
            raise UserError(
                f"--host {self.settings.host}: MLflow would be open to the network without an account. Set "
                "MLFLOW_TRACKING_URI to a server with accounts (docs/howto/team-server.md), or omit --host and use an "
                "SSH tunnel to this machine"
            )
        host, ports = own_name(self.settings.host), (self.settings.prefect_port, self.settings.mlflow_port)
        self.prefect = given_prefect or f"http://{host}:{ports[0]}/api"
        self.mlflow = given_mlflow or f"http://{host}:{ports[1]}"
        make_home()
        keep_from_proxies(host)
        environment = self._environment({} if given_prefect else {"PREFECT_API_AUTH_STRING": credentials()})
        require_prefect()
        if not given_prefect:
            # Credentials and a token, so that other pages cannot use the credentials saved by the browser.
            token = {"PREFECT_SERVER_API_CSRF_PROTECTION_ENABLED": "true"}
            protected = {**environment, **server_settings(host, ports[0]), **token}
            _require_free_port(self.settings.host, ports[0], "--prefect_port")
            flags = ("--host", self.settings.host, "--port", str(ports[0]))
            command = own_module("unfreeze.tasks.service.prefect_server", *flags)
            self._start("Prefect", command, protected, lambda: responds(f"{self.prefect}/health"))
        if not given_mlflow:
            # The address may hold a password, and command lines are public.
            with_store = {**environment, "MLFLOW_BACKEND_STORE_URI": store}
            _require_free_port(self.settings.host, ports[1], "--mlflow_port")
            self._start("MLflow", self._mlflow_command(), with_store, lambda: responds(f"{self.mlflow}/health"))
        if self.runs("Prefect"):
            self._wait_for(self.parts[0])
        shared = ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "MLFLOW_TRACKING_URI")
        os.environ.update({name: environment[name] for name in shared if name in environment})
        self._start("worker", self._worker_command(), environment, self._worker_is_online)
        self._record()
        from unfreeze.tasks.service.deployments import register_deployments  # imports prefect (seconds) meanwhile

        count = register_deployments(self.settings.pool, environment)
        self.report(f"{count} deployments in work pool {self.settings.pool}")
        for part in self.parts:
            self._wait_for(part)

    def runs(self, name: str) -> bool:
        """Whether this stack runs a part, by name (Prefect, MLflow or the worker)."""
        return any(part.name == name for part in self.parts)

    def _environment(self, account: Mapping[str, str]) -> dict[str, str]:
        """Environment variables of every part."""
        from_clone = {}
        if (ROOT / "pyproject.toml").exists():  # the package may not be installed
            from_clone["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        return {
            # Heartbeats let an automation detect runs of dead processes, which would stay Running.
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
            # Seven processes for features that unfreeze does not use.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        }

    def watch(self) -> None:
        """Restart dead parts, and end runs of dead processes, until interrupted."""
        threading.Thread(target=_end_gone_runs, daemon=True).start()
        while True:
            for part in self.parts:
                if part.restart_if_dead():
                    self.report(f"{part.name} ended and was started again; its log: {part.log}")
                    self._record()
            time.sleep(1)

    def stop(self) -> None:
        """Stop flow runs with a checkpoint, then all parts in reverse order; only for a stack with parts."""
        if self.runs("worker"):
            from unfreeze.tasks.service.deployments import cancel_running

            try:
                environments = [environment_of(process) for process in psutil.process_iter()]
                # A shared server has runs of other users' workers in the same pool.
                here = {
                    each.get("PREFECT__FLOW_RUN_ID")
                    for each in environments
                    if each.get("UNFREEZE_HOME") == str(home())
                }
                stopping = cancel_running(self.settings.pool, here, SECONDS_TO_CHECKPOINT, self.report)
                if stopping:
                    self.report(f"{stopping} flow runs were cancelled; `unfreeze resume` resumes a training")
            except Exception as error:  # the API may have failed; the parts must be stopped anyway
                self.report(f"flow runs could not be cancelled: {error}")
        for part in reversed(self.parts):
            part.stop()
        (home() / SERVICE_RECORD).unlink(missing_ok=True)

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str], answers: Callable[[], bool]
    ) -> None:
        log = home() / "logs" / f"{name.lower()}.log"
        self.parts.append(Part(name, command, environment, log, answers, children_outlive_it=name == "worker"))

    def _wait_for(self, part: Part) -> None:
        wait_for(part.name, part.process, part.answers, part.log, SECONDS_TO_START)

    def _mlflow_command(self) -> list[str]:
        host = own_name(self.settings.host)
        return [
            *(sys.executable, "-m", "mlflow", "server"),
            *("--host", self.settings.host, "--port", str(self.settings.mlflow_port)),
            # The folder that runs without this server write to, so both see all artifacts.
            *("--default-artifact-root", (home() / "mlflow-artifacts").as_uri(), "--no-serve-artifacts"),
            *("--workers", "1"),  # four processes would each take seconds to start
            # Without it MLflow refuses requests to any host but loopback.
            *("--allowed-hosts", f"{host}:*,{host},localhost:*,127.0.0.1:*"),
        ]

    def _worker_command(self) -> list[str]:
        return [
            *(sys.executable, "-m", "prefect", "worker", "start", "--pool", self.settings.pool, "--type", "process"),
            *("--limit", str(self.settings.limit), "--name", self.worker_name),
        ]

    @property
    def worker_name(self) -> str:
        """The worker's name on the Prefect page, unique to the data folder."""
        folder = hashlib.blake2b(str(home()).encode(), digest_size=4).hexdigest()  # Prefect allows no path here
        return f"unfreeze on {socket.gethostname()} ({folder})"

    def _worker_is_online(self) -> bool:
        from unfreeze.tasks.service.deployments import online_workers

        return self.worker_name in online_workers(self.settings.pool)

    def _record(self) -> None:
        """Write `service.json`, from which other commands know the servers and a later `up` its leftovers."""
        # Only for commands on this machine; servers elsewhere are named in the environment.
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
        record = {
            **this_process(),
            "user": os.getuid(),
            "prefect": f"http://{host}:{self.settings.prefect_port}/api" if self.runs("Prefect") else None,
            "mlflow": f"http://{host}:{self.settings.mlflow_port}" if self.runs("MLflow") else None,
            "pool": self.settings.pool,
            "parts": {part.name: mark_of(part.process) for part in self.parts if part.process.poll() is None},
            "health": {
                part.name: {"started": f"{part.started:%Y-%m-%d %H:%M:%S}", "restarts": part.restarts, "log": part.log}
                for part in self.parts
            },
        }
        temporary = home() / f"{SERVICE_RECORD}.tmp"
        temporary.write_text(json.dumps(record, indent=1, default=str))
        os.replace(temporary, home() / SERVICE_RECORD)


def _refuse_second(report: Report) -> None:
    """Refuse a second service in the folder; stop leftover parts of a killed one."""
    if live_service() is not None:
        raise UserError(f"a service of {home()} is running already: see `unfreeze status`, or give another --data")
    parts = service_record().get("parts")
    for name, mark in parts.items() if isinstance(parts, dict) else ():
        process = process_of(mark)
        if process is not None and environment_of(process).get("UNFREEZE_HOME") == str(home()):
            report(f"stopping {name} (process {process.pid}), which a service that was killed left behind")
            stop_process_tree(process)
    (home() / SERVICE_RECORD).unlink(missing_ok=True)


def _require_free_port(host: str, port: int, flag: str) -> None:
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise UserError(f"{flag}: {host}:{port} is taken ({error.strerror or error}); choose another port") from error


def _end_gone_runs() -> None:
    while True:
        with suppress(Exception):  # a restarting server will answer the next time
            end_gone_runs()
        time.sleep(SECONDS_BETWEEN_LOOKS)
