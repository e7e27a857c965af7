"""Look at the sources of registered models; new data make Prefect start their retraining."""

from typing import Any

from prefect import flow

from models.retrain_spec import Watch
from tasks.watching import announce_new_data, look_at_source, watched_models

DEFAULTS = Watch()


@flow(name="watch", flow_run_name="watch sources")
def watch(params: Watch = DEFAULTS) -> dict[str, Any]:
    """Look whether the data of registered models changed since their latest retraining, and say so in an event.

    The automation `unfreeze: new data start a retraining` answers the event.

    Args:
        params: Which models to look after.
    """
    seen = {model: look_at_source(model) for model in watched_models(params)}
    for model in [model for model, is_new in seen.items() if is_new]:
        announce_new_data(model)
    return {"new data": [model for model, is_new in seen.items() if is_new], "models": list(seen)}
