"""Settings of `unfreeze up`."""

from pydantic import Field

from unfreeze.models.specs.training import Spec


class Service(Spec):
    """Addresses, data folder and the number of trainings at a time."""

    data: str | None = Field(
        default=None,
        description="Folder of everything that is kept: runs, models, caches, both databases, logs, credentials. "
        "Empty: `$UNFREEZE_HOME` or .unfreeze.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Anything but the loopback needs MLFLOW_TRACKING_URI to name a server with "
        "accounts: see docs/team-server.md.",
    )
    prefect_port: int = Field(default=4200, ge=1, le=65535, description="Port of the Prefect API and its pages.")
    mlflow_port: int = Field(default=5000, ge=1, le=65535, description="Port of MLflow.")
    pool: str = Field(default="local", min_length=1, description="Prefect work pool that the worker serves.")
    limit: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Flow runs at a time, so that trainings do not share one GPU: as many as there are GPUs, or 1.",
    )
