"""One training as an MLflow run: opened by the flow, identified by id, resumed where it stopped."""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL
from pydantic_core import to_json

from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.state import Record
from unfreeze.models.store.paths import given_path
from unfreeze.models.training.checkpoints import Checkpoint, DamagedCheckpointError, load_checkpoint
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import show_table, wait_until_shown
from unfreeze.tasks.machine.provenance import provenance
from unfreeze.tasks.tracking.elsewhere import FLOW_RUN, PARENT
from unfreeze.tasks.tracking.files import checkpoints_of, fetch
from unfreeze.tasks.tracking.server import show_mlflow_link

MAX_SOURCE_NAME = 200
"""Maximum length of a source's name, which must fit MLflow's columns with a suffix."""
MODEL_DIGEST = "unfreeze.model"
"""Tag of a run: hash of all files of its final model; equal hashes mean bit-equal weights."""
REFITTED = "unfreeze.refitted"
"""Tag of a run whose model was refitted on training and validation rows: a description of the refit."""
STARTS, PACKAGES = "code/starts.json", "code/packages.txt"
COMMIT = "mlflow.source.git.commit"
"""Tag that MLflow's page shows."""
_LR, _STAGE = "unfreeze.lr.", "unfreeze.stage."


class Run:
    """A training under way: its MLflow run (`id`), its spec (`params`), and `metrics` of the evaluations so far."""

    def __init__(self, run_id: str, params: Any, record: Record | None = None) -> None:
        self.id, self.params, self._began = run_id, params, time.monotonic()
        self.record = record or Record()
        """Finished steps, which a resumed run skips."""
        self.metrics: dict[str, float] = {}

    @property
    def model_name(self) -> str:
        """Name in the model registry."""
        return model_name(self.params)

    def keep_suggestions(self, position: int, suggestions: dict[str, float]) -> None:
        """Store the finder's suggestions; a resumed run trains at the same lr."""
        tracking.log_tags(self.id, {f"{_LR}{position}": json.dumps(suggestions)})

    def keep_result(self, position: int, result: dict[str, Any]) -> None:
        """Store the result of a finished stage."""
        tracking.log_tags(self.id, {f"{_STAGE}{position}": to_json(result, inf_nan_mode="null").decode()})

    def summary(self, model: Mapping[str, str]) -> dict[str, Any]:
        """Summarise the training for tables and JSON."""
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
        """The run's ids and its duration so far in seconds."""
        return {**tracking.ids_of(self.id), "seconds": round(time.monotonic() - self._began, 2)}


def stages_of(tags: dict[str, str]) -> list[dict[str, Any]]:
    """Results of a run's stages so far, in order; see `unfreeze.models.recipe.run.Train.result`."""
    return [result for _, result in sorted(_by_position(tags, _STAGE).items())]


def _by_position(tags: dict[str, str], prefix: str) -> dict[int, Any]:
    """Position of a stage -> content of its tag."""
    return {int(name.removeprefix(prefix)): json.loads(text) for name, text in tags.items() if name.startswith(prefix)}


def usable_checkpoint(run_id: str) -> tuple[Checkpoint | None, list[str]]:
    """The run's latest usable checkpoint, and the problems of later ones.

    Returns
    -------
    tuple
        The checkpoint (None if there is none), and a line for each damaged or missing one.
    """
    problems, usable = list[str](), list[tuple[int, int, str, Checkpoint]]()
    for name in reversed(checkpoints_of(run_id)):
        path = fetch(run_id, name)
        try:
            checkpoint = None if path is None else load_checkpoint(path)
        except DamagedCheckpointError as error:
            problems.append(f"checkpoint {name} of run {_shown(run_id)} is damaged: {error}")
            continue
        if checkpoint is None:
            problems.append(f"checkpoint {name} of run {_shown(run_id)} is missing")
        elif not problems:
            return checkpoint, []
        else:
            usable.append((checkpoint.stage, checkpoint.position["step"], name, checkpoint))
    if not usable:
        return None, problems
    stage, step, name, checkpoint = max(usable, key=lambda each: each[:3])
    return checkpoint, [*problems, f"{name} is used instead, from stage {stage + 1} after step {step:,}"]


def _shown(run_id: str) -> str | None:
    """The run's id for display."""
    return tracking.ids_of(run_id)["run_id"]


def earlier_run(run_id: str, params: Any) -> Run:
    """Restore a run from its earlier attempts."""
    tags = tracking.tags_of(run_id)
    lrs, results = (_by_position(tags, prefix) for prefix in (_LR, _STAGE))
    known = tracking.metrics_of(run_id)
    metrics = {key: value for key, (_, value) in known.items() if key.startswith("baseline/")}
    checkpoint, problems = usable_checkpoint(run_id)
    for line in problems:
        log_notice(line)
    if checkpoint is None and (problems or results):
        log_notice(f"run {_shown(run_id)} has no checkpoint that can be used: it begins again at its first epoch")
    if checkpoint is None or problems:  # a stage whose weights are lost is trained again despite its result
        last = -1 if checkpoint is None else checkpoint.stage - (not checkpoint.finished)
        results = {position: result for position, result in results.items() if position <= last}
    evaluated = {"baseline"} if "baseline/loss" in metrics else set()
    run = Run(run_id, params, Record(lrs, results, evaluated, checkpoint))
    run.metrics = metrics
    return run


@contextmanager
def open_run(params: Any, resume_run_id: str | None = None, kind: str = "train") -> Iterator[Run]:
    """Start a run, or resume a stopped one, and end it with the block.

    A retry of the same Prefect flow run finds its MLflow run automatically. The run ends FINISHED; FAILED after an
    error; KILLED after a signal, Ctrl-C or a cancellation. `kind` is ``train`` or ``find-lr``. MLflow may be
    unavailable throughout, unless a run without a folder here is resumed.

    Raises
    ------
    UserError
        If the run is unknown, another process has it, or its storage is damaged.
    """
    tags, is_own = prefect_tags(), False
    if resume_run_id is None and FLOW_RUN in tags:
        resume_run_id = tracking.run_with_tag(params.tracking.experiment, FLOW_RUN, tags[FLOW_RUN])
        # Prefect was unreachable when an earlier attempt finished; report its result again and change nothing.
        is_own = resume_run_id is not None and tracking.state_of_run(resume_run_id) == "FINISHED"
    with ExitStack() as held:
        held.callback(wait_until_shown)
        if resume_run_id is not None:
            params = type(params)(**tracking.spec_of(resume_run_id))
            run = earlier_run(held.enter_context(tracking.resumed_run(resume_run_id, tags, is_own)), params)
            log_notice(f"MLflow run {_shown(run.id)} is resumed")
        else:
            network = getattr(params.model, "backbone", "embeddings")
            # Source and time first: MLflow's pages cut names, and compare runs by them.
            title = f"{source_name(params.data.source)} {datetime.now():%m-%d %H:%M:%S} {network} seed {params.seed}"
            name = params.tracking.run_name or (title if kind == "train" else f"{kind} {title}")
            full_kind = f"{kind}-{params.modality}" if kind == "train" else kind
            tags |= {"unfreeze.version": version("unfreeze"), "unfreeze.kind": full_kind}
            spec = params.model_dump(mode="json")
            run = Run(held.enter_context(tracking.new_run(params.tracking.experiment, name, spec, tags)), params)
            shown = _shown(run.id)
            resume = f"; after an interruption: unfreeze resume {shown}" if kind == "train" else ""
            log_notice(f"MLflow run {shown} ({name}){resume}")
        show_mlflow_link(run.id)
        log_origin(run.id)
        with tracking.system_metrics(run.id, params.tracking.system_metrics):
            yield run


def log_origin(run_id: str) -> None:
    """Record the provenance from here on; a resumed run may finish with other code on another machine."""
    found, before = provenance(), starts_of(run_id)
    patch = f"code/uncommitted-{len(before) + 1}.patch" if found.diff else ""
    if patch:
        tracking.log_text(run_id, found.diff, patch)
    tracking.log_text(run_id, found.packages, PACKAGES)
    tracking.log_text(run_id, json.dumps([*before, {**found.facts, "patch": patch}], indent=1), STARTS)
    if found.commit:
        tracking.log_tags(run_id, {COMMIT: found.commit})


def starts_of(run_id: str) -> list[dict[str, str]]:
    """Provenance at each start of the run, in order; see `Provenance.facts`."""
    path = tracking.fetch(run_id, STARTS)
    try:
        starts: list[dict[str, str]] = json.loads(path.read_text()) if path is not None else []
    except ValueError as error:
        log_notice(f"warning: {STARTS} of run {run_id} is damaged ({error}): what it was made with is unknown")
        return []
    return starts


def unfinished_training(experiment: str) -> str | None:
    """The unfinished MLflow run of an earlier attempt of the current flow run, if any."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return None
    run_id = tracking.run_with_tag(experiment, PARENT, str(context.flow_run.id))
    return run_id if run_id is not None and tracking.state_of_run(run_id) != "FINISHED" else None


def model_name(params: Any) -> str:
    """Name of a training's model in the registry."""
    return params.tracking.model_name or f"{source_name(params.data.source)}-{modality_of(params).suffix}"


def source_name(source: str) -> str:
    """A short readable name of a data source: letters and digits of its folder's or file's name."""
    name = given_path(source).resolve().stem if "/" in source or Path(source).exists() else source
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:MAX_SOURCE_NAME].strip("-") or "data"


def prefect_tags() -> dict[str, str]:
    """Tags of an MLflow run that identify the current Prefect flow run; empty outside of one."""
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
