"""Follow the recipe on several devices: rank 0 drives the steps, and the others take the same ones."""

from pathlib import Path
from typing import cast

from unfreeze.models.recipe.modality import bind
from unfreeze.models.recipe.run import Train, run_recipe
from unfreeze.models.recipe.state import Record
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import Training
from unfreeze.models.store.workspace import Workspace
from unfreeze.models.training import ranks


def lead(params: Training, prepared: Prepared, record: Record) -> None:
    """Give the other ranks what `follow` waits for; call it before the first step of `run_recipe`."""
    ranks.agree((params, prepared, record))


def follow(folder: Path) -> None:
    """Take the steps of rank 0's training on another rank.

    Parameters
    ----------
    folder
        The data folder, shared with rank 0: derived files are read there, and activations written.
    """
    params, prepared, record = ranks.agree(cast(tuple[Training, Prepared, Record], None))
    for step in run_recipe(bind(params, prepared), _Quiet(folder), record):
        done = step.run()
        if isinstance(step, Train):
            for _ in done:
                pass


class _Quiet(Workspace):
    def notice(self, line: str) -> None:
        """Leave the lines to rank 0."""
