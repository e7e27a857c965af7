"""Settings of a retraining."""

from typing import Literal

from pydantic import Field

from unfreeze.models.settings.names import RegistryName
from unfreeze.models.settings.training import Spec


class PromotionSpec(Spec):
    """What a challenger must achieve to replace the champion."""

    margin: float = Field(
        default=0.0,
        ge=0,
        allow_inf_nan=False,
        description="The challenger must be better by more than this, in the metric's own unit.",
    )
    significance: float = Field(
        default=0.05,
        gt=0,
        le=1,
        description="Largest p-value of the paired test that still promotes (McNemar for classes, bootstrap for "
        "numbers); 1 leaves only the margin.",
    )
    protected: list[str] = Field(
        default=[],
        description="Classes whose recall must not fall by more than `protected_bound`, however good the challenger is "
        "on the others.",
    )
    protected_bound: float = Field(
        default=0.02, ge=0, le=1, description="Largest loss of recall on a protected class that is accepted."
    )


class Retrain(Spec):
    """Which model is retrained, from what, and what it takes to become the champion."""

    model: RegistryName = Field(
        default="digits-classifier",
        min_length=1,
        description="Registered model. Its champion's settings and source are reused; without `-classifier` or "
        "`-table` the name may be short. The digits are trained for the first time if they have no champion.",
    )
    warm_start: Literal["champion", "fresh"] = Field(
        default="champion",
        description="Weights to start from: the `champion`'s body (images), or `fresh`: those that its own training "
        "started from, such as ImageNet's. Tables always start fresh.",
    )
    changes: dict[str, str] = Field(
        default={},
        description="Settings that differ from the champion's, by dotted name as on the command line: "
        '{"recipe.full.cycles": "2"}.',
    )
    even_if_unchanged: bool = Field(default=False, description="Train even if the data have not changed.")
    promotion: PromotionSpec = Field(
        default=PromotionSpec(),
        description="What the challenger must achieve on validation rows that neither has seen.",
    )
    approval: bool = Field(
        default=False,
        description="Ask on the Prefect page before a challenger that won is promoted.",
    )
    approval_hours: float = Field(
        default=24, gt=0, le=24 * 30, description="Hours to wait for the answer; without an answer nothing is promoted."
    )
    notify: list[str] = Field(
        default=[],
        description="Prefect notification blocks for a promotion or a failure, such as `slack-webhook/team`.",
    )


class Watch(Spec):
    """Which models' sources are checked for new data."""

    models: list[str] = Field(
        default=[], description="Registered models. Empty: every model that has a champion trained by unfreeze."
    )


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
        "accounts: see docs/howto/team-server.md.",
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
