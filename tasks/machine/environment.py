"""Where things are kept, and quiet defaults for what we start. Imports nothing heavy."""

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
from unfreeze.models.store.paths import given_path
from unfreeze.tasks.machine.processes import process_of, share_processors

SERVICE_RECORD = "service.json"
"""File in `home` that says what `unfreeze up` is running."""
CREDENTIALS = "prefect.auth"
"""File in `home` with the credentials of the Prefect servers that run for this folder, as USER:PASSWORD."""
WORKING_FOLDER = "UNFREEZE_WORKING_FOLDER"
"""Variable of a worker: the folder that relative paths in its flow runs begin at."""


def home() -> Path:
    """The folder of everything that unfreeze keeps: ``$UNFREEZE_HOME``, or ``.unfreeze`` in the working folder."""
    return given_path(os.environ.get("UNFREEZE_HOME", ".unfreeze")).resolve()


def make_home() -> Path:
    """Make the data folder, readable by its owner alone: credentials, data and code that is loaded lie in it."""
    folder = home()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _is_private(folder) and folder.stat().st_uid == os.getuid():
        folder.chmod(0o700)
    return folder


def credentials() -> str:
    """The folder's credentials for Prefect, as USER:PASSWORD; made at the first call.

    A file that others can read is replaced: it may have come with a folder from elsewhere.
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
    """What `unfreeze up` recorded for this `home` while it runs; None if it does not.

    A record is believed only if its host, user and process are this machine's and its addresses are loopback: a folder
    that came from elsewhere must not send commands to somebody's server.
    """
    record = service_record()
    if record is None or record.get("unfreeze.host") != socket.gethostname() or record.get("user") != os.getuid():
        return None
    if not all(_is_loopback(record.get(server)) for server in ("prefect", "mlflow")):
        return None
    process = process_of(record.get("unfreeze.process"))
    return record if process is not None and process.uids().real == os.getuid() else None


def service_record() -> dict[str, Any] | None:
    """The content of `SERVICE_RECORD`, believable or not; None if there is none that can be read."""
    try:
        record = json.loads((home() / SERVICE_RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _is_loopback(address: Any) -> bool:
    """Whether an address of a server is this machine's; None, for a server that runs elsewhere, is harmless."""
    try:
        parts = urlsplit(address)
        return address is None or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    except (ValueError, TypeError, AttributeError):
        return False


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_SET_HERE: set[str] = set()
"""Variables that `set_defaults` set; a person's own are not among them."""


def set_defaults() -> None:
    """Telemetry off, Prefect and MLflow in the data folder; what a person has set stays.

    Where `unfreeze up` runs, its servers are used, so that commands and pages show the same.
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
        # Prefect's own default is one folder of the user's: databases, results and settings of all projects in one.
        "PREFECT_HOME": str(home() / "prefect"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{home() / 'mlflow.db'}",
        # Without it MLflow prints links to a server on port 5000 that nobody started.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # Half a minute, in which `unfreeze up` restarts a server, instead of one.
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        # By default a request waits up to 120 s, eight times over: minutes in which nothing can be said.
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        # Its bars for every small download would drown the lines of the steps.
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        # Threads of torch and LightGBM spin for microseconds before they sleep, not for milliseconds: beside other work
        # that spinning takes most of the processor time.
        "GOMP_SPINCOUNT": "10000",
    }
    for name, value in {**defaults, **servers}.items():
        if name not in os.environ:
            os.environ[name] = value
            _SET_HERE.add(name)


def keep_from_proxies(*hosts: str) -> None:
    """Have requests to these hosts go through no proxy, here and in processes that are started from here.

    A proxy cannot reach the servers of this machine. Both spellings are set, because libraries differ in which of two
    they heed. Without a proxy in the environment nothing is: the system's own settings would be ignored for it.
    """
    proxies = getproxies_environment()
    known = [name.strip() for name in proxies.pop("no", "").split(",") if name.strip()]
    if proxies and "*" not in known:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(dict.fromkeys([*known, *hosts]))


def _hide_passwords() -> None:
    """Move user and password of the servers' addresses to where MLflow and Prefect look for them.

    The addresses are printed, logged and kept with runs.
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
    """MLflow's address to show: the password of a database stays in the environment."""
    return masked(os.environ["MLFLOW_TRACKING_URI"])


def move_home(folder: Path) -> None:
    """Keep everything in `folder` from here on, Prefect's database included."""
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
        # Not as the process starts: Prefect would import modules from it before those of the same name anywhere else.
        os.chdir(os.environ[WORKING_FOLDER])
