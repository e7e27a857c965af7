"""Where things are kept, and quiet defaults for what we start. Imports nothing heavy."""

import json
import os
from pathlib import Path

SERVICE_RECORD = "service.json"
"""File in `home` that says what `unfreeze up` is running."""


def home() -> Path:
    """The folder of everything that unfreeze keeps: ``$UNFREEZE_HOME``, or ``.unfreeze`` in the working folder."""
    return Path(os.environ.get("UNFREEZE_HOME", ".unfreeze")).expanduser().resolve()


def live_service() -> dict[str, str] | None:
    """Addresses of the service that `unfreeze up` runs for this `home`; None if there is none."""
    path = home() / SERVICE_RECORD
    if not path.exists():
        return None
    from tasks.processes import is_gone

    record: dict[str, str] = json.loads(path.read_text())
    return None if is_gone(record) else record


_SET_HERE: set[str] = set()
"""Variables that `set_defaults` set; a person's own are not among them."""


def set_defaults() -> None:
    """Telemetry off, a patient embedded Prefect API, MLflow on SQLite; what a person has set stays.

    Where `unfreeze up` runs, its servers are used, so that commands and pages show the same.
    """
    service = live_service()
    servers = {}
    if service is not None:
        servers = {
            "PREFECT_API_URL": service["prefect"],
            "PREFECT_UI_URL": service["prefect"].removesuffix("/api"),
            "MLFLOW_TRACKING_URI": service["mlflow"],
        }
    defaults = {
        "DO_NOT_TRACK": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_TRACKING_URI": f"sqlite:///{home() / 'mlflow.db'}",
        # Without it MLflow prints links to a server on port 5000 that nobody started.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",
        # Its bars for every small download would drown the lines of the steps.
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    }
    for name, value in {**defaults, **servers}.items():
        if name not in os.environ:
            os.environ[name] = value
            _SET_HERE.add(name)


def move_home(folder: Path) -> None:
    """Keep everything in `folder` from here on, Prefect's database included."""
    for name in _SET_HERE:
        del os.environ[name]
    _SET_HERE.clear()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["UNFREEZE_HOME"] = str(folder)
    os.environ.setdefault("PREFECT_HOME", str(folder / "prefect"))
    set_defaults()


set_defaults()
