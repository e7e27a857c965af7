"""An HTML page that explains a model's predictions, and its terminal summary."""

from pathlib import Path
from typing import Any

from unfreeze.models.errors import UserError
from unfreeze.models.recipe.modality import modality
from unfreeze.models.settings.predict import Explain
from unfreeze.tasks.predictions.source import find_model_or_folder
from unfreeze.tasks.report.page import render_explanation, require_place, write_file
from unfreeze.tasks.steps.workspace import FlowWorkspace


def explain_model(params: Explain) -> dict[str, Any]:
    """Explain a registered model, or one in a folder, on rows of given sources, and write the page.

    Returns
    -------
    dict
        ``out``, ``model``, ``version`` (empty for a folder), ``lines``, ``notices`` and ``tables`` (by key: a title and
        rows).

    Raises
    ------
    UserError
        If the page cannot be written, the model is unknown, or it cannot predict the sources.
    """
    out = params.page
    require_place(out)
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder; give the name of a file")
    model = find_model_or_folder(params.model)
    found = modality(model["modality"]).explain(params, model["name"], Path(model["folder"]), FlowWorkspace())
    title = f"{model['name']} version {model['version']}" if model["version"] else model["name"]
    write_file(out, render_explanation(found, title, params.source))
    return {
        "out": str(out),
        "model": model["name"],
        "version": model["version"],
        "lines": found.lines,
        "notices": found.notices,
        "tables": {each.key: (each.title, each.rows) for each in found.sections if each.rows},
    }
