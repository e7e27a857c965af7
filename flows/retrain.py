"""Train a registered model anew: is there new data? train, compare with the champion, promote if better."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from unfreeze.flows.train_tables import FLOWS
from unfreeze.models.comparison import decide
from unfreeze.models.errors import UserError
from unfreeze.models.specs import Training
from unfreeze.models.specs.retrain import Retrain
from unfreeze.tasks.prefect_run.interruption import cancelled, heeding_hangups
from unfreeze.tasks.prefect_run.notices import log_notice
from unfreeze.tasks.prefect_run.processes import HOOKS
from unfreeze.tasks.report.publish import report_at_end
from unfreeze.tasks.retraining import training as retraining
from unfreeze.tasks.retraining.compare import compare_models, report_drift
from unfreeze.tasks.retraining.promotion import approved, carry_out, notify, require_blocks, show_decision
from unfreeze.tasks.retraining.turns import NotNow, leave_to_later_run, turn
from unfreeze.tasks.steps.prepare import check_training, prepare_handle
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.training_run import unfinished_training

DEFAULTS = Retrain()


@flow(name="retrain", flow_run_name="retrain {params.model}", **HOOKS)
def retrain(params: Retrain = DEFAULTS) -> dict[str, Any] | State[Any]:
    """Train a registered model anew if its data changed, and promote it if it beats the champion.

    Args:
        params: Which model, from which weights, and what it takes to be promoted.
    """
    try:
        leave_to_later_run()
        require_blocks(params)
        with turn(f"retrain {retraining.name_of(params)}"), heeding_hangups():
            return retrain_model(params)
    except NotNow as reason:
        log_notice(f"skipped: {reason}")
        return Completed(name="Skipped", message=str(reason), data={"decision": "skipped", "why": str(reason)})
    except KeyboardInterrupt as stopped:
        return cancelled(stopped)
    except Exception as error:
        notify(params, f"unfreeze: retraining {params.model} failed", f"{type(error).__name__}: {error}")
        raise


def retrain_model(params: Retrain) -> dict[str, Any] | State[Any]:
    """Look for new data, train, compare, decide, and keep what was decided."""
    champion = retraining.champion_of(params)
    if champion is None:
        return first_champion(params)
    training = retraining.training_like(champion, params)
    check_training(training)
    data = prepare_handle(training)
    if not retraining.is_new(data, champion) and not params.even_if_unchanged:
        line = f"no new data since version {champion.number} and the latest retraining"
        show_decision(champion.name, line, [], {})
        log_notice(f"{champion.name}: {line}")
        return Completed(message=line, data={"decision": "no new data", "champion": champion.number})

    trained = train(training)
    retraining.mark_challenger(trained["run_id"], champion)
    challenger = registry.version_of(champion.name, trained["model"]["version"])
    drift = report_drift(training, data, champion, challenger.run_id)
    comparison = compare_models(training, data, champion, challenger, params.promotion.margin)
    decision = decide(comparison, params.promotion)
    if decision.promote and params.approval:
        decision = approved(decision, params.approval_hours)
    line = carry_out(decision, comparison, champion, challenger)
    registry.keep_retraining(champion.name, line, challenger.number, data.fingerprint)
    report_at_end(challenger.run_id)
    if decision.promote:
        notify(params, f"unfreeze: {champion.name} has a new champion", f"{line}: {'; '.join(decision.reasons)}")
    return retraining.summary(trained, champion, challenger, decision, comparison, drift)


def first_champion(params: Retrain) -> dict[str, Any]:
    """Train the default model for the first time: there is nothing to compare it with."""
    trained = train(retraining.first_training(params))
    line = f"version {trained['model']['version']} is the first champion"
    show_decision(params.model, line, [], trained["metrics"])
    return {"decision": "first champion", "champion": trained["model"]["version"], **trained}


def train(training: Training) -> dict[str, Any]:
    """The training as a flow inside this one; a retraining that crashed and is run again continues with it."""
    unfinished = unfinished_training(training.tracking.experiment)
    state: State[Any] = FLOWS[training.modality](training, unfinished, return_state=True)
    if state.is_cancelled():
        stopped = KeyboardInterrupt()
        stopped.add_note(str(state.message))
        raise stopped
    trained: dict[str, Any] = state.result()
    if "version" not in trained["model"]:
        name = trained["model"]["name"]
        raise UserError(
            f"MLflow is away: the model of run {trained['run_id']} waits to be registered, and is not compared. "
            f"Later `unfreeze sync` registers it, and `unfreeze promote {name} challenger` makes it the champion"
        )
    return trained
