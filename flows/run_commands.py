"""Commands about runs of all kinds: runs, replay, sync."""

import argparse
import json
import sys
from typing import Any

from unfreeze.flows.prefect_starting import prefect_starting
from unfreeze.models.errors import UserError

MOST_SHOWN = 20


def add_run_commands(commands: Any) -> None:
    """Add the commands to the parser of `unfreeze`."""
    runs = commands.add_parser("runs", help="the latest runs, what became of them, and how to continue each")
    runs.add_argument("--count", type=int, default=MOST_SHOWN, help="how many (default: %(default)s)")
    runs.add_argument("--json", action="store_true", help="print a JSON list instead")
    runs.set_defaults(run=_runs)
    replay = commands.add_parser("replay", help="train a run anew; is the model the same, bit by bit, and if not, why")
    replay.add_argument("run_id", metavar="RUN_ID", help="id of the MLflow run")
    replay.add_argument("--json", action="store_true", help="print one JSON object as the last line of stdout")
    replay.set_defaults(run=_replay)
    sync = commands.add_parser("sync", help="deliver to MLflow what trainings logged while it was away")
    sync.set_defaults(run=_sync)


def _runs(options: argparse.Namespace) -> int:
    from unfreeze.flows.show import folded, plain_console
    from unfreeze.tasks.service.prefect_server import end_gone_runs
    from unfreeze.tasks.tracking.listing import recent_runs
    from unfreeze.tasks.tracking.server import require_answer

    require_answer()
    end_gone_runs()
    rows = recent_runs(options.count)
    if options.json:
        print(json.dumps(rows))
        return 0
    table = folded("name", "kind", "state", "began", "continue")
    for row in rows:
        notes = [row["continue"], f"{row['waiting']} operations wait: unfreeze sync" if row["waiting"] else None]
        table.add_row(row["name"], row["kind"], row["state"], row["began"], "\n".join(filter(None, notes)))
    plain_console().print(table)
    return 0


def require_runs(*run_ids: str) -> None:
    """Raise UserError for an id that MLflow does not know, before anything heavy is imported or started."""
    from unfreeze.tasks.tracking import get_run

    for run_id in run_ids:
        get_run(run_id)


def _replay(options: argparse.Namespace) -> int:
    require_runs(options.run_id)
    with prefect_starting():
        from unfreeze.flows.outcome import state_of
        from unfreeze.flows.train_tables import FLOWS
        from unfreeze.tasks.retraining.compare import compare_replay, replayed

    params = replayed(options.run_id)
    state = state_of(FLOWS[params.modality], params)
    result = state.result(raise_on_failure=False)
    if isinstance(result, UserError):
        raise result
    if not isinstance(result, dict) or "run_id" not in result:
        print(f"unfreeze: the replay did not end: {state.message}", file=sys.stderr)
        return 1
    found = compare_replay(options.run_id, result["run_id"])
    if found["equal"]:
        print(f"run {found['replay']} ended with the same model as {found['run']}, bit by bit", file=sys.stderr)
    else:
        print(f"run {found['replay']} ended with another model than {found['run']}", file=sys.stderr)
        reasons = found["differences"] or ["nothing that is known differs"]
        print("\n".join(f"  {each}" for each in reasons), file=sys.stderr)
    if options.json:
        print(json.dumps(found))
    return 0 if found["equal"] else 1


def _sync(options: argparse.Namespace) -> int:
    from unfreeze.tasks.service.prefect_server import end_gone_runs
    from unfreeze.tasks.tracking.server import require_answer
    from unfreeze.tasks.tracking.syncing import sync

    require_answer()
    done = sync()
    end_gone_runs()
    for each in done:
        left = f", {each.left} left ({each.why})" if each.left else ""
        print(f"run {each.run_id}: {each.delivered} operations delivered{left}", file=sys.stderr)
        print(*(f"  {line}" for line in each.news), sep="\n", end="\n" if each.news else "", file=sys.stderr)
    if not done:
        print("nothing waits", file=sys.stderr)
        return 0
    from unfreeze.tasks.report.publish import report_if_owed  # which brings torch along

    for run_id in dict.fromkeys(each.run_id for each in done if not each.left):
        report_if_owed(run_id)
    return 1 if any(each.left for each in done) else 0
