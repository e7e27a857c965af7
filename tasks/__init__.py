"""One Prefect task per step: thin, reading paths, calling `models`, writing paths."""

from unfreeze.tasks.machine import (
    environment as environment,  # first: it sets defaults that prefect and mlflow read when imported
    notices as notices,  # which keeps tracebacks of bad input out of Prefect's logs
)
