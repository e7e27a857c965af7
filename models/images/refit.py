"""The classifier that is kept, refitted on training and validation images: the regression, and the network if asked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from unfreeze.models.refit import trained_again
from unfreeze.models.training_data import Candidate
from unfreeze.models.workspace import Workspace

if TYPE_CHECKING:
    from unfreeze.models.images.data import ImageData


def parts_to_refit(data: "ImageData", candidate: Candidate) -> list[tuple[int, int]]:
    """Which of the candidate's networks are refitted, and after which stage each is found.

    Those that a stage ended with: the regression by default, the network as well where `TrainImages.refit` is true. A
    mean of weights, and a regression beside the course's recipe, stay as they are.
    """
    refit, recipe = data.params.refit, data.params.recipe
    ends = {recipe[-1].name: len(recipe) - 1} if refit else {}
    for place, stage in enumerate(recipe):
        if stage.regression:
            ends["logistic regression"] = place
    names = candidate.name.split(" and ")
    if refit is False or len(names) != len(candidate.states):
        return []
    return [(number, ends[name]) for number, name in enumerate(names) if name in ends]


def refit(
    data: "ImageData", candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
) -> tuple[Candidate, str]:
    """See `TrainingData.refitted`."""
    parts, states = parts_to_refit(data, candidate), list(candidate.states)
    stages = islice(trained_again(data.with_all_rows(), results, workspace), 1 + max(end for _, end in parts))
    for position, state in enumerate(stages):
        for number, end in parts:
            if end == position:
                states[number] = state
    names = candidate.name.split(" and ")
    what = "all of it" if len(parts) == len(names) else " and ".join(names[number] for number, _ in parts)
    return replace(candidate, states=states, judged=candidate), what
