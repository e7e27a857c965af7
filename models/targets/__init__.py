"""What is predicted: one class per way that targets can be, with everything that follows from it.

A target knows its loss and activation, its metrics, the columns of its predictions, what a report shows of its errors,
and how two models are compared on it. Nothing else in the project asks "one class, several labels or numbers?".
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
"""Name -> class; the data decide which one a spec's task means."""

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
    """The target that `Target.settings` describes."""
    return TARGETS[settings["name"]](**{name: value for name, value in settings.items() if name != "name"})


def check_select(targets: Sequence[Target | type[Target]], select: str) -> None:
    """Reject a metric to choose models by that fits none of the targets; a `UserError` names those that do."""
    choose({"loss": None, **{name: None for each in targets for name in each.selectable()}}, select, "select")


def check_metrics(tasks: Sequence[str], names: Sequence[str], select: str = "loss") -> None:
    """Reject, before anything is read, names that none of the targets of these tasks knows.

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
