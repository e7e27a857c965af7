"""A training in this process, without servers: the recipe's steps, and what its report is made of."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unfreeze.models.evaluation.results import Findings
from unfreeze.models.recipe.run import Evaluate, FindLr, Refit, SelectModel, Train, run_recipe
from unfreeze.models.recipe.training_data import Candidate, TrainingData
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.suggestions import LrCurve


@dataclass
class Fitted:
    """Results of a training.

    Attributes
    ----------
    data
        Its data.
    metrics
        ``SECTION/NAME`` -> value.
    stages
        See `unfreeze.models.recipe.run.Train.result`.
    findings
        Section -> tables and figures.
    curves
        Stage -> curve of the learning-rate finder.
    history
        Metric -> its steps and values.
    """

    data: TrainingData
    began: float = field(default_factory=time.time)
    minutes: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    findings: dict[str, Findings] = field(default_factory=dict)
    curves: dict[str, LrCurve] = field(default_factory=dict)
    history: dict[str, tuple[list[float], list[float]]] = field(default_factory=lambda: defaultdict(lambda: ([], [])))
    kept: str = ""

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            steps, logged = self.history[name]
            steps.append(step)
            logged.append(float(value))

    def train(self, step: Train, workspace: Workspace) -> None:
        """Train a stage, with a progress bar and a line at its end."""
        shown: Mapping[str, float] = {}
        losses = list[tuple[int, Any]]()
        with workspace.progress(f"Training {step.stage.name}", lambda: _shown(shown)) as advance:
            for event in step.run():
                if event.kind == "batch":
                    losses.append((event.step, event.loss))  # reading it here would wait for the device
                    self._log(event.step, {f"lr/{group}": lr for group, lr in event.lrs.items()})
                    advance(event.batch, event.batches)
                elif event.kind == "epoch":
                    shown = event.metrics
                    self._log(event.step, {f"valid/{name}": value for name, value in shown.items()})
        for number, loss in losses:
            self._log(number, {"train/loss": loss})
        self.stages.append(step.result)
        took = f"{step.result['epochs']} epochs" if step.result["epochs"] else step.result["stopped"]
        workspace.notice(f"{step.stage.name}: {took}: {_shown(step.result['metrics'])}")

    def keep(self, section: str, found: Findings) -> None:
        """Add a section's findings."""
        found.complete()
        self.findings[section] = found
        self.metrics |= found.metrics


def fit(data: TrainingData, workspace: Workspace, folder: Path) -> Fitted:
    """Run the recipe and write the kept model to a folder."""
    fitted = Fitted(data)
    fitted.keep("data", data.describe())
    for step in run_recipe(data, workspace):
        if isinstance(step, Train):
            fitted.train(step, workspace)
        elif isinstance(step, FindLr):
            fitted.curves[step.stage.name] = step.run()
        elif isinstance(step, SelectModel | Evaluate | Refit):
            section = step.section if isinstance(step, Evaluate) else "refit" if isinstance(step, Refit) else "choice"
            fitted.keep(section, step.run())
            if section == "valid":
                fitted.kept = step.state.kept.title
        else:
            step.run()
    kept: Candidate = step.state.kept
    data.save(folder, kept)
    fitted.minutes = (time.time() - fitted.began) / 60
    return fitted


def report_of(fitted: Fitted) -> str:
    """Render the training's report as HTML; nothing is read from a server."""
    from unfreeze.tasks.machine.notices import rendered
    from unfreeze.tasks.report.contents import part_of, report_of
    from unfreeze.tasks.report.page import render

    params = fitted.data.params
    draw: dict[str, Any] = {
        f"learning_rate/{name}.png": partial(curve.plot, f"Learning rate for stage {name}", params.finder.method)
        for name, curve in fitted.curves.items()
    }
    finders = list(draw)
    for found in fitted.findings.values():
        draw |= {path: each for path, (_, each) in found.figures.items()}
    refit = fitted.findings.get("refit")
    return render(
        report_of(
            {name: part_of(found) for name, found in fitted.findings.items()},
            fitted.metrics,
            fitted.stages,
            params.model_dump(mode="json"),
            fitted.data.prepared.splits,
            lambda name: fitted.history[name],
            {name for name, (steps, _) in fitted.history.items() if steps},
            kept=fitted.kept,
            refitted=refit.lines[0] if refit else "",
            run_id="",
            name=Path(params.data.source).name,
            status="FINISHED",
            began=time.strftime("%Y-%m-%d %H:%M", time.localtime(fitted.began)),
            minutes=fitted.minutes,
            model=None,
            address=None,
            finders=finders,
            starts=[],
            commands=[
                ("Save the model", ["model.save('folder')", "unfreeze.load_model('folder').predict(rows)"]),
                ("Keep the next training as a run", ["model.set_params(tracked=True).fit()"]),
            ],
            figure=lambda path: rendered(draw[path], path, format="png", dpi=100) if path in draw else None,
        )
    )


def _shown(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
