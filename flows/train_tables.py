"""Train an entity-embedding network on a table: from CSV files to a registered model, with baselines beside it."""

from typing import Any

from prefect import flow
from prefect.states import State

from unfreeze.models.table_specs import TrainTables, completed
from unfreeze.tasks.prefect_run.interruption import cancelled
from unfreeze.tasks.steps.describe_table import describe_table
from unfreeze.tasks.steps.evaluate_table import evaluate_table
from unfreeze.tasks.steps.find_lr import find_lr
from unfreeze.tasks.steps.prepare_table import list_tables, prepare_table, read_table
from unfreeze.tasks.steps.register_table import register_table
from unfreeze.tasks.steps.train_stage import train_stage
from unfreeze.tasks.tracking.training_run import Run, open_run

DEFAULTS = TrainTables()


@flow(name="train-tables", flow_run_name="train on {params.data.source}")
def train_tables(params: TrainTables = DEFAULTS, resume_run_id: str | None = None) -> dict[str, Any] | State[Any]:
    """Train, evaluate and register a network on a table by the recipe.

    Args:
        params: Everything that defines the training; every field has a default.
        resume_run_id: Id of an MLflow run that was stopped: continue where it was, with the params it was started with.
    """
    try:
        with open_run(completed(params), resume_run_id, kind="train-tables") as run:
            return follow_recipe(run)
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)


def follow_recipe(run: Run) -> dict[str, Any]:
    """Read and encode the table once; let each stage find its lr and train; evaluate; register."""
    params = run.params
    tables = {path: read_table(path, content) for path, content in list_tables(params.data).items()}
    files = prepare_table(tables, params.data)
    describe_table(params, files, run.id)

    for position, _ in run.remaining():
        if run.wants_lr(position):
            run.keep_lrs(position, find_lr(params, files["encoder"], files, {}, run.id, position))
        if not run.is_trained(position):
            train_stage(params, files["encoder"], files, {}, run.id, position, run.lr(position))

    metrics = evaluate_table(params, files, run.id, position)
    model = register_table(params, tables, files, run.id, position, run.model_name, metrics)
    return run.summary(metrics, model)
