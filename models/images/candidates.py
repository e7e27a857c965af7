"""Models of images that a training can end with, besides the network as trained."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from unfreeze.models.images.bound import BoundImages
from unfreeze.models.recipe.refit import trained_again
from unfreeze.models.recipe.training_data import Activations, ActivationsOf, Candidate
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training.learner import Learner
from unfreeze.models.training.network import State

BOTH_MARGIN = 2.0
"""Standard errors: with one, a network was kept on photos whose test loss was a third above that of both."""


def image_candidates(
    data: BoundImages, learner: Learner, position: int, activations_of: ActivationsOf, has_snapshots: bool
) -> Iterator[Candidate]:
    """What the trained network must beat.

    The last weights alone beside a snapshot ensemble; the head before the body was unfrozen; and logistic regression on
    the precomputed activations of all views, unless that is the head already. Then the mean of its predictions and the
    network's is a candidate, else the mean of both weights (WiSE-FT: Wortsman et al., "Robust fine-tuning of zero-shot
    models", 2022, with their default of one half).
    """
    final, recipe = learner.state(), data.params.recipe
    if has_snapshots:
        yield Candidate("the last weights alone", [final], position, lacks="snapshots")
    frozen = range(sum(1 for _ in takewhile(lambda stage: stage.train == "head", recipe)))
    if not frozen:
        return
    initial = _initial(data, final)
    regressed = recipe[frozen[-1]].regression
    if learner.head_alone is not None and position > frozen[-1]:
        alone = {**initial, **_named_head(learner.head_alone, final)}
        name = "logistic regression" if regressed else "head"
        ends = [frozen[-1]] if regressed else []
        yield Candidate(name, [alone], frozen[-1], lacks="fine-tuning the body", stages=ends)
        if regressed:
            both, ends = f"{recipe[position].name} and {name}", [position, *ends]
            yield Candidate(both, [final, alone], position, margin=BOTH_MARGIN, stages=ends)
        else:
            yield Candidate("mean of head and all weights", [_mean(alone, final)], position)
    computed = [number for number in frozen if recipe[number].precomputes]
    if computed and not regressed:
        head = data.regressed_head(_activations(data, computed, activations_of))
        body = {name: tensor for name, tensor in initial.items() if name.startswith("body.")}
        state = {**body, **_named_head(head, final)}
        yield Candidate("logistic regression", [state], computed[-1], {"head": "linear"}, margin=1.0)


def _initial(data: BoundImages, final: State) -> State:
    """The network's initial weights, on the device of `final`."""
    return _beside(data.network().state_dict(), final)


def _named_head(head: State, final: State) -> State:
    """A head's weights as a network names them, on the device of `final`."""
    return _beside({f"head.{name}": tensor for name, tensor in head.items()}, final)


def _beside(state: State, final: State) -> State:
    device = next(iter(final.values())).device
    return {name: tensor.to(device) for name, tensor in state.items()}


def _mean(one: State, other: State) -> State:
    """The mean of two networks' weights; counters are the first one's."""
    return {name: (one[name] + other[name]) / 2 if one[name].is_floating_point() else one[name] for name in one}


def _activations(data: BoundImages, positions: Sequence[int], activations_of: ActivationsOf) -> Activations:
    """Those of the training rows that stages at the size of the last of `positions` read."""
    files: dict[tuple[str, int], Path] = {}
    for position in positions:
        if data.sizes[position] == data.sizes[positions[-1]]:
            files |= {key: path for key, path in activations_of(position).items() if key[0] == "train"}
    return files


def parts_to_refit(data: BoundImages, candidate: Candidate) -> list[tuple[int, int]]:
    """Which of the candidate's networks are refitted, and the stage that each is the end of.

    The regression by default, the network as well where `TrainImages.refit` is true.
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
