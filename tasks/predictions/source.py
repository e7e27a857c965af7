"""What a prediction is of: a registered model, and the images or rows of a source."""

import json
import os
from pathlib import Path
from typing import Any

from prefect import task

from unfreeze.models.errors import UserError
from unfreeze.models.images.index import hash_file
from unfreeze.models.images.sources import list_unlabelled
from unfreeze.models.model_folder import read_description
from unfreeze.models.predict_spec import Predict
from unfreeze.models.regular_files import irregular_kind
from unfreeze.models.tables.reading import SUFFIXES, open_table, write_feather
from unfreeze.models.tables.serving import TablePredictor
from unfreeze.models.tables.streaming import text_columns
from unfreeze.tasks.machine.cache import build, cache_path, key_of
from unfreeze.tasks.machine.environment import home
from unfreeze.tasks.prefect_run.progress import log_info, progress
from unfreeze.tasks.steps.prepare_table import FLIGHTS, TABLE_VERSION, list_tables, read_table
from unfreeze.tasks.tracking import registry


@task(name="find-model", task_run_name="find {model}")
def find_model(model: str) -> dict[str, str]:
    """Look a model up in the registry and fetch it once.

    Parameters
    ----------
    model
        `NAME@ALIAS`, `NAME/VERSION`, or `NAME` for its champion.

    Returns
    -------
    dict
        ``name``, ``version``, ``run_id``, ``folder`` (what a predictor reads) and ``kind`` (`images` or `table`).

    Raises
    ------
    UserError
        If there is no such model, version or alias, or it is not a model of unfreeze.
    """
    text = model.removeprefix("models:/")
    separator = "@" if "@" in text else "/"
    name, _, which = text.rpartition(separator) if separator in text else (text, "", registry.CHAMPION)
    if not name or not which:
        raise UserError(f"model {model!r}: write NAME@ALIAS, NAME/VERSION, or NAME for its champion")
    version = registry.version_of(registry.full_name(name), which)
    folder = registry.folder_of(version)
    kind = "table" if "joins" in read_description(folder) else "images"
    log_info(f"{version.name} version {version.number}, for {'rows of a table' if kind == 'table' else kind}")
    found = {"name": version.name, "version": version.number, "run_id": version.run_id}
    return {**found, "folder": str(folder), "kind": kind}


@task(name="list-source", task_run_name="list {params.source}")
def list_source(params: Predict, model: dict[str, str]) -> dict[str, Any]:
    """List what there is to predict.

    Returns
    -------
    dict
        ``path`` (of a listing of images, or of the table as a feather file), ``rows`` and ``content`` (changes with
        them).

    Raises
    ------
    UserError
        If the source is none that the model can predict.
    """
    source = _table(params, model) if model["kind"] == "table" else _images(params)
    log_info(f"{params.source}: {source['rows']:,} {'rows' if model['kind'] == 'table' else 'images'}")
    return source


def out_of(params: Predict) -> Path:
    """Absolute path of the file to write."""
    return Path(os.path.abspath(Path(params.out).expanduser()))


def _images(params: Predict) -> dict[str, Any]:
    out = out_of(params)
    without = [out, *out.parent.glob(f"{out.name}.*.partial")]
    listed = list_unlabelled(params.source, params.path_column, home() / "datasets", without)
    # Sizes and times instead of hashes, for which every image would have to be read twice.
    content = key_of(listed.names, [_stamp(file) for file in listed.files])
    path = cache_path("listings", content, ".json")

    def write(temporary: list[Path]) -> None:
        temporary[0].write_text(json.dumps({"names": listed.names, "files": listed.files}))

    build([path], write)
    return {"path": str(path), "rows": len(listed.files), "content": content}


def _stamp(file: str) -> tuple[int, int]:
    try:
        status = os.stat(file)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _table(params: Predict, model: dict[str, str]) -> dict[str, Any]:
    if params.tta:
        raise UserError(f"tta: {model['name']} predicts rows of a table; test-time augmentation is for images")
    predictor = TablePredictor(Path(model["folder"]), "cpu")
    file = Path(params.source).expanduser()
    if params.source == FLIGHTS and not file.exists():
        content = list_tables(predictor.params.data.model_copy(update={"source": FLIGHTS, "join": []}))[FLIGHTS]
        path = Path(read_table(FLIGHTS, content))
    else:
        _check_table(params.source, file, model["name"])
        texts = text_columns(predictor)
        content = key_of(hash_file(file), texts, TABLE_VERSION)
        path = cache_path("tables", content)

        def read(temporary: list[Path]) -> None:
            with progress(f"Reading {file.name}") as advance:
                write_feather(file, temporary[0], advance, texts)

        build([path], read)
    return {"path": str(path), "rows": open_table(path).num_rows, "content": content}


def _check_table(source: str, file: Path, model: str) -> None:
    wanted = f"{model} predicts the rows of a file ({', '.join(SUFFIXES)})"
    if not file.exists():
        raise UserError(f"source: {source!r} does not exist in {Path.cwd()}; {wanted}")
    if (kind := irregular_kind(file)) is not None:
        raise UserError(f"source: {source!r} is {kind}; {wanted}")
    if file.is_dir() or file.suffix.lower() not in SUFFIXES:
        raise UserError(f"source: {source!r} is a {'folder' if file.is_dir() else 'file of another kind'}; {wanted}")
