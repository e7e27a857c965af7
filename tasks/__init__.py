"""Thin Prefect tasks, one per step, that read paths, call `models` and write paths."""

from unfreeze.tasks.machine import (
    environment as environment,  # first: it sets defaults that prefect and mlflow read when imported
    notices as notices,  # keeps tracebacks of bad input out of Prefect's logs
)
