"""What goes into a training on a table, as a step: columns, what was rejected, warnings, the network."""

import json
from pathlib import Path

import pandas as pd
from prefect import task

from unfreeze.models.drift import distributions_of
from unfreeze.models.errors import UserError
from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.network import summarise_table
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info, log_notice
from unfreeze.tasks.prefect_run.report import show_table
from unfreeze.tasks.retraining.drift import MOST_TABLE_ROWS, REFERENCE, sample_rows
from unfreeze.tasks.steps.prepare_table import digest_of, prepared_frame
from unfreeze.tasks.steps.stage import bind_table


@task(name="describe-table", task_run_name="describe table and network")
def describe_table(params: TrainTables, files: dict[str, str], run_id: str) -> None:
    """Log the run's inputs: data set with digest, types of columns, rows rejected, warnings, model summary.

    Raises
    ------
    UserError
        If the run is resumed and its table is no longer the one it was started with.
    """
    digest = digest_of(files)
    known = tracking.tags_of(run_id).get("data.digest")
    if known == digest:
        return
    if known is not None:
        raise UserError(
            f"{params.data.source}: the tables changed since run {run_id} was started; "
            "put them back, or start a new run"
        )
    recipe = bind_table(params, files)
    notes = json.loads(Path(files["notes"]).read_text())
    splits = {name: len(rows) for name, rows in recipe.rows.items()}
    name = Path(params.data.source).name or params.data.source
    tracking.log_data_set(run_id, name, digest, params.data.source, splits)
    tracking.log_file(run_id, Path(files["encoder"]), "data")
    tracking.log_frame(run_id, pd.DataFrame(notes["types"]).astype("string"), "data/columns.feather")
    show_table(notes["types"], "columns", "Columns as they were read")
    if notes["rejected"]:
        tracking.log_frame(run_id, pd.DataFrame(notes["rejected"]).astype("string"), "data/rejected.feather")
        show_table(notes["rejected"], "left-out", "What was rejected, and why")
        for entry in notes["rejected"]:
            log_info(f"rejected: {', '.join(str(value) for value in entry.values())}")
    if notes["warnings"]:
        tracking.log_text(run_id, "\n".join(notes["warnings"]), "data/warnings.txt")
        show_table([{"warning": warning} for warning in notes["warnings"]], "warnings", "Warnings")
        for warning in notes["warnings"]:
            log_notice(f"warning: {warning}")
    summary = pd.DataFrame(summarise_table(recipe.learner().network, list(recipe.encoder.categorical)))
    tracking.log_text(run_id, f"{summary.to_string(index=False)}\n", "model_summary.txt")
    # Last: a run that was killed within this step does it again.
    tags = {"data.digest": digest, tracking.FINGERPRINT: digest, "data.rows": str(sum(splits.values()))}
    frame, train = prepared_frame(files), recipe.rows["train"]
    sample = frame.iloc[sample_rows(train, MOST_TABLE_ROWS)].reset_index(drop=True)
    tracking.log_frame(run_id, sample if params.tracking.keep_examples else distributions_of(sample), REFERENCE)
    if params.data.date:
        tags[tracking.TRAINED_UNTIL] = str(frame[params.data.date[0]].iloc[train].max())
    tracking.log_tags(run_id, tags)
