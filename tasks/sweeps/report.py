"""Plots and tables of a sweep, for MLflow and the Prefect page."""

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
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, MaxNLocator, NullLocator
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState
from plotly.graph_objects import Figure as InteractiveFigure
from scipy.stats import sem, t, ttest_ind, wilcoxon

from unfreeze.models.evaluation.results import Findings
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import as_warning, log_notice
from unfreeze.tasks.machine.page import show_table
from unfreeze.tasks.report.parts import keep_part
from unfreeze.tasks.sweeps.study import KEPT, LOSSES, best_trial
from unfreeze.tasks.tracking.files import log_figure

_PLOTS = {
    "history": ("optimization_history", "Trials of the sweep, in order"),
    "parallel_coordinate": ("parallel_coordinate", "All settings of the sweep's trials"),
    "slice": ("slice", "Each setting against the objective"),
    "contour": ("contour", "Settings in pairs against the objective"),
    "importance": ("param_importances", "Which settings matter"),
    "pareto_front": ("pareto_front", "Trials that are worse than no other (Pareto front)"),
}
"""Name of a plot -> Optuna's name for it, and its title."""
_MAX_IN_CONTOUR = 4
"""Settings in the contour plot, which has a panel for every pair."""
_MIN_ROWS = 10
"""Validation rows, or blocks of them, that an interval needs."""
_MIN_PAIRS = 5
"""Repeats that the Wilcoxon test needs."""
SIGNIFICANCE = 0.05
"""Largest p-value of Welch's test at which repeats differ by more than the noise of their seeds."""


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
        for name, params in _drawable(first).items():
            options: dict[str, Any] = {"params": params} if params else {}
            with as_warning(f"figure sweep/{name}"):
                drawn[name] = _draw(name, first, {**options, "target_name": objectives[0]})
        if len(objectives) > 1 and best_trial(study):
            # More than three cannot be drawn; which trials are best goes by all of them nevertheless.
            options = {"targets": lambda trial: trial.values[:3], "target_names": objectives[:3]}
            drawn["pareto_front"] = _draw("pareto_front", study, options)
    return drawn


def compare_with_rules(study: optuna.Study, objectives: list[str]) -> list[dict[str, object]]:
    """What the search gained: the best trial beside every rule of thumb that ran to its end.

    Returns
    -------
    list of dict
        One row per trial, the best one first; empty before any trial is complete. Where trials were repeated, also
        whether a difference is more than the noise of the seeds.
    """
    best = best_trial(study)
    if best is None:
        return []
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    compared = [("best of the search", best)]
    compared += [(trial.user_attrs["rule"], trial) for trial in complete if "rule" in trial.user_attrs]
    repeated = any(len(_repeats(trial)) > 1 for _, trial in compared)
    names = list(dict.fromkeys(name for _, trial in compared for name in trial.params))
    return [
        {
            "what": what,
            "trial": trial.number,
            **{name: _rounded(value) for name, value in zip(objectives, trial.values, strict=True)},
            "difference": _rounded(best.values[0] - trial.values[0]),
            **({"kept": trial.user_attrs[KEPT]} if KEPT in trial.user_attrs else {}),
            **(_noise(best, trial) if repeated else _improvement(best, trial, len(complete))),
            **{name: _shown(trial.params.get(name)) for name in names},
        }
        for what, trial in compared
    ]


def keep_report(study: optuna.Study, objectives: list[str], run_id: str) -> None:
    """Store plots and tables of a sweep under ``sweep/`` in its MLflow run, and show them on the Prefect page."""
    found = Findings()
    for name, (page, figure) in draw_study(study, objectives).items():
        # Each page brings its own plotly.js: it opens without a network.
        tracking.log_text(run_id, page.to_html(include_plotlyjs=True), f"sweep/{name}.html")
        found.figure(f"sweep/{name}.png", _PLOTS[name][1], partial(_same, figure))
        log_figure(run_id, partial(_same, figure), f"sweep/{name}.png", _PLOTS[name][1])
    names = {f"values_{place}": objective for place, objective in enumerate(objectives)} | {"value": objectives[0]}
    trials = study.trials_dataframe().drop(columns=f"user_attrs_{LOSSES}", errors="ignore").rename(columns=names)
    tracking.log_frame(run_id, _as_feather(trials), "sweep/trials.feather")
    rows = compare_with_rules(study, objectives)
    if rows:
        table = pd.DataFrame(rows)
        tracking.log_frame(run_id, _as_feather(table), "sweep/search_vs_rule_of_thumb.feather")
        tracking.log_text(run_id, table.to_string(index=False), "sweep/search_vs_rule_of_thumb.txt")
        show_table(rows, "search-vs-rule-of-thumb", "Search against the rule of thumb")
        found.table("search-vs-rule-of-thumb", "Search against the rule of thumb", rows)
        found.lines = verdict(rows, objectives[0])
        for line in found.lines:
            log_notice(line)
    keep_part(run_id, "search", found)


def _same(figure: Figure) -> Figure:
    return figure


def verdict(rows: list[dict[str, Any]], objective: str) -> list[str]:
    """What the search gained, in words, from `compare_with_rules`."""
    best, *rules = rows
    kept = f", whose training keeps {best['kept']}" if best.get("kept") else ""
    lines = [
        f"The best of the search, chosen by this {objective}, is trial {best['trial']} with {best[objective]}{kept}."
    ]
    for rule in rules:
        within = rule.get("within noise")
        sure = "; one seed each, so it may be chance"
        if rule["trial"] == best["trial"]:
            lines.append(f"No trial was better than trial {rule['trial']}: {rule['what']}.")
            continue
        if rule["difference"] == 0 and rule.get("kept"):
            lines.append(f"{rule['what']} (trial {rule['trial']}) is as good: it keeps {rule['kept']} as well.")
            continue
        if rule.get("improvement low") is not None:
            low, high = rule["improvement low"], rule["improvement high"]
            result = "better" if low > 0 else "not shown to be better"
            sure = (
                f"; the best is {result} on the validation rows, improvement {low:+.4g} to {high:+.4g} (95 % interval "
                "that allows for the number of trials)"
            )
        if within is not None:
            sure = f", {'within' if within else 'more than'} the noise of the seeds (95 %)"
        lines.append(f"{rule['what']} (trial {rule['trial']}) has {rule[objective]}: {rule['difference']:+.4g}{sure}.")
    return lines


def _improvement(best: FrozenTrial, trial: FrozenTrial, trials: int) -> dict[str, object]:
    """Interval of what the best trial's kept model has less of another's loss on the same validation rows.

    The best was chosen by these rows, so the interval is at 95 % for all trials together (Bonferroni).
    """
    losses = [each.user_attrs.get(LOSSES, []) for each in (trial, best)]
    if len(losses[0]) != len(losses[1]) or len(losses[0]) < _MIN_ROWS:
        return {}
    differences = np.subtract(*losses)
    reach = float(t.ppf(1 - 0.025 / max(trials - 1, 1), len(differences) - 1) * sem(differences))
    mean = float(differences.mean())
    return {"improvement low": _rounded(mean - reach), "improvement high": _rounded(mean + reach)}


def _shown(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def _first_objective(study: optuna.Study) -> optuna.Study:
    """The study as if its first objective were the only one.

    Optuna's `target` takes no direction: its plots would show no best value, and colours as if low were better.
    """
    trials = study.get_trials()
    for trial in trials:
        trial.values = trial.values[:1] if trial.values else None
    alone = optuna.create_study(direction=study.directions[0])
    alone.add_trials(trials)
    return alone


def _drawable(study: optuna.Study) -> dict[str, list[str]]:
    """The plots that there are enough trials for, with the settings that each shows: those that vary."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [trial for trial in complete if math.isfinite(trial.values[0])]  # Optuna excludes the others
    if not trials:
        return {}
    names = sorted({name for trial in trials for name in trial.params})
    varied = [name for name in names if len({trial.params[name] for trial in trials if name in trial.params}) > 1]
    plots: dict[str, list[str]] = {"history": []}
    if varied:
        plots |= {"parallel_coordinate": varied, "slice": varied}
    if len(varied) > 1 and len({trial.values[0] for trial in trials}) > 1:
        importance = optuna.importance.get_param_importances(study, params=varied)
        plots |= {"contour": list(importance)[:_MAX_IN_CONTOUR], "importance": varied}
    return plots


def _draw(name: str, study: optuna.Study, options: dict[str, Any]) -> tuple[InteractiveFigure, Figure]:
    function = f"plot_{_PLOTS[name][0]}"
    page = getattr(optuna.visualization, function)(study, **options)
    # Optuna sets pyplot's style for good, which would show in every later image of this process.
    with matplotlib.rc_context({"figure.constrained_layout.use": True, "text.parse_math": False}):
        axes = list(np.ravel(getattr(optuna.visualization.matplotlib, function)(study, **options)))
        figure = axes[0].get_figure()
        pyplot.close(figure)  # it can still be rendered, but pyplot no longer holds it
        _make_readable(name, figure, axes, options.get("params", []))
    return page, figure


def _make_readable(name: str, figure: Figure, axes: list[Axes], params: list[str]) -> None:
    """Give Optuna's image the room that its labels need, and plain numbers."""
    panels = max([3.0, *(0.1 * len(param) for param in params)]) * len(params)
    if name in ("contour", "slice"):
        figure.set_size_inches(2 + panels, panels if name == "contour" else 4.8)
    elif name == "parallel_coordinate":
        figure.set_size_inches(2.5 + 1.8 * len(params), 4.8)
    elif name == "importance":
        figure.set_size_inches(8, max(4.8, 1 + 0.4 * len(params)))
        axes[0].legend(loc="upper left", bbox_to_anchor=(1.02, 1))  # beside the bars, not on top of them
    elif name == "history":
        axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for each in axes if name in ("contour", "slice") else []:
        if len(axes) > 1:
            each.label_outer()
        each.tick_params(axis="x", rotation=30)
    for each in figure.axes:
        for axis in (each.xaxis, each.yaxis):
            if axis.get_scale() == "log":
                _number_plainly(axis)


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
    testable = len(pairs) >= _MIN_PAIRS and any(one != other for one, other in pairs)
    error = _standard_error(trial)
    within = None
    if error is not None and _standard_error(best) is not None:
        within = not ttest_ind(_repeats(best), _repeats(trial), equal_var=False).pvalue <= SIGNIFICANCE
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


def _as_feather(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns of one type each: what has no type of its own, or several in one column, is JSON."""
    kept = table.copy()
    for name in table:
        kinds = {type(value) for value in table[name].dropna()}
        if len(kinds) > 1 or kinds & {list, dict}:
            kept[name] = table[name].map(lambda value: json.dumps(value, default=str), na_action="ignore")
    return kept
