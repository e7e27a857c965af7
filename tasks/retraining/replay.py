"""A run trained anew from what is kept of it, and what differs if the result does."""

from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import training_from
from unfreeze.models.settings import Training
from unfreeze.tasks import tracking
from unfreeze.tasks.tracking.origin import starts_of
from unfreeze.tasks.tracking.training_run import MODEL_DIGEST, model_name

DATA = "data.digest"
"""Tag of a run: equal digests have equal rows, targets and split."""


def replayed(run_id: str) -> Training:
    """The settings of a run, under a name of their own, so that the model's champion is not touched.

    Raises
    ------
    UserError
        If there is no such training, or it has no model to compare with.
    """
    params = training_from(tracking.spec_of(run_id), f"run {run_id}")
    if MODEL_DIGEST not in tracking.tags_of(run_id):
        raise UserError(f"run {run_id} ended without a model, so that there is nothing to compare a replay with")
    own = {"run_name": f"replay of {run_id}", "model_name": f"{model_name(params)}-replay"}
    return params.model_copy(update={"tracking": params.tracking.model_copy(update=own)})


def compare_replay(run_id: str, replay_id: str) -> dict[str, Any]:
    """Whether a replay ended with the same model, and what it was made with that the run was not.

    Returns
    -------
    dict
        ``equal`` (bit by bit), ``run``, ``replay``, and ``differences``: for each fact a text.
    """
    tags = [tracking.tags_of(each) for each in (run_id, replay_id)]
    digests = [each.get(MODEL_DIGEST) for each in tags]
    differences = [] if tags[0].get(DATA) == tags[1].get(DATA) else ["data: other rows, targets or split"]
    before, now = (starts_of(each) for each in (run_id, replay_id))
    for start in before:
        for name in {**start, **now[-1]} if now else {}:
            if name != "patch" and start.get(name) != now[-1].get(name):
                differences.append(f"{name}: {start.get(name, 'unknown')} then, {now[-1].get(name, 'unknown')} now")
    equal = None not in digests and digests[0] == digests[1]
    return {"equal": equal, "run": run_id, "replay": replay_id, "differences": list(dict.fromkeys(differences))}
