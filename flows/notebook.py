"""Tracked trainings and predictions from a notebook: the flows, called with plain settings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unfreeze.flows.commands.settings_file import read_settings
from unfreeze.flows.running import prefect_starting, state_of
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.overrides import build_spec, dotted
from unfreeze.models.settings.predict import Predict


def train(source: str | Path, config: str | Path | Mapping[str, Any] | None = None, **settings: Any) -> dict[str, Any]:
    """Train as the command line does: tracked by MLflow, shown by Prefect, registered as a model.

    Parameters
    ----------
    source
        See `data.source`.
    config
        Settings, or a file of them; ``{"modality": "tables"}`` among them for a table.
    **settings
        Settings by keyword, see `unfreeze.models.settings.overrides.dotted`: ``backbone="resnet34"``.

    Returns
    -------
    dict
        ``run_id``, ``metrics``, ``stages``, ``model``, ``model_uri`` and ``seconds``.

    Examples
    --------
    >>> from unfreeze import train
    >>> trained = train("photos", backbone="timm/test_resnet", weights="none", size=16)
    >>> trained["metrics"]["valid/accuracy"] > 0.5
    True
    """
    known = read_settings(Path(config)) if isinstance(config, str | Path) else dict(config or {})
    spec = modality(str(known.get("modality", "images"))).spec
    params = build_spec(spec, known, {"data.source": str(source), **dotted(spec, settings)})
    with prefect_starting():
        from unfreeze.flows.train_images import FLOWS
    result: dict[str, Any] = state_of(FLOWS[params.modality], params).result()
    return result


def predict(model: str, source: str | Path, out: str | Path, **settings: Any) -> dict[str, Any]:
    """Predict with a registered model into a file; see `unfreeze.models.settings.predict.Predict` for the settings.

    Returns
    -------
    dict
        ``out``, ``rows``, ``unreadable``, ``model``, ``version`` and ``table``.

    Raises
    ------
    UserError
        If a setting is unknown or not allowed.

    Examples
    --------
    >>> from unfreeze import predict, train
    >>> trained = train("photos", backbone="timm/test_resnet", weights="none", size=16)
    >>> predict("photos", "incoming", "predictions.csv")["rows"]
    3
    """
    given = {"model": model, "source": str(source), "out": str(out)}
    params = build_spec(Predict, given, dotted(Predict, settings))
    with prefect_starting():
        from unfreeze.flows.predict import predict as predict_flow
    return dict(state_of(predict_flow, params).result())
