"""Targets: one class per kind of target, with everything that depends on the kind.

A target defines its loss and activation, its metrics, its prediction columns, the report of its errors, and the
comparison of two models. Nothing else in the project distinguishes one class, several labels and numbers.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from unfreeze.models.errors import choose
from unfreeze.models.evaluation.metrics import pick_metrics
from unfreeze.models.targets.base import Category, Target, mean_in_order
from unfreeze.models.targets.multi_label import MultiLabel
from unfreeze.models.targets.numbers import Numbers
from unfreeze.models.targets.single_label import SingleLabel

TARGETS: dict[str, type[Target]] = {each.name: each for each in (SingleLabel, MultiLabel, Numbers)}
"""Name -> class; the data decide which one a spec's task stands for."""

__all__ = [
    "TARGETS",
    "Category",
    "MultiLabel",
    "Numbers",
    "SingleLabel",
    "Target",
    "check_metrics",
    "check_select",
    "mean_in_order",
    "target_from",
]


def target_from(settings: Mapping[str, Any]) -> Target:
    """Build a target from its `Target.settings`."""
    return TARGETS[settings["name"]](**{name: value for name, value in settings.items() if name != "name"})


def check_select(targets: Sequence[Target | type[Target]], select: str) -> None:
    """Reject a selection metric that fits none of the targets; the `UserError` lists those that do."""
    choose({"loss": None, **{name: None for each in targets for name in each.selectable()}}, select, "select")


def check_metrics(tasks: Sequence[str], names: Sequence[str], select: str = "loss") -> None:
    """Reject metrics unknown to all targets of these tasks, before any data is read.

    Raises
    ------
    UserError
        See `pick_metrics` and `check_select`.
    """
    check_select([each for each in TARGETS.values() if each.task in tasks], select)
    known = {
        name: metric for each in TARGETS.values() if each.task in tasks for name, metric in each.known_metrics.items()
    }
    pick_metrics(names, known, " or ".join(tasks))
