"""Models of any modality, loaded as estimators."""

from pathlib import Path

from unfreeze.estimators.base import Estimator, model_folder
from unfreeze.estimators.images import Images
from unfreeze.estimators.tables import Tables
from unfreeze.models.recipe.modality import modality_in

KINDS: dict[str, type[Estimator]] = {each.kind: each for each in (Images, Tables)}
"""Modality -> its estimator."""


def load_model(model: str | Path, device: str | None = None) -> Images | Tables:
    """Load a model as a fitted estimator.

    Parameters
    ----------
    model
        Folder written by `Estimator.save`, or a registered model: ``"photos-classifier"`` (its champion),
        ``"photos-classifier/3"``, ``"photos-classifier@challenger"``.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises
    ------
    UserError
        If there is no such model.

    Examples
    --------
    >>> from unfreeze import Tables, load_model
    >>> folder = Tables("sales.csv", target="Sales", date="Date").fit().save("sales-model")
    >>> load_model(folder).predict({"Store": 3, "Date": "2015-03-02", "Promo": 0}).round(-2).tolist()
    [300.0]
    """
    folder = model_folder(model)
    loaded = KINDS[modality_in(folder).name].load(folder, device)
    assert isinstance(loaded, Images | Tables)
    return loaded
