"""What a sweep found, as images and tables, for MLflow and the Prefect page."""

import json
import math
import warnings
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("Agg")  # tasks have no screen

import numpy as np
import optuna
import optuna.visualization.matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from plotly.graph_objects import Figure as InteractiveFigure
from scipy.stats import wilcoxon

from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.report import log_figure, show_table
from unfreeze.tasks.sweeps.study import best_trial

_TITLES = {
    "history": "Trials of the sweep, in order",
    "parallel_coordinate": "All settings of the sweep's trials",
    "slice": "Each setting against the objective",
    "contour": "Settings in pairs against the objective",
    "importance": "Which settings matter",
    "pareto_front": "Trials that are worse than no other (Pareto front)",
}
_OPTUNA_NAMES = {"history": "optimization_history", "importance": "param_importances"}
"""What Optuna calls a plot, where it is not the same."""
_MOST_IN_CONTOUR = 4
"""Settings in the contour plot, which has a panel for every pair."""
_MOST_TICK_LETTERS = 26
"""On the labels of an axis, before they are turned so that they do not run into each other."""
_FEWEST_PAIRS = 5
"""Repeats that the Wilcoxon test needs to say anything."""


def draw_study(study: optuna.Study, objectives: list[str]) -> dict[str, tuple[InteractiveFigure, Figure]]:
    """Draw what the trials so far are enough for; each plot as a page to explore and as an image.

    Returns
    -------
    dict
        Out of ``history``, ``parallel_coordinate``, ``slice``, ``contour`` and ``importance``, which show the first
        objective, and with several objectives ``pareto_front``.
    """
    first = _first_objective(study) if len(objectives) > 1 else study
    drawn = {}
    # Optuna calls its images in Matplotlib experimental.
    with warnings.catch_warnings(action="ignore", category=ExperimentalWarning):
        for name, options in _plots(first, objectives[0]).items():
            drawn[name] = _draw(name, first, options)
        if len(objectives) > 1 and best_trial(study):
            # More than three cannot be drawn; which trials are best goes by all of them nevertheless.
            options = {"targets": lambda trial: trial.values[:3], "target_names": objectives[:3]}
            drawn["pareto_front"] = _draw("pareto_front", study, options)
    return drawn


def compare_with_rules(study: optuna.Study, objectives: list[str]) -> list[dict[str, object]]:
    """The table that says what the search gained: the best trial, and every rule of thumb that ran to its end.

    Where trials were repeated it also says whether a difference is more than the seeds make by themselves.

    Returns
    -------
    list of dict
        One row per trial, the best one first; empty before any trial is complete.
    """
    best = best_trial(study)
    if best is None:
        return []
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    compared = [("best of the search", best)]
    compared += [(trial.user_attrs["rule"], trial) for trial in complete if "rule" in trial.user_attrs]
    repeated = any(len(_repeats(trial)) > 1 for _, trial in compared)
    return [
        {
            "what": what,
            "trial": trial.number,
            **{name: _rounded(value) for name, value in zip(objectives, trial.values, strict=True)},
            "difference": _rounded(best.values[0] - trial.values[0]),
            **(_noise(best, trial) if repeated else {}),
            **{name: _short(value) for name, value in trial.params.items()},
        }
        for what, trial in compared
    ]


def keep_report(study: optuna.Study, objectives: list[str], run_id: str) -> None:
    """Store plots and tables of a sweep under ``sweep/`` in its MLflow run, and show them on the Prefect page."""
    for name, (page, figure) in draw_study(study, objectives).items():
        # Each page brings its own plotly.js: it opens without a network.
        tracking.log_text(run_id, page.to_html(include_plotlyjs=True), f"sweep/{name}.html")
        log_figure(run_id, figure, f"sweep/{name}.png", _TITLES[name])
    tracking.log_frame(run_id, _trials(study, objectives), "sweep/trials.feather")
    rows = compare_with_rules(study, objectives)
    if rows:
        table = pd.DataFrame(rows)
        tracking.log_frame(run_id, _as_feather(table), "sweep/search_vs_rule_of_thumb.feather")
        tracking.log_text(run_id, table.to_string(index=False), "sweep/search_vs_rule_of_thumb.txt")
        show_table(rows, "search-vs-rule-of-thumb", "Search against the rule of thumb")


def _first_objective(study: optuna.Study) -> optuna.Study:
    """The study as if its first objective were the only one.

    With a `target` instead, Optuna would know no better and worse: no best value so far, and colours and importance as
    if every objective should be low.
    """
    trials = study.get_trials()
    for trial in trials:
        trial.values = trial.values[:1] if trial.values else None
    alone = optuna.create_study(direction=study.directions[0])
    alone.add_trials(trials)
    return alone


def _plots(study: optuna.Study, objective: str) -> dict[str, dict[str, Any]]:
    """Optuna's options for every plot that there are trials enough for."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in complete if math.isfinite(trial.values[0])]  # Optuna excludes the others
    if not trials:
        return {}
    varied = _varied(trials)
    plots: dict[str, dict[str, Any]] = {"history": {}}
    if varied:
        plots |= {"parallel_coordinate": {"params": varied}, "slice": {"params": varied}}
    if len(varied) > 1 and len({trial.values[0] for trial in trials}) > 1:
        importance = optuna.importance.get_param_importances(study, params=varied)
        plots |= {"contour": {"params": list(importance)[:_MOST_IN_CONTOUR]}, "importance": {"params": varied}}
    return {name: {**options, "target_name": objective} for name, options in plots.items()}


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """Settings that are not the same in all trials: the others have nothing to show."""
    values: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    return sorted(name for name, different in values.items() if len(different) > 1)


def _draw(name: str, study: optuna.Study, options: dict[str, Any]) -> tuple[InteractiveFigure, Figure]:
    function = f"plot_{_OPTUNA_NAMES.get(name, name)}"
    page = getattr(optuna.visualization, function)(study, **options)
    # Optuna sets pyplot's style for good, which would show in every later image of this process.
    with matplotlib.rc_context({"figure.constrained_layout.use": True}):
        axes = list(np.ravel(getattr(optuna.visualization.matplotlib, function)(study, **options)))
        figure = axes[0].get_figure()
        pyplot.close(figure)  # it can still be rendered, but pyplot no longer holds it
        _make_readable(name, figure, axes, options.get("params", []))
    return page, figure


def _make_readable(name: str, figure: Figure, axes: list[Axes], params: list[str]) -> None:
    """Give Optuna's image the room that its labels need, and plain numbers."""
    panel = max([3.0, *(0.1 * len(param) for param in params)])
    if name == "history":
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    elif name == "importance":
        figure.set_size_inches(8, max(4.8, 1 + 0.4 * len(params)))
        axes[0].legend(loc="upper left", bbox_to_anchor=(1.02, 1))  # beside the bars, not on top of them
    elif name == "parallel_coordinate":
        figure.set_size_inches(2.5 + 1.8 * len(params), 4.8)
    elif name == "slice":
        figure.set_size_inches(2 + panel * len(params), 4.8)
    elif name == "contour" and len(params) > 2:
        figure.set_size_inches(2 + panel * len(params), panel * len(params))
    elif name == "pareto_front":
        axes[0].locator_params(nbins=6)
    for each in axes if len(axes) > 1 else []:
        each.label_outer()
    for each in figure.axes:
        for axis in (each.xaxis, each.yaxis):
            if axis.get_scale() == "log":
                _number_plainly(axis)
    figure.draw_without_rendering()  # only now is it known which ticks there are
    for each in figure.axes:
        if name == "parallel_coordinate":
            for label in each.get_yticklabels():  # lines run across them
                label.set_bbox({"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1})
        elif name in ("slice", "contour"):
            letters = sum(len(label.get_text()) for label in each.get_xticklabels())
            each.tick_params(axis="x", rotation=30 if letters > _MOST_TICK_LETTERS else 0)


def _number_plainly(axis: Axis) -> None:
    """Label a logarithmic axis with 2, 5, 10 instead of powers of ten with every digit in between."""
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low)
    axis.set_major_locator(MaxNLocator(4) if decades < 1 else LogLocator(subs=(1, 2, 5) if decades < 3 else (1,)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FormatStrFormatter("%g"))


def _noise(best: FrozenTrial, trial: FrozenTrial) -> dict[str, object]:
    """How sure the difference between two repeated trials is; None for what the repeats do not tell."""
    pairs = list(zip(_repeats(best), _repeats(trial), strict=False))
    testable = len(pairs) >= _FEWEST_PAIRS and any(one != other for one, other in pairs)
    error, best_error = _standard_error(trial), _standard_error(best)
    within = None
    if error is not None and best_error is not None:
        within = abs(best.values[0] - trial.values[0]) <= math.hypot(error, best_error)
    return {
        "standard error": None if error is None else _rounded(error),
        "p": _rounded(float(wilcoxon(*zip(*pairs, strict=True)).pvalue)) if testable else None,
        "within noise": within,
    }


def _repeats(trial: FrozenTrial) -> list[float]:
    """The first objective with each seed, in the order of the seeds; none if a training diverged."""
    values: list[float] = trial.user_attrs.get("repeats", [])
    return values if all(map(math.isfinite, values)) else []


def _standard_error(trial: FrozenTrial) -> float | None:
    values = _repeats(trial)
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _rounded(value: float) -> float | None:
    """To five digits; None for what a page cannot show as a number."""
    return round(value, 5) if math.isfinite(value) else None


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _trials(study: optuna.Study, objectives: list[str]) -> pd.DataFrame:
    """All trials, whatever became of them, with the objectives by name."""
    names: Mapping[str, str] = {"value": objectives[0]}
    if len(objectives) > 1:
        names = {f"values_{place}": objective for place, objective in enumerate(objectives)}
    return _as_feather(study.trials_dataframe().rename(columns=names))


def _as_feather(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of one type each: what has no type of its own, or several in one column, is JSON."""
    kept = table.copy()
    for name in table:
        kinds = {type(value) for value in table[name].dropna()}
        if len(kinds) > 1 or kinds & {list, dict}:
            kept[name] = table[name].map(lambda value: json.dumps(value, default=str), na_action="ignore")
    return kept
