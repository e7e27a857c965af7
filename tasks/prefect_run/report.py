"""What the Prefect page shows of a run: images, tables and the way to MLflow."""

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from prefect import Task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL

from unfreeze.models.errors import printable
from unfreeze.tasks import tracking
from unfreeze.tasks.machine.environment import tracking_store
from unfreeze.tasks.prefect_run.notices import as_warning, in_run
from unfreeze.tasks.prefect_run.showing import show


def artifact_key(text: str) -> str:
    """A key that Prefect accepts: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def as_markdown(text: str) -> str:
    """A text that Markdown shows as it is, on one line: nothing in it is a link, a table or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&])", r"\\\1", " ".join(printable(text).split()))


def rendered(draw: Callable[[], Figure], name: str, **options: Any) -> bytes | None:
    """What a figure looks like; None, and a warning, if it cannot be drawn: nothing else depends on it."""
    with as_warning(f"figure {name}"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        buffer = io.BytesIO()
        draw().savefig(buffer, bbox_inches="tight", **options)
        return buffer.getvalue()
    return None


def log_figure(run_id: str, draw: Callable[[], Figure], name: str, title: str) -> None:
    """Render an image once, for the artifacts of the MLflow run (as `name`) and for the Prefect page.

    The page's artifact holds the image itself and needs no server that could serve the file.
    """
    png = rendered(draw, name, format="png", dpi=100)
    if png is None:
        return
    tracking.log_png(run_id, png, name)
    if in_run():
        encoded, shown = base64.b64encode(png).decode(), as_markdown(title)
        markdown = f"## {shown}\n\n![{shown}](data:image/png;base64,{encoded})"
        key = artifact_key(name.removesuffix(".png"))
        show(lambda: create_markdown_artifact(markdown, key=key, description=shown))


def show_table(rows: Sequence[Mapping[str, object]], key: str, title: str) -> None:
    """Show a table, one mapping a row."""
    if in_run():
        table = [dict(row) for row in rows]
        show(lambda: create_table_artifact(table, key=artifact_key(key), description=as_markdown(title)))


def mlflow_link(run_id: str) -> str:
    """Where the run is in MLflow, as Markdown: a link, or without a server the command that starts one."""
    address = tracking.page(run_id)
    command = f"Run `{run_id}` in `{tracking_store()}`. To look at it:\n\n    {mlflow_command()}"
    return f"## MLflow\n\n{f'[Open the run in MLflow]({address})' if address else command}"


def show_mlflow_link(run_id: str) -> None:
    """Show where the run is in MLflow."""
    if in_run():
        markdown = mlflow_link(run_id)

        def place() -> None:
            show(lambda: create_markdown_artifact(markdown, key="mlflow-run", description="The run in MLflow"))

        # In a task: what belongs to the flow run itself comes first on its page, in any order. That is the report.
        link: Task[[], None] = Task(place, name="link", task_run_name="link to MLflow")
        link()


def mlflow_command() -> str:
    """The command that shows the tracking store in a browser."""
    return f"mlflow server --host 127.0.0.1 --port 5000 --backend-store-uri {tracking_store()}"


def pages(run_id: str, experiment: str | None = None) -> dict[str, str]:
    """Where to look at a run: addresses where servers are known, else the commands that start them.

    MLflow is asked for the id of the run's `experiment` if it is not given.
    """
    prefect = PREFECT_UI_URL.value() if PREFECT_API_URL.value() else None
    return {"MLflow": tracking.page(run_id, experiment) or mlflow_command(), "Prefect": prefect or "unfreeze up"}
