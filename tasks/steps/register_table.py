"""The final table model as a step: log it, register it, give it an alias."""

import tempfile
from pathlib import Path

from prefect import task

from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.reading import open_table
from unfreeze.models.tables.serving import example_rows, save_table_model
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.prepare_table import joined_tables
from unfreeze.tasks.steps.stage import bind_table, checkpoint_of, learner_at, snapshots_of
from unfreeze.tasks.tracking.log_model import TABLE_LOADER, log_and_register

REQUIREMENTS = ("torch", "safetensors", "pydantic", "numpy", "pandas", "pyarrow", "scikit-learn")
"""What a served model needs, besides MLflow."""


@task(name="register-table", task_run_name="register {name}")
def register_table(
    params: TrainTables,
    tables: dict[str, str],
    files: dict[str, str],
    run_id: str,
    position: int,
    name: str,
    metrics: dict[str, float],
) -> dict[str, str]:
    """Log the run's latest weights as a model that takes raw rows, and register it under `name`.

    Returns
    -------
    dict
        ``model_uri``, ``name``, ``version`` and ``alias``.
    """
    recipe = bind_table(params, files)
    learner = learner_at(recipe, position, 1.0, checkpoint_of(run_id))
    encoder = recipe.encoder
    raw = open_table(Path(tables[params.data.source])).slice(0, 100).to_pandas()
    raw = raw.drop(columns=[column for column in params.data.target if column in raw])
    is_regression = encoder.task == "regression"
    outputs = tracking.values_out(encoder.target_names) if is_regression else tracking.CLASSES_OUT
    shown = ", ".join(f"{key} {value:.4g}" for key, value in metrics.items() if key.startswith("valid/"))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "table"
        save_table_model(
            folder, learner.network, params, encoder, joined_tables(tables, params.data), snapshots_of(run_id, params)
        )
        return log_and_register(
            run_id,
            folder,
            TABLE_LOADER,
            (tracking.columns_in(raw), outputs),
            raw.head(3) if params.tracking.keep_examples else example_rows(raw, params.data),
            REQUIREMENTS,
            {"targets": encoder.target_names, "classes": [str(each) for each in encoder.classes]},
            name,
            f"{params.data.source}: {shown}",
        )
