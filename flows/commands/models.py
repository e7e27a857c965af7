"""Commands about models and runs: predict, explain, export, retrain, promote, compare, report, replay."""

import json as json_text
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from unfreeze.flows.commands import show
from unfreeze.flows.commands.flags import NOTHING, Given, Json, flags_of, spec_from
from unfreeze.flows.commands.running import RUN, known_runs, run_flow, shown
from unfreeze.flows.running import prefect_starting, state_of
from unfreeze.models.errors import UserError
from unfreeze.models.reading.remote import file_system, is_url
from unfreeze.models.settings.predict import Explain, Export, Predict
from unfreeze.models.settings.retrain import Retrain
from unfreeze.models.store.paths import given_path
from unfreeze.tasks.machine.environment import make_home
from unfreeze.tasks.machine.servers import require_mlflow

Model = Annotated[str, Parameter(help="NAME@ALIAS, NAME/VERSION, NAME for its champion, or a folder.")]
RunId = Annotated[str, Parameter(help=RUN)]
if TYPE_CHECKING:
    PredictFlags = Given
    ExplainFlags = Given
    ExportFlags = Given
    RetrainFlags = Given
else:
    PredictFlags = flags_of(Predict, without=("model", "source"))
    ExplainFlags = flags_of(Explain, without=("model", "source"))
    ExportFlags = flags_of(Export, without=("model",))
    RetrainFlags = flags_of(Retrain, without=("model",))


def predict(
    model: str | None = None,
    source: str | None = None,
    /,
    *,
    given: PredictFlags = NOTHING,
    json: Json = False,
) -> int:
    """Predict images or rows of a table with a registered model.

    Parameters
    ----------
    model
        NAME@ALIAS, NAME/VERSION, or NAME for its champion.
    source
        A folder of images, an image, a file of image paths, a table's file, or `digits`.
    """
    params = spec_from(Predict, given, model=model, source=source)
    if is_url(params.source):
        file_system(params.source)
    elif params.source not in ("digits", "flights") and not given_path(params.source).exists():
        raise UserError(
            f"source: {params.source!r} does not exist in {Path.cwd()}; give a folder of images, an image, a file of "
            "image paths, a table's file, or `digits`"
        )
    require_mlflow()
    return run_flow("predict", "predict", params, show=show.predictions, json=json)


def explain(
    model: Model,
    source: str,
    /,
    *more: str,
    given: ExplainFlags = NOTHING,
    json: Json = False,
) -> int:
    """Explain a model as a page: heat maps of images, importance of a table's columns.

    Parameters
    ----------
    source
        Images, folders of images or `digits`; or the file of a table, with the column of its target.
    more
        Further images and folders.
    """
    params = spec_from(Explain, given, model=model, source=[source, *more])
    make_home()
    from unfreeze.tasks.predictions.explain import explain_model

    return shown(explain_model(params), show.page, json)


def export(model: Model, /, *, given: ExportFlags = NOTHING, json: Json = False) -> int:
    """Write an image classifier for onnxruntime, torch.export or timm."""
    params = spec_from(Export, given, model=model)
    make_home()
    return shown(export_model(params), show.exported, json)


def retrain(
    model: Annotated[str | None, Parameter(help="Name in the model registry, such as cats-dogs.")] = None,
    /,
    *,
    given: RetrainFlags = NOTHING,
    json: Json = False,
) -> int:
    """Retrain a registered model on new data; the new one, the challenger, replaces the champion if it is better."""
    params = spec_from(Retrain, given, model=model)
    require_mlflow()
    return run_flow("retrain", "retrain", params, show=show.retraining, json=json)


def promote(model: str, version: str, /) -> int:
    """Make a version of a model the champion, which answers wherever only the model's name is given; and back.

    Parameters
    ----------
    model
        Name in the model registry, such as cats-dogs.
    version
        A number, `challenger` (the latest that did not replace the champion), or `back`: the champion before.
    """
    require_mlflow()
    from unfreeze.tasks.tracking.registry import promote

    print(promote(model, version), file=sys.stderr)
    return 0


def compare(run: RunId, other_run: RunId, /, *, json: Json = False) -> int:
    """Compare two trainings, the better one second, on the rows that both evaluated."""
    run, other_run = known_runs(run, other_run)
    from unfreeze.tasks.retraining.compare import compare_runs

    return shown(compare_runs(run, other_run), show.comparison, json)


def report(
    run: RunId,
    /,
    *,
    out: Annotated[str | None, Parameter(metavar="FILE", help="Copy it to this file as well.")] = None,
    json: Json = False,
) -> int:
    """Make the report of a training or a sweep again: one HTML file that needs no network."""
    (run,) = known_runs(run)
    from unfreeze.tasks.report.publish import report_to_file

    return shown(report_to_file(run, None if out is None else given_path(out)), show.report, json)


def replay(run: RunId, /, *, json: Json = False) -> int:
    """Repeat a training: is the model the same, bit by bit, and if not, why?"""
    (run,) = known_runs(run)
    with prefect_starting():
        from unfreeze.flows.train_images import FLOWS
        from unfreeze.tasks.retraining.compare import compare_replay, replayed

    params = replayed(run)
    state = state_of(FLOWS[params.modality], params)
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError):
        raise result
    if not isinstance(result, dict) or "run_id" not in result:
        print(f"unfreeze: the replay did not end: {state.message}", file=sys.stderr)
        return 1
    found = compare_replay(run, result["run_id"])
    return shown(found, show.replay, json) or (0 if found["equal"] else 1)


def export_model(params: Export) -> dict[str, Any]:
    """Write a model in another format into a new folder.

    Returns
    -------
    dict
        See `unfreeze.models.images.serving.export.export_classifier`; also ``out``, ``model`` and ``version``.

    Raises
    ------
    UserError
        If there is no such model, it is not of images, or it cannot be exported.
    """
    from unfreeze.models.images.serving.export import export_classifier
    from unfreeze.tasks.predictions.source import find_model_or_folder

    model = find_model_or_folder(params.model)
    if model["modality"] != "images":
        raise UserError(
            f"model {params.model!r} is one of {model['modality']}: export is for image classifiers; serve it with "
            "`mlflow models serve`, or load it with unfreeze.load_model"
        )
    out = given_path(params.out or f"{model['name']}-{params.to}")
    if not out.absolute().parent.is_dir():
        raise UserError(f"out: there is no folder {out.absolute().parent}")
    result = export_classifier(Path(model["folder"]), params.to, out.absolute(), _images(params, model["run_id"]))
    if not model["run_id"]:
        with suppress(OSError):  # a model in a read-only folder is exported too
            Path(model["folder"], f"export-{params.to}.json").write_text(json_text.dumps(result, indent=1))
    return {"out": str(out), "model": model["name"], "version": model["version"], **result}


def _images(params: Export, run_id: str) -> list[str]:
    """Paths of the images that both are compared on; of a run that trained a model, those that it was validated on."""
    if params.check is not None:
        from unfreeze.models.images.modality import list_images
        from unfreeze.tasks.steps.workspace import FlowWorkspace

        listed = list_images(Predict(source=params.check), FlowWorkspace())
        return [file for file in listed.files if file]
    if not run_id:
        return []
    from unfreeze.models.images.pixels.index import Index
    from unfreeze.tasks.steps.prepare import kept_file

    index = Index.load(kept_file(run_id))
    return [path for path in index.rows["path"].take(index.rows_of("valid")).to_pylist() if Path(path).is_file()]
