"""Evaluation on a table as a step: the network, the baselines on the same rows, and everything that explains them."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from prefect import task

from unfreeze.models.table_specs import TrainTables
from unfreeze.models.tables.baselines import gradient_boosting, group_mean, rows_to_fit
from unfreeze.models.tables.encoding import Encoded
from unfreeze.models.tables.recipe import TableRecipe
from unfreeze.models.tables.serving import predict_encoded
from unfreeze.models.training.batches import Batches
from unfreeze.models.training.learner import Learner
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.progress import log_info
from unfreeze.tasks.prefect_run.report import log_figure, show_table
from unfreeze.tasks.retraining.drift import sample_rows
from unfreeze.tasks.steps.plots import plot_confusion
from unfreeze.tasks.steps.prepare_table import prepared_frame
from unfreeze.tasks.steps.stage import bind_table, checkpoint_of, learner_at, snapshots_of
from unfreeze.tasks.steps.table_plots import plot_embedding, plot_importance, plot_residuals

MOST_EMBEDDINGS = 16
"""Categorical columns whose embeddings are drawn."""
MOST_DRAWN = 100_000
"""Validation rows whose residuals are drawn, at most: a random part of more."""
IMPORTANCE_ROWS = 20_000
"""Validation rows, at most, that permutation importance is measured on."""


@task(name="evaluate-table", task_run_name="evaluate valid")
def evaluate_table(params: TrainTables, files: dict[str, str], run_id: str, position: int) -> dict[str, float]:
    """Evaluate the run's latest weights and the baselines on all validation rows.

    Returns
    -------
    dict
        ``valid/METRIC`` of the network (of the average with the trees as ``ensemble/METRIC``), ``baseline/tree_METRIC``
        and ``baseline/mean_METRIC``. With a snapshot ensemble, ``valid/METRIC`` is its own, and ``single/METRIC`` that
        of the final weights alone, as is ``valid/loss``.
    """
    recipe = bind_table(params, files)
    learner = learner_at(recipe, position, 1.0, checkpoint_of(run_id))
    _, valid = recipe.batches(position, {})
    outputs, targets = learner.predict(valid)
    actual = learner.outputs.actual(targets)
    predictions = {"network": learner.outputs.predictions(outputs)}
    values = {f"valid/{name}": value for name, value in learner.validate(valid).items()}
    if params.snapshots > 1:
        values |= {f"single/{name}": values[f"valid/{name}"] for name in learner.metrics}
        predictions["network"] = _with_snapshots(params, learner, valid, predictions["network"], run_id)
        values |= {f"valid/{name}": metric(predictions["network"], actual) for name, metric in learner.metrics.items()}
    if params.baselines or params.ensemble:
        train, train_targets = recipe.encoded("train")
        rows, _ = recipe.encoded("valid")
        inputs = (recipe.encoder, train, train_targets, rows, params.seed)
        predictions["tree"] = gradient_boosting(*inputs)
        mean = group_mean(*inputs)
        predictions["mean"] = mean.predictions
        fitted = len(rows_to_fit(train_targets, params.seed))
        if fitted < len(train):
            log_info(f"the trees are fitted on {fitted:,} of {len(train):,} training rows, drawn with the seed")
        log_info(f"the mean by group is by {' and '.join(mean.columns) or 'nothing'}")
    if params.ensemble:
        predictions["ensemble"] = (predictions["network"] + predictions["tree"]) / 2
    prefixes = {"tree": "baseline/tree_", "mean": "baseline/mean_", "ensemble": "ensemble/"}
    for model, prefix in prefixes.items():
        if model in predictions:
            for name, metric in learner.metrics.items():
                values[f"{prefix}{name}"] = metric(predictions[model], actual)
    metrics = tracking.as_float(values)
    with tracking.MetricLog(run_id) as log:
        log.log(metrics, learner.progress.step)
    frame = prepared_frame(files).iloc[recipe.rows["valid"]].reset_index(drop=True)
    tracking.log_frame(run_id, _table(frame, recipe, predictions, actual), "valid/predictions.feather")
    _compare(metrics, learner, run_id)
    _draw_errors(params, recipe, frame, predictions["network"], actual, run_id)
    _draw_embeddings(recipe, learner, run_id)
    _draw_importance(recipe, learner, run_id)
    return metrics


def _with_snapshots(
    params: TrainTables, learner: Learner, valid: Batches, final: np.ndarray, run_id: str
) -> np.ndarray:
    """The final weights' predictions averaged with those of the snapshots; the learner is left as it was."""
    weights = {name: tensor.clone() for name, tensor in learner.network.state_dict().items()}
    members = [final]
    for state in snapshots_of(run_id, params):
        learner.network.load_state_dict(state)
        members.append(learner.outputs.predictions(learner.predict(valid)[0]))
    learner.network.load_state_dict(weights)
    return np.asarray(np.mean(members, axis=0))


def _table(
    frame: pd.DataFrame, recipe: TableRecipe, predictions: dict[str, np.ndarray], actual: np.ndarray
) -> pd.DataFrame:
    """Every validation row with what each model said."""
    encoder = recipe.encoder
    for model, predicted in predictions.items():
        if encoder.task == "regression":
            columns = {f"{model}_{name}": predicted[:, place] for place, name in enumerate(encoder.target_names)}
        else:
            classes = np.array([str(each) for each in encoder.classes])
            columns = {f"{model}_class": classes[predicted.argmax(1)], f"{model}_probability": predicted.max(1)}
        frame = frame.assign(**columns)
    return frame


def _compare(metrics: dict[str, float], learner: Learner, run_id: str) -> None:
    rows = []
    for model, prefix in (
        ("network", "valid/"),
        ("gradient-boosted trees", "baseline/tree_"),
        ("mean by group", "baseline/mean_"),
        ("network and trees", "ensemble/"),
    ):
        found = {name: round(metrics[f"{prefix}{name}"], 5) for name in learner.metrics if f"{prefix}{name}" in metrics}
        if found:
            rows.append({"model": model, **found})
    show_table(rows, "models", "The network against the baselines, on the same validation rows")
    tracking.log_text(run_id, pd.DataFrame(rows).to_string(index=False), "valid/models.txt")
    for row in rows:
        log_info(", ".join(f"{name} {value}" for name, value in row.items()))


def _draw_errors(
    params: TrainTables,
    recipe: TableRecipe,
    frame: pd.DataFrame,
    predicted: np.ndarray,
    actual: np.ndarray,
    run_id: str,
) -> None:
    encoder = recipe.encoder
    if encoder.task == "classification":
        classes = [str(each) for each in encoder.classes]
        figure = plot_confusion(actual, predicted.argmax(1), classes, "Confusion (validation rows)")
        log_figure(run_id, figure, "valid/confusion.png", "Confusion matrix")
        errors = 1 - predicted[np.arange(len(actual)), actual]
    else:
        drawn = sample_rows(np.arange(len(actual)), MOST_DRAWN)
        dates = frame[params.data.date[0]].iloc[drawn] if params.data.date and params.data.date[0] in frame else None
        for place, name in enumerate(encoder.target_names):
            figure = plot_residuals(dates, actual[drawn, place], predicted[drawn, place], name)
            log_figure(run_id, figure, f"valid/residuals_{name}.png", f"Residuals of {name}")
        errors = np.abs(predicted - actual).max(1)
    if params.tracking.top_losses:
        worst = np.argsort(-errors)[: params.tracking.top_losses]
        shown = frame.iloc[worst].assign(error=errors[worst].round(4)).astype("string").fillna("")
        rows: list[dict[str, Any]] = [
            {str(key): value for key, value in row.items()} for row in shown.to_dict("records")
        ]
        show_table(rows, "top-losses", "Rows with the highest error")


def _draw_embeddings(recipe: TableRecipe, learner: Learner, run_id: str) -> None:
    """The learned vectors of every category, as an image per column and a feather file."""
    embeddings: Any = learner.network.body.embeddings
    drawn = 0
    for place, (name, categories) in enumerate(recipe.encoder.categorical.items()):
        weights = embeddings[place].weight.detach().cpu().numpy()
        labels = ["missing", *(str(category) for category in categories)]
        file = "".join(letter if letter.isalnum() else "_" for letter in name)
        table = pd.DataFrame(weights, columns=[f"component_{number}" for number in range(weights.shape[1])])
        table.insert(0, "category", labels)
        tracking.log_frame(run_id, table, f"embeddings/{file}.feather")
        # The vector of "missing" is random where nothing was: it would only stretch the image.
        if len(categories) > 2 and drawn < MOST_EMBEDDINGS:
            drawn += 1
            figure = plot_embedding(weights[1:], labels[1:], name)
            log_figure(run_id, figure, f"embeddings/{file}.png", f"Learned embedding of {name}")


def _draw_importance(recipe: TableRecipe, learner: Learner, run_id: str) -> None:
    """How much the validation loss grows when a column is shuffled (Breiman, "Random Forests", 2001)."""
    encoded, targets = recipe.encoded("valid")
    generator = np.random.default_rng(recipe.params.seed)
    rows = generator.permutation(len(targets))[:IMPORTANCE_ROWS]
    categories, numbers = encoded.categorical[rows], encoded.continuous[rows]
    wanted = torch.from_numpy(targets[rows])
    wanted = wanted.double() if wanted.is_floating_point() else wanted

    def loss(categories: np.ndarray, numbers: np.ndarray) -> float:
        outputs = predict_encoded(learner.network, Encoded(categories, numbers), learner.device)
        return float(learner.outputs.score(outputs.double(), wanted))

    whole = loss(categories, numbers)
    order = generator.permutation(len(rows))
    increases = {}
    for columns, matrix in ((list(recipe.encoder.categorical), categories), (list(recipe.encoder.continuous), numbers)):
        for place, name in enumerate(columns):
            shuffled = matrix.copy()
            shuffled[:, place] = matrix[order, place]
            pair = (shuffled, numbers) if matrix is categories else (categories, shuffled)
            increases[name] = loss(*pair) - whole
    table = pd.DataFrame({"column": list(increases), "loss_increase": list(increases.values())})
    tracking.log_frame(run_id, table.sort_values("loss_increase", ascending=False), "valid/importance.feather")
    log_figure(run_id, plot_importance(increases, "loss"), "valid/importance.png", "Permutation importance")
