"""Evaluation of a trained table: its models side by side, errors and feature importance of the kept one."""

from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from unfreeze.models.evaluation.intervals import ends_of, gains, intervals
from unfreeze.models.evaluation.plots import plot_embedding, plot_importance
from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.training_data import Candidate
from unfreeze.models.settings.names import safe_name
from unfreeze.models.tables.baselines import group_mean
from unfreeze.models.tables.bound import BoundTable
from unfreeze.models.tables.columns.encoding import Encoded
from unfreeze.models.tables.trees import rows_to_fit
from unfreeze.models.targets.temperature import calibrate
from unfreeze.models.training.learner import Learner

MOST_EMBEDDINGS = 16  # categorical columns whose embeddings are drawn
IMPORTANCE_ROWS = 2_000  # at most, for permutation importance
MODELS = {
    "kept": ("kept", ""),
    "network": ("network", "network/"),
    "tree": ("gradient-boosted trees", "baseline/tree_"),
    "ensemble": ("network and trees", "ensemble/"),
    "mean": ("mean by group", "baseline/mean_"),
}
"""Model -> its display name, and the prefix of its metrics."""
COMPARED = ("tree", "mean")
"""Models compared with the kept one, with an interval."""


def evaluate(data: BoundTable, learner: Learner, candidate: Candidate, section: str) -> tuple[Findings, Candidate]:
    """Evaluate the kept model and its alternatives on all rows of a split.

    ``SECTION/METRIC`` of the kept model, ``network/METRIC``, ``ensemble/METRIC`` of the average of network and
    trees, ``baseline/tree_METRIC`` and ``baseline/mean_METRIC``; on the test rows ``test/network/METRIC`` and so on.
    The validation rows set the candidate's temperature; their own probabilities are scaled by that of other rows.
    """
    rows, _ = data.encoded(section)
    actual, found = data.actual(section), Findings()
    predictions = _predictions(data, learner, candidate, rows, found)
    blocks = data.blocks(section)
    if section == "valid":
        calibrated = candidate.fitted or calibrate(data.target, predictions["kept"], actual, blocks)
        candidate, _ = candidate.calibrated(calibrated, data.target, predictions["kept"], actual)
        predictions["kept"] = calibrated.predictions
        if data.target.classes:
            found.metrics["valid/temperature"] = calibrated.temperature
            found.lines.append(f"{candidate.title}: {calibrated}")
    kept = predictions["kept"]
    found.metrics[f"{section}/loss"] = data.target.loss_of(kept, actual)
    sure = intervals(learner.metrics if section == "test" else data.comparison_metrics(), kept, actual, blocks=blocks)
    found.metrics |= {f"{section}/{name}": value for name, value in ends_of(sure).items()}
    table, columns = [], dict[str, np.ndarray]()
    for model, values in predictions.items():
        title, prefix = MODELS[model]
        metrics = {name: metric(values, actual) for name, metric in learner.metrics.items()}
        place = f"{section}/" if model == "kept" or section != "valid" else ""
        found.metrics |= {f"{place}{prefix}{name}": value for name, value in metrics.items()}
        shown = f"{title} ({candidate.name})" if model == "kept" else title
        table.append({"model": shown, **{name: round(float(value), 5) for name, value in metrics.items()}})
        columns |= data.target.prefixed(model, values)
        if model in COMPARED and not np.array_equal(values, kept):
            found.gains += gains(
                f"{candidate.name} instead of {title}", data.comparison_metrics(), values, kept, actual, blocks
            )
    found.table("models", f"Models on the same {len(actual):,} {section} rows", table)
    found.text(f"{section}/models.txt", pd.DataFrame(table).to_string(index=False))
    found.lines += [", ".join(f"{name} {value}" for name, value in row.items()) for row in table]
    frame = data.frame.iloc[data.rows[section]].reset_index(drop=True)
    found.frame(f"{section}/predictions.feather", frame.assign(**columns))
    found.add(data.target.report(kept, actual, section, candidate.title, data.dates(section)))
    if data.params.tracking.top_losses:
        errors = data.target.errors(kept, actual)
        worst = np.argsort(-errors)[: data.params.tracking.top_losses]
        shown_rows = frame.iloc[worst].assign(error=errors[worst].round(4)).astype("string").fillna("")
        found.table("top-losses", f"{section.capitalize()} rows with the highest error: {candidate.title}", shown_rows)
    found.later["embeddings"] = lambda more: _draw_embeddings(data, learner, more)
    found.later["importance of columns"] = lambda more: _draw_importance(data, learner, candidate, section, more)
    return found, candidate


def _predictions(
    data: BoundTable, learner: Learner, candidate: Candidate, rows: Encoded, found: Findings
) -> dict[str, np.ndarray]:
    """Predictions of each model of `MODELS`."""
    predictions = {"kept": data.answers(learner, candidate, rows)}
    train, targets = data.encoded("train")
    if candidate.judged is not None:
        found.lines.append("the kept model is refitted on all rows but these; those beside it on training rows alone")
    if data.params.trees:
        states = (candidate.judged or candidate).states or [learner.state()]
        for model, members, parts in (
            ("network", states, {}),
            ("tree", [], {"trees": data.trees}),
            ("ensemble", states, {"trees": data.trees}),
        ):
            predictions[model] = data.answers(learner, Candidate(model, members, candidate.position, parts), rows)
        fitted = len(rows_to_fit(targets, data.params.seed))
        if fitted < len(train):
            found.lines.append(f"the trees are fitted on {fitted:,} of {len(train):,} training rows, drawn at random")
    mean = group_mean(data.encoder, train, targets, rows, data.params.seed)
    found.lines.append(f"the mean by group is by {' and '.join(mean.columns) or 'nothing'}")
    return {**predictions, "mean": mean.predictions}


def _draw_embeddings(data: BoundTable, learner: Learner, found: Findings) -> None:
    """Plot the embedding vectors of every category, one figure per column, and save them as feather files."""
    embeddings: Any = learner.network.body.embeddings
    drawn = 0
    for embedding, (name, categories) in zip(embeddings, data.encoder.categorical.items(), strict=True):
        weights = embedding.vectors().detach().cpu().numpy()
        labels = ["missing", *map(str, categories)]
        file = safe_name(name)
        table = pd.DataFrame(weights).add_prefix("component_")
        table.insert(0, "category", labels)
        found.frame(f"embeddings/{file}.feather", table)
        # Without missing values the vector of "missing" is untrained and would only stretch the figure.
        if len(categories) > 2 and drawn < MOST_EMBEDDINGS:
            drawn += 1
            draw = partial(plot_embedding, weights[1:], labels[1:], name)
            found.figure(f"embeddings/{file}.png", f"Embedding of {name} in the trained network", draw)


def _draw_importance(data: BoundTable, learner: Learner, candidate: Candidate, section: str, found: Findings) -> None:
    """How much the loss grows when a column is shuffled (Breiman, "Random Forests", 2001)."""
    generator = np.random.default_rng(data.params.seed)
    rows, actual = data.encoded(section)[0], data.actual(section)
    chosen = generator.permutation(len(actual))[:IMPORTANCE_ROWS]
    rows, actual = rows.rows(chosen), actual[chosen]

    def loss() -> float:
        return data.target.loss_of(data.answers(learner, candidate, rows), actual)

    whole, order, increases = loss(), generator.permutation(len(chosen)), dict[str, float]()
    places: dict[str, list[np.ndarray]] = {}
    for names, matrix in ((data.encoder.categorical, rows.categorical), (data.encoder.continuous, rows.continuous)):
        for place, name in enumerate(names):
            places.setdefault(name, []).append(matrix[:, place])
    for name, columns in places.items():
        kept = [column.copy() for column in columns]
        for column, values in zip(columns, kept, strict=True):
            column[:] = values[order]
        increases[name] = loss() - whole
        for column, values in zip(columns, kept, strict=True):
            column[:] = values
    table = pd.DataFrame({"column": list(increases), "loss_increase": list(increases.values())})
    found.frame(f"{section}/importance.feather", table.sort_values("loss_increase", ascending=False))
    title = f"Permutation importance: {candidate.title}, {len(actual):,} {section} rows"
    found.figure(f"{section}/importance.png", title, lambda: plot_importance(increases, "loss", title))
