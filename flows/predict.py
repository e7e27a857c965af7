"""Predict a folder of images or a table with a registered model, into one file."""

import time
from typing import Any

from unfreeze.flows.running import flow
from unfreeze.models.settings.predict import Predict
from unfreeze.tasks.machine.cluster import cluster_of
from unfreeze.tasks.machine.devices import lease_devices
from unfreeze.tasks.predictions.parts import predict_parts, writing
from unfreeze.tasks.predictions.source import find_model, list_source

DEFAULTS = Predict()


@flow(name="predict", flow_run_name="predict {params.source}")
def predict(params: Predict = DEFAULTS) -> dict[str, Any]:
    """Predict images or rows with a registered model; a run that was stopped continues when it is started again.

    Args:
        params: Which model, what it predicts, and where the predictions go; every field has a default.
    """
    began = time.monotonic()
    with writing(params):
        model = find_model(params.model)
        if cluster_of(params.cluster) is None:
            lease_devices(params.device)
        result = predict_parts(params, model, list_source(params, model))
    return {**result, "seconds": round(time.monotonic() - began, 2)}
