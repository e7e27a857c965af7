"""`unfreeze export`: an image classifier as a file of another format, compared with the model on images."""

import argparse
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from unfreeze.flows.flags import add_flags, spec_from
from unfreeze.models.errors import UserError
from unfreeze.models.settings.predict import Export, Predict
from unfreeze.models.store.paths import given_path
from unfreeze.tasks.machine.environment import make_home


def add_export_command(commands: Any) -> None:
    """Add the command to the parser of `unfreeze`."""
    export = commands.add_parser("export", help="write an image classifier for onnxruntime, torch.export or timm")
    export.add_argument("model", metavar="MODEL", help="NAME@ALIAS, NAME/VERSION, NAME for its champion, or a folder")
    export.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    add_flags(export, Export, without=("model",))
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    params = spec_from(options, Export, model=options.model)
    make_home()
    from unfreeze.flows import show
    from unfreeze.models.store.strict_json import to_json

    result = export(params)
    show.exported(result)
    if options.json:
        print(to_json(result), flush=True)
    return 0


def export(params: Export) -> dict[str, Any]:
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
        with suppress(OSError):  # a folder that nobody may write in is exported all the same
            Path(model["folder"], f"export-{params.to}.json").write_text(json.dumps(result, indent=1))
    return {"out": str(out), "model": model["name"], "version": model["version"], **result}


def _images(params: Export, run_id: str) -> list[str]:
    """Paths of the images that both are compared on; of a run that trained a model, those that it was validated on."""
    if params.check is not None:
        from unfreeze.models.images.listing.sources import list_unlabelled
        from unfreeze.tasks.steps.workspace import FlowWorkspace

        listed = list_unlabelled(Predict(source=params.check), FlowWorkspace().datasets)
        return [file for file in listed.files if file]
    if not run_id:
        return []
    from unfreeze.models.images.pixels.index import Index
    from unfreeze.tasks.steps.prepare import kept_file

    index = Index.load(kept_file(run_id))
    return [path for path in index.rows["path"].take(index.valid_rows()).to_pylist() if Path(path).is_file()]
