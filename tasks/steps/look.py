"""An HTML page about a source of images, and its terminal summary."""

import shlex
from pathlib import Path
from typing import Any, cast

from unfreeze.models.images.data import ImageData
from unfreeze.models.images.look import look, looking_at
from unfreeze.models.settings import TrainImages
from unfreeze.tasks.machine.notices import rendered
from unfreeze.tasks.report.page import data_uri, fill, require_place, write_file
from unfreeze.tasks.steps.prepare import check_training, prepare
from unfreeze.tasks.steps.workspace import FlowWorkspace

MOST_ROWS = 500


def look_at_source(params: TrainImages, out: Path) -> dict[str, Any]:
    """Inspect a source, and write the page with lists of suspicious labels and groups of near copies beside it.

    Returns
    -------
    dict
        ``out``, ``lines``, ``notices``, ``metrics``, ``tables`` (by key: a title and rows), ``exclude`` (path of a list
        for `data.exclude`, or None), ``groups`` (path of a table of images and groups, itself a source, or None).

    Raises
    ------
    UserError
        If the page cannot be written, or the data cannot be used.
    """
    require_place(out)
    params = looking_at(params)
    check_training(params)
    found = look(cast(ImageData, prepare(params)), FlowWorkspace())
    tables = {key: (title, rows) for key, title, rows in found.tables}
    suspicious = [row["path"] for row in tables["label-errors"][1]]
    exclude = out.with_suffix(".label-errors.txt") if suspicious else None
    groups = out.with_suffix(".groups.csv") if "groups" in found.frames else None
    source, command = params.data.source, ""
    figures = []
    for path, (title, draw) in found.figures.items():
        jpeg = rendered(draw, path, format="jpeg", dpi=110, pil_kwargs={"quality": 85})
        if jpeg is not None:
            figures.append((data_uri(jpeg, "jpeg"), title))
    if groups is not None:
        write_file(groups, found.frames["groups"].to_csv(index=False))
    if exclude is not None:
        command = f"unfreeze train {shlex.quote(source)} --data.exclude {shlex.quote(str(exclude))}"
        write_file(exclude, "".join(f"{path}\n" for path in suspicious))
    page = fill("look.html.j2", source=source, found=found, figures=figures, command=command, most=MOST_ROWS)
    write_file(out, page)
    return {
        "out": str(out),
        "lines": found.lines,
        "notices": found.notices,
        "metrics": found.metrics,
        "tables": tables,
        "exclude": None if exclude is None else str(exclude),
        "groups": None if groups is None else str(groups),
    }
