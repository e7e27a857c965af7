"""What a sweep found, as pictures and tables, for MLflow and the Prefect page."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")  # tasks have no screen

import numpy as np
import optuna
import optuna.visualization.matplotlib
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from optuna.exceptions import ExperimentalWarning
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from plotly.graph_objects import Figure as InteractiveFigure
from scipy.stats import wilcoxon

from tasks import tracking
from tasks.report import keep_picture, show_table
from tasks.study import best_trial

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
_FEWEST_PAIRS = 5
"""Repeats that the Wilcoxon test needs to say anything."""


def draw_study(study: optuna.Study, objectives: list[str]) -> dict[str, tuple[InteractiveFigure, Figure]]:
    """Draw what the trials so far are enough for; each plot as a page to explore and as a picture.

    Returns
    -------
    dict
        Out of ``history``, ``parallel_coordinate``, ``slice``, ``contour`` and ``importance``, which are about the first
        objective, and with several objectives ``pareto_front``.
    """
    drawn = {}
    with _quiet():
        for name, options in _plots(study, objectives).items():
            function = f"plot_{_OPTUNA_NAMES.get(name, name)}"
            page = getattr(optuna.visualization, function)(study, **options)
            # Optuna switches pyplot's style for good, which would show in every later picture of this process.
            with matplotlib.rc_context({"figure.constrained_layout.use": True}):
                axes = np.ravel(getattr(optuna.visualization.matplotlib, function)(study, **options))
                figure = axes[0].get_figure()
                pyplot.close(figure)  # it can still be rendered, but pyplot no longer holds it
                _make_readable(name, figure, list(axes), len(options.get("params", [])))
            drawn[name] = (page, figure)
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
            **{name: round(value, 5) for name, value in zip(objectives, trial.values, strict=True)},
            "difference": round(best.values[0] - trial.values[0], 5),
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
        keep_picture(run_id, figure, f"sweep/{name}.png", _TITLES[name])
    tracking.log_frame(run_id, _trials(study, objectives), "sweep/trials.feather")
    rows = compare_with_rules(study, objectives)
    if rows:
        table = pd.DataFrame(rows)
        tracking.log_frame(run_id, _as_feather(table), "sweep/search_vs_rule_of_thumb.feather")
        tracking.log_text(run_id, table.to_string(index=False), "sweep/search_vs_rule_of_thumb.txt")
        show_table(rows, "search-vs-rule-of-thumb", "Search against the rule of thumb")


def _plots(study: optuna.Study, objectives: list[str]) -> dict[str, dict[str, Any]]:
    """Optuna's options for every plot that there are trials enough for."""
    # Optuna leaves out what is infinite.
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if math.isfinite(trial.values[0])
    ]
    if not trials:
        return {}
    several = len(objectives) > 1
    about: dict[str, Any] = {"target_name": objectives[0]}
    plots = {"history": about | ({"target": _first} if several else {})}
    if varied := _varied(trials):
        plots["parallel_coordinate"] = plots["slice"] = {**plots["history"], "params": varied}
    if len(varied) > 1 and len({trial.values[0] for trial in trials}) > 1:
        higher = study.directions[0] == StudyDirection.MAXIMIZE
        importance = {**about, "params": varied, **({"target": _minus_first if higher else _first} if several else {})}
        weights = optuna.importance.get_param_importances(study, params=varied, target=importance.get("target"))
        most = sorted(varied, key=lambda name: -weights[name])[:_MOST_IN_CONTOUR]
        plots |= {"contour": {**plots["history"], "params": most}, "importance": importance}
    if several:
        # More than three cannot be drawn; which trials are best goes by all of them nevertheless.
        plots["pareto_front"] = {"targets": lambda trial: trial.values[:3], "target_names": objectives[:3]}
    return plots


def _first(trial: FrozenTrial) -> float:
    return float(trial.values[0])


def _minus_first(trial: FrozenTrial) -> float:
    """With a target, Optuna's importance is always about what makes it low."""
    return -float(trial.values[0])


def _varied(trials: list[FrozenTrial]) -> list[str]:
    """Settings that are not the same in all trials: the others have nothing to show."""
    values: dict[str, set[Any]] = {}
    for trial in trials:
        for name, value in trial.params.items():
            values.setdefault(name, set()).add(value)
    return sorted(name for name, different in values.items() if len(different) > 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings that plots in Matplotlib are experimental, and that importance takes low values for good."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        warnings.filterwarnings(
            "ignore", "PedAnovaImportanceEvaluator computes the importances of params to achieve low"
        )
        yield


def _make_readable(name: str, figure: Figure, axes: list[Axes], params: int) -> None:
    """Give Optuna's picture the room that its labels need."""
    if name == "history":
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    elif name == "parallel_coordinate":
        figure.set_size_inches(2.5 + 1.8 * params, 4.8)
    elif name == "contour" and params > 2:
        figure.set_size_inches(2 + 3 * params, 3 * params)
    for each in axes if len(axes) > 1 else []:
        each.label_outer()
    for each in figure.axes:
        for axis in (each.xaxis, each.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_minor_locator(NullLocator())
                axis.set_major_formatter(FormatStrFormatter("%g"))


def _noise(best: FrozenTrial, trial: FrozenTrial) -> dict[str, object]:
    """How sure the difference between two repeated trials is; None for what the repeats do not tell."""
    theirs, mine = _repeats(best), _repeats(trial)
    error, best_error = _standard_error(mine), _standard_error(theirs)
    pairs = list(zip(theirs, mine, strict=False))
    differ = any(one != other for one, other in pairs)
    tested = len(pairs) >= _FEWEST_PAIRS and differ
    within = None
    if error is not None and best_error is not None:
        within = abs(best.values[0] - trial.values[0]) <= math.hypot(error, best_error)
    return {
        "standard error": None if error is None else round(error, 5),
        "p": round(float(wilcoxon(*zip(*pairs, strict=True)).pvalue), 5) if tested else None,
        "within noise": within,
    }


def _repeats(trial: FrozenTrial) -> list[float]:
    """The first objective with each seed, in the order of the seeds."""
    return list(trial.user_attrs.get("repeats", []))


def _standard_error(values: list[float]) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


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
    for name in table.select_dtypes(object):
        kinds = {type(value) for value in table[name].dropna()}
        if len(kinds) > 1 or kinds & {list, dict, tuple}:
            kept[name] = table[name].map(lambda value: json.dumps(value, default=str), na_action="ignore")
    return kept
