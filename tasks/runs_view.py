"""How MLflow's table of runs opens: with the metrics that matter, the data's version and the registered model.

MLflow keeps a view that people share as a tag of the experiment; a link with its key opens the table that way. The
format is that of its page (3.17), which has no other way to choose the columns beforehand.
"""

import json

KEY = "unfreeze"
TAG = f"mlflow.sharedViewState.{KEY}"
NAME, CREATED, DATASET, MODELS = (
    "attributes.`Run Name`",
    "runDateAndNestInfo",
    "attributes.`Dataset`",
    "attributes.`Models`",
)
METRICS = [
    f"metrics.`{name}`"
    for name in ("valid/accuracy_tta", "valid/accuracy", "valid/rmspe", "valid/loss", "baseline/accuracy")
]
TAGS = [f"tags.`unfreeze.{name}`" for name in ("kind", "decision")]
ORDER = [NAME, CREATED, *METRICS, DATASET, MODELS, *TAGS, "duration"]
"""From the left: what a laptop's window shows comes first."""
WIDTHS = {NAME: 300, CREATED: 140, **dict.fromkeys(METRICS, 125), DATASET: 220, MODELS: 170, **dict.fromkeys(TAGS, 120)}
"""In pixels; the page would cut names at 190."""


def view() -> str:
    """The tag's value."""
    return json.dumps(
        {
            "searchFilter": "",
            "orderByKey": "attributes.start_time",
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "datasetsFilter": [],
            "modelVersionFilter": "All Runs",
            "selectedColumns": [*METRICS, DATASET, MODELS, *TAGS],
            "columnOrder": ORDER,
            "columnWidths": WIDTHS,
            "runsExpanded": {},
            "runsPinned": [],
            "runsHidden": [],
            "runsVisibilityMap": {},
            "runsHiddenMode": "FIRST_10_RUNS",
            "viewMaximized": True,
            "runListHidden": False,
            "isAccordionReordered": False,
            "groupBy": None,
            "groupsExpanded": {},
            "autoRefreshEnabled": True,
            "useGroupedValuesInCharts": True,
            "hideEmptyCharts": True,
        }
    )


def address(server: str, experiment_id: str) -> str:
    """Address of an experiment's table of runs."""
    page = f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs"
    return f"{page}?workflowType=machine_learning&viewStateShareKey={KEY}"
