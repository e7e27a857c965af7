"""Commands about MLflow runs of all kinds: sync."""

import argparse
import sys
from typing import Any


def add_run_commands(commands: Any) -> None:
    """Add the commands to the parser of `unfreeze`."""
    sync = commands.add_parser("sync", help="deliver to MLflow what trainings logged while it was away")
    sync.set_defaults(run=_sync)


def _sync(options: argparse.Namespace) -> int:
    from unfreeze.tasks.tracking.syncing import sync

    done = sync()
    for each in done:
        left = f", {each.left} left ({each.why})" if each.left else ""
        print(f"run {each.run_id}: {each.delivered} operations delivered{left}", file=sys.stderr)
    if not done:
        print("nothing waits", file=sys.stderr)
    return 1 if any(each.left for each in done) else 0
