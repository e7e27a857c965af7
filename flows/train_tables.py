"""Train an entity-embedding network on a table: from CSV files to a registered model, with baselines beside it."""

from typing import Any

from prefect import flow
from prefect.states import State

from unfreeze.models.table_specs import TrainTables, completed
from unfreeze.tasks.describe_table import describe_table
from unfreeze.tasks.evaluate_table import evaluate_table
from unfreeze.tasks.find_lr import find_lr
from unfreeze.tasks.interruption import cancelled
from unfreeze.tasks.prepare_table import list_tables, prepare_table, read_table
from unfreeze.tasks.register_table import register_table
from unfreeze.tasks.run import Run, open_run
from unfreeze.tasks.train_stage import train_stage

DEFAULTS = TrainTables()


@flow(name="train-tables", flow_run_name="train on {params.data.source}")
def train_tables(params: TrainTables = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register a network on a table by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: go on where it was, with the params it was started with.
    """
    try:
        with open_run(completed(params), resume_run_id, kind="train-tables") as run:
            return follow_recipe(run)
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)


def follow_recipe(run: Run) -> dict[str, Any]:
    """Read and encode the table once; let each stage find its rate and train; evaluate; register."""
    params = run.params
    tables = {path: read_table(path, content) for path, content in list_tables(params.data).items()}
    files = prepare_table(tables, params.data)
    describe_table(params, files, run.id)

    for position, _ in run.remaining():
        if run.wants_rate(position):
            run.keep_rates(position, find_lr(params, files["encoder"], files, {}, run.id, position))
        if not run.is_trained(position):
            train_stage(params, files["encoder"], files, {}, run.id, position, run.rate(position))

    metrics = evaluate_table(params, files, run.id, position)
    model = register_table(params, tables, files, run.id, position, run.model_name, metrics)
    return run.summary(metrics, model)
