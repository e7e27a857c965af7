"""The learning-rate finder as a step."""

from functools import partial

import pandas as pd

from unfreeze.models.recipe.run import FindLr
from unfreeze.models.training.lr_plot import plot_lr_curve
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_info
from unfreeze.tasks.steps.workspace import as_task
from unfreeze.tasks.tracking.files import log_figure
from unfreeze.tasks.tracking.training_run import Run


def find_lr(run: Run, step: FindLr) -> dict[str, float]:
    """Find the lr of a stage on the weights as they are; returns the suggestions by method.

    The curve goes to MLflow as a figure and a feather file, the suggestions as a tag: a resumed run trains at the same
    lr.
    """
    return as_task(step.name, lambda: _find_lr(run, step))


def _find_lr(run: Run, step: FindLr) -> dict[str, float]:
    stage, method, curve = step.stage, run.params.finder.method, step.run()
    suggestions = curve.suggestions()
    frame = pd.DataFrame({"lr": curve.lrs, "loss": curve.losses, "smoothed": curve.smoothed})
    tracking.log_frame(run.id, frame, f"learning_rate/{stage.name}.feather")
    draw = partial(plot_lr_curve, curve, suggestions, method, f"Learning rate for stage {stage.name}")
    log_figure(run.id, draw, f"learning_rate/{stage.name}.png", f"Learning-rate finder, stage {stage.name}")
    listed = ", ".join(f"{name} {lr:.2g}" for name, lr in suggestions.items())
    sure = f"; stable is sure to a factor of {10 ** curve.estimate()[1]:.1f}"
    tried = f"; tried on training rows held out: {curve.trials}" if curve.trials else ""
    log_info(f"{stage.name}: lr {suggestions[method]:.2g} ({method}), of {listed}{sure}{tried}")
    run.keep_suggestions(step.position, suggestions)
    return suggestions
