"""Where things are kept, and quiet defaults for what we start. Imports nothing heavy."""

import os
from pathlib import Path


def home() -> Path:
    """The folder of everything that unfreeze keeps: ``$UNFREEZE_HOME``, or ``.unfreeze`` in the working folder."""
    return Path(os.environ.get("UNFREEZE_HOME", ".unfreeze")).expanduser().resolve()


def set_defaults() -> None:
    """Telemetry off, a patient embedded Prefect API, MLflow on SQLite; what a person has set stays."""
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
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


set_defaults()
