"""How one machine runs as a service: what `unfreeze up` can be told."""

from pydantic import Field

from models.specs import Spec


class Service(Spec):
    """Addresses, data folder and the number of trainings at a time."""

    data: str | None = Field(
        default=None,
        description="Folder of everything that is kept: runs, models, caches, both databases, logs. Empty: "
        "`$UNFREEZE_HOME` or .unfreeze for ours, and Prefect's own home for its database.",
    )
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen on. Anything but the loopback opens both pages to the network without a "
        "password: see docs/team-server.md for servers with accounts.",
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
