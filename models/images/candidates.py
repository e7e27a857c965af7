"""Candidate image models at the end of a training, besides the trained network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from unfreeze.models.images.bound import BoundImages
from unfreeze.models.recipe.refit import trained_again
from unfreeze.models.recipe.training_data import ActivationsOf, Candidate
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import State

BOTH_MARGIN = 2.0
"""Margin in standard errors; with one, a photo run kept a network whose test loss was a third above the mean's."""


def image_candidates(
    data: BoundImages, learner: Learner, position: int, activations_of: ActivationsOf, has_snapshots: bool
) -> Iterator[Candidate]:
    """Yield the models that compete with the trained network.

    These are the last weights alone (with a snapshot ensemble), the head from before the body was unfrozen, and
    logistic regression on the precomputed activations of all views, unless that is the head already. If it is, the mean
    of its predictions and the network's is a candidate too; otherwise the mean of the weights before and after
    unfreezing (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot models", 2022, with their default of 1/2).
    """
    final, recipe = learner.state(), data.params.recipe
    if has_snapshots:
        yield Candidate("the last weights alone", [final], position, ablated="snapshots")
    frozen = range(sum(1 for _ in takewhile(lambda stage: stage.train == "head", recipe)))
    if not frozen:
        return
    initial, device = data.network().state_dict(), next(iter(final.values())).device

    def with_head(head: State) -> State:
        body = {name: tensor for name, tensor in initial.items() if name.startswith("body.")}
        whole = {**body, **{f"head.{name}": tensor for name, tensor in head.items()}}
        return {name: tensor.to(device) for name, tensor in whole.items()}

    regressed = recipe[frozen[-1]].regression
    if learner.head_alone is not None and position > frozen[-1]:
        alone = with_head(learner.head_alone)
        name = "logistic regression" if regressed else "head"
        ends = [frozen[-1]] if regressed else []
        yield Candidate(name, [alone], frozen[-1], ablated="fine-tuning the body", stages=ends)
        if regressed:
            both, ends = f"{recipe[position].name} and {name}", [position, *ends]
            yield Candidate(both, [final, alone], position, margin=BOTH_MARGIN, stages=ends)
        else:
            yield Candidate("mean of head and all weights", [_mean(alone, final)], position)
    computed = [number for number in frozen if recipe[number].precomputes]
    if computed and not regressed:
        views: dict[tuple[str, int], Path] = {}
        for number in computed:
            if data.sizes[number] == data.sizes[computed[-1]]:
                views |= {key: path for key, path in activations_of(number).items() if key[0] == "train"}
        state = with_head(data.regressed_head(views))
        yield Candidate("logistic regression", [state], computed[-1], {"head": "linear"}, margin=1.0)


def _mean(one: State, other: State) -> State:
    """Average two networks' weights; counters are taken from the first."""
    return {name: (one[name] + other[name]) / 2 if one[name].is_floating_point() else one[name] for name in one}


def parts_to_refit(data: BoundImages, candidate: Candidate) -> list[tuple[int, int]]:
    """Select the candidate's networks to refit, each with its final stage.

    The regression by default, and the network too if `TrainImages.refit` is true.
    """
    refit, recipe = data.params.refit, data.params.recipe
    ends = ((number, end) for number, end in enumerate(candidate.stages) if end is not None)
    return [(number, end) for number, end in ends if refit or (refit is None and recipe[end].regression)]


def refit(
    data: BoundImages, candidate: Candidate, results: Sequence[Mapping[str, Any]], workspace: Workspace
) -> tuple[Candidate, str]:
    """See `TrainingData.refitted`."""
    parts, states = parts_to_refit(data, candidate), list(candidate.states)
    stages = islice(trained_again(data.with_all_rows(), results, workspace), 1 + max(end for _, end in parts))
    for position, state in enumerate(stages):
        for number, end in parts:
            if end == position:
                states[number] = state
    recipe = data.params.recipe
    names = ["logistic regression" if recipe[end].regression else recipe[end].name for _, end in parts]
    what = "all of it" if len(parts) == len(states) else " and ".join(names)
    return replace(candidate, states=states, judged=candidate), what
