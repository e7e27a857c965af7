"""Champion against challenger on the same validation rows, and the data against the champion's, as steps."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.drift import UNCLEAR
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.modality import Trained, bind, modality_of
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import Training
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.retraining.training import Champion
from unfreeze.tasks.steps.findings import keep_findings
from unfreeze.tasks.steps.workspace import as_task

_METRICS = ("champion", "challenger", "improvement", "low", "high", "p_value", "rows")


def compare_models(training: Training, data: Prepared, champion: Champion, run_id: str, margin: float) -> Comparison:
    """Let both predict the challenger's test rows, or its validation rows without any, that are new to the champion.

    The challenger is the model that `run_id` has ended with, whether MLflow has it yet or not.

    Raises
    ------
    UserError
        If no such row is left.
    """

    def compare() -> Comparison:
        bound = bind(training, data)
        challenger = Trained(tracking.kept_model(run_id), bound.kept_file, tracking.tags_of(run_id))
        comparison = modality_of(training).compare(bound, champion.trained, challenger, margin)
        flat = {name: value for name, value in asdict(comparison).items() if name != "classes"}
        found = Findings(metrics={f"comparison/{name}": flat[name] for name in _METRICS})
        found.frame("comparison/summary.feather", pd.DataFrame([flat]))
        if comparison.classes:
            found.frame("comparison/classes.feather", pd.DataFrame(comparison.classes))
            title = "Recall of champion and challenger by class"
            found.table("comparison-by-class", title, comparison.classes)
        found.lines.append(
            f"{comparison.metric} on {comparison.rows:,} rows: champion {comparison.champion:.4f}, "
            f"challenger {comparison.challenger:.4f} ({comparison.test}: p = {comparison.p_value:.3f})"
        )
        keep_findings(run_id, found, "comparison")
        return comparison

    return as_task(f"compare with champion {champion.version.number}", compare)


def report_drift(training: Training, data: Prepared, champion: Champion, run_id: str) -> list[dict[str, Any]]:
    """Compare the data with the champion's training data; the table is an artifact of both Prefect and the run.

    Parameters
    ----------
    training, data
        What the challenger was trained with.
    champion
        Whose training data are the reference.
    run_id
        MLflow run of the challenger.

    Returns
    -------
    list of dict
        A row per measure or column, each with a ``verdict``; none if the champion kept no reference.
    """

    def compare() -> list[dict[str, Any]]:
        number = champion.version.number
        if champion.reference is None:
            log_info(f"version {number} kept no sample of its training data: drift is unknown")
            return []
        report, line = modality_of(training).drift(
            bind(training, data), champion.trained, pd.read_feather(champion.reference)
        )
        rows = [
            {str(name): None if pd.isna(value) else value for name, value in row.items()}
            for row in report.round(4).to_dict("records")
        ]
        drifted = [row for row in rows if row["verdict"] not in ("stable", UNCLEAR)]
        named = ", ".join(f"{row.get('what', row.get('column'))} {row['verdict']}" for row in drifted[:5])
        found = Findings(lines=[line, f"drift against version {number}: {named or 'none'}"])
        found.frame("drift/report.feather", report)
        found.text("drift/report.txt", report.to_string(index=False))
        found.table("drift", f"Data against those of version {number}", rows)
        keep_findings(run_id, found, "drift")
        return rows

    return as_task("compare data with the champion's", compare)
