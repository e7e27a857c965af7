"""Promotion of a challenger: approval, alias, records and notifications."""

import inspect
from dataclasses import asdict
from typing import Any, cast

from prefect import runtime
from prefect.artifacts import create_markdown_artifact
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.settings import PREFECT_UI_URL
from prefect.utilities.asyncutils import run_coro_as_sync
from pydantic import Field
from pydantic_core import to_json

from unfreeze.models.errors import UserError
from unfreeze.models.evaluation.comparison import Comparison, Decision
from unfreeze.models.settings.retrain import Retrain
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.notices import log_notice
from unfreeze.tasks.machine.page import artifact_key, as_markdown, show
from unfreeze.tasks.tracking import registry
from unfreeze.tasks.tracking.registry import KEPT

WAITS = "waits"
"""A decision to promote that is not published to MLflow yet."""
POLL_SECONDS = 3
"""Interval at which a paused retraining checks for an answer."""


class Approval(RunInput):
    """The form that a person fills in on the page of a paused retraining."""

    promote: bool = Field(default=False, description="Make the challenger the champion.")
    comment: str = Field(default="", description="Kept with the decision.")


def approved(decision: Decision, hours: float) -> Decision:
    """Ask a user for approval; without a yes nothing is promoted."""
    address = f"{PREFECT_UI_URL.value()}/runs/flow-run/{runtime.flow_run.id}" if PREFECT_UI_URL.value() else "its page"
    log_notice(f"waiting {hours:g} hours for approval: press Resume, Prefect's name for answering, on {address}")
    found = "\n".join(f"- {as_markdown(reason)}" for reason in decision.reasons)
    form = Approval.with_initial_data(description=f"The challenger won against the champion:\n\n{found}")
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=int(hours * 3600), poll_interval=POLL_SECONDS)
    except FlowPauseTimeout:
        return Decision(False, [*decision.reasons, f"nobody approved it within {hours:g} hours"])
    said = f"a person {'approved' if answer.promote else 'declined'}"
    return Decision(answer.promote, [*decision.reasons, f"{said}: {answer.comment}" if answer.comment else said])


def carry_out(
    decision: Decision, comparison: Comparison, champion: registry.Version, run_id: str, data: str
) -> dict[str, str]:
    """Move the alias if the challenger, the model of `run_id`, is promoted, and record the decision.

    If MLflow does not answer, this waits with the run's other logs; the alias moves later only if the version that was
    compared is still champion. `data` is the fingerprint of the challenger's data.

    Returns
    -------
    dict
        ``decision`` (``promoted``, ``kept champion``, ``superseded`` by another champion, or ``waits`` for MLflow to be
        promoted), ``champion``, a ``line``, and the challenger's ``version`` if it has one yet.
    """
    number = champion.number
    numbers = {name: value for name, value in asdict(comparison).items() if name != "classes"}
    about = {"name": champion.name, "champion": number, "promote": decision.promote}
    why = {"reasons": decision.reasons, "numbers": to_json(numbers, inf_nan_mode="null").decode(), "data": data}
    outcome = tracking.decide(run_id, {**about, **why})
    if not outcome:
        line = f"The challenger was not promoted, version {number} stays champion; MLflow does not know yet"
        if decision.promote:
            line = (
                f"The challenger beat version {number}, and waits for MLflow to become champion: `unfreeze sync` makes "
                f"it so, if version {number} still is"
            )
        outcome = {"decision": WAITS if decision.promote else KEPT, "champion": number, "line": line}
    line = outcome["line"]
    show_decision(champion.name, line, decision.reasons, numbers)
    log_notice(f"{champion.name}: {line[0].lower()}{line[1:]}")
    return outcome


def show_decision(name: str, line: str, reasons: list[str], numbers: dict[str, Any]) -> None:
    """Store the decision as an artifact of the flow run; a model's artifacts form a history on the page."""
    listed = "\n".join(f"- {as_markdown(reason)}" for reason in reasons)
    rows = "\n".join(f"| {key} | {as_markdown(str(value))} |" for key, value in numbers.items())
    table = f"\n\n| | |\n|---|---|\n{rows}" if rows else ""
    markdown, key = f"## {name}\n\n**{line}**\n\n{listed}{table}", artifact_key(f"retrain-{name}")
    show(lambda: create_markdown_artifact(markdown, key=key, description=line))


def notify(params: Retrain, subject: str, body: str) -> None:
    """Send a message through every notification block of the spec; failures do not fail the retraining."""
    for name in params.notify:
        try:
            told: Any = notification_block(name).notify(body, subject=subject)
            if inspect.isawaitable(told):  # a user's own block may lack Prefect's sync wrapper
                run_coro_as_sync(cast(Any, told))
        except Exception as error:
            log_notice(f"notify: {name} could not be told: {error}")


def notification_block(name: str) -> NotificationBlock:
    """Load the block named `type/name`.

    Raises
    ------
    UserError
        If it is missing or of another kind.
    """
    try:
        block = Block.load(name)
    except ValueError as error:
        raise UserError(f"notify: there is no block {name!r}; make one on the Prefect page under Blocks") from error
    if not isinstance(block, NotificationBlock):
        raise UserError(f"notify: block {name!r} is not a notification block")
    return block
