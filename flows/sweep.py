"""Search for better settings, by default differential learning-rate ratios; train shared stages once."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from unfreeze.flows.running import flow
from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import modality_of
from unfreeze.models.recipe.run import Evaluate, SelectModel, run_recipe
from unfreeze.models.settings import TrainImages, TrainTables
from unfreeze.models.settings.addresses import WITHOUT_PASSWORD
from unfreeze.models.settings.overrides import build_spec
from unfreeze.models.settings.search import SweepSpec, TableSweep, with_effect
from unfreeze.tasks.machine.devices import lease_devices
from unfreeze.tasks.report.publish import report_at_end
from unfreeze.tasks.steps.evaluate import choose, evaluate, register
from unfreeze.tasks.steps.prepare import check_trials, prepare
from unfreeze.tasks.steps.workspace import FlowWorkspace
from unfreeze.tasks.sweeps import sweep as sweeps
from unfreeze.tasks.sweeps.study import load_study

DEFAULTS, TABLE_DEFAULTS = SweepSpec(), TableSweep()
TRAINING, TABLE = TrainImages(), TrainTables()


@flow(name="sweep", flow_run_name="sweep {training.data.source}")
def sweep(params: SweepSpec = DEFAULTS, training: TrainImages = TRAINING) -> dict[str, Any]:
    """Try settings until the study has as many trials as asked for; a study of the same name continues.

    Args:
        params: What varies, for how many trials, and how they are judged.
        training: The training that is varied; what trials share of it is computed once.
    """
    return search(params, training)


@flow(name="sweep-tables", flow_run_name="sweep {training.data.source}")
def sweep_tables(params: TableSweep = TABLE_DEFAULTS, training: TrainTables = TABLE) -> dict[str, Any]:
    """The same for a training on a table.

    Args:
        params: What varies, for how many trials, and how they are judged.
        training: The training that is varied; what trials share of it is computed once.
    """
    return search(params, training)


def search(params: SweepSpec, training: TrainImages | TrainTables) -> dict[str, Any]:
    """Run trials in this process and its workers, and return the result."""
    training = modality_of(training).complete(training)
    params = with_effect(params, training)
    check_trials(params, training)
    lease_devices(training.device)
    with sweeps.open_sweep(params, training) as under_way:
        with sweeps.other_workers(under_way) as workers:
            under_way.run_trials()
            ended = sweeps.wait_for(workers, under_way)
        if ended["died"]:
            under_way.run_trials()  # trials that they left unfinished
        found = {**under_way.finish(), "workers": ended}
        report_at_end(under_way.run_id)
        sweeps.require_survivor(ended)
    return found


@flow(name="sweep-worker", flow_run_name="worker {number} of sweep {training.data.source}")
def join_sweep(params: SweepSpec, training: TrainImages | TrainTables, number: int) -> None:
    """Run trials of a sweep that another process leads.

    Args:
        params: As the sweep was started with.
        training: As the sweep was started with.
        number: Which of the processes this is, from 1.
    """
    check_trials(params, training)
    lease_devices(training.device)
    sweeps.join_sweep(params, training)


@flow(name="register-best", flow_run_name="register the best of {study}")
def register_best(
    study: str, storage: Annotated[str | None, Field(json_schema_extra={"pattern": WITHOUT_PASSWORD})] = None
) -> dict[str, Any]:
    """Evaluate the best trial's weights with TTA and register them as a model.

    Args:
        study: Name of the study.
        storage: Database of studies, without its password. Empty: the journal file on this machine.
    """
    build_spec(SweepSpec, {"storage": storage})  # refuses a password
    best, run = sweeps.best_run(load_study(study, storage))
    data, record = prepare(run.params), run.record
    if record.checkpoint is None:
        raise UserError(f"the weights of trial {best['number']} are lost; register another trial, or search again")
    record.results = {position: {} for position in range(len(run.params.recipe))}  # a trial keeps its last weights
    evaluated: list[Callable[[], object]] = []
    for step in run_recipe(data, FlowWorkspace(), record):
        if isinstance(step, SelectModel):
            choose(run, step)
        elif isinstance(step, Evaluate) and step.section != "baseline":
            evaluated.append(evaluate(run, step))
    model = register(run, data, step.state.kept)
    for show in evaluated:
        show()
    return {**best, "metrics": run.metrics, "model": model, "worth_a_look": report_at_end(run.id)}
