"""Commands about the service, its models and its data folder: up, open, status, promote, clean."""

import argparse
import contextlib
import signal
import sys
import time
import webbrowser
from typing import Any

from unfreeze.flows.flags import FlagParser, add_flags, spec_from
from unfreeze.flows.show import folded, plain_console
from unfreeze.models.settings.retrain import Service
from unfreeze.models.store.paths import given_path
from unfreeze.models.store.strict_json import to_json
from unfreeze.tasks.machine.environment import credentials, home, live_service, move_home


def add_service_commands(commands: Any) -> None:
    """Add the commands to the parser of `unfreeze`."""
    up: FlagParser = commands.add_parser("up", help="run Prefect, MLflow, a worker and all deployments on this machine")
    add_flags(up, Service)
    pages = commands.add_parser("open", help="print and open the pages that matter")
    pages.add_argument("--print", action="store_true", help="only print them")
    status = commands.add_parser("status", help="servers, workers, runs in flight, champions, latest retraining")
    status.add_argument("--json", action="store_true", help="print one JSON object instead")
    promote = commands.add_parser("promote", help="make a version of a model the champion; and back")
    promote.add_argument("model", metavar="MODEL", help="name in the model registry, such as cats-dogs")
    promote.add_argument(
        "version", metavar="VERSION", help="a number, an alias such as challenger, or `back`: the champion before"
    )
    clean = commands.add_parser("clean", help="show what the data folder takes; free what can be made again")
    clean.add_argument("--yes", action="store_true", help="remove it; without, nothing is changed")
    parsers = ((up, _up), (pages, _open), (status, _status), (promote, _promote), (clean, _clean))
    for parser, run in parsers:
        parser.set_defaults(run=run)


def _up(options: argparse.Namespace) -> int:
    settings = spec_from(options, Service)
    if settings.data is not None:
        move_home(given_path(settings.data).resolve())
    from unfreeze.tasks.service.stack import Stack

    def report(line: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that was closed must not keep it from stopping its parts
            print(line, file=sys.stderr, flush=True)

    # What a service manager or `kill` sends ends it as Ctrl-C does; a shell's background jobs ignore SIGINT.
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
        report(f"  MLflow   {stack.mlflow}")
        report(f"  data     {home()}")
        stack.watch()
    except KeyboardInterrupt:
        report("stopping")
    finally:
        # A second Ctrl-C must not leave half of it running.
        for number in ending:
            signal.signal(number, signal.SIG_IGN)
        if stack.parts:
            stack.stop()
            report("stopped")
    return 0


def _open(options: argparse.Namespace) -> int:
    from unfreeze.tasks.service.overview import pages

    for title, address in pages().items():
        print(f"{title:22} {address}")
        if not options.print:
            # Without a display there is nothing to open; the line is enough.
            webbrowser.open(address)
    if live_service() is not None:
        print(f"{'Prefect asks once for':22} {credentials()}")
    return 0


def _status(options: argparse.Namespace) -> int:
    from unfreeze.tasks.service.overview import overview

    state = overview()
    if options.json:
        print(to_json(state))
        return 0
    for name, rows in state.items():
        title = name.replace("_", " ").capitalize()
        if not rows:
            plain_console().print(f"{title}: none")
            continue
        shown = folded(*rows[0], title=title)
        for row in rows:
            shown.add_row(*("" if value is None else str(value) for value in row.values()))
        plain_console().print(shown)
    return 0


def _promote(options: argparse.Namespace) -> int:
    from unfreeze.tasks.tracking.registry import promote

    print(promote(options.model, options.version), file=sys.stderr)
    return 0


def _clean(options: argparse.Namespace) -> int:
    from unfreeze.tasks.service.disk_use import disk_use

    shares = disk_use()
    if not shares:
        print(f"{home()} takes no space", file=sys.stderr)
        return 0
    shown = folded("what", "files", "MB", "can be freed", "", title=str(home()))
    for share in shares:
        megabytes = (f"{size / 1e6:,.1f}" for size in (share.size, share.freeable))
        shown.add_row(share.kind, f"{share.files:,}", *megabytes, share.note)
    plain_console().print(shown)
    freeable = sum(share.freeable for share in shares)
    if not options.yes:
        print(f"`unfreeze clean --yes` frees {freeable / 1e6:,.1f} MB", file=sys.stderr)
        return 0
    for share in shares:
        if share.free is not None:
            share.free()
    left = sum(share.freeable for share in disk_use())
    print(f"freed {(freeable - left) / 1e6:,.1f} MB", file=sys.stderr)
    return 0
