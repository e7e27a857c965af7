"""Plots and tables of a sweep, for MLflow, the report and the Prefect page."""

import json
import math
import warnings
from functools import partial
from typing import Any

import matplotlib

matplotlib.use("Agg")  # tasks have no screen

import numpy as np
import optuna
import optuna.visualization.matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from plotly.graph_objects import Figure as InteractiveFigure
from scipy.stats import sem, t

from unfreeze.models.evaluation.results import Findings
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import as_warning
from unfreeze.tasks.report.findings import keep_findings
from unfreeze.tasks.sweeps.study import KEPT, LOSSES, best_trial

_PLOTS = {
    "history": ("optimization_history", "Trials of the sweep, in order"),
    "slice": ("slice", "Each setting against the objective"),
    "importance": ("param_importances", "Which settings matter"),
    "pareto_front": ("pareto_front", "Trials that are worse than no other (Pareto front)"),
}
"""Name of a plot -> Optuna's name for it, and its title."""
_MIN_ROWS = 10
"""Minimum number of validation rows, or blocks of them, for an interval."""


def draw_study(study: optuna.Study, objectives: list[str]) -> dict[str, tuple[InteractiveFigure, Figure]]:
    """Draw the plots for which there are enough trials, each as an interactive page and as an image.

    Returns
    -------
    dict
        Some of ``history``, ``slice`` and ``importance``; with several objectives ``history`` and ``slice`` of the
        first, and ``pareto_front``.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in complete if math.isfinite(trial.values[0])]  # Optuna excludes the others
    if not trials:
        return {}
    options: dict[str, Any] = {"target_name": objectives[0]}
    if len(objectives) > 1:
        options["target"] = lambda trial: trial.values[0]
    names = sorted({name for trial in trials for name in trial.params})
    varied = [name for name in names if len({trial.params[name] for trial in trials if name in trial.params}) > 1]
    plots: dict[str, dict[str, Any]] = {"history": options}
    if varied:
        plots["slice"] = {**options, "params": varied}
    if len(objectives) > 1:
        # Only three can be drawn; the best trials still depend on all of them.
        plots["pareto_front"] = {"targets": lambda trial: trial.values[:3], "target_names": objectives[:3]}
    elif len(varied) > 1 and len({trial.values[0] for trial in trials}) > 1:
        plots["importance"] = {**options, "params": varied}
    drawn = {}
    # Optuna's Matplotlib plots are experimental.
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        for name, chosen in plots.items():
            with as_warning(f"figure sweep/{name}"):
                drawn[name] = _draw(name, study, chosen)
    return drawn


def compare_with_rules(study: optuna.Study, objectives: list[str]) -> list[dict[str, object]]:
    """Compare the best trial with every completed rule of thumb.

    Returns
    -------
    list of dict
        One row per trial, the best one first; empty before any trial is complete. Has ``improvement low`` and
        ``improvement high`` if both trials have losses of the same validation rows or seeds.
    """
    best = best_trial(study)
    if best is None:
        return []
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    compared = [("best of the search", best)]
    compared += [(trial.user_attrs["rule"], trial) for trial in complete if "rule" in trial.user_attrs]
    names = list(dict.fromkeys(name for _, trial in compared for name in trial.params))
    lower_is_better = study.directions[0] == StudyDirection.MINIMIZE
    return [
        {
            "what": what,
            "trial": trial.number,
            **{name: _rounded(value) for name, value in zip(objectives, trial.values, strict=True)},
            "difference": _rounded(best.values[0] - trial.values[0]),
            **({"kept": trial.user_attrs[KEPT]} if KEPT in trial.user_attrs else {}),
            **_improvement(best, trial, len(complete), lower_is_better),
            **{name: _shown(trial.params.get(name)) for name in names},
        }
        for what, trial in compared
    ]


def keep_report(study: optuna.Study, objectives: list[str], run_id: str) -> list[str]:
    """Store plots and tables of a sweep under ``sweep/`` in its MLflow run; returns sentences on the search's gain.

    They also appear on the Prefect page.
    """
    found = Findings()
    for name, (page, figure) in draw_study(study, objectives).items():
        # Each page includes plotly.js and opens without a network.
        tracking.log_text(run_id, page.to_html(include_plotlyjs=True), f"sweep/{name}.html")
        found.figure(f"sweep/{name}.png", _PLOTS[name][1], partial(_same, figure))
    names = {f"values_{place}": objective for place, objective in enumerate(objectives)} | {"value": objectives[0]}
    trials = study.trials_dataframe().drop(columns=f"user_attrs_{LOSSES}", errors="ignore").rename(columns=names)
    found.frame("sweep/trials.feather", _as_feather(trials))
    rows = compare_with_rules(study, objectives)
    if rows:
        table = pd.DataFrame(rows)
        found.frame("sweep/search_vs_rule_of_thumb.feather", _as_feather(table))
        found.text("sweep/search_vs_rule_of_thumb.txt", table.to_string(index=False))
        found.table("search-vs-rule-of-thumb", "Search against the rule of thumb", rows)
        found.lines = verdict(rows, objectives[0])
    keep_findings(run_id, found, "search")
    return found.lines


def _same(figure: Figure) -> Figure:
    return figure


def verdict(rows: list[dict[str, Any]], objective: str) -> list[str]:
    """Sentences about the gain of the search, from the rows of `compare_with_rules`."""
    best, *rules = rows
    kept = f", whose training keeps {best['kept']}" if best.get("kept") else ""
    lines = [
        f"The best of the search, chosen by this {objective}, is trial {best['trial']} with {best[objective]}{kept}."
    ]
    for rule in rules:
        if rule["trial"] == best["trial"]:
            lines.append(f"No trial was better than trial {rule['trial']}: {rule['what']}.")
            continue
        if rule["difference"] == 0 and rule.get("kept"):
            lines.append(f"{rule['what']} (trial {rule['trial']}) is as good: it keeps {rule['kept']} as well.")
            continue
        sure = f"; one seed each and fewer than {_MIN_ROWS} validation rows, so it may be chance"
        if "improvement low" in rule:
            low, high = rule["improvement low"], rule["improvement high"]
            sure = (
                f"; the best is {'better' if low > 0 else 'not shown to be better'}, improvement {low:+.4g} to "
                f"{high:+.4g} (95 % interval that allows for the number of trials)"
            )
        apart = f"{abs(rule['difference']):.4g} {'more' if rule['difference'] < 0 else 'less'} than the best"
        lines.append(f"{rule['what']} (trial {rule['trial']}) has {rule[objective]}, {apart}{sure}.")
    return lines


def _improvement(best: FrozenTrial, trial: FrozenTrial, trials: int, lower_is_better: bool) -> dict[str, object]:
    """Interval of the best trial's gain over another, paired by seed or else by validation row.

    The best was chosen by these values, so the interval covers 95 % jointly for all trials (Bonferroni).
    """
    for name, fewest, lower in (("repeats", 2, lower_is_better), (LOSSES, _MIN_ROWS, True)):
        before, after = (each.user_attrs.get(name, []) for each in (trial, best))
        if trial.number != best.number and len(before) == len(after) >= fewest:
            gains = np.subtract(before, after) * (1 if lower else -1)
            reach = float(t.ppf(1 - 0.025 / max(trials - 1, 1), len(gains) - 1) * sem(gains))
            mean = float(gains.mean())
            if math.isfinite(mean) and math.isfinite(reach):
                return {"improvement low": _rounded(mean - reach), "improvement high": _rounded(mean + reach)}
    return {}


def _draw(name: str, study: optuna.Study, options: dict[str, Any]) -> tuple[InteractiveFigure, Figure]:
    function = f"plot_{_PLOTS[name][0]}"
    page = getattr(optuna.visualization, function)(study, **options)
    params = options.get("params", [])
    # Optuna changes pyplot's style permanently, which would affect all later images of this process.
    with matplotlib.rc_context({"figure.constrained_layout.use": True, "text.parse_math": False}):
        axes = list(np.ravel(getattr(optuna.visualization.matplotlib, function)(study, **options)))
        figure = axes[0].get_figure()
        pyplot.close(figure)  # still renderable, but released by pyplot
        if name == "slice":
            widest = max([3.0, *(0.1 * len(param) for param in params)])  # room for the longest name
            figure.set_size_inches(2 + widest * len(params), 4.8)
            for each in axes if len(axes) > 1 else []:
                each.label_outer()
        elif name == "importance":
            axes[0].legend(loc="upper left", bbox_to_anchor=(1.02, 1))  # beside the bars
        for axis in (axis for each in figure.axes for axis in (each.xaxis, each.yaxis) if axis.get_scale() == "log"):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))  # 1, 2, 5, 10 instead of powers of ten
            axis.set_minor_locator(NullLocator())
            axis.set_major_formatter("{x:g}")
    return page, figure


def _shown(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _rounded(value: float) -> float | None:
    """Round to five digits; None for NaN and infinities."""
    return round(value, 5) if math.isfinite(value) else None


def _as_feather(table: pd.DataFrame) -> pd.DataFrame:
    """Convert lists, mappings and columns of mixed types to JSON, as feather requires."""
    kept = table.copy()
    for name in table:
        kinds = {type(value) for value in table[name].dropna()}
        if len(kinds) > 1 or kinds & {list, dict}:
            kept[name] = table[name].map(lambda value: json.dumps(value, default=str), na_action="ignore")
    return kept
