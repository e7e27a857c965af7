"""How MLflow's table of runs opens: with the metrics that matter, the data's version and the registered model.

MLflow keeps a view that people share as a tag of the experiment; a link with its key opens the table that way. The
format is that of its page (3.17), which has no other way to choose the columns beforehand.
"""

import json

KEY = "unfreeze"
TAG = f"mlflow.sharedViewState.{KEY}"
SHOWN = [
    "attributes.`Dataset`",
    "metrics.`valid/accuracy_tta`",
    "metrics.`valid/accuracy`",
    "metrics.`valid/rmspe`",
    "metrics.`valid/loss`",
    "metrics.`baseline/accuracy`",
    "attributes.`Models`",
    "tags.`unfreeze.kind`",
    "tags.`unfreeze.decision`",
]
"""Columns beside name, time and duration."""


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
            "selectedColumns": SHOWN,
            "columnOrder": [],
            "columnWidths": {},
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
