"""The Optuna study of a sweep, which any number of processes may join and leave."""

import json
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import optuna
from filelock import FileLock
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel

from unfreeze.models.errors import UserError
from unfreeze.models.settings.search import LOWER_IS_BETTER, Dimension, SweepSpec, Value, rules_of_thumb, whole_numbers
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.processes import is_gone, this_process
from unfreeze.tasks.sweeps.storage import reachable

WORKER = "UNFREEZE_WORKER"
"""Environment variable with the number of a worker that was started beside the first, which reports."""
KEPT, LOSSES = "kept", "losses"
"""Attributes of a trial: the model that its training would keep, and that model's losses of some validation rows."""
MAX_RETRIES = 2
"""Of a trial whose process died or was stopped."""
OVER = (TrialState.COMPLETE, TrialState.PRUNED)

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", ExperimentalWarning)


def open_study(name: str, search: SweepSpec, training: BaseModel) -> Study:
    """The study of that name, created if there is none, with the rules of thumb as its first trials.

    Raises
    ------
    UserError
        If the study was begun with another space, objectives, repeats or training.
    """
    lower, higher = optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE
    directions = [lower if objective in LOWER_IS_BETTER else higher for objective in search.objectives]
    home().mkdir(parents=True, exist_ok=True)
    with FileLock(home() / "optuna.lock"), reachable(search.storage, _retry_silent) as storage:
        study = optuna.create_study(
            study_name=name, storage=storage, directions=directions, pruner=_pruner(search), load_if_exists=True
        )
        study.sampler = _sampler(search, training, len(study.get_trials(deepcopy=False)))
        begun_with = _settings(search, training)
        known = study.user_attrs.get("settings")
        if known is None:
            study.set_user_attr("settings", begun_with)
            study.set_metric_names(search.objectives)
            for rule, values in rules_of_thumb(search, training).items():
                study.enqueue_trial(values, user_attrs={"rule": rule}, skip_if_exists=True)
        elif differences := _differences(_completed(known, training), begun_with):
            raise UserError(
                f"study {name!r} was begun with other settings: {differences}; give the same, or another --study"
            )
    return study


def load_study(name: str, storage: str | None) -> Study:
    """A study that exists; `UserError` with the names that do otherwise."""
    with reachable(storage, _retry_silent) as opened:
        names = optuna.get_all_study_names(opened)
        if name not in names:
            raise UserError(f"there is no study {name!r}; there are: {', '.join(sorted(names)) or 'none'}")
        return optuna.load_study(study_name=name, storage=opened)


def settings_of(study: Study) -> dict[str, Any]:
    """What the study was begun with: ``kind`` (of training), ``training``, ``space``, ``objectives``, ``repeats``."""
    settings: dict[str, Any] = study.user_attrs["settings"]
    return settings


def suggest(trial: Trial, search: SweepSpec, training: BaseModel) -> dict[str, Value]:
    """The trial's values by dimension; of a rule of thumb those that it states, as the recipe has the others."""
    queued = trial.study.get_trials(deepcopy=False)[trial.number].system_attrs
    stated = queued.get("fixed_params", {}) if "rule" in trial.user_attrs else None
    return {
        dimension.name: _suggest(trial, dimension, training)
        for dimension in search.space
        if stated is None or dimension.name in stated
    }


def run_next(study: Study, trials: int, objective: Callable[[Trial], float | tuple[float, ...]]) -> bool:
    """Run one more trial, unless `trials` are over or under way; returns whether one was run.

    `optuna.TrialPruned` and NaN prune the trial; any other `Exception` fails it and is raised. What ends the process
    (Ctrl-C, a cancellation) fails it too, and its values are queued again. A grid is over when every point was tried.
    """
    # Held until this process owns the trial, so that workers start no trial too many and retry none twice.
    lock = FileLock(home() / "optuna.lock")
    number: int | None = None

    def watched(trial: Trial) -> float | tuple[float, ...]:
        nonlocal number
        number = trial.number
        for name, value in this_process().items():
            trial.set_user_attr(name, value)
        lock.release()
        result = objective(trial)
        if any(math.isnan(value) for value in (result if isinstance(result, tuple) else (result,))):
            raise optuna.TrialPruned
        return result

    try:
        lock.acquire()
        close_stale_trials(study)
        known = study.get_trials(deepcopy=False)
        if sum(each.state in (*OVER, TrialState.RUNNING) for each in known) >= trials:
            return False
        if isinstance(study.sampler, _Grid) and study.sampler.is_begun(known):
            return False
        study.optimize(watched, n_trials=1)
        return True
    except BaseException as error:
        if number is not None and not isinstance(error, Exception):
            _fail_and_retry(study, study.get_trials(deepcopy=False)[number], "stopped")
        raise
    finally:
        lock.release()


def close_stale_trials(study: Study) -> None:
    """Fail trials whose process on this machine is gone, or whose machine fell silent, and queue their values again."""
    optuna.storages.fail_stale_trials(study)  # Optuna's own call comes too late for the last trial of a study
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("unfreeze.process") and is_gone(trial.user_attrs):
            _fail_and_retry(study, trial, "its process ended")


def counts(study: Study) -> dict[str, int]:
    """Number of trials: ``complete``, ``pruned``, ``failed``."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    named = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    return {name: states.count(state) for name, state in named.items()}


def best_trial(study: Study) -> FrozenTrial | None:
    """The trial with the best value, of the first objective if there are several; None before any is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    lower = study.directions[0] == optuna.study.StudyDirection.MINIMIZE
    return min(complete, key=lambda trial: trial.values[0] if lower else -trial.values[0], default=None)


def is_among_best(study: Study, values: tuple[float, ...]) -> bool:
    """Whether a trial with these values is the best so far, or with several objectives worse than no other."""
    signs = np.array([1 if each == optuna.study.StudyDirection.MINIMIZE else -1 for each in study.directions])
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    theirs = signs * np.array([trial.values for trial in complete]).reshape(-1, len(signs))
    mine = signs * np.array(values)
    dominated = (theirs <= mine).all(axis=1) & (theirs < mine).any(axis=1)
    return not (np.isnan(mine).any() or dominated.any())


def _fail_and_retry(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Mark a trial that is not over as failed, and queue its values again."""
    if trial.state not in OVER:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        _retry(study, trial, reason)


def _retry_silent(study: Study, trial: FrozenTrial) -> None:
    """In the place of Optuna's own callback, which keeps the tags of the process that is gone, and counts by itself."""
    _retry(study, trial, "its worker fell silent")


def _retry(study: Study, trial: FrozenTrial, reason: str) -> None:
    """Queue a trial's values again, with the same rule, unless they failed too often."""
    retries = int(trial.user_attrs.get("retries", 0))
    values = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if retries < MAX_RETRIES and values:
        attributes = {"retries": retries + 1, "retry_of": trial.number, "reason": reason}
        if "rule" in trial.user_attrs:
            attributes["rule"] = trial.user_attrs["rule"]
        study.enqueue_trial(values, user_attrs=attributes)


def _suggest(trial: Trial, dimension: Dimension, training: BaseModel) -> Value:
    if dimension.choices is not None:
        return cast(Value, trial.suggest_categorical(dimension.name, dimension.choices))
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    if whole_numbers(dimension, training):
        return trial.suggest_int(dimension.name, round(low), round(high), log=dimension.log)
    return trial.suggest_float(dimension.name, low, high, log=dimension.log)


def _sampler(search: SweepSpec, training: BaseModel, trials: int) -> optuna.samplers.BaseSampler:
    # Workers that all began with the same seed, or a study that continues, would propose the same values again.
    seed = search.sampler_seed + 1000 * int(os.environ.get(WORKER, "0")) + trials
    if search.sampler == "grid":
        grid = {dimension.name: dimension.grid(whole_numbers(dimension, training)) for dimension in search.space}
        return _Grid(grid, seed=search.sampler_seed)
    samplers = {
        "tpe": optuna.samplers.TPESampler,
        "cmaes": optuna.samplers.CmaEsSampler,
        "random": optuna.samplers.RandomSampler,
    }
    sampler: optuna.samplers.BaseSampler = samplers[search.sampler](seed=seed)
    return sampler


class _Grid(optuna.samplers.GridSampler):
    """A grid in a study with queued trials (rules of thumb, retries), which need not be points of it."""

    def __init__(self, grid: Mapping[str, Sequence[Value]], seed: int) -> None:
        super().__init__(grid, seed)
        self.grid = grid

    def is_begun(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether every point was tried or is being tried, and nothing is queued."""
        points = {trial.system_attrs["grid_id"] for trial in trials if "grid_id" in trial.system_attrs}
        waiting = any(trial.state == TrialState.WAITING for trial in trials)
        return not waiting and len(points) >= math.prod(len(values) for values in self.grid.values())

    def sample_independent(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        """The value of the trial's point; of a queued trial that leaves the setting open, any of the grid."""
        if "grid_id" in trial.system_attrs:
            return super().sample_independent(study, trial, name, distribution)
        return self.grid[name][trial.number % len(self.grid[name])]

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: Optuna's own raises for trials from the queue, and `run_next` sees when the grid is over."""


def _pruner(search: SweepSpec) -> optuna.pruners.BasePruner:
    if len(search.objectives) > 1 or search.pruner == "none":
        return optuna.pruners.NopPruner()
    if search.repeats > 1:
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    if search.pruner == "hyperband":
        return optuna.pruners.HyperbandPruner()
    # The rules of thumb always run to their end: every other trial is compared with them.
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_min_trials=3)


def _settings(search: SweepSpec, training: BaseModel) -> dict[str, Any]:
    chosen = search.model_dump(mode="json", include={"objectives", "repeats"})
    chosen["space"] = {dimension.name: dimension.model_dump(mode="json") for dimension in search.space}
    return {"kind": type(training).__name__, "training": training.model_dump(mode="json"), **chosen}


def _completed(known: Mapping[str, Any], training: BaseModel) -> Mapping[str, Any]:
    """Settings of a study of an earlier release, with the defaults of fields that it lacked."""
    if known["kind"] != type(training).__name__:
        return known
    return {**known, "training": type(training)(**known["training"]).model_dump(mode="json")}


def _differences(known: Mapping[str, Any], given: Mapping[str, Any], prefix: str = "") -> str:
    lines = []
    for key in known.keys() | given.keys():
        if f"{prefix}{key}" in ("training.tracking", "training.device"):
            continue  # another worker may log elsewhere and have another device
        old, new = known.get(key), given.get(key)
        named = [_by_name(each) for each in (old, new)]
        if named[0] and list(named[0]) == list(named[1]):
            old, new = named
        if isinstance(old, dict) and isinstance(new, dict):
            lines.append(_differences(old, new, f"{prefix}{key}."))
        elif old != new:
            texts = [", ".join(entries) or _text(each) for each, entries in zip((old, new), named, strict=True)]
            lines.append(f"{prefix}{key} was {texts[0]}, is {texts[1]}")
    return ", ".join(sorted(line for line in lines if line))


def _text(value: Any) -> str:
    if value is None:
        return "not there"
    if not isinstance(value, dict):
        return json.dumps(value)[:300]
    given = {name: each for name, each in value.items() if name != "name" and each not in (None, False)}
    return f"({', '.join(f'{name} {json.dumps(each)}' for name, each in given.items())})"[:300]


def _by_name(value: Any) -> dict[str, Any]:
    """Name -> entry of a list of stages; empty for anything else."""
    if not (isinstance(value, list) and all(isinstance(entry, dict) and "name" in entry for entry in value)):
        return {}
    return {entry["name"]: entry for entry in value}
