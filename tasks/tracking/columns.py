"""How MLflow's table of runs opens: with the metrics that matter, the data's version and the registered model.

MLflow keeps a view that people share as a tag of the experiment; a link with its key opens the table that way. The
format is that of its page (3.17), which has no other way to choose the columns beforehand.
"""

import json

WORKFLOW = "workflowType=machine_learning"
"""Without it MLflow's page asks first whether one trains models or builds agents."""
KEY = "unfreeze"
TAG = f"mlflow.sharedViewState.{KEY}"
NAME, CREATED, DURATION = "attributes.`Run Name`", "runDateAndNestInfo", "duration"
"""The page shows these without being asked."""
METRICS = ("valid/accuracy_tta", "valid/accuracy", "valid/rmspe", "valid/loss", "baseline/accuracy")
WIDTHS = {
    NAME: 300,  # the page would cut names at 190
    CREATED: 140,
    **{f"metrics.`{name}`": 125 for name in METRICS},
    "attributes.`Dataset`": 220,
    "attributes.`Models`": 170,
    "tags.`unfreeze.kind`": 120,
    "tags.`unfreeze.decision`": 120,
    DURATION: 80,
}
"""Columns from the left, what a laptop's window shows first, and their widths in pixels."""


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
            "selectedColumns": [column for column in WIDTHS if column not in (NAME, CREATED, DURATION)],
            "columnOrder": list(WIDTHS),
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
    return f"{page}?{WORKFLOW}&viewStateShareKey={KEY}"
