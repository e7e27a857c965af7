"""Predict a folder of images or a table with a registered model, into one file."""

import time
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from unfreeze.models.settings.predict import Predict
from unfreeze.tasks.machine.flow_runs import HOOKS
from unfreeze.tasks.machine.interruption import cancelled
from unfreeze.tasks.predictions.parts import predict_parts, writing
from unfreeze.tasks.predictions.source import find_model, list_source

DEFAULTS = Predict()


@flow(name="predict", flow_run_name="predict {params.source}", **HOOKS)
def predict(params: Predict = DEFAULTS) -> dict[str, Any] | State[Any]:
    """Predict images or rows with a registered model; a run that was stopped continues when it is started again.

    Args:
        params: Which model, what it predicts, and where the predictions go; every field has a default.
    """
    began = time.monotonic()
    try:
        with writing(params):
            model = find_model(params.model)
            source = list_source(params, model)
            result = predict_parts(params, model, source)
            return {**result, "seconds": round(time.monotonic() - began, 2)}
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)
