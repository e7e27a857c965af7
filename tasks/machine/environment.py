"""Data folder, and quiet defaults for Prefect, MLflow and libraries. Imports nothing heavy."""

import ipaddress
import json
import os
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies_environment

from filelock import FileLock

from unfreeze.models.settings.addresses import masked, split_password
from unfreeze.models.store.paths import data_folder
from unfreeze.tasks.machine.processes import process_of, share_processors

SERVICE_RECORD = "service.json"
"""File in `home` that records what `unfreeze up` is running."""
CREDENTIALS = "prefect.auth"
"""File in `home` with the credentials of the Prefect servers that run for this folder, as USER:PASSWORD."""
WORKING_FOLDER = "UNFREEZE_WORKING_FOLDER"
"""Environment variable of a worker: base folder of relative paths in its flow runs."""
home = data_folder


def make_home() -> Path:
    """Make the data folder, readable by its owner alone because it holds credentials, data and loadable code."""
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder) and folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    return folder


def credentials() -> str:
    """The folder's credentials for Prefect, as USER:PASSWORD; created by the first call.

    A file readable by others is replaced, because the folder may have been copied from elsewhere.
    """
    path = make_home() / CREDENTIALS
    with FileLock(f"{path}.lock"):
        text = path.read_text().strip() if path.exists() and _is_private(path) else ""
        if not text:
            path.unlink(missing_ok=True)
            text = f"unfreeze:{secrets.token_urlsafe(24)}"
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"{text}\n")
    return text


def _is_private(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o077


def live_service() -> dict[str, Any] | None:
    """The record of a running `unfreeze up` in this `home`; None if none runs.

    A record is trusted only if its host, user and process are this machine's and its addresses are loopback: a copied
    folder must not send commands to somebody else's server.
    """
    record = service_record()
    process = process_of(record.get("unfreeze.process"))
    is_ours = (record.get("unfreeze.host"), record.get("user")) == (socket.gethostname(), os.getuid())
    if not is_ours or process is None or process.uids().real != os.getuid():
        return None
    return record if all(_is_loopback(record.get(server)) for server in ("prefect", "mlflow")) else None


def service_record() -> dict[str, Any]:
    """The content of `SERVICE_RECORD`, trusted or not; empty if missing or unreadable."""
    try:
        record = json.loads((home() / SERVICE_RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _is_loopback(address: Any) -> bool:
    """Whether a server address is loopback; also true for None, a server that runs elsewhere."""
    try:
        parts = urlsplit(address)
        return address is None or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except (ValueError, TypeError, AttributeError):
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SET_HERE: set[str] = set()
"""Variables set by `set_defaults`, without the user's own."""


def set_defaults() -> None:
    """Disable telemetry, and point Prefect and MLflow at the data folder; the user's own settings stay.

    Where `unfreeze up` runs, its servers are used.
    """
    _hide_passwords()
    keep_from_proxies("127.0.0.1", "localhost", "::1", socket.gethostname())
    service = live_service() or {}
    servers = {}
    if service.get("mlflow"):
        servers["MLFLOW_TRACKING_URI"] = service["mlflow"]
    if service.get("prefect") and "PREFECT_API_URL" not in os.environ:
        servers |= {
            "PREFECT_API_URL": service["prefect"],
            "PREFECT_UI_URL": service["prefect"].removesuffix("/api"),
            "PREFECT_API_AUTH_STRING": credentials(),
        }
    defaults = {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # By default Prefect keeps databases, results and settings of all projects in one folder of the user.
        "PREFECT_HOME": str(home() / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home() / 'mlflow.db'}",
        # Otherwise MLflow prints links to a server on port 5000 that does not run.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # Half a minute instead of one: enough for `unfreeze up` to restart a server.
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        # By default a request waits up to 120 s, eight times: minutes of silence.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        # Its bars for every small download would drown the steps' lines.
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Threads of torch and LightGBM spin for microseconds, not milliseconds, before they sleep: beside other work,
        # spinning takes most of the processor time.
        "GOMP_SPINCOUNT": "10000",
    }
    for name, value in {**defaults, **servers}.items():
        if name not in os.environ:
            os.environ[name] = value
            _SET_HERE.add(name)


def keep_from_proxies(*hosts: str) -> None:
    """Exempt these hosts from proxies, in this process and its children.

    A proxy cannot reach the servers of this machine. Both spellings are set, because libraries differ in which they
    read. Without a proxy in the environment nothing is set, because it would override the system's own settings.
    """
    proxies = getproxies_environment()
    known = [name.strip() for name in proxies.pop("no", "").split(",") if name.strip()]
    if proxies and "*" not in known:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*known, *hosts]))


def _hide_passwords() -> None:
    """Move user and password from the servers' addresses to the variables that MLflow and Prefect read.

    The addresses are printed, logged and stored with runs.
    """
    for variable in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL"):
        address, user, password = split_password(os.environ.get(variable, ""))
        if password is None or not address.startswith("http"):
            continue
        os.environ[variable] = address.replace(f"{urlsplit(address).netloc.rpartition('@')[0]}@", "", 1)
        if variable == "PREFECT_API_URL":
            os.environ.setdefault("PREFECT_API_AUTH_STRING", f"{user or ''}:{password}")
        else:
            os.environ.setdefault("MLFLOW_TRACKING_USERNAME", user or "")
            os.environ.setdefault("MLFLOW_TRACKING_PASSWORD", password)


def tracking_store() -> str:
    """MLflow's address for display, without a database password."""
    return masked(os.environ["MLFLOW_TRACKING_URI"])


def move_home(folder: Path) -> None:
    """Use `folder` as the data folder from here on, also for Prefect's database."""
    for name in _SET_HERE:
        del os.environ[name]
    _SET_HERE.clear()
    os.environ["UNFREEZE_HOME"] = str(folder)
    make_home()
    set_defaults()


set_defaults()
if "PREFECT__FLOW_RUN_ID" in os.environ:  # a worker's process for one flow run
    share_processors()
    if WORKING_FOLDER in os.environ:
        # Not at process start: Prefect would import modules from it before any others of the same name.
        os.chdir(os.environ[WORKING_FOLDER])
