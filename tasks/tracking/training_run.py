"""One training as MLflow sees it: opened by the flow, owned by id, resumed where it stopped."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL

from unfreeze.models.specs import Stage, TrainImages
from unfreeze.tasks import tracking
from unfreeze.tasks.prefect_run.interruption import heeding_hangups
from unfreeze.tasks.prefect_run.progress import log_notice
from unfreeze.tasks.prefect_run.report import show_mlflow_link, show_table
from unfreeze.tasks.steps.checks import check_training
from unfreeze.tasks.steps.train_stage import result_tag
from unfreeze.tasks.tracking.runs import FLOW_RUN, PARENT

MAX_SOURCE_NAME = 200
"""Letters of a source's name that are used: with a suffix it must fit MLflow's columns."""


class Run:
    """A training under way: the MLflow run `id`, started with the spec `params`."""

    def __init__(self, run_id: str, params: Any) -> None:
        self.id, self.params, self._began = run_id, params, time.monotonic()

    @property
    def model_name(self) -> str:
        """Name in the model registry."""
        return model_name(self.params)

    def remaining(self) -> Iterator[tuple[int, Stage]]:
        """Stages that are not over: not trained, or the last one, or trained but without their baseline."""
        stages = self.params.recipe
        for position, stage in enumerate(stages):
            if not self.is_trained(position) or position == len(stages) - 1 or self.wants_baseline(position):
                yield position, stage

    def is_trained(self, position: int) -> bool:
        """Whether the stage's training is over."""
        return result_tag(position) in tracking.tags_of(self.id)

    def wants_baseline(self, position: int) -> bool:
        """Whether the head alone is to be evaluated here: right before the body is unfrozen."""
        stages = self.params.recipe
        if position + 1 == len(stages) or stages[position].train != "head" or stages[position + 1].train == "head":
            return False
        return "baseline/accuracy" not in tracking.get_run(self.id).data.metrics

    def wants_lr(self, position: int) -> bool:
        """Whether the finder is to run before this stage."""
        return self.params.recipe[position].find_lr and self._suggestions(position) is None

    def keep_lrs(self, position: int, suggestions: dict[str, float]) -> None:
        """Keep what the finder suggested: a resumed run trains at the same lr."""
        tracking.log_tags(self.id, {_lr_tag(position): json.dumps(suggestions)})

    def lr(self, position: int) -> float:
        """The head's lr of a stage: its own, or the latest suggestion times the stage's factor."""
        stage = self.params.recipe[position]
        if stage.lrs is not None or stage.lr is not None:
            return stage.lrs[-1] if stage.lrs is not None else float(stage.lr or 0)
        found = [self._suggestions(earlier) for earlier in range(position, -1, -1)]
        latest = next(suggestions for suggestions in found if suggestions is not None)
        return float(latest[self.params.finder.method] * stage.lr_factor)

    def _suggestions(self, position: int) -> dict[str, float] | None:
        text = tracking.tags_of(self.id).get(_lr_tag(position))
        suggestions: dict[str, float] | None = json.loads(text) if text else None
        return suggestions

    def summary(self, metrics: dict[str, float], model: dict[str, str]) -> dict[str, Any]:
        """The training's stages, metrics and model: shown as tables on the Prefect page, returned as JSON."""
        run = tracking.get_run(self.id)
        stages = [json.loads(run.data.tags[result_tag(position)]) for position in range(len(self.params.recipe))]
        rows = [
            {
                "stage": stage["name"],
                "learning rate": f"{stage['lr']:.2g}",
                "epochs": stage["epochs"],
                "seconds": stage["seconds"],
                **{name: round(value, 4) for name, value in stage["metrics"].items()},
            }
            for stage in stages
        ]
        show_table(rows, "stages", "Stages")
        baseline = {name: value for name, value in run.data.metrics.items() if name.startswith("baseline/")}
        metrics = {**baseline, **metrics}
        shown = [{"metric": name, "value": round(value, 4)} for name, value in metrics.items()]
        show_table(shown, "metrics", "Metrics on the validation set")
        result = {"model_uri": model["model_uri"], "model": model, "stages": stages, "metrics": metrics}
        return {**self.identity(), **result}

    def artifact_uri(self, name: str) -> str:
        """Address of one of the run's artifacts."""
        return f"{tracking.get_run(self.id).info.artifact_uri}/{name}"

    def identity(self) -> dict[str, Any]:
        """The run's ids and the seconds it has taken so far."""
        experiment = tracking.get_run(self.id).info.experiment_id
        return {"run_id": self.id, "experiment_id": experiment, "seconds": round(time.monotonic() - self._began, 2)}


@contextmanager
def open_run(params: Any, resume_run_id: str | None, kind: str = "train-images") -> Iterator[Run]:
    """Start a run, or resume one that was stopped, and end it as the block ends (see `tracking.closing_run`).

    A retry of the same Prefect flow run finds its MLflow run by itself.

    Raises
    ------
    UserError
        Before there is a run, if the training cannot begin: see `check_training`.
    """
    tags = prefect_tags()
    if resume_run_id is None and FLOW_RUN in tags:
        resume_run_id = tracking.run_with_tag(params.tracking.experiment, FLOW_RUN, tags[FLOW_RUN])
    with ExitStack() as held:
        held.enter_context(heeding_hangups())
        if resume_run_id is not None:
            params = type(params)(**tracking.spec_of(resume_run_id))
            check_training(params)
            held.enter_context(tracking.held_run(resume_run_id))
            tracking.reopen_run(resume_run_id, tags)
            run = Run(resume_run_id, params)
            log_notice(f"MLflow run {run.id} is resumed")
        else:
            check_training(params)
            network = getattr(params.model, "backbone", "embeddings")
            title = f"{source_name(params.data.source)} {network} seed {params.seed}"
            name = params.tracking.run_name or (title if kind.startswith("train") else f"{kind} {title}")
            tags |= {"unfreeze.version": version("unfreeze"), "unfreeze.kind": kind}
            spec = params.model_dump(mode="json")
            run = Run(tracking.start_run(params.tracking.experiment, name, spec, tags), params)
            held.enter_context(tracking.held_run(run.id))
            resume = f"; after an interruption: unfreeze resume {run.id}" if kind.startswith("train") else ""
            log_notice(f"MLflow run {run.id} ({name}){resume}")
        show_mlflow_link(run.id)
        held.enter_context(tracking.closing_run(run.id, f"unfreeze resume {run.id}"))
        held.enter_context(tracking.system_metrics(run.id, params.tracking.system_metrics))
        yield run


def unfinished_training(experiment: str) -> str | None:
    """The MLflow run that an earlier attempt of the flow run under way began and did not finish, if there is one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow_run.run_count < 2:
        return None
    run_id = tracking.run_with_tag(experiment, PARENT, str(context.flow_run.id))
    return run_id if run_id is not None and tracking.get_run(run_id).info.status != "FINISHED" else None


def prefect_tags() -> dict[str, str]:
    """Tags of an MLflow run that lead back to the Prefect flow run under way; none outside of one."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return {}
    flow_run, address = context.flow_run, PREFECT_UI_URL.value()
    tags = {FLOW_RUN: str(flow_run.id), "prefect.flow_run_name": flow_run.name}
    if flow_run.parent_task_run_id is not None:
        tags[PARENT] = str(runtime.flow_run.parent_flow_run_id)
    if address:
        link = f"{address}/runs/flow-run/{flow_run.id}"
        tags |= {"prefect.flow_run_url": link, "mlflow.note.content": f"[Prefect flow run {flow_run.name}]({link})"}
    return tags


def model_name(params: Any) -> str:
    """Name in the model registry of what a training makes."""
    kind = "classifier" if isinstance(params, TrainImages) else "table"
    return params.tracking.model_name or f"{source_name(params.data.source)}-{kind}"


def source_name(source: str) -> str:
    """A short name of a data source for people and registries: the folder's or the file's own, without odd letters."""
    name = Path(source).expanduser().resolve().stem if "/" in source or Path(source).exists() else source
    return re.sub(r"[^A-Za-z0-9]+", "-", name)[:MAX_SOURCE_NAME].strip("-") or "images"


def _lr_tag(position: int) -> str:
    return f"unfreeze.lr.{position}"
