"""One Prefect task per step: thin, reading paths, calling `models`, writing paths."""

from unfreeze.tasks.machine import (
    environment as environment,  # first: it sets defaults that prefect and mlflow read when imported
)
from unfreeze.tasks.prefect_run import user_errors as user_errors
