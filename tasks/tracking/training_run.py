"""One training as MLflow sees it: opened by the flow, owned by id, resumed where it stopped."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL

from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.state import Record
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.strict_json import to_json
from unfreeze.models.training.checkpoints import Checkpoint, DamagedCheckpointError, load_checkpoint
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.interruption import heeding_hangups
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import show_table, wait_until_shown
from unfreeze.tasks.machine.provenance import provenance
from unfreeze.tasks.tracking.elsewhere import FLOW_RUN, PARENT
from unfreeze.tasks.tracking.files import checkpoints_of, fetch
from unfreeze.tasks.tracking.server import show_mlflow_link

MAX_SOURCE_NAME = 200
"""Characters of a source's name that are used: with a suffix it must fit MLflow's columns."""
MODEL_DIGEST = "unfreeze.model"
"""Tag of a run: a hash of all files of the model that it ended with; equal hashes have equal weights, bit by bit."""
REFITTED = "unfreeze.refitted"
"""Tag of a run whose model was refitted on training and validation rows: what is said about it."""
STARTS, PACKAGES = "code/starts.json", "code/packages.txt"
COMMIT = "mlflow.source.git.commit"
"""Tag that MLflow's page shows."""
_LR, _STAGE = "unfreeze.lr.", "unfreeze.stage."


class Run:
    """A training under way: its MLflow run (`id`), its spec (`params`), and `metrics` of the evaluations so far."""

    def __init__(self, run_id: str, params: Any, record: Record | None = None) -> None:
        self.id, self.params, self._began = run_id, params, time.monotonic()
        self.record = record or Record()
        """What is done already, so that a resumed run does the rest."""
        self.metrics: dict[str, float] = {}

    @property
    def model_name(self) -> str:
        """Name in the model registry."""
        return model_name(self.params)

    def keep_suggestions(self, position: int, suggestions: dict[str, float]) -> None:
        """Keep what the finder suggested: a resumed run trains at the same lr."""
        tracking.log_tags(self.id, {f"{_LR}{position}": json.dumps(suggestions)})

    def keep_result(self, position: int, result: dict[str, Any]) -> None:
        """Keep the result of a stage that is over."""
        tracking.log_tags(self.id, {f"{_STAGE}{position}": to_json(result)})

    def summary(self, model: Mapping[str, str]) -> dict[str, Any]:
        """What the training came to, for a person's table and a program's JSON."""
        tags = tracking.tags_of(self.id)
        stages = stages_of(tags)
        rows = [
            {
                "stage": stage["name"],
                "lr": f"{stage['lr']:.2g}" if stage["lr"] else "",
                "epochs": stage["epochs"],
                "seconds": stage["seconds"],
                **{name: value and round(value, 4) for name, value in stage["metrics"].items()},
            }
            for stage in stages
        ]
        show_table(rows, "stages", "Stages")
        shown = [{"metric": name, "value": round(value, 4)} for name, value in self.metrics.items()]
        show_table(shown, "metrics", "Metrics")
        uri = model.get("model_uri")
        return {**self.identity(), "model_uri": uri, "model": dict(model), "stages": stages, "metrics": self.metrics}

    def identity(self) -> dict[str, Any]:
        """The run's ids and the seconds it has taken so far."""
        return {**tracking.ids_of(self.id), "seconds": round(time.monotonic() - self._began, 2)}


def stages_of(tags: dict[str, str]) -> list[dict[str, Any]]:
    """Results of a run's stages so far, in their order; see `unfreeze.models.recipe.run.Train.result`."""
    return [result for _, result in sorted(_by_position(tags, _STAGE).items())]


def _results_until(checkpoint: Checkpoint | None, results: dict[int, Any]) -> dict[int, Any]:
    """Those of the stages that a checkpoint has behind it."""
    last = -1 if checkpoint is None else checkpoint.stage - (not checkpoint.finished)
    return {position: result for position, result in results.items() if position <= last}


def _by_position(tags: dict[str, str], prefix: str) -> dict[int, Any]:
    """Position of a stage -> what a tag keeps of it."""
    return {int(name.removeprefix(prefix)): json.loads(text) for name, text in tags.items() if name.startswith(prefix)}


def usable_checkpoint(run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """The run's latest checkpoint that can be used, and what is wrong with later ones.

    Returns
    -------
    tuple
        The checkpoint, None if there is none; and a line for each that is damaged or missing.
    """
    *others, latest = [*checkpoints_of(run_id)] or [""]
    if not latest:
        return None, []
    checkpoint, problem = _loaded(run_id, latest)
    if checkpoint is not None:
        return checkpoint, []
    problems, usable = [problem], list[tuple[int, int, str, Checkpoint]]()
    for name in others:
        checkpoint, problem = _loaded(run_id, name)
        if checkpoint is None:
            problems.append(problem)
        else:
            usable.append((checkpoint.stage, checkpoint.position["step"], name, checkpoint))
    if not usable:
        return None, problems
    stage, step, name, checkpoint = max(usable, key=lambda each: each[:3])
    return checkpoint, [*problems, f"{name} is used instead, from stage {stage + 1} after step {step:,}"]


def _loaded(run_id: str, name: str) -> tuple[Checkpoint | None, str]:
    path = fetch(run_id, name)
    if path is None:
        return None, f"checkpoint {name} of run {run_id} is missing"
    try:
        return load_checkpoint(path), ""
    except DamagedCheckpointError as error:
        return None, f"checkpoint {name} of run {run_id} is damaged: {error}"


def earlier_run(run_id: str, params: Any) -> Run:
    """A run as its earlier attempts left it."""
    tags = tracking.tags_of(run_id)
    lrs, results = (_by_position(tags, prefix) for prefix in (_LR, _STAGE))
    known = tracking.metrics_of(run_id)
    metrics = {key: value for key, (_, value) in known.items() if key.startswith("baseline/")}
    checkpoint, problems = usable_checkpoint(run_id)
    for line in problems:
        log_notice(line)
    if checkpoint is None and (problems or results):
        log_notice(f"run {run_id} has no checkpoint that can be used: it begins again at its first epoch")
    if checkpoint is None or problems:  # a stage whose weights are lost is trained again, whatever its result was
        results = _results_until(checkpoint, results)
    evaluated = {"baseline"} if "baseline/loss" in metrics else set()
    run = Run(run_id, params, Record(lrs, results, evaluated, checkpoint))
    run.metrics = metrics
    return run


@contextmanager
def open_run(params: Any, resume_run_id: str | None = None, kind: str = "train") -> Iterator[Run]:
    """Start a run, or resume one that was stopped, and end it as the block ends.

    A retry of the same Prefect flow run finds its MLflow run by itself. The run ends FINISHED; FAILED after an error;
    KILLED after a signal, Ctrl-C or a cancellation. `kind` is ``train`` or ``find-lr``. MLflow may be away all along,
    but for a run that is resumed and has no folder here.

    Raises
    ------
    UserError
        If there is no such run, another process has it, or what it is to be kept in is damaged.
    """
    tags, is_own = prefect_tags(), False
    if resume_run_id is None and FLOW_RUN in tags:
        resume_run_id = tracking.run_with_tag(params.tracking.experiment, FLOW_RUN, tags[FLOW_RUN])
        # Prefect was gone as an earlier attempt finished: this one repeats what it had to tell, and changes nothing.
        is_own = resume_run_id is not None and tracking.state_of_run(resume_run_id) == "FINISHED"
    with ExitStack() as held:
        held.enter_context(heeding_hangups())
        held.callback(wait_until_shown)
        if resume_run_id is not None:
            params = type(params)(**tracking.spec_of(resume_run_id))
            run_id = held.enter_context(tracking.held_run(resume_run_id, own_tags=tags))
            tracking.reopen_run(run_id, tags, finished=is_own)
            run = earlier_run(run_id, params)
        else:
            network = getattr(params.model, "backbone", "embeddings")
            title = f"{source_name(params.data.source)} {network} seed {params.seed}"
            name = params.tracking.run_name or (title if kind == "train" else f"{kind} {title}")
            full_kind = f"{kind}-{params.modality}" if kind == "train" else kind
            tags |= {"unfreeze.version": version("unfreeze"), "unfreeze.kind": full_kind}
            spec = params.model_dump(mode="json")
            run = Run(tracking.start_run(params.tracking.experiment, name, spec, tags), params)
            held.enter_context(tracking.held_run(run.id, is_new=True))
            tracking.log_spec(run.id, spec)
        with tracking.publishing(run.id, f"unfreeze resume {run.id}"):
            shown = tracking.ids_of(run.id)["run_id"]
            if resume_run_id is not None:
                log_notice(f"MLflow run {shown} is resumed")
            else:
                resume = f"; after an interruption: unfreeze resume {shown}" if kind == "train" else ""
                log_notice(f"MLflow run {shown} ({name}){resume}")
            show_mlflow_link(run.id)
            log_origin(run.id)
            with tracking.system_metrics(run.id, params.tracking.system_metrics):
                yield run


def log_origin(run_id: str) -> None:
    """Keep what the run is made with from here on: a resumed run may be finished by other code on another machine."""
    found, before = provenance(), starts_of(run_id)
    patch = f"code/uncommitted-{len(before) + 1}.patch" if found.diff else ""
    if patch:
        tracking.log_text(run_id, found.diff, patch)
    tracking.log_text(run_id, found.packages, PACKAGES)
    tracking.log_text(run_id, json.dumps([*before, {**found.facts, "patch": patch}], indent=1), STARTS)
    if found.commit:
        tracking.log_tags(run_id, {COMMIT: found.commit})


def starts_of(run_id: str) -> list[dict[str, str]]:
    """What the run was made with at every start, the first one first; see `Provenance.facts`."""
    path = tracking.fetch(run_id, STARTS)
    try:
        starts: list[dict[str, str]] = json.loads(path.read_text()) if path is not None else []
    except ValueError as error:
        log_notice(f"warning: {STARTS} of run {run_id} is damaged ({error}): what it was made with is unknown")
        return []
    return starts


def unfinished_training(experiment: str) -> str | None:
    """The MLflow run that an earlier attempt of the flow run under way began and did not finish, if there is one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return None
    run_id = tracking.run_with_tag(experiment, PARENT, str(context.flow_run.id))
    return run_id if run_id is not None and tracking.state_of_run(run_id) != "FINISHED" else None


def model_name(params: Any) -> str:
    """Name in the model registry of what a training makes."""
    return params.tracking.model_name or f"{source_name(params.data.source)}-{modality_of(params).suffix}"


def source_name(source: str) -> str:
    """A short name of a data source for people and registries: that of the folder or file, letters and digits only."""
    name = given_path(source).resolve().stem if "/" in source or Path(source).exists() else source
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:MAX_SOURCE_NAME].strip("-") or "data"


def prefect_tags() -> dict[str, str]:
    """Tags of an MLflow run that lead back to the Prefect flow run under way; none outside of one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return {}
    tags = {FLOW_RUN: str(context.flow_run.id), "prefect.flow_run_name": context.flow_run.name}
    if context.flow_run.parent_task_run_id is not None:
        tags[PARENT] = str(runtime.flow_run.parent_flow_run_id)
    address = PREFECT_UI_URL.value()
    if address:
        link = f"{address}/runs/flow-run/{context.flow_run.id}"
        note = f"[Prefect flow run {context.flow_run.name}]({link})"
        tags |= {"prefect.flow_run_url": link, "mlflow.note.content": note}
    return tags
