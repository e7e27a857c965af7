"""Commands about the service, its runs and its data folder: up, open, status, doctor, runs, sync, clean."""

import contextlib
import json as json_text
import signal
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from pydantic_core import to_json

from unfreeze.flows.commands.flags import NOTHING, Given, Json, flags_of, spec_from
from unfreeze.flows.commands.show import console, table
from unfreeze.models.errors import printable
from unfreeze.models.settings.retrain import Service
from unfreeze.models.store.paths import given_path
from unfreeze.tasks.machine.environment import credentials, home, live_service, move_home
from unfreeze.tasks.machine.servers import require_mlflow

if TYPE_CHECKING:
    ServiceFlags = Given
else:
    ServiceFlags = flags_of(Service)


def up(*, given: ServiceFlags = NOTHING) -> int:
    """Run Prefect, MLflow, a worker and all deployments on this machine."""
    settings = spec_from(Service, given)
    require_mlflow()
    if settings.data is not None:
        move_home(given_path(settings.data).resolve())
    from unfreeze.tasks.service.stack import Stack
    from unfreeze.tasks.tracking.server import experiments_page

    def report(line: str) -> None:
        with contextlib.suppress(OSError):  # a closed terminal must not prevent an orderly stop
            print(line, file=sys.stderr, flush=True)

    # SIGTERM, from service managers or `kill`, acts as Ctrl-C; a shell's background jobs ignore SIGINT.
    ending = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it continues without its terminal
        ending.append(signal.SIGHUP)
    for number in ending:
        signal.signal(number, signal.default_int_handler)
    began = time.monotonic()
    stack = Stack(settings, report)
    try:
        stack.start()
        report(f"ready after {time.monotonic() - began:.0f} s; Ctrl-C stops everything")
        report(f"  Prefect  {stack.prefect.removesuffix('/api')}")
        if stack.runs("Prefect"):
            report(f"           the page asks once for {credentials()}")
            report("           (red messages on its first page come from asking before you have answered)")
        report(f"  MLflow   {experiments_page(stack.mlflow)}")
        report(f"  runs     {settings.limit} at a time (--limit): further ones wait, which Prefect calls Late")
        report(f"  data     {home()}")
        stack.watch()
    except KeyboardInterrupt:
        report("stopping")
    finally:
        # A second Ctrl-C must not leave some parts running.
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        if stack.parts:
            stack.stop()
            report("stopped")
    return 0


def open(  # noqa: A001
    *, only_print: Annotated[bool, Parameter(name="--print", help="Only print them.")] = False
) -> int:
    """Print and open the pages that matter."""
    require_mlflow()
    from unfreeze.tasks.service.overview import pages

    for title, address in pages().items():
        print(f"{title:22} {address}")
        if not only_print:
            # Without a display there is nothing to open; the line is enough.
            webbrowser.open(address)
    if live_service() is not None:
        print(f"{'Prefect asks once for':22} {credentials()}")
    return 0


def status(*, json: Json = False) -> int:
    """Show servers, workers, runs in flight, champions and the latest retraining."""
    from unfreeze.tasks.service.overview import overview

    state = overview()
    if json:
        print(to_json(state, inf_nan_mode="null").decode())
        return 0
    for name, rows in state.items():
        title = name.replace("_", " ").capitalize()
        console().print(table(list(rows[0]), [row.values() for row in rows], title) if rows else f"{title}: none")
    return 0


def doctor() -> int:
    """Check versions, disk, servers, ports, proxies, GPU and weights; ends with 1 if something blocks trainings."""
    from unfreeze.tasks.service.doctor import checks

    states = set()
    for check in checks():
        print(f"{check.state:4}  {check.name:8}  {printable(check.text)}", flush=True)
        states.add(check.state)
    return 1 if "fail" in states else 0


def runs(*, count: Annotated[int, Parameter(help="How many.")] = 20, json: Json = False) -> int:
    """List the latest runs, what became of them, and how to continue each."""
    from unfreeze.tasks.service.prefect_server import end_gone_runs
    from unfreeze.tasks.tracking.runs import recent_runs
    from unfreeze.tasks.tracking.server import require_answer

    require_answer()
    end_gone_runs()
    rows = recent_runs(count)
    if json:
        print(json_text.dumps(rows))
        return 0
    columns = ("run", "state", "began", "kind", "name")
    console().print(table(columns, [[row[name] for name in columns] for row in rows], whole=2))
    for row in rows:
        if row["waiting"]:
            console().print(f"{row['run']}: {row['waiting']} changes wait: unfreeze sync")
        if row["continue"]:
            why = f": {row['why']}; once that is corrected," if row["why"] else ";"
            console().print(f"{row['state'].lower()}{why} continue with: {row['continue']}")
    return 0


def sync() -> int:
    """Publish to MLflow what trainings logged while it was away."""
    from unfreeze.tasks.service.prefect_server import end_gone_runs
    from unfreeze.tasks.tracking.server import require_answer

    require_answer()
    done = end_gone_runs()
    for each in done:
        left = f"{each.left} changes left ({each.why})" if each.left else "published"
        print(f"run {each.run_id}: {left}", file=sys.stderr)
        print(*(f"  {line}" for line in each.news), sep="\n", end="\n" if each.news else "", file=sys.stderr)
    if not done:
        print("nothing waits", file=sys.stderr)
    return 1 if any(each.left for each in done) else 0


def clean(*, yes: Annotated[bool, Parameter(help="Remove it; without, nothing is changed.")] = False) -> int:
    """Show what the data folder takes; free what can be made again."""
    from unfreeze.tasks.service.disk_use import disk_use

    shares = disk_use()
    if not shares:
        print(f"{home()} takes no space", file=sys.stderr)
        return 0
    rows = [
        [share.kind, f"{share.files:,}", f"{share.size / 1e6:,.1f}", f"{share.freeable / 1e6:,.1f}", share.note]
        for share in shares
    ]
    console().print(table(("what", "files", "MB", "can be freed", ""), rows, str(home())))
    freeable = sum(share.freeable for share in shares)
    if not yes:
        print(f"`unfreeze clean --yes` frees {freeable / 1e6:,.1f} MB", file=sys.stderr)
        return 0
    for share in shares:
        share.free()
    left = sum(share.freeable for share in disk_use())
    print(f"freed {(freeable - left) / 1e6:,.1f} MB", file=sys.stderr)
    return 0
