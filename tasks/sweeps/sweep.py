"""A sweep: its MLflow run, its progress, and the worker processes beside this one."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from prefect.client.orchestration import get_client

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import training_from
from unfreeze.models.settings import Training
from unfreeze.models.settings.addresses import masked
from unfreeze.models.settings.search import SWEEPS, SweepSpec, check_space
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.cluster import OnNode, cluster_of, connected, resources
from unfreeze.tasks.machine.devices import environment_without_lease
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import artifact_key, wait_until_shown
from unfreeze.tasks.machine.processes import own_module
from unfreeze.tasks.steps.evaluate import describe
from unfreeze.tasks.steps.prepare import prepare
from unfreeze.tasks.sweeps.report import compare_with_rules, keep_report
from unfreeze.tasks.sweeps.study import (
    WORKER,
    best_trial,
    counts,
    is_among_best,
    named_trouble,
    open_study,
    run_next,
    settings_of,
)
from unfreeze.tasks.sweeps.trial import HAS_WEIGHTS, RUN, TrialRunner, in_words
from unfreeze.tasks.tracking.runs import RESUME
from unfreeze.tasks.tracking.server import show_mlflow_link
from unfreeze.tasks.tracking.training_run import Run, earlier_run, log_origin, prefect_tags, source_name

SWEEP_RUN = "UNFREEZE_SWEEP_RUN"
"""Environment variable of a worker: the key of the sweep's run."""
MAX_FAILURES = 3
"""Maximum number of consecutive failed trials; after so many, their values are not the cause."""


Worker = subprocess.Popen[bytes] | OnNode


class WorkersDied(RuntimeError):
    """All workers beside the first died."""


class Sweep:
    """A running sweep: an Optuna study and an MLflow run that vary `training` according to `search`."""

    def __init__(self, search: SweepSpec, training: Any, study: Study, run_id: str, leads: bool = True) -> None:
        self.search, self.training, self.study, self.run_id = search, training, study, run_id
        self._leads = leads  # logs the best trial
        self._runner = TrialRunner(search, training, run_id)
        self._began = time.monotonic()

    def run_trials(self) -> None:
        """Run trials up to the requested number; `UserError` if the input is invalid for any trial."""
        failures = 0
        while True:
            try:
                with named_trouble(self.search.storage):
                    if not run_next(self.study, self.search, self.training, self._runner.objective):
                        return
                failures = 0
            except UserError:
                raise
            except Exception as error:
                failures += 1
                log_notice(f"a trial failed: {type(error).__name__}: {error}")
                if failures == MAX_FAILURES:
                    raise
            self._report_progress()

    def finish(self) -> dict[str, Any]:
        """Log plots and tables; returns the result as JSON."""
        lines = keep_report(self.study, self.search.objectives, self.run_id)
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:  # weights of trials that are no longer the best
            complete = trial.state == TrialState.COMPLETE
            if complete and HAS_WEIGHTS in trial.user_attrs and not is_among_best(self.study, tuple(trial.values)):
                tracking.drop_weights(trial.user_attrs[RUN])
        best = best_trial(self.study)
        return {
            "study": self.study.study_name,
            **tracking.ids_of(self.run_id),
            "best": None if best is None else _shown(best),
            "verdict": lines,
            "trials": counts(self.study),
            "prefix_builds": sum(int(trial.user_attrs.get("prefix_builds", 0)) for trial in trials),
            "seconds": round(time.monotonic() - self._began, 2),
            "comparison": compare_with_rules(self.study, self.search.objectives),
        }

    def _report_progress(self) -> None:
        done = counts(self.study)
        over = done["complete"] + done["pruned"]
        line = f"{over} of {self.search.trials} trials ({done['pruned']} pruned, {done['failed']} failed)"
        best = best_trial(self.study)
        if best is not None:
            values = dict(zip(self.search.objectives, best.values, strict=True))
            line += f"; best: trial {best.number} with {in_words(values)} ({in_words(best.params)})"
            found = {"trial": best.number, "value": best.values[0], **values, **best.params}
            numbers = {f"best_{name}": each for name, each in found.items() if not isinstance(each, bool | str)}
            texts = {f"best_{name}": str(each) for name, each in found.items() if isinstance(each, bool | str)}
            if self._leads:
                tracking.log_metrics(self.run_id, numbers, over)
                tracking.log_tags(self.run_id, texts)
        log_notice(line)


@contextmanager
def open_sweep(search: SweepSpec, training: Any) -> Iterator[Sweep]:
    """Start or resume a sweep, and end its MLflow run with the block.

    MLflow may be unavailable throughout.

    Raises
    ------
    UserError
        If the space is invalid, or the study was created with other settings.
    """
    check_space(search, training)
    study = open_study(search.study or source_name(training.data.source), search, training)
    experiment = training.tracking.experiment
    storage = ["--storage", masked(search.storage)] if search.storage else []
    resume_command = shlex.join(
        ["unfreeze", "sweep", "--study", study.study_name, "--trials", str(search.trials), *storage]
    )
    tags = {**prefect_tags(), "unfreeze.kind": "sweep", "unfreeze.study": study.study_name, RESUME: resume_command}
    run_id = tracking.run_with_tag(experiment, "unfreeze.study", study.study_name)
    if run_id is None:
        params = {**training.model_dump(mode="json"), "sweep": search.model_dump(mode="json")}
        opened = tracking.new_run(experiment, f"sweep {study.study_name}", params, tags, shared=True)
    else:
        opened = tracking.resumed_run(run_id, tags, finished=True)
    with opened as key:
        shown = tracking.ids_of(key)["run_id"]
        log_notice(f"study {study.study_name}, MLflow run {shown}; after an interruption: {resume_command}")
        show_mlflow_link(key)
        if run_id is None:
            log_origin(key)
            describe(prepare(training), key)
        yield Sweep(search, training, study, key)
        wait_until_shown()


@contextmanager
def other_workers(sweep: Sweep) -> Iterator[Sequence[Worker]]:
    """Run worker processes for the same study while the block runs; at its end each stops after its batch.

    They run on this machine or, if there is a cluster, as its tasks.

    `search.workers` includes the present process. Output goes to log files in the data folder.
    """
    search, processes, alone = sweep.search, list[Worker](), torch.get_num_threads()
    cluster = cluster_of(search.cluster) if search.workers > 1 else None
    # Workers that each use all cores would mostly wait for one another.
    threads = max(1, alone // search.workers) if cluster is None else alone
    torch.set_num_threads(threads)
    settings = search.model_dump(include={"trials", "storage", "sampler", "pruner", "sampler_seed"}, exclude_none=True)
    flags = [text for name, value in settings.items() for text in (f"--{name}", str(value))]
    command = own_module("unfreeze.flows.cli", "sweep", "--study", sweep.study.study_name, *flags)
    environment = {**environment_without_lease(), "OMP_NUM_THREADS": str(threads), SWEEP_RUN: sweep.run_id}
    nodes = ExitStack()
    try:
        if search.workers > 1:
            with get_client(sync_client=True) as client:
                environment["PREFECT_API_URL"] = str(client.api_url).rstrip("/")
        ray = nodes.enter_context(connected(cluster)) if cluster is not None else None
        for number in range(1, search.workers):
            log = _log(sweep, number)
            if ray is not None:
                # The rest, and passwords, are of the node's own environment.
                own = {name: environment[name] for name in ("PREFECT_API_URL", SWEEP_RUN)}
                own |= {"UNFREEZE_HOME": str(home()), WORKER: str(number)}
                wanted, _ = resources(ray, sweep.training.device)
                processes.append(OnNode(ray, wanted, command, own, log))
                continue
            with log.open("wb") as output:
                own = {**environment, WORKER: str(number)}
                processes.append(subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, stderr=output))
        yield processes
    finally:
        torch.set_num_threads(alone)
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()
        nodes.close()


def wait_for(workers: Sequence[Worker], sweep: Sweep) -> dict[str, Any]:
    """Wait for workers to finish; returns how many were ``started`` and which ``died``."""
    died = []
    for number, process in enumerate(workers, 1):
        if status := process.wait():
            log = str(_log(sweep, number))
            log_notice(f"worker {number} of the sweep died with status {status}; its log: {log}")
            died.append({"worker": number, "exit_status": status, "log": log})
    return {"started": len(workers), "died": died}


def require_survivor(ended: dict[str, Any]) -> None:
    """Raise `WorkersDied` with their logs if all workers died; `ended` is from `wait_for`."""
    if ended["died"] and len(ended["died"]) == ended["started"]:
        logs = ", ".join(f"{each['log']} (status {each['exit_status']})" for each in ended["died"])
        raise WorkersDied(f"all {ended['started']} workers beside the first died; their logs: {logs}")


def _log(sweep: Sweep, number: int) -> Path:
    log = home() / "logs" / f"sweep-{artifact_key(sweep.study.study_name)}-worker-{number}.log"
    log.parent.mkdir(exist_ok=True)
    return log


def join_sweep(search: SweepSpec, training: Any) -> None:
    """Run trials of a sweep led and reported by the process that started this one."""
    study = open_study(search.study or source_name(training.data.source), search, training)
    Sweep(search, training, study, os.environ[SWEEP_RUN], leads=False).run_trials()


def stored(study: Study, search: SweepSpec) -> tuple[SweepSpec, Training]:
    """`search` with the study's original space, objectives and repeats, and its training."""
    settings = settings_of(study)
    known = {"space": list(settings["space"].values()), **{name: settings[name] for name in ("objectives", "repeats")}}
    training = training_from(settings["training"], f"study {study.study_name!r}")
    return SWEEPS[training.modality](**{**search.model_dump(), **known, "study": study.study_name}), training


def best_run(study: Study) -> tuple[dict[str, Any], Run]:
    """The best trial as JSON, and its run without a snapshot ensemble: trials keep no weights of earlier cycles."""
    best = best_of(study)
    params = training_from({**tracking.spec_of(best["run_id"]), "snapshots": 1}, f"run {best['run_id']}")
    return best, earlier_run(best["run_id"], params)


def best_of(study: Study) -> dict[str, Any]:
    """The best trial as JSON."""
    best = best_trial(study)
    if best is None:
        raise UserError(f"study {study.study_name!r} has no complete trial yet")
    return {**_shown(best), "run_id": str(tracking.get_run(best.user_attrs[RUN]).info.run_id)}


def _shown(trial: FrozenTrial) -> dict[str, Any]:
    return {"number": trial.number, "value": trial.values[0], "values": list(trial.values), "params": trial.params}
