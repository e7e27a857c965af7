"""Retrain a registered model on new data, compare it with the champion, and promote it if better."""

from dataclasses import asdict
from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed

from unfreeze.flows.running import flow
from unfreeze.flows.train_images import FLOWS
from unfreeze.models.evaluation.comparison import decide
from unfreeze.models.recipe.training_data import Prepared
from unfreeze.models.settings import TrainImages, Training
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.retrain import Retrain
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import wait_until_shown
from unfreeze.tasks.report.publish import report_at_end
from unfreeze.tasks.retraining import training as retraining
from unfreeze.tasks.retraining.compare import compare_models, report_drift
from unfreeze.tasks.retraining.promotion import approved, carry_out, notification_block, notify, show_decision
from unfreeze.tasks.retraining.training import Champion
from unfreeze.tasks.retraining.watching import NotNow, leave_to_later_run, require_turn
from unfreeze.tasks.steps.prepare import check_training, prepare_handle
from unfreeze.tasks.tracking.registry import PROMOTED
from unfreeze.tasks.tracking.training_run import unfinished_training

DEFAULTS = Retrain()


@flow(name="retrain", flow_run_name="retrain {params.model}")
def retrain(params: Retrain = DEFAULTS) -> dict[str, Any] | State[Any]:
    """Retrain a registered model if its data changed, and promote it if it beats the champion.

    Args:
        params: Which model, from which weights, and what it takes to be promoted.
    """
    try:
        leave_to_later_run()
        for name in params.notify:  # before hours of training
            notification_block(name)
        require_turn(retraining.name_of(params))
        return retrain_model(params)
    except NotNow as reason:
        log_notice(f"skipped: {reason}")
        return Completed(name="Skipped", message=str(reason), data={"decision": "skipped", "why": str(reason)})
    except Exception as error:
        notify(params, f"unfreeze: retraining {params.model} failed", f"{type(error).__name__}: {error}")
        raise


def retrain_model(params: Retrain) -> dict[str, Any] | State[Any]:
    """Check for new data, train, compare, decide, and record the decision."""
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

    with tracking.staying_open():
        return challenge(params, training, data, retraining.read_champion(champion))


def challenge(params: Retrain, training: Training, data: Prepared, champion: Champion) -> dict[str, Any]:
    """Train, compare with the champion as read, decide and act; MLflow may be unavailable from here on."""
    trained = train(training)
    run_id = trained["run_id"]
    retraining.mark_challenger(run_id, champion)
    drift = report_drift(training, data, champion, run_id)
    comparison = compare_models(training, data, champion, run_id, params.promotion.margin)
    decision = decide(comparison, params.promotion)
    if decision.promote and params.approval:
        decision = approved(decision, params.approval_hours)
    outcome = carry_out(decision, comparison, champion.version, run_id, data.fingerprint)
    worth_a_look = report_at_end(run_id)
    if outcome["decision"] == PROMOTED:
        reasons = "; ".join(decision.reasons)
        notify(params, f"unfreeze: {champion.version.name} has a new champion", f"{outcome['line']}: {reasons}")
    wait_until_shown()
    return {
        "decision": outcome["decision"],
        "reasons": decision.reasons,
        "model": champion.version.name,
        "champion": outcome["champion"],
        "champion_before": champion.version.number,
        "challenger": outcome.get("version"),
        "comparison": asdict(comparison),
        "drift": drift,
        **{name: trained[name] for name in ("run_id", "experiment_id", "metrics")},
        "worth_a_look": worth_a_look,
    }


def first_champion(params: Retrain) -> dict[str, Any]:
    """Train the default model for the first time, with no champion to compare."""
    trained = train(build_spec(TrainImages, dict(params.changes), {}))
    version = trained["model"].get("version")
    line = f"version {version} is the first champion" if version else "the first champion waits for MLflow"
    show_decision(params.model, line, [], trained["metrics"])
    wait_until_shown()
    return {"decision": "first champion", "champion": version, **trained}


def train(training: Training) -> dict[str, Any]:
    """Train in a subflow; a crashed retraining resumes it when run again."""
    unfinished = unfinished_training(training.tracking.experiment)
    state: State[Any] = FLOWS[training.modality](training, unfinished, return_state=True)
    if state.is_cancelled():
        stopped = KeyboardInterrupt()
        stopped.add_note(str(state.message))
        raise stopped
    trained: dict[str, Any] = state.result()
    return trained
