"""Commands that train, search settings, or describe a training in advance."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter, validators

from unfreeze.flows.commands import show
from unfreeze.flows.commands.flags import NOTHING, Given, Json, config_of, flags_of, spec_from
from unfreeze.flows.commands.running import RUN, finish, run_flow, shown
from unfreeze.flows.running import prefect_starting, state_of
from unfreeze.models.errors import UserError
from unfreeze.models.own_parts import check_own_parts
from unfreeze.models.settings import TrainImages, Training
from unfreeze.models.settings.addresses import split_password
from unfreeze.models.settings.fields import field_named
from unfreeze.models.settings.search import SWEEPS, SweepSpec, parse_dimension, value_of
from unfreeze.models.settings.tables import TrainTables
from unfreeze.models.store.paths import given_path
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.servers import require_mlflow

Trained = TrainImages | TrainTables
AnyTraining = TypeVar("AnyTraining", TrainImages, TrainTables, Trained)
SPECS: dict[str, type[Trained]] = {"images": TrainImages, "tables": TrainTables}
"""Modality -> spec of its training."""
TABLE_FILE = re.compile(r"\.(tab|txt|dat|pq|xls[xmb]?|ods|zst|(?<!\.tar\.)(gz|bz2|xz))$", re.IGNORECASE)
"""Names of files that can only be tables; other tables may list image paths, and archives hold images."""

Source = Annotated[
    str | None,
    Parameter(
        help="`digits`, a folder of class folders, a CSV or feather file of images, or a torchvision data set; or "
        "a table: separated text, a spreadsheet, a Parquet or feather file, a folder of Parquet files, or "
        "`flights`. It is a table if `--data.target`, another setting of tables or the suffix says so."
    ),
]
StageName = Annotated[str | None, Parameter(help="Stage of the recipe.")]
Hours = Annotated[
    float | None,
    Parameter(
        validator=validators.Number(gt=0, lt=1e6),
        help="A budget: fewer cycles and epochs, until the training fits.",
    ),
]
if TYPE_CHECKING:
    TrainingFlags = Given
    ImageFlags = Given
    SearchFlags = Given
else:
    ImageFlags = flags_of(TrainImages)
    TrainingFlags = flags_of(TrainImages, TrainTables)
    SearchFlags = flags_of(SweepSpec, without=("space",), config=False)


def train(source: Source = None, /, *, hours: Hours = None, given: TrainingFlags = NOTHING, json: Json = False) -> int:
    """Train on images or a table, evaluate the model and register it."""
    if _follows():
        return 0
    params = understood(training_from(source, given))
    if hours is not None:
        make_home()
        from unfreeze.tasks.steps.plan import within_budget

        params = within_budget(params, hours)
    return run_flow("train_images", f"train_{params.modality}", params, show=show.training, json=json)


def train_table(source: Source = None, /, *, given: TrainingFlags = NOTHING, json: Json = False) -> int:
    """Train on a table: `train` with `--modality tables`."""
    return train(source, given={**given, "modality": "tables"}, json=json)


def _follows() -> bool:
    """Whether torchrun or another launcher started this process beside a first one, whose training it has followed."""
    if os.environ.get("RANK", "0") == "0":
        return False
    from unfreeze.tasks.machine.ranks import follow_first

    follow_first()
    return True


def resume(
    run: Annotated[str, Parameter(help=RUN)],
    /,
    *,
    devices: Annotated[int | None, Parameter(validator=validators.Number(gte=1))] = None,
    json: Json = False,
) -> int:
    """Resume a training that was stopped.

    Parameters
    ----------
    devices
        Train on so many devices from here on.
    json
        Print one JSON object as the last line of stdout.
    """
    from unfreeze.tasks.tracking import spec_of
    from unfreeze.tasks.tracking.runs import find_run

    if _follows():
        return 0
    run_id = find_run(run)
    spec = spec_of(run_id)  # reject an unknown run before importing Prefect and torch
    if devices is not None:
        spec = {**spec, "devices": devices}
    with prefect_starting():
        from unfreeze.flows.train_images import FLOWS
        from unfreeze.models.recipe.modality import training_from
    params = training_from(spec, f"run {run_id}")
    return finish(state_of(FLOWS[params.modality], params, run_id), show.training, json)


def find_lr(
    source: Source = None, /, *, stage: StageName = None, given: TrainingFlags = NOTHING, json: Json = False
) -> int:
    """Plot loss against learning rate for one stage (by default the first), and suggest a rate."""
    params = understood(training_from(source, given))
    return run_flow("find_lr", "find_lr", params, stage, show=show.lrs, json=json)


def summary(
    source: Source = None, /, *, stage: StageName = None, given: TrainingFlags = NOTHING, json: Json = False
) -> int:
    """Show the network as a stage (by default the last) trains it: layers, shapes, parameters, lrs."""
    params = checked(training_from(source, given))
    make_home()
    from unfreeze.tasks.steps.plan import summarise

    return shown(summarise(params, stage), show.summary, json)


def plan(
    source: Source = None,
    /,
    *,
    hours: Hours = None,
    given: TrainingFlags = NOTHING,
    json: Json = False,
) -> int:
    """Show what a training will do, and how long and how much memory it will take."""
    params = checked(training_from(source, given))
    make_home()
    from unfreeze.tasks.steps.plan import plan

    return shown(plan(params, hours), show.plan, json)


def look(source: Source = None, /, *, out: str = "look.html", given: ImageFlags = NOTHING, json: Json = False) -> int:
    """Look at images before training: copies, wrong labels, sizes.

    Parameters
    ----------
    out
        Page to write.
    """
    params = checked(spec_from(TrainImages, given, **{"data.source": source}))
    make_home()
    from unfreeze.tasks.steps.look import look_at_source

    return shown(look_at_source(params, Path(out)), show.look, json)


def sweep(
    source: Source = None,
    /,
    *,
    search: SearchFlags = NOTHING,
    space: Annotated[
        tuple[str, ...],
        Parameter(
            metavar="NAME=...",
            help="Vary another setting: NAME=1,2,4 or NAME=1..30 or NAME=1..30 log. NAME=none leaves one of the "
            "default as it is.",
        ),
    ] = (),
    best: Annotated[bool, Parameter(help="Only show the best trial of --study.")] = False,
    register: Annotated[bool, Parameter(help="Evaluate the best trial's weights, register them.")] = False,
    given: TrainingFlags = NOTHING,
    json: Json = False,
) -> int:
    """Search for better settings; continue a study; register its best trial."""
    params: Training
    params = given_training = training_from(source, given)
    wanted = search_from(search, space, given, params.modality)
    if (best or register) and wanted.study is None:
        raise UserError("--best: which study? give --study NAME")
    if best or register:
        require_mlflow()
    is_new = source is not None or "config" in given or wanted.study is None
    if is_new:
        understood(given_training)
    with prefect_starting():
        from unfreeze.flows.sweep import join_sweep, register_best, sweep, sweep_tables
        from unfreeze.tasks.sweeps.study import WORKER, load_study
        from unfreeze.tasks.sweeps.sweep import best_of, stored

    if best or register:
        study = load_study(str(wanted.study), wanted.storage)
        if not register:
            return shown(best_of(study), show.best, json)
        return finish(state_of(register_best, study.study_name, wanted.storage), show.registered, json)
    if not is_new:
        # A study keeps its original settings, so flags that would change them are rejected.
        if changing := sorted({*given, *({"objectives", "repeats"} & search.keys()), *(["space"] if space else [])}):
            raise UserError(
                f"--{', --'.join(changing)}: study {wanted.study!r} keeps the settings it was begun with; omit them, "
                "or give SOURCE and another --study"
            )
        wanted, params = stored(load_study(str(wanted.study), wanted.storage), wanted)
    if WORKER in os.environ:
        return finish(state_of(join_sweep, wanted, params, int(os.environ[WORKER])), lambda _: None, False)
    return finish(state_of(sweep_tables if params.modality == "tables" else sweep, wanted, params), show.sweep, json)


def search_from(search: Given, space: Sequence[str], given: Given, modality: str) -> SweepSpec:
    """What a sweep searches, as it was given on the command line and in the file's part ``sweep``."""
    if "storage" in search:  # move its password to the environment: specs are visible on the pages
        address, _, password = split_password(search["storage"])
        if password is not None:
            os.environ["UNFREEZE_STORAGE_PASSWORD"] = password
            search = {**search, "storage": address}
    config = {"config": given["config"]} if "config" in given else {}
    wanted = spec_from(SWEEPS[modality], {**search, **config}, section="sweep")
    named = {dimension.name: dimension for dimension in wanted.space}
    for name, dimension in named.items():  # numbers from YAML are text
        choices = [value_of(each) if isinstance(each, str) else each for each in dimension.choices or []]
        named[name] = dimension.model_copy(update={"choices": choices or None})
    for text in space:
        name, added = parse_dimension(text)
        if added is not None:
            named[name] = added
        elif named.pop(name, None) is None:
            raise UserError(f"--space {text!r}: {name} is not in the search space; {', '.join(named)} are")
    if not named:
        raise UserError("--space: nothing is left to vary")
    return wanted.model_copy(update={"space": list(named.values())})


def training_from(source: str | None, given: Given) -> Trained:
    """The training that is described on a command line; its modality follows from what is given."""
    config = config_of(given)
    data = config.get("data")
    names = [*given, *(f"data.{name}" for name in (data if isinstance(data, dict) else {})), *config]
    place = source or given.get("data.source") or (data.get("source") if isinstance(data, dict) else None)
    kinds = [kind for kind, spec in SPECS.items() for name in names if _only_in(spec, name)]
    modality = given.get("modality") or config.get("modality") or ("tables" if "tables" in kinds else None)
    is_table = place == "flights" or TABLE_FILE.search(str(place)) is not None
    modality = modality or ("tables" if is_table and "images" not in kinds else "images")
    spec = SPECS.get(str(modality), TrainImages)
    other = next(each for each in SPECS.values() if each is not spec)
    if wrong := [name for name in given if _only_in(other, name)]:
        raise UserError(
            f"--{', --'.join(wrong)}: not a setting of {modality}, which {place or 'the source'} is taken for"
        )
    return spec_from(spec, given, **{"data.source": source})


def _only_in(spec: type[Trained], name: str) -> bool:
    others = [each for each in SPECS.values() if each is not spec]
    return field_named(spec, name) is not None and not any(field_named(each, name) for each in others)


def checked(params: AnyTraining) -> AnyTraining:
    """The training, if its source is there: a slip should not wait for Prefect and torch."""
    if isinstance(params, TrainTables):
        from unfreeze.models.tables.preparing.sources import check_sources

        check_sources(params.data)
    else:
        from unfreeze.models.images.listing.sources import check_source

        check_source(params.data.source)
    return params


def understood(params: Trained) -> Trained:
    """The same, with a line that says how the files of an image source are understood, before anything is started."""
    checked(params)
    check_own_parts(params)
    if isinstance(params, TrainImages) and given_path(params.data.source).exists() and params.data.source != "digits":
        from unfreeze.models.images.listing.packed import packed_files
        from unfreeze.models.images.listing.sources import resolve_source

        if packed_files(given_path(params.data.source)):
            return params
        try:
            print(resolve_source(params.data, Path()).understood, file=sys.stderr)
        except UserError as error:
            is_file = given_path(params.data.source).is_file()
            hint = " To train on it as a table, name what to predict: --data.target COLUMN" if is_file else ""
            raise UserError(f"{error}{hint}") from error
    return params


def add_datepart(
    source: Annotated[str, Parameter(help="A table's file.")],
    /,
    *,
    column: Annotated[str, Parameter(help="Column of dates.")],
    out: Annotated[str, Parameter(help="File to write: .feather, .parquet or .csv.")],
    time: Annotated[bool, Parameter(help="Hour, minute and second as well.")] = False,
    cyclic: Annotated[bool, Parameter(help="Sine and cosine of periodic parts as well.")] = False,
    date_format: Annotated[
        str | None, Parameter(name="--format", help="How dates are written, such as %d/%m/%Y; found if not given.")
    ] = None,
) -> int:
    """Replace a column of dates in a table's file by its parts."""
    from unfreeze.models.tables.columns.dates import add_datepart_to_file

    rows = add_datepart_to_file(Path(source), column, Path(out), time, cyclic, date_format)
    print(f"{rows:,} rows: {out}", file=sys.stderr)
    return 0
