"""Look at the sources of registered models; new data make Prefect start their retraining."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from unfreeze.models.settings.retrain import Watch
from unfreeze.tasks.machine.flow_runs import HOOKS
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.retraining.watching import look_at_source, remember, report_new_data, watched_models
from unfreeze.tasks.tracking.registry import full_name

DEFAULTS = Watch()


@flow(name="watch", flow_run_name="watch sources", **HOOKS)
def watch(params: Watch = DEFAULTS) -> State[Any]:
    """Look whether the data of registered models changed since their latest retraining, and say so in an event.

    The automation `unfreeze: new data start a retraining` answers the event. A model whose source cannot be looked at
    makes the run fail, but only after the others were looked at.

    Args:
        params: Which models to look after.
    """
    models, new, broken = [], [], {}
    for model in watched_models(params):
        try:
            model = full_name(model)
            look = look_at_source(model)
            if look is not None:
                report_new_data(model)
                remember(model, look)  # only now: data that were not announced are new at the next look as well
                new.append(model)
        except Exception as error:  # a source that is away, or a model of another program, must not hide the others
            broken[model] = f"{type(error).__name__}: {error}"
            log_notice(f"{model}: cannot be looked at: {broken[model]}")
        models.append(model)
    result = {"new data": new, "models": models, "broken": broken}
    if broken:
        return Failed(message="; ".join(f"{model}: {reason}" for model, reason in broken.items()), data=result)
    return Completed(message=f"new data of {', '.join(new)}" if new else "nothing new", data=result)
