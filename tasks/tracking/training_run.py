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
from unfreeze.models.training.checkpoints import Checkpoint
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.interruption import heeding_hangups
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import show_table, wait_until_shown
from unfreeze.tasks.tracking.checkpoints import usable_checkpoint
from unfreeze.tasks.tracking.origin import log_origin
from unfreeze.tasks.tracking.runs import FLOW_RUN, PARENT
from unfreeze.tasks.tracking.server import require_answer, show_mlflow_link
from unfreeze.tasks.tracking.syncing import require_delivered

MAX_SOURCE_NAME = 200
"""Characters of a source's name that are used: with a suffix it must fit MLflow's columns."""
MODEL_DIGEST = "unfreeze.model"
"""Tag of a run: a hash of all files of the model that it ended with; equal hashes have equal weights, bit by bit."""
REFITTED = "unfreeze.refitted"
"""Tag of a run whose model was refitted on training and validation rows: what is said about it."""
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

    def artifact_uri(self, name: str) -> str:
        """Address of one of the run's artifacts."""
        return f"{tracking.info_of(self.id).artifact_uri}/{name}"

    def identity(self) -> dict[str, Any]:
        """The run's ids and the seconds it has taken so far."""
        experiment = tracking.info_of(self.id).experiment_id
        return {"run_id": self.id, "experiment_id": experiment, "seconds": round(time.monotonic() - self._began, 2)}


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


def earlier_run(run_id: str, params: Any) -> Run:
    """A run as its earlier attempts left it; read at once, because MLflow may be gone when it is needed."""
    data = tracking.get_run(run_id).data
    lrs, results = (_by_position(data.tags, prefix) for prefix in (_LR, _STAGE))
    metrics = {key: value for key, value in data.metrics.items() if key.startswith("baseline/")}
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
    KILLED after a signal, Ctrl-C or a cancellation. `kind` is ``train`` or ``find-lr``. MLflow is needed to begin; from
    then on the block goes on without it, see `tracking.delivering`.

    Raises
    ------
    UserError
        If MLflow does not answer.
    """
    require_answer()
    tags, is_own = prefect_tags(), False
    if resume_run_id is None and FLOW_RUN in tags:
        resume_run_id = tracking.run_with_tag(params.tracking.experiment, FLOW_RUN, tags[FLOW_RUN])
        # Prefect was gone as an earlier attempt finished: this one repeats what it had to tell, and changes nothing.
        is_own = resume_run_id is not None and tracking.get_run(resume_run_id).info.status == "FINISHED"
    with ExitStack() as held:
        held.enter_context(heeding_hangups())
        held.callback(wait_until_shown)
        if resume_run_id is not None:
            params = type(params)(**tracking.spec_of(resume_run_id))
            held.enter_context(tracking.held_run(resume_run_id))
            require_delivered(resume_run_id)
            tracking.reopen_run(resume_run_id, tags, finished=is_own)
            run = earlier_run(resume_run_id, params)
            log_notice(f"MLflow run {run.id} is resumed")
        else:
            network = getattr(params.model, "backbone", "embeddings")
            title = f"{source_name(params.data.source)} {network} seed {params.seed}"
            name = params.tracking.run_name or (title if kind == "train" else f"{kind} {title}")
            full_kind = f"{kind}-{params.modality}" if kind == "train" else kind
            tags |= {"unfreeze.version": version("unfreeze"), "unfreeze.kind": full_kind}
            spec = params.model_dump(mode="json")
            run = Run(tracking.start_run(params.tracking.experiment, name, spec, tags), params)
            held.enter_context(tracking.held_run(run.id))
            resume = f"; after an interruption: unfreeze resume {run.id}" if kind == "train" else ""
            log_notice(f"MLflow run {run.id} ({name}){resume}")
        show_mlflow_link(run.id)
        held.enter_context(tracking.delivering(run.id))
        held.enter_context(tracking.closing_run(run.id, f"unfreeze resume {run.id}"))
        log_origin(run.id)
        held.enter_context(tracking.system_metrics(run.id, params.tracking.system_metrics))
        yield run


def unfinished_training(experiment: str) -> str | None:
    """The MLflow run that an earlier attempt of the flow run under way began and did not finish, if there is one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return None
    run_id = tracking.run_with_tag(experiment, PARENT, str(context.flow_run.id))
    return run_id if run_id is not None and tracking.get_run(run_id).info.status != "FINISHED" else None


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
