"""The training of a retraining: the champion's settings with changes, on new data."""

from pathlib import Path
from typing import Any, NamedTuple

from unfreeze.models.recipe.modality import ModelVersion, modality_from
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import TrainImages, Training
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.retrain import Retrain
from unfreeze.tasks import tracking
from unfreeze.tasks.steps.evaluate import REFERENCE
from unfreeze.tasks.steps.prepare import kept_file
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.training_run import model_name

FRESH_WEIGHTS = "unfreeze.fresh_weights"
"""Tag of a challenger: the weights that a fresh training would start from."""


class Champion(NamedTuple):
    """A champion, read before the training because MLflow may be unavailable afterwards.

    Attributes
    ----------
    version
        In the registry.
    trained
        Its files and tags.
    reference
        A sample of its training data; None if it has none.
    fresh_weights
        Initial weights of the first in a line of champions; None if nothing is pretrained.
    """

    version: registry.Version
    trained: ModelVersion
    reference: Path | None
    fresh_weights: str | None


def name_of(params: Retrain) -> str:
    """The model's full name, for the default model even before it exists.

    Raises
    ------
    UserError
        If the model is unknown.
    """
    default = model_name(TrainImages())
    return default if params.model == default else registry.full_name(params.model)


def champion_of(params: Retrain) -> registry.Version | None:
    """The champion to beat; None if the model is the default one and was never trained.

    Raises
    ------
    UserError
        If the model is unknown or has no champion.
    """
    name = name_of(params)
    if name == model_name(TrainImages()) and registry.champion_of(name) is None:
        return None
    return registry.version_of(name, registry.CHAMPION)


def training_like(champion: registry.Version, params: Retrain) -> Training:
    """The champion's training with the retraining's changes; its images stay on their side of the split.

    Raises
    ------
    UserError
        If the champion was not trained by unfreeze, or a change is invalid.
    """
    spec = tracking.spec_of(champion.run_id)
    kind = modality_from(spec, f"run {champion.run_id}").spec
    fixed: dict[str, Any] = {"tracking.model_name": champion.name}
    if "split_like" in spec["data"]:
        warm = params.warm_start == "champion"
        fixed["data.split_like"] = champion.run_id
        fixed["model.weights"] = str(registry.folder_of(champion)) if warm else _fresh_weights(champion)
    return build_spec(kind, spec, {**params.changes, **fixed})


def _fresh_weights(champion: registry.Version) -> str | None:
    started: str | None = tracking.spec_of(champion.run_id)["model"].get("weights")
    return tracking.tags_of(champion.run_id).get(FRESH_WEIGHTS, started)


def read_champion(version: registry.Version) -> Champion:
    """Fetch a champion's files to this machine."""
    trained = ModelVersion(registry.folder_of(version), kept_file(version.run_id), tracking.tags_of(version.run_id))
    return Champion(version, trained, tracking.fetch(version.run_id, REFERENCE), _fresh_weights(version))


def is_new(data: Prepared, champion: registry.Version) -> bool:
    """Whether neither the champion nor the latest retraining has seen these data."""
    latest = registry.latest_retraining(champion.name)
    known = {tracking.tags_of(champion.run_id).get(tracking.FINGERPRINT), latest["data"] if latest else None}
    return data.fingerprint not in known


def mark_challenger(run_id: str, champion: Champion) -> None:
    """Tag a run with the champion that it challenged and the weights of a fresh training."""
    tags = {"unfreeze.challenges": f"{champion.version.name}/{champion.version.number}"}
    if champion.fresh_weights is not None:
        tags[FRESH_WEIGHTS] = champion.fresh_weights
    tracking.log_tags(run_id, tags)
