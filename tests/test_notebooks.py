"""The notebooks of the documentation run, at small sizes, in a kernel of their own."""

import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs import ROOT

IMAGES = 'IMAGES = 120\nSETTINGS = {"size": 16, "backbone": "timm/test_resnet", "weights": "none"}'
TABLES = 'SETTINGS = {"config": {"model": {"members": 2, "width": 16}, "recipe.all.cycles": 2}}'
SMALL = {"photos": IMAGES, "what-the-network-sees": IMAGES, "table": TABLES, "training-loop": TABLES}


def read(name: str) -> Any:
    return jupytext.read(ROOT / "docs" / "notebooks" / f"{name}.py")


def test_every_notebook_is_run_and_its_parameters_are_one_cell() -> None:
    assert {path.stem for path in (ROOT / "docs" / "notebooks").glob("*.py")} == set(SMALL)
    for name in SMALL:
        tagged = [cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
        assert [cell.cell_type for cell in tagged] == ["code"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("MLFLOW_TRACKING_URI", "UNFREEZE_HOME", "PREFECT_HOME", "PREFECT_LOCAL_STORAGE_PATH"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read(name)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL[name]
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert {"execute_result"} <= {output["output_type"] for output in shown}
    if written := os.environ.get("NOTEBOOKS_OUT"):  # to look at them
        nbformat.write(notebook, Path(written) / f"{name}.ipynb")
