"""Watch the sources of registered models, and start retrainings on new data."""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from unfreeze.flows.running import flow
from unfreeze.models.settings.retrain import Watch
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.retraining.watching import look_at_source, remember, report_new_data, watched_models
from unfreeze.tasks.tracking.registry import full_name

DEFAULTS = Watch()


@flow(name="watch", flow_run_name="watch sources")
def watch(params: Watch = DEFAULTS) -> State[Any]:
    """Emit an event for every registered model whose data changed since its latest retraining.

    The automation `unfreeze: new data start a retraining` answers the event. A source that cannot be read fails the
    run, after all others were checked.

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
                remember(model, look)  # only now: unannounced data stay new for the next check
                new.append(model)
        except Exception as error:  # an unreachable source or another program's model must not hide the others
            broken[model] = f"{type(error).__name__}: {error}"
            log_notice(f"{model}: cannot be looked at: {broken[model]}")
        models.append(model)
    result = {"new data": new, "models": models, "broken": broken}
    if broken:
        return Failed(message="; ".join(f"{model}: {reason}" for model, reason in broken.items()), data=result)
    return Completed(message=f"new data of {', '.join(new)}" if new else "nothing new", data=result)
