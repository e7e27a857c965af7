"""Comparisons of two trainings: challenger and champion as steps, any two runs, a run and its replay."""

from dataclasses import asdict
from typing import Any

import pandas as pd

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.comparison import Comparison
from unfreeze.models.evaluation.drift import LEGEND, UNCLEAR
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.images.evaluation import TUNED
from unfreeze.models.reading.labels import split
from unfreeze.models.recipe.modality import ModelVersion, bind, modality_of, training_from
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import Training
from unfreeze.models.tables.modality import blocks_of
from unfreeze.models.targets import MultiLabel, Numbers, SingleLabel, Target
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.report.findings import keep_findings
from unfreeze.tasks.retraining.training import Champion
from unfreeze.tasks.steps.workspace import as_task
from unfreeze.tasks.tracking.training_run import MODEL_DIGEST, model_name, starts_of

SECTIONS = ("test", "valid")
MOST_SHOWN = 100
DATA = "data.digest"
"""Tag of a run: equal digests mean equal rows, targets and split."""
_METRICS = ("champion", "challenger", "improvement", "low", "high", "p_value", "rows")


def compare_models(training: Training, data: Prepared, champion: Champion, run_id: str, margin: float) -> Comparison:
    """Compare both models on the challenger's test rows (else validation rows) that are new to the champion.

    The challenger is the final model of `run_id`, whether published or not.

    Raises
    ------
    UserError
        If there are no such rows.
    """

    def compare() -> Comparison:
        bound = bind(training, data)
        challenger = ModelVersion(tracking.kept_model(run_id), bound.kept_file, tracking.tags_of(run_id))
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
    """Compare the data with the champion's training data; the table is stored with Prefect and the run.

    Parameters
    ----------
    training, data
        Training and data of the challenger.
    champion
        Model whose training data are the reference.
    run_id
        MLflow run of the challenger.

    Returns
    -------
    list of dict
        One row per measure or column, each with a ``verdict``; empty if the champion has no reference.
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
        found.table("drift", f"Data against those of version {number} ({LEGEND})", rows)
        keep_findings(run_id, found, "drift")
        return rows

    return as_task("compare data with the champion's", compare)


def compare_runs(first: str, second: str) -> dict[str, Any]:
    """Compare the second run with the first, on test rows if both have them, else on validation rows.

    Validation rows selected each run's model, so a difference on them favours the run that tried more.

    Returns
    -------
    dict
        ``comparison`` (see `Comparison`; the first run is the champion), ``section``, ``rows`` that both evaluated,
        ``better`` and ``worse`` (rows that only the second, or only the first, has right; empty for numbers).

    Raises
    ------
    UserError
        If a run has no predictions, or the two have no rows in common.
    """
    section, before, after = _predictions(first, second)
    params: Any = training_from(tracking.spec_of(second), f"run {second}")
    target: Target
    if "path" in before and "path" in after:
        label, predicted = ("labels", "predicted_labels") if "labels" in after else ("label", "predicted")
        if label not in before:
            raise UserError(f"of runs {first} and {second} one predicts several labels per image, the other a class")
        # Rows that tuned thresholds are excluded, as in the metrics of the run's report.
        judged = [frame[~frame[TUNED]] if TUNED in frame else frame for frame in (before, after)]
        rows = judged[0].merge(judged[1], on=["path", label], suffixes=("", "_second"))
        if rows.empty:
            raise UserError(f"runs {first} and {second} have no {section} image in common: compare runs of one source")
        names, texts = rows["path"], [rows[name].astype(str) for name in (label, predicted, f"{predicted}_second")]
        blocks = [rows["group"].to_numpy()] if "group" in rows and rows["group"].nunique() > 1 else []
        target = MultiLabel() if label == "labels" else SingleLabel()
        actual, *answers = [each.map(split) for each in texts] if label == "labels" else texts
        answered = [pd.DataFrame({"labels" if label == "labels" else "class": each}) for each in answers]
    else:
        if tracking.tags_of(first).get(DATA) != tracking.tags_of(second).get(DATA):
            raise UserError(
                f"runs {first} and {second} evaluated other rows: compare runs on one table with one split and the "
                "same features"
            )
        columns, blocks = params.data.target, blocks_of(before, params.data)
        names = before.index.to_series().map(lambda row: f"row {row}")
        if "kept_class" in before:
            target, texts = SingleLabel(), [each.astype(str) for each in (before[columns[0]], before["kept_class"])]
            texts.append(after["kept_class"].astype(str))
            actual, answered = texts[0], [pd.DataFrame({"class": each}) for each in texts[1:]]
        else:
            target, actual, texts = Numbers(columns, params.data.log_target), before[columns], []
            kept = [f"kept_{name}" for name in columns]
            answered = [frame[kept].set_axis(columns, axis=1) for frame in (before, after)]
    comparison = target.compare(actual.to_numpy(), *answered, blocks=blocks)
    better, worse = list[str](), list[str]()
    if texts:
        right, right_now = ((each == texts[0]).to_numpy() for each in texts[1:])
        better, worse = names[right_now & ~right].tolist(), names[right & ~right_now].tolist()
    return {
        "section": section,
        "rows": comparison.rows,
        "comparison": asdict(comparison),
        "better": better[:MOST_SHOWN],
        "worse": worse[:MOST_SHOWN],
        "flipped": [len(better), len(worse)],
    }


def _predictions(first: str, second: str) -> tuple[str, pd.DataFrame, pd.DataFrame]:
    """The section, and both runs' predictions of its rows."""
    for run_id in (first, second):
        tracking.get_run(run_id)
    for section in SECTIONS:
        one, other = (tracking.read_frame(run_id, f"{section}/predictions.feather") for run_id in (first, second))
        if one is not None and other is not None:
            return section, one, other
    raise UserError(f"runs {first} and {second} do not both have predictions: both must be trainings that ended")


def replayed(run_id: str) -> Training:
    """The settings of a run under another model name, so that the model's champion is not touched.

    Raises
    ------
    UserError
        If the training is unknown or has no model to compare with.
    """
    params = training_from(tracking.spec_of(run_id), f"run {run_id}")
    if MODEL_DIGEST not in tracking.tags_of(run_id):
        raise UserError(f"run {run_id} ended without a model, so that there is nothing to compare a replay with")
    own = {"run_name": f"replay of {run_id}", "model_name": f"{model_name(params)}-replay"}
    return params.model_copy(update={"tracking": params.tracking.model_copy(update=own)})


def compare_replay(run_id: str, replay_id: str) -> dict[str, Any]:
    """Compare a replay with its run: the model bit by bit, and their provenance.

    Returns
    -------
    dict
        ``equal`` (bit by bit), ``run``, ``replay``, and ``differences`` (fact -> text).
    """
    tags = [tracking.tags_of(each) for each in (run_id, replay_id)]
    digests = [each.get(MODEL_DIGEST) for each in tags]
    differences = [] if tags[0].get(DATA) == tags[1].get(DATA) else ["data: other rows, targets or split"]
    before, (*_, now) = starts_of(run_id), [{}, *starts_of(replay_id)]
    for start in before:
        for name in {**start, **now}:
            if name != "patch" and now and start.get(name) != now.get(name):
                differences.append(f"{name}: {start.get(name, 'unknown')} then, {now.get(name, 'unknown')} now")
    equal = None not in digests and digests[0] == digests[1]
    return {"equal": equal, "run": run_id, "replay": replay_id, "differences": list(dict.fromkeys(differences))}
