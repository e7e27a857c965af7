"""Prefect flows, one per file, each of which reads like the recipe, and the command line."""

from unfreeze.tasks.machine import environment as environment  # before prefect and mlflow are imported
