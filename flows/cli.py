"""The `unfreeze` command."""

import argparse
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from unfreeze.flows import show
from unfreeze.flows.export import add_export_command
from unfreeze.flows.flags import SETTING, FlagParser, add_flags, space_from, spec_from
from unfreeze.flows.prefect_starting import prefect_starting
from unfreeze.flows.run_commands import add_run_commands, require_runs
from unfreeze.flows.service_commands import add_service_commands
from unfreeze.flows.source_argument import EMBEDDED, SOURCES, add_source, checked_params, understood_params
from unfreeze.models.errors import UserError
from unfreeze.models.settings import TrainImages, Training
from unfreeze.models.settings.addresses import split_password
from unfreeze.models.settings.predict import Explain, Predict
from unfreeze.models.settings.retrain import Retrain
from unfreeze.models.settings.search import SWEEPS, SweepSpec
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.strict_json import to_json
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.servers import require_mlflow
from unfreeze.tasks.machine.storage import storage_trouble

NEED_NO_SERVER = {"add-datepart", "clean", "explain", "export", "look", "plan", "status", "summary"}
"""Commands that never ask MLflow, or only for some arguments, or that say themselves which servers are down."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns its exit status: 0 done, 1 failed, 2 wrong input, 130 stopped."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        if options.command not in NEED_NO_SERVER:
            require_mlflow()
        status: int = options.run(options)
    except UserError as error:
        print(f"unfreeze: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("unfreeze: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        trouble = storage_trouble(error)
        if trouble is None:
            raise
        print(f"unfreeze: {trouble}", file=sys.stderr)
        status = 1
    outcome = sys.modules.get("unfreeze.flows.outcome")
    if outcome is not None and outcome.prefect_is_gone:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # Prefect's threads would keep trying for minutes to deliver their last lines
    return status


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command and its options, with the function that runs it as ``run``; wrong flags end the program.

    Heavy libraries are imported by the command that needs them, so that ``--help`` answers at once.
    """
    parser = FlagParser(prog="unfreeze", description="Fine-tune pretrained networks, tracked and resumable.")
    parser.add_argument("--version", action="version", version=f"unfreeze {version('unfreeze')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="fine-tune an image classifier and register it")
    add_source(train, TrainImages)
    train.set_defaults(run=_train)

    table = commands.add_parser("train-table", help="train an entity-embedding network on a table and register it")
    add_source(table, TrainTables)
    table.set_defaults(run=_train_table)

    datepart = commands.add_parser("add-datepart", help="replace a column of dates in a file by its parts")
    datepart.add_argument("source", metavar="FILE", help="file of a table, as for train-table")
    datepart.add_argument("--column", required=True, help="column of dates")
    datepart.add_argument("--out", required=True, help="file to write: .feather, .parquet or .csv")
    datepart.add_argument("--time", action="store_true", help="hour, minute and second as well")
    datepart.add_argument("--cyclic", action="store_true", help="sine and cosine of periodic parts as well")
    datepart.add_argument("--format", help="how the dates are written, such as %%d/%%m/%%Y; found if it is not given")
    datepart.set_defaults(run=_add_datepart)

    resume = commands.add_parser("resume", help="resume a training that was stopped")
    resume.add_argument("run_id", metavar="RUN_ID", help="id of the MLflow run")
    resume.set_defaults(run=_resume)

    finder = commands.add_parser("find-lr", help="plot loss against learning rate and suggest one")
    add_source(finder, TrainImages)
    finder.add_argument("--stage", help="stage of the recipe (default: the first)")
    finder.set_defaults(run=_find_lr)

    sweep = commands.add_parser("sweep", help="search for better settings; continue with a study; register its best")
    sweep.add_argument("--table", action="store_true", help="SOURCE is a table: the settings are those of train-table")
    # Which settings there are depends on the kind, so it is looked for before everything else.
    is_table = "--table" in arguments
    search = SWEEPS["tables" if is_table else "images"]
    add_source(sweep, TrainTables if is_table else TrainImages)
    add_flags(sweep, search, without=("space",))
    sweep.add_argument(
        "--space",
        action="append",
        default=[],
        metavar="NAME=...",
        help="vary another setting: NAME=1,2,4 or NAME=1..30 or NAME=1..30 log; NAME=none leaves one of the default "
        f"({', '.join(each.name for each in search().space)}) as it is",
    )
    sweep.add_argument("--best", action="store_true", help="only show the best trial of --study")
    sweep.add_argument("--register", action="store_true", help="with --best: evaluate and register its weights")
    sweep.set_defaults(run=_sweep)

    summary = commands.add_parser(
        "summary", help="show the network: layers, shapes, parameters, what trains and at which lr"
    )
    summary.add_argument(
        "--table", action="store_true", help="SOURCE is a table: the settings are those of train-table"
    )
    add_source(summary, TrainTables if is_table else TrainImages)
    summary.add_argument("--stage", help="stage of the recipe (default: the last)")
    summary.set_defaults(run=_summary)

    plan = commands.add_parser(
        "plan", help="show what a training will do, and how long and how much memory it will take"
    )
    plan.add_argument("--table", action="store_true", help="SOURCE is a table: the settings are those of train-table")
    add_source(plan, TrainTables if is_table else TrainImages)
    plan.add_argument("--hours", type=_hours, help="a budget: fewer cycles and epochs, until the training fits")
    plan.set_defaults(run=_plan)

    look = commands.add_parser("look", help="a first look at images: copies, wrong labels, sizes; nothing is trained")
    add_source(look, TrainImages)
    look.add_argument("--out", default="look.html", metavar="FILE", help="page to write (default: %(default)s)")
    look.set_defaults(run=_look)

    explain = commands.add_parser(
        "explain", help="what a model looks at: heat maps of images, importance of a table's columns, as a page"
    )
    explain.add_argument("model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, NAME for its champion, or a folder")
    explain.add_argument("source", nargs="+", metavar="SOURCE", help=SOURCES[Explain])
    add_flags(explain, Explain, without=("model", "source"))
    explain.set_defaults(run=_explain)

    compare = commands.add_parser("compare", help="compare two trainings on the rows that both evaluated")
    compare.add_argument("runs", nargs=2, metavar="RUN_ID", help="ids of two MLflow runs, the better one second")
    compare.set_defaults(run=_compare)

    report = commands.add_parser("report", help="make a run's report again: one HTML file that needs no network")
    report.add_argument("run_id", metavar="RUN_ID", help="id of the MLflow run of a training or a sweep")
    report.add_argument("--out", metavar="FILE", help="copy it to this file as well")
    report.set_defaults(run=_report)

    retrain = commands.add_parser("retrain", help="train a registered model anew on new data; promote if better")
    retrain.add_argument("model", nargs="?", metavar="MODEL", help="name in the model registry, such as cats-dogs")
    add_flags(retrain, Retrain, without=("model",))
    retrain.set_defaults(run=_retrain)

    predict = commands.add_parser("predict", help="predict images or rows of a table with a registered model")
    predict.add_argument("model", nargs="?", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, or NAME for its champion")
    predict.add_argument("source", nargs="?", metavar="SOURCE", help=SOURCES[Predict])
    add_flags(predict, Predict, without=("model", "source"))
    predict.set_defaults(run=_predict)

    add_export_command(commands)
    add_run_commands(commands)
    add_service_commands(commands)

    for command in (
        train,
        table,
        resume,
        finder,
        sweep,
        summary,
        look,
        plan,
        explain,
        compare,
        report,
        retrain,
        predict,
    ):
        command.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")

    return parser.parse_args(arguments)


def _train(options: argparse.Namespace) -> int:
    params = understood_params(options, TrainImages)
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.train_images import train_images

    return _finish(state_of(train_images, params), options.json, show.training)


def _train_table(options: argparse.Namespace) -> int:
    params = checked_params(options, TrainTables)
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.train_tables import train_tables

    return _finish(state_of(train_tables, params), options.json, show.training)


def _add_datepart(options: argparse.Namespace) -> int:
    from unfreeze.models.tables.columns.dates import add_datepart_to_file

    out = Path(options.out)
    rows = add_datepart_to_file(Path(options.source), options.column, out, options.time, options.cyclic, options.format)
    print(f"{rows:,} rows: {options.out}", file=sys.stderr)
    return 0


def _resume(options: argparse.Namespace) -> int:
    from unfreeze.tasks.tracking import spec_of

    spec = spec_of(options.run_id)  # a run that is not there should not wait for Prefect and torch
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.train_tables import FLOWS
        from unfreeze.models.recipe.modality import training_from

    params = training_from(spec, f"run {options.run_id}")
    return _finish(state_of(FLOWS[params.modality], params, options.run_id), options.json, show.training)


def _find_lr(options: argparse.Namespace) -> int:
    params = understood_params(options, TrainImages)
    with prefect_starting():
        from unfreeze.flows.find_lr import find_lr
        from unfreeze.flows.outcome import state_of

    return _finish(state_of(find_lr, params, options.stage), options.json, show.lrs)


def _summary(options: argparse.Namespace) -> int:
    params: Training = checked_params(options, TrainTables if options.table else TrainImages)
    make_home()
    from unfreeze.tasks.steps.plan import summarise

    return _show(summarise(params, options.stage), options.json, show.summary)


def _plan(options: argparse.Namespace) -> int:
    params: Training = checked_params(options, TrainTables if options.table else TrainImages)
    make_home()
    from unfreeze.tasks.steps.plan import plan

    return _show(plan(params, options.hours), options.json, show.plan)


def _hours(text: str) -> float:
    hours = float(text)
    if not 0 < hours < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be above 0")
    return hours


def _look(options: argparse.Namespace) -> int:
    params = checked_params(options, TrainImages)
    make_home()
    from unfreeze.tasks.steps.look import look_at_source

    return _show(look_at_source(params, Path(options.out)), options.json, show.look)


def _explain(options: argparse.Namespace) -> int:
    params = spec_from(options, Explain, model=options.model, source=options.source)
    make_home()
    from unfreeze.tasks.predictions.explain import explain_model

    return _show(explain_model(params), options.json, show.explanation)


def _compare(options: argparse.Namespace) -> int:
    require_runs(*options.runs)
    from unfreeze.tasks.retraining.compare import compare_runs

    return _show(compare_runs(*options.runs), options.json, show.comparison)


def _report(options: argparse.Namespace) -> int:
    require_runs(options.run_id)
    from unfreeze.tasks.report.publish import report_to_file

    out = None if options.out is None else given_path(options.out)
    return _show(report_to_file(options.run_id, out), options.json, show.report)


def _retrain(options: argparse.Namespace) -> int:
    params = spec_from(options, Retrain, **({"model": options.model} if options.model is not None else {}))
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.retrain import retrain

    return _finish(state_of(retrain, params), options.json, show.retraining)


def _predict(options: argparse.Namespace) -> int:
    given = {"model": options.model, "source": options.source}
    params = spec_from(options, Predict, **{name: value for name, value in given.items() if value is not None})
    if params.source not in EMBEDDED and not given_path(params.source).exists():
        raise UserError(f"source: {params.source!r} does not exist in {Path.cwd()}; give {SOURCES[Predict]}")
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.predict import predict

    return _finish(state_of(predict, params), options.json, show.predictions)


def _sweep(options: argparse.Namespace) -> int:
    _hide_password(options)
    search = search_from(options)
    if (options.best or options.register) and search.study is None:
        raise UserError("--best: which study? give --study NAME")
    fresh = options.source is not None or options.config is not None
    params: Training | None = None
    if fresh or search.study is None:
        params = understood_params(options, TrainTables if options.table else TrainImages)
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.sweep import join_sweep, register_best, sweep, sweep_tables
        from unfreeze.tasks.sweeps.study import WORKER, load_study
        from unfreeze.tasks.sweeps.sweep import best_of, stored

    if options.best or options.register:
        study = load_study(str(search.study), search.storage)
        if not options.register:
            return _show(best_of(study), options.json, show.best)
        return _finish(state_of(register_best, study.study_name, search.storage), options.json, show.registered)
    if params is None:
        _refuse_changes(options)
        search, params = stored(load_study(str(search.study), search.storage), search)
    if WORKER in os.environ:
        return _finish(state_of(join_sweep, search, params, int(os.environ[WORKER])), False, lambda _: None)
    searched = sweep_tables if isinstance(params, TrainTables) else sweep
    return _finish(state_of(searched, search, params), options.json, show.sweep)


def search_from(options: argparse.Namespace) -> SweepSpec:
    """What a sweep searches, as it was given on the command line."""
    search = spec_from(options, SWEEPS["tables" if options.table else "images"], section="sweep")
    return search.model_copy(update={"space": space_from(options.space, search.space)})


def _hide_password(options: argparse.Namespace) -> None:
    """Move the password of ``--storage`` into the environment: a spec is seen by everybody who sees the pages."""
    given = f"{SETTING}storage"
    if given in options:
        address, _, password = split_password(getattr(options, given))
        if password is not None:
            os.environ["UNFREEZE_STORAGE_PASSWORD"] = password
            setattr(options, given, address)


def _refuse_changes(options: argparse.Namespace) -> None:
    """A study continues with the settings it was begun with: a flag that would change them must not be ignored."""
    given = {name.removeprefix(SETTING) for name in vars(options) if name.startswith(SETTING)}
    changing = given - set(SweepSpec.model_fields) | given & {"objectives", "repeats"}
    if options.space:
        changing.add("space")
    if changing:
        raise UserError(
            f"--{', --'.join(sorted(changing))}: study {vars(options)[f'{SETTING}study']!r} keeps the settings it was "
            "begun with; omit them, or give SOURCE and another --study"
        )


def _finish(state: Any, as_json: bool, shown_by: Callable[[dict[str, Any]], None]) -> int:
    """Show a flow's result, or say why there is none."""
    if state.is_cancelled():
        print(f"unfreeze: {state.message}", file=sys.stderr)
        return 130
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError):
        raise result
    if isinstance(result, BaseException):
        failure = storage_trouble(result) or f"failed: {type(result).__name__}: {result}"
        print(f"unfreeze: {failure}", file=sys.stderr)
        return 1
    return _show(result, as_json, shown_by)


def _show(result: dict[str, Any], as_json: bool, shown_by: Callable[[dict[str, Any]], None]) -> int:
    shown_by(result)
    if as_json:
        print(to_json(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
