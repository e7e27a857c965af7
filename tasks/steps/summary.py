"""The network of a training layer by layer, without training it."""

from typing import Any

import torch

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.summary import summarise_layers
from unfreeze.models.settings import Training
from unfreeze.tasks.steps.prepare import check_training, prepare


def summarise(params: Training, stage: str | None) -> dict[str, Any]:
    """Layers as a stage of the recipe trains them; by default its last.

    Returns
    -------
    dict
        ``stage``; ``layers``, see `summarise_layers`; ``parameters`` and ``trainable``, of all of them.

    Raises
    ------
    UserError
        If there is no such stage, or the data cannot be used.
    """
    check_training(params)
    names = [each.name for each in params.recipe]
    if stage is not None and stage not in names:
        raise UserError(f"--stage: {stage!r} is not one of the recipe's: {', '.join(names)}")
    position = names.index(stage) if stage else len(names) - 1
    data = prepare(params)
    inputs, _ = data.batches(position, "train", {}).gather(torch.arange(2), None)
    chosen = data.params.recipe[position]
    layers = summarise_layers(data.learner(), chosen, position, chosen.lr, inputs)
    total = sum(row["parameters"] for row in layers)
    trainable = sum(row["parameters"] for row in layers if row["trains"] == "yes")
    return {"stage": names[position], "layers": layers, "parameters": total, "trainable": trainable}
