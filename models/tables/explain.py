"""Explanations of a table model: permutation importance of the raw columns, and SHAP values of its trees."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.metrics import Metric
from unfreeze.models.evaluation.results import Bar, Explanation, Section
from unfreeze.models.settings.search import LOWER_IS_BETTER
from unfreeze.models.tables.columns.encoding import Encoded
from unfreeze.models.tables.preparing.prepare import with_date_parts
from unfreeze.models.tables.preparing.row_reader import RowReader
from unfreeze.models.tables.preparing.sources import keep_where
from unfreeze.models.tables.serving import TablePredictor

MOST_ROWS = 10_000
"""Most rows predicted per column and repeat; of more, a random sample."""
MOST_SHAP_ROWS = 1_000
MOST_FEATURES = 20
MOST_OUTPUTS = 5
FIRST_ROWS = 3
REPEATS = 5
SEED = 0


def explain_rows(predictor: TablePredictor, table: pa.Table) -> Explanation:
    """Explain a table model's predictions on rows of its main table; importance needs their targets.

    Raises
    ------
    UserError
        If a column is missing, or no row can be used.
    """
    found = Explanation()
    numbers = np.arange(table.num_rows)
    if table.num_rows > MOST_ROWS and predictor.calendar is None:
        numbers = np.sort(np.random.default_rng(SEED).choice(table.num_rows, MOST_ROWS, replace=False))
        found.lines.append(f"{MOST_ROWS:,} random rows of {table.num_rows:,}")
        table = table.take(pa.array(numbers))
    else:  # event features depend on other rows, so sampling would change the data
        found.lines.append(f"{table.num_rows:,} rows")
    raw, errors = RowReader(table, predictor.types).read(0, table.num_rows)
    usable = np.setdiff1d(np.arange(len(raw)), list(errors))
    raw, numbers = raw.iloc[usable].reset_index(drop=True), numbers[usable]
    if errors:
        why = errors[min(errors)]
        found.notices.append(f"{len(errors):,} rows cannot be read and are left out, the first because of {why}")
    frame, unknown = predictor.assemble(raw)
    rows = np.setdiff1d(np.arange(len(frame)), list(unknown))
    if unknown:
        row, why = min(unknown.items())
        found.notices.append(f"{len(unknown):,} rows are left out; the first is row {numbers[row]}: {why}")
    if not len(rows):
        raise UserError(f"source: no row can be used; {found.notices[0] if found.notices else 'the file is empty'}")
    _add_importance(predictor, raw, frame, rows, found)
    _add_shap(predictor, frame.iloc[rows].reset_index(drop=True), numbers[rows], found)
    return found


def permutation_importance(
    raw: pd.DataFrame,
    columns: list[str],
    judge: Callable[[pd.DataFrame], float],
    sign: float,
    repeats: int = REPEATS,
    seed: int = SEED,
) -> pd.DataFrame:
    """Loss of quality when a column's values are shuffled between rows.

    Breiman, "Random forests", 2001, and Fisher et al., "All models are wrong, but many are useful", 2019. Raw columns
    are shuffled, and derived features (date parts, joined columns) follow. Redundant columns stand in for each other,
    so each alone seems unimportant.

    Parameters
    ----------
    raw
        Rows (N) with the `columns`.
    judge
        Returns the model's metric on such rows.
    sign
        1 if a higher metric is better, else -1.

    Returns
    -------
    pandas.DataFrame
        ``column``, ``worse by`` (the mean over the repeats) and ``deviation``, the most important column first.
    """
    random, before = np.random.default_rng(seed), judge(raw)
    found = []
    for name in columns:
        worse = []
        for _ in range(repeats):
            shuffled = raw[name].iloc[random.permutation(len(raw))].set_axis(raw.index)
            worse.append(sign * (before - judge(raw.assign(**{name: shuffled}))))
        found.append({"column": name, "worse by": float(np.mean(worse)), "deviation": float(np.std(worse))})
    return pd.DataFrame(found).sort_values("worse by", ascending=False, kind="stable", ignore_index=True)


def _add_importance(
    predictor: TablePredictor, raw: pd.DataFrame, frame: pd.DataFrame, rows: np.ndarray, found: Explanation
) -> None:
    """Add the importance of the raw columns on the rows a training would use, or a line with the reason for none."""
    data, names = predictor.params.data, predictor.encoder.target_names
    left_out = "permutation importance is left out: "
    if absent := [name for name in names if name not in frame]:
        found.lines.append(f"{left_out}the file has no target column {', '.join(map(repr, absent))}")
        return
    try:
        # A column used only in a condition is not needed to predict, so only the raw rows have it.
        others = raw[[name for name in raw if name not in frame]]
        kept = keep_where(pd.concat([frame, others], axis=1).iloc[rows], data.where)[0]
        rows = kept.index[kept[names].notna().all(axis=1)].to_numpy()
        if not len(rows):
            raise UserError("no row has a target")
        actual = predictor.target.actual(torch.from_numpy(predictor.encoder.targets(frame.iloc[rows])))
    except UserError as error:
        found.lines.append(f"{left_out}{error}")
        return
    metrics: dict[str, Metric] = {
        **predictor.target.metrics(predictor.params.metrics),
        "loss": predictor.target.loss_of,
    }
    predicted = predictor.results(frame.iloc[rows])
    # AUC is undefined for a single class.
    metric = next((name for name, each in metrics.items() if np.isfinite(each(predicted, actual))), "loss")

    def judge(shuffled: pd.DataFrame) -> float:
        return metrics[metric](predictor.results(predictor.assemble(shuffled)[0].iloc[rows]), actual)

    columns = [name for name in predictor.raw.needed if name in raw]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    importance = permutation_importance(raw, columns, judge, sign)
    found.lines.append(f"{metric} {metrics[metric](predicted, actual):.4g} on {len(rows):,} rows with a target")
    found.sections.append(
        Section(
            "importance",
            "Permutation importance",
            f"How much worse {metric} gets if a column's values change places between rows: mean and standard "
            f"deviation of {REPEATS} shuffles. Columns that say the same stand in for each other. On rows that the "
            "model was trained on, it shows what the model learned by heart as well.",
            bars=[Bar(*values) for values in importance.itertuples(index=False, name=None)],
            rows=_records(importance),
        )
    )


def _add_shap(predictor: TablePredictor, frame: pd.DataFrame, numbers: np.ndarray, found: Explanation) -> None:
    """Add SHAP values of the trees; `numbers` are the row numbers in the file."""
    trees, encoder = predictor.trees, predictor.encoder
    if trees is None:
        found.lines.append("SHAP values are left out: the model kept no trees, only networks")
        return
    if predictor.networks:
        found.notices.append("the model averages networks and trees; the SHAP values are of the trees alone")
    chosen = np.arange(len(frame))
    if len(frame) > MOST_SHAP_ROWS:
        random, wanted = np.random.default_rng(SEED), MOST_SHAP_ROWS - FIRST_ROWS
        others = random.choice(np.arange(FIRST_ROWS, len(frame)), wanted, replace=False)
        chosen = np.concatenate([np.arange(FIRST_ROWS), np.sort(others)])
    rows: Encoded = encoder.transform(with_date_parts(frame.iloc[chosen], predictor.params.data))
    names, values = trees.feature_names(), trees.contributions(rows)
    for output, (label, scale) in list(enumerate(_outputs(predictor)))[:MOST_OUTPUTS]:
        found.sections.append(_shap(f"shap-{output}", label, scale, names, values[output], numbers[chosen]))
    if len(values) > MOST_OUTPUTS:
        found.notices.append(f"SHAP values are shown for the first {MOST_OUTPUTS} of {len(values)} outputs")


def _outputs(predictor: TablePredictor) -> list[tuple[str, str]]:
    """Label and scale of each output of the trees."""
    classes = [str(each) for each in predictor.target.classes]
    if not classes:
        scale = "log(1 + target)" if predictor.encoder.log_target else "the target's own scale"
        return [(str(name), scale) for name in predictor.target.columns]
    if len(classes) == 2:
        return [(classes[1], "log-odds")]
    return [(name, "the class's score before the softmax") for name in classes]


def _shap(key: str, label: str, scale: str, names: list[str], values: np.ndarray, numbers: np.ndarray) -> Section:
    """Section with each feature's mean absolute SHAP value from `values` (N, F + 1), and contributions by row."""
    sizes = np.abs(values[:, :-1]).mean(axis=0)
    order = [each for each in np.argsort(-sizes, kind="stable")[:MOST_FEATURES].tolist() if sizes[each] > 0]
    first = range(min(FIRST_ROWS, len(values)))
    rows: list[dict[str, Any]] = [
        {"feature": names[feature], **{f"row {numbers[row]}": float(values[row, feature]) for row in first}}
        for feature in order
    ]
    if np.count_nonzero(sizes) > len(order):
        rest = np.setdiff1d(np.arange(len(names)), order)
        rows.append({"feature": "others", **{f"row {numbers[row]}": float(values[row, rest].sum()) for row in first}})
    rows.append({"feature": "base value", **{f"row {numbers[row]}": float(values[row, -1]) for row in first}})
    rows.append(
        {"feature": "sum: the trees' output", **{f"row {numbers[row]}": float(values[row].sum()) for row in first}}
    )
    return Section(
        key,
        f"SHAP of the trees: {label}",
        f"Mean size of each feature's contribution over {len(values):,} rows, in {scale} (exact TreeSHAP); below, what "
        "the features add to the base value in the first rows.",
        bars=[Bar(names[feature], float(sizes[feature])) for feature in order],
        rows=rows,
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
