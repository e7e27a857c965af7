"""The Optuna study of a sweep, open to any number of processes, and its storage."""

import itertools
import json
import os
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import BaseModel
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from unfreeze.models.errors import UserError
from unfreeze.models.settings.addresses import masked
from unfreeze.models.settings.fields import flatten
from unfreeze.models.settings.search import LOWER_IS_BETTER, Dimension, SweepSpec, Value, rules_of_thumb, whole_numbers
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.processes import is_gone, this_process

WORKER = "UNFREEZE_WORKER"
"""Environment variable with the number of an additional worker; the first, which reports, has none."""
PASSWORD = "UNFREEZE_STORAGE_PASSWORD"
"""Environment variable with the password of the studies' database, because addresses are public."""
KEPT, LOSSES = "kept", "losses"
"""Attributes of a trial: the model that its training would keep, and that model's losses on some validation rows."""
OVER = (TrialState.COMPLETE, TrialState.PRUNED)
HEARTBEAT_SECONDS = 20
"""Interval of a worker's heartbeats to a database; after three missed ones its trial is retried."""
SECONDS_TO_UNLOCK = 60
"""How long to wait for a SQLite file locked by another process."""
DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
"""Drivers for addresses that name none: those of our extras, not always SQLAlchemy's default."""

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", ExperimentalWarning)

RETRY = RetryHeartbeatStaleTrialCallback(max_retry=2)
"""Requeues the values of a trial whose process died or was stopped."""


def open_study(name: str, search: SweepSpec, training: BaseModel) -> Study:
    """Open a study, or create it with the rules of thumb as its first trials.

    Raises
    ------
    UserError
        If the study was created with another space, objectives, repeats or training.
    """
    lower, higher = StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE
    directions = [lower if objective in LOWER_IS_BETTER else higher for objective in search.objectives]
    home().mkdir(parents=True, exist_ok=True)
    with FileLock(home() / "optuna.lock"), named_trouble(search.storage):
        study = optuna.create_study(
            study_name=name,
            storage=_storage(search.storage),
            directions=directions,
            pruner=_pruner(search),
            load_if_exists=True,
        )
        study.sampler = _sampler(search, len(study.get_trials(deepcopy=False)))
        begun_with = _settings(search, training)
        known = study.user_attrs.get("settings")
        if known is None:
            study.set_user_attr("settings", begun_with)
            study.set_metric_names(search.objectives)
            for rule, values in rules_of_thumb(search, training).items():
                study.enqueue_trial(values, user_attrs={"rule": rule}, skip_if_exists=True)
        elif differences := _differences(known, begun_with, training):
            raise UserError(
                f"study {name!r} was begun with other settings: {differences}; give the same, or another --study"
            )
    return study


def load_study(name: str, storage: str | None) -> Study:
    """Load an existing study; an unknown name is a `UserError` that lists the existing ones."""
    with named_trouble(storage):
        opened = _storage(storage)
        names = optuna.get_all_study_names(opened)
        if name not in names:
            raise UserError(f"there is no study {name!r}; there are: {', '.join(sorted(names)) or 'none'}")
        return optuna.load_study(study_name=name, storage=opened)


def settings_of(study: Study) -> dict[str, Any]:
    """Settings of the study: ``kind`` (of training), ``training``, ``space``, ``objectives``, ``repeats``."""
    settings: dict[str, Any] = study.user_attrs["settings"]
    return settings


def suggest(trial: Trial, search: SweepSpec, training: BaseModel) -> dict[str, Value]:
    """The trial's values by dimension; a rule of thumb varies only the settings that it names."""
    queued = trial.study.get_trials(deepcopy=False)[trial.number].system_attrs
    stated = queued.get("fixed_params", {}) if "rule" in trial.user_attrs else None
    return {
        dimension.name: _suggest(trial, dimension, training)
        for dimension in search.space
        if stated is None or dimension.name in stated
    }


def run_next(
    study: Study, search: SweepSpec, training: BaseModel, objective: Callable[[Trial], float | tuple[float, ...]]
) -> bool:
    """Run one more trial, unless `search.trials` are finished or under way; returns whether one was run.

    `optuna.TrialPruned` and NaN prune the trial; any other `Exception` fails it and is raised. The end of the process
    (Ctrl-C, a cancellation) fails it too, and requeues its values. A grid ends when every point was tried.
    """
    # Held until this process owns the trial: workers must start no extra trial and retry none twice.
    lock = FileLock(home() / "optuna.lock")
    number: int | None = None

    def watched(trial: Trial) -> float | tuple[float, ...]:
        nonlocal number
        number = trial.number
        for name, value in this_process().items():
            trial.set_user_attr(name, value)
        lock.release()
        result = objective(trial)
        if np.isnan(result).any():
            raise optuna.TrialPruned
        return result

    try:
        lock.acquire()
        close_stale_trials(study)
        states = [trial.state for trial in study.get_trials(deepcopy=False)]
        if sum(state in (*OVER, TrialState.RUNNING) for state in states) >= search.trials:
            return False
        if search.sampler == "grid" and TrialState.WAITING not in states and not _queue_point(study, search, training):
            return False
        study.optimize(watched, n_trials=1)
        return True
    except BaseException as error:
        if number is not None and not isinstance(error, Exception):
            _fail_and_retry(study, study.get_trials(deepcopy=False)[number])
        raise
    finally:
        lock.release()


def close_stale_trials(study: Study) -> None:
    """Fail trials whose local process is gone or whose heartbeat stopped, and requeue their values."""
    optuna.storages.fail_stale_trials(study)  # Optuna's own call is too late for a study's last trial
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if trial.user_attrs.get("unfreeze.process") and is_gone(trial.user_attrs):
            _fail_and_retry(study, trial)


def counts(study: Study) -> dict[str, int]:
    """Number of trials: ``complete``, ``pruned``, ``failed``."""
    states = [trial.state for trial in study.get_trials(deepcopy=False)]
    named = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    return {name: states.count(state) for name, state in named.items()}


def best_trial(study: Study) -> FrozenTrial | None:
    """The trial with the best value of the first objective; None before any is complete."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    sign = 1 if study.directions[0] == StudyDirection.MINIMIZE else -1
    return min(complete, key=lambda trial: sign * trial.values[0], default=None)


def is_among_best(study: Study, values: tuple[float, ...]) -> bool:
    """Whether a trial with these values is the best so far, or with several objectives Pareto-optimal."""
    signs = np.array([1 if each == StudyDirection.MINIMIZE else -1 for each in study.directions])
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    theirs = signs * np.array([trial.values for trial in complete]).reshape(-1, len(signs))
    mine = signs * np.array(values)
    dominated = (theirs <= mine).all(axis=1) & (theirs < mine).any(axis=1)
    return not (np.isnan(mine).any() or dominated.any())


@contextmanager
def named_trouble(address: str | None) -> Iterator[None]:
    """Turn errors of the storage at `address` into a `UserError` that names place and cause."""
    try:
        yield
    except ImportError as error:
        if address is None:
            raise
        raise UserError(
            f"storage {masked(address)}: {error.__cause__ or error}; install the database's driver, such as: "
            "pip install 'unfreeze[postgresql]'"
        ) from error
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause).strip().splitlines()[0]
        shown = masked(address) if address is not None else str(home() / "optuna.journal")
        raise UserError(f"storage {shown}: {reason}") from error


def _storage(address: str | None) -> BaseStorage:
    """Open the journal on this machine, or a database with heartbeats."""
    if address is None:
        home().mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(home() / "optuna.journal")))
    url = _read_address(address)
    return RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs={"connect_args": {"timeout": SECONDS_TO_UNLOCK}} if url.drivername.startswith("sqlite") else {},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=3 * HEARTBEAT_SECONDS,
        heartbeat_stale_trial_callback=RETRY,
    )


def _read_address(address: str) -> URL:
    try:
        url = make_url(address)
        if url.password is not None and "@" in f"{url.host}{url.database}":
            raise ValueError("the password has an @ of its own")
    except (SQLAlchemyError, ValueError):  # their messages may contain parts of the password
        raise UserError(
            f"storage {masked(address)}: no address of a database; write "
            "postgresql://user:password@host:port/name, in a password %40 for @ and %2F for /"
        ) from None
    if url.password is None and PASSWORD in os.environ:
        url = url.set(password=os.environ[PASSWORD])
    return url.set(drivername=DRIVERS.get(url.drivername, url.drivername))


def _fail_and_retry(study: Study, trial: FrozenTrial) -> None:
    """Mark an unfinished trial as failed, and requeue its values."""
    if trial.state not in OVER:
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        RETRY(study, trial)


def _queue_point(study: Study, search: SweepSpec, training: BaseModel) -> bool:
    """Queue an untried point of the grid; False if there is none.

    Optuna's grid sampler fails in studies with queued trials, such as rules of thumb and retries.
    """
    trials = study.get_trials(deepcopy=False)
    tried = [{**trial.system_attrs.get("fixed_params", {}), **trial.params} for trial in trials]
    values = [dimension.grid(whole_numbers(dimension, training)) for dimension in search.space]
    names = [dimension.name for dimension in search.space]
    points = [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]
    random.Random(search.sampler_seed).shuffle(points)  # an early end must not leave only one corner searched
    point = next((each for each in points if each not in tried), None)
    if point is not None:
        study.enqueue_trial(point)
    return point is not None


def _suggest(trial: Trial, dimension: Dimension, training: BaseModel) -> Value:
    if dimension.choices is not None:
        return cast(Value, trial.suggest_categorical(dimension.name, dimension.choices))
    low, high = float(dimension.low or 0), float(dimension.high or 0)
    if whole_numbers(dimension, training):
        return trial.suggest_int(dimension.name, round(low), round(high), log=dimension.log)
    return trial.suggest_float(dimension.name, low, high, log=dimension.log)


def _sampler(search: SweepSpec, trials: int) -> optuna.samplers.BaseSampler:
    # With the same seed, all workers, or a continued study, would propose the same values again.
    seed = search.sampler_seed + 1000 * int(os.environ.get(WORKER, "0")) + trials
    return optuna.samplers.TPESampler(seed=seed) if search.sampler == "tpe" else optuna.samplers.RandomSampler(seed)


def _pruner(search: SweepSpec) -> optuna.pruners.BasePruner:
    if len(search.objectives) > 1 or search.pruner == "none":
        return optuna.pruners.NopPruner()
    if search.repeats > 1:
        return optuna.pruners.WilcoxonPruner(p_threshold=0.1)
    # Rules of thumb always run to completion, because every other trial is compared with them.
    return optuna.pruners.MedianPruner(n_startup_trials=3, n_min_trials=3)


def _settings(search: SweepSpec, training: BaseModel) -> dict[str, Any]:
    chosen = search.model_dump(mode="json", include={"objectives", "repeats"})
    chosen["space"] = {dimension.name: dimension.model_dump(mode="json") for dimension in search.space}
    return {"kind": type(training).__name__, "training": training.model_dump(mode="json"), **chosen}


def _differences(known: Mapping[str, Any], given: Mapping[str, Any], training: BaseModel) -> str:
    """Differing settings by dotted name; workers may differ in where they log and in their device."""
    if known["kind"] != given["kind"]:
        return f"kind was {known['kind']}, is {given['kind']}"
    # Settings missing from an earlier release's study have their defaults.
    completed = {**known, "training": type(training)(**known["training"]).model_dump(mode="json")}
    flat = [flatten({**each, "space": list(each["space"].values())}) for each in (completed, given)]
    texts = [
        {name: value if isinstance(value, str) else json.dumps(value) for name, value in each.items()} for each in flat
    ]
    return ", ".join(
        f"{name} was {texts[0].get(name, 'not there')}, is {texts[1].get(name, 'not there')}"
        for name in sorted(texts[0].keys() | texts[1].keys())
        if texts[0].get(name) != texts[1].get(name) and not name.startswith(("training.tracking.", "training.device"))
    )[:1000]
